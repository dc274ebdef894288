"""Tables as Markdown, as GitHub shows it. Whatever a record says is text: no markup in it takes effect."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from mer_bench.leaderboard import cells
from mer_bench.leaderboard.cells import COLUMNS, DASH
from mer_bench.leaderboard.table import AcrossDatasets, Boards, Published, Row, Table
from mer_bench.leaderboard.words import verdict

_MARKUP = {ord(letter): f"\\{letter}" for letter in "\\`*_[]<>|~#"} | {ord("&"): "&amp;"}


def markdown_of(table: Table) -> str:
    """A leaderboard as a Markdown document."""
    key = table.key
    parts = [
        f"# {text(cells.title(key))}",
        text(" ".join(verdict(table).sentences)),
        _grid([column.title for column in COLUMNS], [[column.text(row) for column in COLUMNS] for row in table.rows]),
        _about_rows(table),
        "## F1 of each class",
        _grid(
            ["model", *table.classes],
            [[row.label, *(_class_cell(row, name) for name in table.classes)] for row in table.rows],
        ),
        f"Support in test: {text(_supports(table))}.",
    ]
    if table.pairs:
        parts += ["## Tests", _tests(table)]
    if table.missing:
        parts += ["## Missing modalities in test", *_missing(table)]
    if table.published:
        parts += ["## Published figures", _published_note(), _published(table.published)]
    failed = [(row.label, row.failed) for row in table.rows if row.failed]
    failed += [(each.label, each.failed) for each in table.failed]
    if failed:
        rows = [(label, str(seed), reason) for label, reasons in failed for seed, reason in reasons.items()]
        parts += ["## Failed runs", _grid(["model", "seed", "why"], rows)]
    parts += ["## About this table", _facts(table)]
    return "\n\n".join(parts) + "\n"


def index_of(boards: Boards, formats: Sequence[str]) -> str:
    """The list of all leaderboards, each with links to its pages.

    Args:
        formats: Endings of the pages that there are, the first of which a name links to.
    """
    parts = ["# Leaderboards"]
    if boards.tables:
        parts.append(
            "Each is one dataset, label set, feature set, protocol, set of modalities and test condition. Rows of "
            "different leaderboards are never ranked together. Scores are weighted F1 on test in percent, mean and "
            "standard deviation over the seeds."
        )
    for dataset in dict.fromkeys(table.key.dataset for table in boards.tables):
        rows = []
        for table in boards.tables:
            if table.key.dataset != dataset:
                continue
            leader = table.rows[0]
            same = sum(row.rank == leader.rank for row in table.rows) if leader.rank is not None else None
            place = f"{dataset}/{table.name}"
            rows.append(
                [
                    f"[{text(table.name)}]({place}.{formats[0]})",
                    text(str(len(table.rows))),
                    text(leader.label),
                    text(cells.spread(leader.weighted_f1)),
                    DASH if same is None else str(same),
                    " ".join(f"[{ending}]({place}.{ending})" for ending in formats[1:]),
                ]
            )
        made_up = any(table.key.synthetic for table in boards.tables if table.key.dataset == dataset)
        parts.append(f"## {text(dataset)}{' (made-up dialogues)' if made_up else ''}")
        parts.append(
            _plain_grid(
                ["leaderboard", "rows", "highest", "weighted F1", "rows of the first rank", "other formats"], rows
            )
        )
    if boards.across:
        parts += ["## Across datasets", *_across(boards.across)]
    if boards.unscored:
        parts += ["## Without a score", "Every run of these failed."]
        parts.append(
            _grid(
                ["leaderboard", "model", "seed", "why"],
                [
                    (each.name, failed.label, str(seed), reason)
                    for each in boards.unscored
                    for failed in each.failed
                    for seed, reason in failed.failed.items()
                ],
            )
        )
    return "\n\n".join(parts) + "\n"


def text(value: str) -> str:
    """Text as itself in one line of Markdown: no letter of it is markup or ends a cell, and none is hidden."""
    return "".join(map(seen, value)).translate(_MARKUP)


def seen(letter: str) -> str:
    """A letter, or what stands for one that cannot be seen: a blank for a break, a mark for what turns text about."""
    category = unicodedata.category(letter)
    if letter in "\t\n\v\f\r" or category in ("Zl", "Zp"):
        return " "
    return "\N{REPLACEMENT CHARACTER}" if category in ("Cc", "Cf", "Cs", "Co") else letter


def _class_cell(row: Row, name: str) -> str:
    scores = row.classes.get(name)
    if scores is None:
        return DASH
    return (
        cells.percent(scores.f1)
        if scores.f1_sd is None
        else f"{cells.percent(scores.f1)} ± {cells.percent(scores.f1_sd)}"
    )


def _supports(table: Table) -> str:
    classes = table.rows[0].classes
    return ", ".join(f"{name} {classes[name].support:,}" for name in table.classes)


def _about_rows(table: Table) -> str:
    tested = (
        "Rows of one rank are not separated by the tests below. The interval is that of the mean weighted F1. "
        if table.pairs
        else ""
    )
    return (
        f"Scores in percent, means over the seeds; after ± the standard deviation between seeds. {tested}"
        "Selection gap: how much higher the score had been with the epoch chosen on test, in points. "
        f"{DASH}: not measured."
    )


def _tests(table: Table) -> str:
    about = (
        f"Each row with the leader and with the row below it, weighted F1 in points; paired bootstrap over dialogues, "
        f"{table.resamples:,} resamples shared by all rows, p-values also with Holm's correction over all pairs here."
    )
    rows = [
        (
            pair.first,
            pair.second,
            cells.points(pair.difference),
            f"{cells.points(pair.low)} to {cells.points(pair.high)}",
            cells.probability(pair.p_value),
            cells.probability(pair.adjusted),
        )
        for pair in table.pairs
    ]
    return f"{about}\n\n{_grid(['first', 'second', 'difference', '95 % interval', 'p', 'p, corrected'], rows)}"


def _missing(table: Table) -> list[str]:
    rates = sorted({rate for curve in table.missing for rate, _ in curve.rates})
    names = sorted({name for curve in table.missing for name in curve.only})
    rows = []
    for curve in table.missing:
        by_rate = dict(curve.rates)
        found = [*(by_rate.get(rate) for rate in rates), *(curve.only.get(name) for name in names)]
        rows.append([curve.label, *map(cells.percent, found)])
    heads = [*("complete" if rate == 0 else f"{rate:g} missing" for rate in rates), *names]
    return [
        "Weighted F1 of the same trained models where a share of the modalities is missing in test, or only some are "
        "given.",
        _grid(["model", *heads], rows),
    ]


def _published_note() -> str:
    return (
        "As printed, in percent; never ranked with the rows above. Most were reached with the epoch chosen on test, "
        "and with other features."
    )


def _published(figures: Iterable[Published]) -> str:
    rows = [
        (
            each.model,
            each.metric,
            "unknown" if each.value is None else f"{each.value:.2f}",
            each.features,
            each.kind,
            each.selection,
            each.source,
            each.note,
        )
        for each in figures
    ]
    return _grid(["model", "metric", "value", "features", "measured by", "epoch chosen on", "source", "note"], rows)


def _across(across: AcrossDatasets) -> list[str]:
    about = [f"Mean rank of the models that have a row in each of {len(across.tables)} leaderboards; 1 is best."]
    if across.verdict:
        about.append(across.verdict)
    if across.critical_difference is not None:
        about.append(
            f"Models whose mean ranks are further apart than {across.critical_difference:.2f} differ (Nemenyi, 5 %)."
        )
    rows = [
        [model, f"{mean:.2f}", *(f"{rank:g}" for rank in ranks)]
        for model, mean, ranks in zip(across.models, across.mean_ranks, across.ranks, strict=True)
    ]
    return [text(" ".join(about)), _grid(["model", "mean rank", *across.tables], rows)]


def _facts(table: Table) -> str:
    key = table.key
    rules = list(dict.fromkeys(row.selection_rule for row in table.rows if row.selection_rule))
    facts = {
        "dataset": key.dataset + (", made-up dialogues" if key.synthetic else ""),
        "labels": key.labels,
        "features": key.features,
        "protocol": f"{key.protocol}, version {key.protocol_version}",
        "modalities": ", ".join(key.modalities),
        "test condition": key.condition or "the complete test split",
        "test": f"{table.test_utterances:,} utterances of {table.test_dialogues:,} dialogues",
        "epoch": "; ".join(rules) or DASH,
        "sources (SHA-256)": key.sources,
    }
    return "\n".join(f"- {name}: {text(value)}" for name, value in facts.items())


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return _plain_grid([text(head) for head in heads], [[text(cell) for cell in row] for row in rows])


def _plain_grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
