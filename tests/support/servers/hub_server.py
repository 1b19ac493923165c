"""A hub of one process: as much of the Hugging Face Hub as pushing and pulling need."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_write"


class HubServer(ThreadingHTTPServer):
    """Repositories in memory, and a record of what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.branches = {"main"}
        self.commits: list[tuple[str, list[str]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            return self.create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        place = re.fullmatch(r"/api/models/(\w+/\w+)/(preupload|commit)/(\w+)", self.path)
        assert place is not None, self.path
        repo_id, action, branch = place.groups()
        if branch not in self.server.branches:
            return self.refuse("RevisionNotFound")
        if action == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]
            return self.reply(200, {"files": modes})
        return self.commit(repo_id, branch, [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict[str, Any]) -> None:
        repo_id = f"{asked.get('organization', 'me')}/{asked['name']}"
        if repo_id in self.server.repositories:
            return self.reply(409, {"url": f"{self.server.address}/{repo_id}"})
        self.server.repositories[repo_id] = {}
        if asked.get("visibility") == "private" or asked.get("private"):  # by the library's age
            self.server.private.add(repo_id)
        return self.reply(200, {"url": f"{self.server.address}/{repo_id}", "id": repo_id})

    def commit(self, repo_id: str, branch: str, lines: list[dict[str, Any]]) -> None:
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        self.server.repositories[repo_id].update(files)
        self.server.commits.append((branch, sorted(files)))
        url = f"{self.server.address}/{repo_id}/commit/{COMMIT}"
        self.reply(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        place = re.fullmatch(r"/(\w+/\w+)/resolve/(\w+)/(.+)", self.path)
        if place is None:  # what the library asks on its own account, and can do without
            return self.refuse("RepoNotFound")
        repo_id, branch, name = place.groups()
        if repo_id not in self.server.repositories:
            return self.refuse("RepoNotFound")
        if branch not in (*self.server.branches, COMMIT):
            return self.refuse("RevisionNotFound")
        data = self.server.repositories[repo_id].get(name)
        return self.refuse("EntryNotFound") if data is None else self.send(200, data)

    def refuse(self, code: str) -> None:
        self.send(404, b"{}", {"X-Error-Code": code})

    def reply(self, status: int, value: dict[str, Any]) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """A hub on this machine while the block runs."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub on this machine, which the library takes for the real one, and an empty cache."""
    with serve_hub() as server:
        address = server.address
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(variable, raising=False)
        yield server
