"""What MkDocs does for the site beyond its pages: the API pages, examples, root files, llms.txt."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
for folder in (HERE, HERE.parent, ROOT):  # MkDocs loads this file alone
    sys.path.insert(0, str(folder))

from installed import installed_tree  # noqa: E402
from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.plugins import event_priority  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402
from public import public_names  # noqa: E402

TOP = {
    "Capture and graphs": ("capture", "ir", "sources"),
    "Programs and tasks": ("compiler",),
    "Manipulations": ("manipulations",),
    "Values": ("values",),
    "Alignments": ("alignments",),
    "Training": ("train",),
    "Instruments": ("instruments",),
    "Text": ("text", "generation"),
    "Files": ("io",),
    "Passes": ("passes",),
}
"""Page of the names that stand in ``gp`` itself -> the packages that define them."""
ROOT_PAGES = {"ARCHITECTURE.md": "architecture.md", "CONTRIBUTING.md": "contributing.md"}
ROOT_PAGES["CHANGELOG.md"] = "changelog.md"
EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/README.md"))
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")
STARTUP = """\
import sys
sys.path.insert(0, {root!r})
from tests.support.cpu_torchvision import declare_missing_operators
_library = declare_missing_operators()
"""
"""What a notebook's kernel runs first, so that transformers import beside a CPU build of torch."""
_tree = installed_tree()
_kernel = TemporaryDirectory()


def api_pages() -> dict[str, str]:
    """Return path -> text of the pages of the API, one for each subject or namespace."""
    pages: dict[str, list[str]] = {}
    titles = {package: title for title, packages in TOP.items() for package in packages}
    for name, place in public_names().items():
        namespace, _, _ = name.rpartition(".")
        title = titles[place.split(".")[1]] if namespace == "gp" else f"`{namespace}`"
        entry = f"::: {place}\n    options:\n      heading: {name}\n      toc_label: {name}\n"
        pages.setdefault(title, [f"# {title}\n"]).append(entry)
    return {f"api/{_slug(title)}.md": "\n".join(lines) for title, lines in pages.items()}


def _slug(title: str) -> str:
    return re.sub(r"\W+", "_", title.strip("`").lower())


@event_priority(100)  # before mkdocstrings reads its own
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Prepare kernels, the package in its installed shape, and the list of generated pages."""
    startup = Path(_kernel.name) / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "first.py").write_text(STARTUP.format(root=str(ROOT)), encoding="utf-8")
    os.environ["IPYTHONDIR"] = _kernel.name
    python = config.plugins["mkdocstrings"].config["handlers"]["python"]
    python["paths"] = [str(_tree.__enter__())]
    pages: list[Any] = [{_title(text): path} for path, text in api_pages().items()]
    for section in config.nav or []:
        if isinstance(section, dict) and "Reference" in section:
            section["Reference"] = [
                {"API": pages} if item == {"API": "api/"} else item for item in section["Reference"]
            ]
        if isinstance(section, dict) and "Examples" in section:
            section["Examples"] = [f"examples/{name}/README.md" for name in EXAMPLES]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the API, the examples with their pictures, and files of the root."""
    for path, text in api_pages().items():
        files.append(File.generated(config, path, content=text))
    for source, path in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, path, content=text))
    for name in EXAMPLES:
        folder = ROOT / "examples" / name
        for kept in (folder / "README.md", *folder.glob("*.png")):
            path = kept.relative_to(ROOT).as_posix()
            files.append(File.generated(config, path, abs_src_path=str(kept)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that are right in the repository to the same places of the site."""

    def moved(match: re.Match[str]) -> str:
        target = _target(page.file.src_uri, match.group("target"))
        return f"]({target}{match.group('anchor') or ''})"

    return LINK.sub(moved, markdown)


def _target(page: str, target: str) -> str:
    """A page of the docs lies one folder deeper in the repository than on the site."""
    if page in ROOT_PAGES.values():
        return ROOT_PAGES.get(target, target.removeprefix("docs/"))
    up = "../" * page.count("/")
    outside = target.removeprefix(f"{up}../")
    if outside == target or page.startswith("examples/"):
        return target
    if outside.startswith("examples/") and not outside.endswith((".md", ".png")):
        outside = f"{outside.rstrip('/')}/README.md"
    return up + ROOT_PAGES.get(outside, outside)


def on_post_build(config: MkDocsConfig) -> None:
    """Write ``llms.txt``: what there is, one line a page, for programs that read the site."""
    docs = Path(config.docs_dir)
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", "", "## Pages", ""]
    for path in sorted(docs.rglob("*.md")):
        title, first = _opening(path.read_text(encoding="utf-8"))
        where = path.relative_to(docs).with_suffix(".html").as_posix()
        lines.append(f"- [{title}]({where}): {first}")
    lines += ["", "## API", ""]
    for path, text in api_pages().items():
        names = ", ".join(re.findall(r"heading: (\S+)", text))
        lines.append(f"- [{_title(text)}]({path.removesuffix('.md')}.html): {names}")
    (Path(config.site_dir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _tree.__exit__(None, None, None)
    _kernel.cleanup()


def _title(text: str) -> str:
    return text.split("\n", 1)[0].removeprefix("# ").strip("`")


def _opening(text: str) -> tuple[str, str]:
    """Return the title of a page, and the first sentence below."""
    paragraphs = [part for part in text.split("\n\n")[1:] if part[:1].isalpha() or part[:1] == "`"]
    first = " ".join(paragraphs[0].split()) if paragraphs else ""
    return _title(text), re.split(r"(?<=[.:])\s", first)[0]
