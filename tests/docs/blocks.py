"""The fenced blocks of a Markdown page, and the commands in them.

A block of a page is run by the tests, unless a comment right above it says why not::

    <!-- not run: downloads 4 MB -->
    ```sh
    mer-bench data fetch meld
    ```
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

REASON = re.compile(r"<!-- not run: (.+) -->")
FENCE = re.compile(r"^( *)(`{3,})(\w*)\s*$")


@dataclass(frozen=True)
class Block:
    """Attributes: `language` stands behind the fence; `reason`, if any, says why it is not run; `line` is its first."""

    page: Path
    line: int
    language: str
    text: str
    reason: str


@dataclass(frozen=True)
class Command:
    """One command of a block, its words as a shell takes them apart."""

    block: Block
    line: int
    words: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.block.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page that is written for people: those of the site, the README, how to contribute, the examples."""
    written = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    return sorted([*written, *(ROOT / "examples").rglob("*.md")])


def pages_of_plugins() -> list[Path]:
    """What each model and dataset says of itself, and the records; the site shows it too."""
    folders = [*(ROOT / "models").glob("*/README.md"), *(ROOT / "datasets").glob("*/README.md")]
    return sorted([*folders, ROOT / "leaderboards" / "README.md"])


def mentions(page: Path) -> Iterator[str]:
    """The commands of mer-bench that sentences of a page mention, without the program's name."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for found in re.findall(r"`mer-bench\s+([^`]+)`", text):
        yield " ".join(found.split())


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in its order."""
    reason, start, opened = "", 0, None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if opened is None and fence:
            opened, start, lines = fence, number + 1, []
        elif opened is not None and line.strip() == opened[2]:
            yield Block(page, start, opened[3], "\n".join(lines) + "\n", reason)
            opened, reason = None, ""
        elif opened is not None:
            lines.append(line.removeprefix(opened[1]))
        elif line.strip():
            found = REASON.fullmatch(line.strip())
            reason = found[1] if found else ""


def commands(block: Block) -> Iterator[Command]:
    """The commands of a `sh` block; one may go on over lines by a backslash or by a quotation that is still open."""
    pending, start, quoted = "", block.line, False
    for number, line in enumerate(block.text.splitlines(), block.line):
        pending, start = (f"{pending}\n{line}" if quoted else pending + line, start) if pending else (line, number)
        if line.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:
            quoted = True  # the quotation goes on in the next line
            continue
        pending, quoted = "", False
        part: list[str] = []
        for word in [*words, "&&"]:
            if word == "&&" and part:
                yield Command(block, start, tuple(part))
                part = []
            elif word != "&&":
                part.append(word)
    assert not pending, f"{block.page.name}:{start}: a quotation is never closed"
