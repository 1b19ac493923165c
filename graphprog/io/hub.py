"""Sharing saved programs through the Hugging Face Hub or a folder."""

from __future__ import annotations

import os
import urllib.parse
import urllib.request
from pathlib import Path, PurePosixPath

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub import errors as hub_errors

from graphprog.errors import FileError
from graphprog.io import artifact
from graphprog.io.card import MARK, write_card
from graphprog.utils.files import atomic_write, read_regular

PROGRAM = "program.safetensors"
CARD = "README.md"
_MAX_CARD = 2**24


def push(
    path: str | os.PathLike[str],
    repo_id: str | Path,
    *,
    filename: str = PROGRAM,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
) -> str:
    """Publish a saved program with a README made from it.

    Both files change in one commit, or neither does. An existing README is replaced only if it has
    the marker line that graphprog writes.

    Args:
        path: a file written by ``gp.save``; it is validated first.
        repo_id: ``owner/name`` on the Hub, created if it does not exist. Or a folder: a ``Path``
            or ``file:`` address, created if it does not exist, or the name of an existing folder,
            which takes precedence over a repository of that name. A folder gets the same files.
        filename: name of the published file.
        token: access token for the Hub; by default the one of ``hf auth login``.
        private: whether a new repository is private; by default as in the owner's settings.
        revision: existing branch to commit to; by default the main one.

    Returns:
        URL of the commit, or path of the copy in the folder.

    Raises:
        FileError: the file is not a valid program, the repository or folder cannot be reached or
            written, or ``private`` or ``revision`` is given for a folder.

    Example:
        >>> gp.save(task, "frame.safetensors")
        >>> address = gp.push("frame.safetensors", Path("shared"))  # or "owner/name"
        >>> again = gp.load(gp.pull(Path("shared")), graph)
    """
    name = _check_filename(filename)
    _, document = artifact.read(path)
    data = Path(path).read_bytes()
    card = write_card(document, str(repo_id), name)
    folder = folder_of(repo_id)
    if folder is None:
        files = {name: data, CARD: card.encode()}
        api = HfApi(token=token, library_name="graphprog")
        return _push_to_hub(files, str(repo_id), api, private, revision)
    if private is not None or revision is not None:
        raise FileError(
            f"{folder}: a folder has no revisions and no privacy setting of its own",
            ["leave out private and revision", "use another folder and its permissions"],
        )
    return str(_push_to_folder(data, card, folder, name))


def pull(
    repo_id: str | Path,
    filename: str = PROGRAM,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    token: str | None = None,
) -> Path:
    """Download a program that :func:`push` published, and validate it.

    Args:
        repo_id: repository or folder, as for :func:`push`; nothing is copied from a folder.
        filename: name of the published file.
        revision: branch, tag or commit; by default the main branch.
        cache_dir: folder for downloads; by default the Hub's cache. A cached file is not
            downloaded again, and is used if there is no network.
        token: access token for the Hub; by default the one of ``hf auth login``.

    Returns:
        Path of the file for ``graphprog.load``. The Hub's cache is shared, so the file must not be
        changed.

    Raises:
        FileError: there is no such repository, revision or file, no network or no permission, or
            the file is not a valid program.

    Example:
        >>> gp.save(task, "frame.safetensors")
        >>> address = gp.push("frame.safetensors", Path("shared"))  # or "owner/name"
        >>> again = gp.load(gp.pull(Path("shared")), graph)
    """
    name = _check_filename(filename)
    folder = folder_of(repo_id)
    if folder is None:
        path = download(str(repo_id), name, revision, cache_dir, token)
    elif revision is not None:
        raise FileError(f"{folder}: a folder has no revisions", ["leave out revision"])
    else:
        path = folder / name
    artifact.read(path)
    return path


def _check_filename(filename: str) -> str:
    place = PurePosixPath(filename)
    if place.is_absolute() or ".." in place.parts or "\\" in filename or ":" in filename:
        raise FileError(f"filename {filename!r} leaves the repository", [f"use {PROGRAM!r}"])
    if place.suffix != ".safetensors":
        raise FileError(f"filename {filename!r} does not end in .safetensors", [f"use {PROGRAM!r}"])
    return str(place)


