"""A leaderboard as one HTML page that needs nothing else: no host, no file beside it, light and dark, on paper too.

A page is a pure function of its table. All that it says in numbers is in its HTML, so that it reads without scripts;
these sort, filter and draw. It forbids itself every request (Content-Security-Policy), and runs no script but its own.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from mer_bench.leaderboard.page.index import across_section, board_list, headline, unscored_section
from mer_bench.leaderboard.page.links import FORMATS, address_beside
from mer_bench.leaderboard.page.markup import choice_field, data_block, name, search_field, section, text
from mer_bench.leaderboard.page.payload import payload_across, payload_of
from mer_bench.leaderboard.page.scores import column_choice, score_table
from mer_bench.leaderboard.page.sections import Part, parts_of
from mer_bench.leaderboard.table import Boards, Table
from mer_bench.leaderboard.words import counted, grouped, part, title_of, verdict

__all__ = ["index_of", "page_of"]


def page_of(table: Table, neighbours: Sequence[Table] = ()) -> str:
    """The page of a table.

    Args:
        neighbours: Tables that the page links to: those of the same dataset, this one among them or not.
    """
    parts: tuple[Part, ...] = (("ranking", "Ranking", _ranking(table)), *parts_of(table))
    return _page(
        title=f"{title_of(table.key)} {MIDDLE} mer-bench",
        path='<a href="../index.html">All leaderboards</a>',
        heading=f"{name(table.key.dataset)} {MIDDLE} {name(part(table.key.labels))}",
        lead=_key_line(table),
        body=_top(table) + _contents(parts) + "".join(html for _, _, html in parts) + _others(table, neighbours),
        data=data_block("data", payload_of(table)),
        foot=_downloads(table),
    )


def index_of(boards: Boards) -> str:
    """The page that lists all tables and compares models across them."""
    found = [
        (
            "boards",
            "Leaderboards",
            section(
                "boards",
                "Leaderboards",
                _controls(
                    "Filter the leaderboards",
                    len(boards.tables),
                    search_field("filter-name", "Leaderboard", "dataset, features or model"),
                )
                + board_list(boards.tables),
            )
            if boards.tables
            else None,
        ),
        ("across", "Across leaderboards", across_section(boards.across) if boards.tables else None),
        ("unscored", "Without a score", unscored_section(boards.unscored)),
    ]
    parts = [(anchor, title, html) for anchor, title, html in found if html is not None]
    drawn = {"across": payload_across(boards.across)} if boards.across else {}
    return _page(
        title=f"Leaderboards {MIDDLE} mer-bench",
        path="mer-bench",
        heading="Leaderboards",
        lead=f'<p class="lead">{text(headline(boards))}</p>',
        body="".join(html for _, _, html in parts),
        data=data_block("data", drawn),
        foot="",
    )


MIDDLE = "\N{MIDDLE DOT}"


def _page(*, title: str, path: str, heading: str, lead: str, body: str, data: str, foot: str) -> str:
    scripts = [_script(each) for each in ("theme.js", "plot.min.js", "table.js", "drawings.js")]
    allowed = " ".join(f"'sha256-{b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts)
    theme, *others = (f"<script>{each}</script>" for each in scripts)
    return Template(_file("page.html")).substitute(
        allowed=allowed,
        title=escape(title),
        style=_file("page.css"),
        theme=theme,
        path=path,
        heading=heading,
        lead=lead,
        body=body,
        data=data,
        scripts="\n".join(others),
        foot=foot,
    )


@cache
def _file(file: str) -> str:
    return files("mer_bench.leaderboard.page").joinpath(file).read_text(encoding="utf-8")


@cache
def _script(file: str) -> str:
    """A script that nothing in it ends early."""
    written = _file(file)
    assert "</script" not in written.lower(), file
    assert "<!--" not in written, file
    return f"\n{written}"


def _key_line(table: Table) -> str:
    key = table.key
    version = f", version {key.protocol_version}"
    facts = [
        ("Features", name(part(key.features))),
        ("Modalities", name(" + ".join(key.modalities))),
        ("Protocol", f"{name(part(key.protocol))}{version}"),
        ("Test", f"{counted(table.test_utterances, 'utterance')}, {counted(table.test_dialogues, 'dialogue')}"),
        ("Rows", f"{grouped(len(table.rows))}, {counted(sum(len(row.runs) for row in table.rows), 'run')}"),
    ]
    if key.condition:
        facts.insert(2, ("Condition", name(key.condition)))
    told = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in facts)
    made_up = (
        '<p class="made-up"><strong>Made-up data.</strong> These dialogues are synthetic; no person said them.</p>'
        if key.synthetic
        else ""
    )
    return f'{made_up}<dl class="facts">{told}</dl>'


def _top(table: Table) -> str:
    told = verdict(table)
    holds = "unknown" if told.holds is None else "yes" if told.holds else "no"
    interval = f"95 % interval {told.interval}" if told.interval else "no interval"
    tiles = (
        '<div class="tile"><p class="asked">Who leads</p>'
        f'<p class="answer">{name(told.leader)}</p><p class="more">{told.score} % weighted F1, {interval}</p></div>'
    )
    if told.margin is not None and told.margin_over is not None:
        tiles += (
            f'<div class="tile"><p class="asked">By how much</p><p class="answer">{told.margin}</p>'
            f'<p class="more">points over {name(told.margin_over)}</p></div>'
        )
    tiles += (
        f'<div class="tile holds-{holds}"><p class="asked">Does it mean anything</p>'
        f'<p class="answer">{_answer(told.holds)}</p><p class="more">{text(told.meaning)}</p></div>'
    )
    sentences = " ".join(told.sentences)
    return (
        '<section class="verdict" aria-labelledby="verdict-title"><h2 class="unseen" id="verdict-title">In short</h2>'
        f'<div class="tiles">{tiles}</div><p class="sentence">{text(sentences)}</p></section>'
    )


def _answer(holds: bool | None) -> str:
    return "Not tested" if holds is None else "Yes" if holds else "Not separable"


def _contents(parts: Sequence[Part]) -> str:
    links = "".join(f'<li><a href="#{anchor}">{text(title)}</a></li>' for anchor, title, _ in parts)
    return f'<nav class="contents" aria-label="Parts of this page"><ul>{links}</ul></nav>'


def _ranking(table: Table) -> str:
    ranks = sorted({row.rank for row in table.rows if row.rank is not None})
    controls = _controls(
        "Filter the rows",
        len(table.rows),
        search_field("filter-name", "Model", "any part of the name"),
        choice_field("filter-setting", "Settings", [("", "all"), *((each, each) for each in _settings(table))]),
        choice_field("filter-rank", "Rank", [("", "all"), *((str(rank), f"{rank} and better") for rank in ranks)]),
        more=column_choice(table),
    )
    return section("ranking", "Ranking", controls + score_table(table))


def _settings(table: Table) -> list[str]:
    return sorted({row.setting for row in table.rows})


def _controls(label: str, rows: int, *fields: str, more: str = "") -> str:
    return (
        f'<div class="controls" role="search" aria-label="{text(label)}">{"".join(fields)}'
        f'<button type="button" id="reset">Reset</button>{more}'
        f'<p id="shown" role="status" aria-live="polite">{counted(rows, "row")}</p></div>'
    )


def _others(table: Table, neighbours: Sequence[Table]) -> str:
    others = [each for each in neighbours if each.name != table.name and each.key.dataset == table.key.dataset]
    if not others:
        return ""
    links = "".join(
        f'<li><a href="{address_beside(each)}">{name(title_of(each.key))}</a> '
        f'<span class="sd">{counted(len(each.rows), "row")}</span></li>'
        for each in others
    )
    return section(
        "others",
        f"Other leaderboards of {table.key.dataset}",
        f'<ul class="links">{links}</ul>',
        "Other labels, features, protocols, modalities or test conditions: not comparable with this one.",
    )


def _downloads(table: Table) -> str:
    links = ", ".join(f'<a href="{address_beside(table, each)}">{each.upper()}</a>' for each in FORMATS)
    return f"<p>The same table as {links}. Features made from <code>{text(table.key.sources[:16])}</code>.</p>"
