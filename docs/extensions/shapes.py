"""The section `Shapes` of a docstring, line by line as it was written."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

HEADING = re.compile(r"Shapes( \(.*\))?:")
BEFORE_NAPOLEON = 400


def _set_apart(app: Sphinx, what: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    set_apart: list[str] = []
    inside = False
    for line in lines:
        heading = HEADING.fullmatch(line)
        if heading:
            inside = True
            set_apart += [f"**Shapes**{heading[1] or ''}::", ""]
            continue
        if inside and line and not line.startswith(" "):
            inside = False
            set_apart.append("")
        set_apart.append(line)
    lines[:] = set_apart


def setup(app: Sphinx) -> dict[str, bool]:
    """Take such sections out of the hands of napoleon, which would fill them up like a paragraph."""
    app.connect("autodoc-process-docstring", _set_apart, priority=BEFORE_NAPOLEON)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