def folder_of(repo_id: str | Path) -> Path | None:
    """Return the folder that ``repo_id`` names, or None for a repository on the Hub."""
    if isinstance(repo_id, Path):
        return repo_id
    if not repo_id.startswith("file:"):
        return Path(repo_id) if Path(repo_id).is_dir() else None
    address = urllib.parse.urlsplit(repo_id)
    if address.netloc not in ("", "localhost"):
        raise FileError(
            f"{repo_id}: a folder of another machine", ["write file:///folder with three slashes"]
        )
    return Path(urllib.request.url2pathname(address.path))


def _push_to_folder(data: bytes, card: str, folder: Path, name: str) -> Path:
    target = folder / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        old_card = MARK
        if (folder / CARD).exists():
            old_card = read_regular(folder / CARD, _MAX_CARD).decode("utf-8")
    except (FileError, OSError, ValueError) as error:
        raise FileError(
            f"{folder}: cannot be used: {error}", ["use a folder with write permission"]
        ) from error
    written = atomic_write(target, lambda temporary: temporary.write_bytes(data))
    if MARK in old_card:
        atomic_write(folder / CARD, lambda temporary: temporary.write_text(card, "utf-8"))
    return written


def _push_to_hub(
    files: dict[str, bytes], repo_id: str, api: HfApi, private: bool | None, revision: str | None
) -> str:
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if MARK not in _card_on_hub(repo_id, api, revision):
            del files[CARD]
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(name, data) for name, data in files.items()],
            commit_message="Upload a graphprog program",
            revision=revision,
        )
    except Exception as error:  # errors of network, library or file system
        raise _explain(error, f"{repo_id}: cannot be pushed to") from error
    return str(commit.commit_url)


def _card_on_hub(repo_id: str, api: HfApi, revision: str | None) -> str:
    """Return the existing README, or an empty one that may be replaced."""
    try:
        path = api.hf_hub_download(repo_id, CARD, revision=revision)
    except hub_errors.LocalEntryNotFoundError:  # also an EntryNotFoundError, but means no network
        raise
    except hub_errors.EntryNotFoundError:
        return MARK
    return Path(path).read_text("utf-8")


def download(
    repo_id: str,
    name: str,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | None,
) -> Path:
    """Download one file of a repository into the cache.

    Raises:
        FileError: as :func:`pull`.
    """
    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repo_id,
                name,
                revision=revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                token=token,
                library_name="graphprog",
            )
        )
    except Exception as error:  # errors of network, library or file system
        raise _explain(error, f"{repo_id}: {name} cannot be pulled") from error


_REMEDIES: tuple[tuple[type[Exception], tuple[str, ...]], ...] = (
    (hub_errors.GatedRepoError, ("request access on the page of the repository",)),
    (
        hub_errors.RepositoryNotFoundError,
        (
            "check owner and name; pass a folder that does not exist yet as a Path",
            "log in with `hf auth login`, or pass token=, if it is private",
        ),
    ),
    (hub_errors.RevisionNotFoundError, ("check revision=", "create the branch first")),
    (hub_errors.LocalEntryNotFoundError, ("check the network", "unset HF_HUB_OFFLINE")),
    (hub_errors.EntryNotFoundError, ("check filename= against the files in the repository",)),
    (hub_errors.OfflineModeIsEnabled, ("unset HF_HUB_OFFLINE", "push to a folder instead")),
    (hub_errors.HFValidationError, ("write owner/name", "pass a folder as a Path")),
    (
        hub_errors.HfHubHTTPError,
        ("log in with `hf auth login`, or pass token= with write access", "try again later"),
    ),
)


def _explain(error: Exception, what: str) -> FileError:
    remedies: tuple[str, ...] = ("check the network, and the address in HF_ENDPOINT if it is set",)
    for kind, known in _REMEDIES:
        if isinstance(error, kind):
            remedies = known
            break
    said = (str(error).strip().splitlines() or [""])[0]
    return FileError(f"{what}: {type(error).__name__}: {said}", remedies)
