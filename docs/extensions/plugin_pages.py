"""A page for each model and dataset of the registry, made of its README, so that no list of them needs care."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from mer_bench import registry

ROOT = Path(__file__).resolve().parents[2]
SHELVES = {"models": registry.installed_models, "datasets": registry.installed_datasets}

LINK = re.compile(r"(?<=\]\()(?!https?://|#|mailto:)([^)#\s]+)")
ELSEWHERE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
"""Pages of the site that a file at the root of the repository has become."""


def _write_pages(app: Sphinx) -> None:
    for shelf in SHELVES:
        folder = Path(app.srcdir) / "catalogue" / shelf
        folder.mkdir(parents=True, exist_ok=True)
        pages = {file.parent.name + ".md": file for file in sorted((ROOT / shelf).glob("*/README.md"))}
        for stale in {page.name for page in folder.iterdir()} - set(pages):
            (folder / stale).unlink()
        for name, readme in pages.items():
            _write(folder / name, f"```{{include}} /../{readme.relative_to(ROOT)}\n```\n")
        _write(folder.with_suffix(".md"), _overview(shelf, set(pages)))


def _overview(shelf: str, pages: set[str]) -> str:
    """The page that lists a shelf, made of the cards.

    Args:
        pages: The file of each plugin's page. A plugin of somebody else's package has none.
    """
    rows = []
    for name, plugin in SHELVES[shelf]().plugins.items():
        page = name.replace("-", "_") + ".md"
        if page in pages:
            year = plugin.card.paper.year if plugin.card.paper else ""
            rows.append(f"| [{plugin.card.title}]({shelf}/{page}) | `{name}` | {year} | {plugin.card.summary} |")
    table = "\n".join([f"| | `--{shelf[:-1]}` | year | |", "| --- | --- | --- | --- |", *sorted(rows)])
    return f"# {shelf.capitalize()}\n\n{table}\n\n```{{toctree}}\n:hidden:\n:glob:\n\n{shelf}/*\n```\n"


def _write(file: Path, text: str) -> None:
    if not file.is_file() or file.read_text(encoding="utf-8") != text:  # else Sphinx would read it again
        file.write_text(text, encoding="utf-8")


def _site_link(target: str, page: Path, source: Path) -> str:
    """Where a link of a file of the repository leads on the site.

    Args:
        page: Of the link, below the folder of the pages.
        source: That folder.
    """
    file = (page.parent / target).resolve()
    up = "../" * (len(page.relative_to(source).parts) - 1)
    if file.is_relative_to(source) or not file.is_relative_to(ROOT):
        return target
    parts = file.relative_to(ROOT).parts
    if len(parts) == 1 and parts[0] in ELSEWHERE:
        return up + ELSEWHERE[parts[0]]
    if len(parts) == 3 and parts[0] in SHELVES and parts[2] == "README.md":
        return f"{up}catalogue/{parts[0]}/{parts[1]}.md"
    if not file.exists():
        raise ExtensionError(f"{page.relative_to(source)} links to {target}, which is not there.")
    return target


def _relink(app: Sphinx, name: str, text: list[str]) -> None:
    page, source = Path(app.env.doc2path(name)).resolve(), Path(app.srcdir).resolve()
    text[0] = LINK.sub(lambda match: _site_link(match[1], page, source), text[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them, and mend links that leave the folder of the pages."""
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _relink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
