"""Text → HTML that shows it, whatever is in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from mer_bench.leaderboard.words import DASH


def text(value: str) -> str:
    """Text as text: no markup in it is followed."""
    return escape(value)


def name(value: str) -> str:
    """A name from a record: text, and letters written from right to left in it turn nothing around outside it."""
    return f"<bdi>{escape(value)}</bdi>"


def data_block(identifier: str, value: Any) -> str:
    """Data for the page's scripts, in which nothing ends the block or opens a comment."""
    written = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{identifier}">{safe}</script>'


def section(identifier: str, title: str, body: str, about: str = "") -> str:
    """A part of a page, with a heading.

    Args:
        about, body: HTML.
    """
    told = f'<p class="about">{about}</p>' if about else ""
    return (
        f'<section id="{identifier}" aria-labelledby="{identifier}-title">'
        f'<h2 id="{identifier}-title">{text(title)}</h2>{told}{body}</section>'
    )


def plain_table(
    caption: str, headers: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = (), kind: str = ""
) -> str:
    """A table that is neither sorted nor filtered, in a box that scrolls; the first cell names its row.

    Args:
        rows: Cells as HTML; an empty one becomes a dash.
        numbers: Places of the columns that hold numbers.
    """
    right = set(numbers)

    def cells(values: Sequence[str]) -> str:
        found = ""
        for place, value in enumerate(values):
            mark = ' class="number"' if place in right else ""
            found += f'<th scope="row"{mark}>{value}</th>' if place == 0 else f"<td{mark}>{value or DASH}</td>"
        return found

    head = "".join(
        f'<th scope="col"{" class=number" if place in right else ""}>{text(header)}</th>'
        for place, header in enumerate(headers)
    )
    body = "".join(f"<tr>{cells(row)}</tr>" for row in rows)
    return scrolling(
        caption,
        f'<table class="plain {kind}"><caption><span>{text(caption)}</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
    )


def scrolling(label: str, body: str, kind: str = "") -> str:
    """A box that scrolls by itself, by keyboard too, so that the page never does sideways."""
    return f'<div class="scroll {kind}" role="region" tabindex="0" aria-label="{text(label)}">{body}</div>'


def folded(summary: str, body: str) -> str:
    """A part that opens on request."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def drawing(identifier: str, alternative: str, kind: str = "", table: str = "") -> str:
    """The place of a drawing, what it says in words, and where there is one its numbers as a table.

    Args:
        alternative: Text. table: HTML.
    """
    numbers = folded("The same as a table", table) if table else ""
    return (
        f'<div class="drawing {kind}" id="{identifier}" role="img" aria-label="{text(alternative)}"></div>'
        f'<noscript><p class="note">{text(alternative)}</p></noscript>{numbers}'
    )


def choice_field(identifier: str, label: str, options: Iterable[tuple[str, str]]) -> str:
    """A choice of one of several.

    Args:
        options: Value and text of each; the first is chosen.
    """
    inside = "".join(f'<option value="{text(value)}">{text(shown)}</option>' for value, shown in options)
    return _field(identifier, label, f'<select id="{identifier}">{inside}</select>')


def search_field(identifier: str, label: str, hint: str) -> str:
    """A box for words to look for."""
    box = f'<input type="search" id="{identifier}" placeholder="{text(hint)}" autocomplete="off">'
    return _field(identifier, label, box)


def _field(identifier: str, label: str, control: str) -> str:
    return f'<span class="field"><label for="{identifier}">{text(label)}</label> {control}</span>'
