"""The parts of a page below its table: pictures and their words, published figures, tests, runs, how to read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from mer_bench.leaderboard.page.markup import choice_field, drawing, folded, name, plain_table, scrolling, section, text
from mer_bench.leaderboard.page.payload import curve_step
from mer_bench.leaderboard.table import Published, Row, Table
from mer_bench.leaderboard.words import (
    DASH,
    SIGNIFICANT,
    counted,
    grouped,
    listed,
    percent,
    points,
    probability,
    seconds,
    short,
)

Part = tuple[str, str, str]
"""A part of a page: its anchor, what it is called in the list of parts, and its HTML."""


def parts_of(table: Table) -> tuple[Part, ...]:
    """All parts below the ranking, in their order."""
    found: list[tuple[str, str, str | None]] = [
        ("cost", "Cost", _cost(table)),
        ("classes", "Classes", _classes(table)),
        ("confusion", "Confusion", _confusion(table)),
        ("seeds", "Seeds", _seeds(table)),
        ("training", "Training", _training(table)),
        ("gap", "Selection gap", _gap(table)),
        ("missing", "Missing modalities", _missing(table)),
        ("published", "Published figures", _published(table.published)),
        ("pairs", "Tests", _pairs(table)),
        ("runs", "Runs", _runs(table)),
        ("method", "How to read this", _method(table)),
    ]
    return tuple((anchor, title, html) for anchor, title, html in found if html is not None)


# --- pictures ---


def pareto_front(rows: Sequence[Row], cost: str) -> list[Row]:
    """The rows than which none is both better and cheaper, cheapest first.

    Args:
        cost: `parameters` or `train_seconds`; rows without it are left out.
    """
    known = [row for row in rows if getattr(row, cost) is not None]
    known.sort(key=lambda row: (getattr(row, cost), -row.weighted_f1.mean, row.label))
    front: list[Row] = []
    for row in known:
        if not front or row.weighted_f1.mean > front[-1].weighted_f1.mean:
            front.append(row)
    return front


def _cost(table: Table) -> str:
    panels = ""
    for cost, what, unit in (("parameters", "parameters", ""), ("train_seconds", "seconds of training", " s")):
        front = pareto_front(table.rows, cost)
        if not front:
            continue
        told = listed(
            [
                f"{row.label} ({percent(row.weighted_f1.mean)} % with "
                f"{short(row.parameters or 0) if cost == 'parameters' else seconds(row.train_seconds or 0)}{unit})"
                for row in front
            ]
        )
        alternative = (
            f"Weighted F1 against {what}. On the front, than which no row is both better and cheaper, from the "
            f"cheapest: {told}."
        )
        panels += (
            f"<figure><figcaption>Weighted F1, %, against <strong>{what}</strong></figcaption>"
            f"{drawing(f'draw-{cost}', alternative)}</figure>"
        )
    if not panels:
        body = '<p class="note">No row of this table says what it cost.</p>'
    else:
        body = f'<div class="two">{panels}</div>'
    return section(
        "cost",
        "Score against cost",
        body,
        "On the line are the rows than which none is both better and cheaper (the Pareto front). Cost grows to the "
        "right by factors. Numbers are in the table above.",
    )


def _classes(table: Table) -> str:
    head = "".join(
        f'<th scope="col">{name(each)}<span class="sd">{_support(table, each)}</span></th>' for each in table.classes
    )
    body = ""
    for place, row in enumerate(table.rows):
        cells = "".join(_heat_cell(row.classes[each].f1 if each in row.classes else None) for each in table.classes)
        body += f'<tr data-row="{place}"><th scope="row">{name(row.label)}</th>{cells}</tr>'
    heat = scrolling(
        "F1 of each class",
        '<table class="heat"><caption><span>F1 of each class in percent, mean over the seeds; below a class its '
        "utterances in test</span></caption>"
        f'<thead><tr><th scope="col">Model</th>{head}</tr></thead><tbody>{body}</tbody></table>',
        "tall" if len(table.rows) >= 30 else "",
    )
    never = _never_right(table)
    return section(
        "classes",
        "Classes",
        heat,
        "The stronger the colour the higher the F1. A framed 0.0 is a class that a model never gets right"
        + (f": {never}." if never else "; here no row has one."),
    )


def _never_right(table: Table) -> str:
    """Which classes some rows never get right, in words; empty where there is none."""
    told = []
    for each in table.classes:
        zero = sum(1 for row in table.rows if each in row.classes and row.classes[each].f1 == 0)
        if zero:
            told.append(f"{escape(each)} in {counted(zero, 'row')}")
    return listed(told) if told else ""


def _support(table: Table, label: str) -> str:
    return next((grouped(row.classes[label].support) for row in table.rows if label in row.classes), "")


def _heat_cell(share: float | None) -> str:
    if share is None:
        return f'<td class="missing">{DASH}<span class="unseen"> not measured</span></td>'
    kind = (
        " class=never" if share == 0 else " class=strong" if share > 0.73 else " class=middle" if share > 0.595 else ""
    )
    return f'<td{kind} style="--heat:{percent(share, 1)}%">{percent(share, 1)}</td>'


def _row_choice(identifier: str, rows: Sequence[tuple[int, Row]]) -> str:
    return choice_field(identifier, "Row", ((str(place), row.label) for place, row in rows))


def _confusion(table: Table) -> str:
    rows = [(place, row) for place, row in enumerate(table.rows) if any(map(any, row.confusion))]
    if not rows:
        return section("confusion", "Confusion", '<p class="note">No row has a confusion matrix.</p>')
    return section(
        "confusion",
        "Confusion",
        f'{_row_choice("confusion-row", rows)}<div id="confusion-table" aria-live="polite"></div>'
        '<noscript><p class="note">Confusion matrices need JavaScript.</p></noscript>',
        "Of the utterances of each true class (a line), the share that was predicted as each class (a column), summed "
        "over the seeds. The diagonal is the recall.",
    )


def _seeds(table: Table) -> str:
    told = "; ".join(
        f"{row.label}: {', '.join(percent(run.weighted_f1) for run in row.runs) or percent(row.weighted_f1.mean)}"
        for row in table.rows[:10]
    )
    more = f"; and {counted(len(table.rows) - 10, 'row')} more" if len(table.rows) > 10 else ""
    return section(
        "seeds",
        "Seed spread",
        drawing("draw-seeds", f"Weighted F1 of each seed, in percent. {told}{more}."),
        "A dot is a run, the upright mark the mean of the row, the line its 95 % interval, in percent of weighted F1. "
        "The interval counts both the seeds and the dialogues of the test split.",
    )


def _training(table: Table) -> str:
    rows = [(place, row) for place, row in enumerate(table.rows) if any(run.curve for run in row.runs)]
    if not rows:
        return section("training", "Training curves", '<p class="note">No run has a training curve.</p>')
    step = curve_step(table)
    often = {1: "", 2: " Every second epoch is drawn.", 3: " Every third epoch is drawn."}
    thinned = often.get(step, f" Every {step}th epoch is drawn.")
    chosen = "; ".join(
        f"{row.label}: {', '.join(str(run.epoch) for run in row.runs if run.epoch is not None)}"
        for _, row in rows
        if any(run.epoch is not None for run in row.runs)
    )
    return section(
        "training",
        "Training curves",
        f'{_row_choice("training-row", rows)}<div class="two">'
        "<figure><figcaption>Selection metric on <strong>dev</strong>, %</figcaption>"
        f"{drawing('draw-dev', 'Selection metric on dev by epoch, a line a seed, for the chosen row.')}</figure>"
        "<figure><figcaption>Training <strong>loss</strong></figcaption>"
        f"{drawing('draw-loss', 'Training loss by epoch, a line a seed, for the chosen row.')}</figure></div>"
        + (folded("Chosen epochs", f"<p>{text(chosen)}</p>") if chosen else ""),
        "A line is a seed; the dot is the epoch that was chosen, on dev. Where a run was audited, a broken line is its "
        f"score on test, which chose nothing.{thinned}",
    )


def _gap(table: Table) -> str:
    audited = [(row, run) for row in table.rows for run in row.runs if run.best_on_test is not None]
    about = (
        "What a run would have scored with the epoch chosen on <em>test</em>, as much public code does. Test was "
        "scored epoch by epoch only after the choice on dev was frozen; nothing above rests on these scores."
    )
    if not audited:
        return section(
            "gap",
            "Selection gap",
            '<p class="note">No run of this table was audited. To measure its gap, run it with '
            "<code>mer-bench run --audit-selection</code>.</p>",
            about,
        )
    rows = [
        (
            name(row.label),
            str(run.seed),
            percent(run.weighted_f1),
            percent(run.best_on_test),
            points((run.best_on_test or 0) - run.weighted_f1),
        )
        for row, run in audited
    ]
    numbers = plain_table(
        "Selection gap of each audited run, in percent",
        ["Model", "Seed", "Epoch of dev", "Epoch of test", "Gap"],
        rows,
        range(1, 5),
    )
    gaps = [(run.best_on_test or 0) - run.weighted_f1 for _, run in audited]
    alternative = (
        f"Of {counted(len(audited), 'audited run')}, choosing the epoch on test would add {points(min(gaps))} to "
        f"{points(max(gaps))} points of weighted F1, {points(sum(gaps) / len(gaps))} on average."
    )
    return section(
        "gap", "Selection gap", f"<p>{text(alternative)}</p>{drawing('draw-gap', alternative, table=numbers)}", about
    )


def _missing(table: Table) -> str | None:
    if not table.missing:
        return None
    body = ""
    curves = [curve for curve in table.missing if curve.rates]
    if curves:
        rates = sorted({rate for curve in curves for rate, _ in curve.rates})
        rows = [(name(curve.label), *(percent(dict(curve.rates).get(rate)) for rate in rates)) for curve in curves]
        numbers = plain_table(
            "Weighted F1 in percent by the share of missing modalities",
            ["Model", *(f"{100 * rate:.0f} %" for rate in rates)],
            rows,
            range(1, len(rates) + 1),
        )
        falls = "; ".join(
            f"{curve.label} from {percent(curve.rates[0][1])} to {percent(curve.rates[-1][1])}" for curve in curves
        )
        body += drawing("draw-missing", f"Weighted F1, in percent, as modalities go missing: {falls}.", table=numbers)
    only = sorted({condition for curve in table.missing for condition in curve.only})
    if only:
        rows = [
            (name(curve.label), *(percent(curve.only.get(each)) for each in only))
            for curve in table.missing
            if curve.only
        ]
        body += plain_table(
            "Weighted F1 in percent with only some modalities in test", ["Model", *only], rows, range(1, len(only) + 1)
        )
    return section(
        "missing",
        "Missing modalities",
        body,
        "Trained and chosen once with all modalities, then scored with some taken from test. Random masks are the same "
        "for every model.",
    )


# --- tables ---

KINDS = {
    "own": "own paper",
    "re-run": "re-run by others",
    "reprint": "reprint",
    "derived": "derived",
    "unknown": "unknown",
}


def _published(figures: Sequence[Published]) -> str:
    about = (
        "Copied from papers and repositories, and <strong>never ranked with the rows above</strong>: features, splits "
        "and the choice of the epoch differ. A figure whose epoch was chosen on test is an upper reading."
    )
    if not figures:
        return section(
            "published",
            "Published figures",
            '<p class="note">No published figure of this dataset ships with mer-bench.</p>',
            about,
        )
    rows = [
        (
            name(each.model),
            text(each.metric),
            _unknown() if each.value is None else grouped(each.value, 2),
            _features(each.features),
            text(KINDS[each.kind]) if each.kind != "unknown" else _unknown(),
            f'<span class="tag warn">{text(each.selection)}</span>'
            if each.selection == "test"
            else text(each.selection)
            if each.selection == "dev"
            else _unknown(),
            _linked(each.source) + (f'<br><span class="sd">{name(each.note)}</span>' if each.note else ""),
        )
        for each in figures
    ]
    body = plain_table(
        f"{counted(len(figures), 'published figure')}, as printed",
        ["Model", "Metric", "Value, %", "Features", "Measured by", "Epoch chosen on", "Source"],
        rows,
        [2],
        "published",
    )
    return section("published", "Published figures", body, about)


def _features(features: str) -> str:
    return name(features) if features not in ("", "unknown") else _unknown()


def _unknown() -> str:
    return '<span class="unknown">unknown</span>'


_ADDRESS = re.compile(r"https://[^\s<>\"']+[^\s<>\"'.,;:)]")


def _linked(source: str) -> str:
    """Text in which addresses are links; nothing else than https is followed."""
    found, after = "", 0
    for match in _ADDRESS.finditer(source):
        address = escape(match[0])
        found += f'{text(source[after : match.start()])}<a href="{address}" rel="noreferrer">{address}</a>'
        after = match.end()
    return found + text(source[after:])


def _pairs(table: Table) -> str:
    if not table.pairs:
        return section("pairs", "Tests", '<p class="note">No pair of rows of this table was tested.</p>')
    rows = [
        (
            name(pair.first),
            name(pair.second),
            points(pair.difference),
            f"{points(pair.low)} to {points(pair.high)}",
            probability(pair.p_value).removeprefix("=").strip(),
            probability(pair.adjusted).removeprefix("=").strip(),
            "separated" if pair.adjusted < SIGNIFICANT else "not separated",
        )
        for pair in table.pairs
    ]
    body = plain_table(
        "Differences in mean weighted F1, in points",
        ["First", "Second", "Difference", "95 % interval", "p", "p, Holm", "At 5 %"],
        rows,
        range(2, 6),
    )
    return section(
        "pairs",
        "Tests",
        folded(f"{counted(len(rows), 'tested pair')}", body),
        "Each row was tested against the leader and against its neighbour below, by a paired bootstrap over dialogues "
        f"and seeds with {grouped(table.resamples)} resamples; p-values are corrected over all of them (Holm).",
    )


def _runs(table: Table) -> str:
    rows = [
        (
            name(row.label),
            str(run.seed),
            percent(run.weighted_f1),
            percent(run.dev),
            "" if run.epoch is None else str(run.epoch),
            f"<code>{name(run.run)}</code>",
        )
        for row in table.rows
        for run in row.runs
    ]
    reasons = [(row.label, row.failed) for row in table.rows] + [(each.label, each.failed) for each in table.failed]
    failed = [
        (name(label), str(seed), name(reason)) for label, found in reasons for seed, reason in sorted(found.items())
    ]
    body = folded(
        counted(len(rows), "run"),
        plain_table(
            "Every run, with the name of its record",
            ["Model", "Seed", "Weighted F1, %", "Dev, %", "Epoch", "Record"],
            rows,
            range(1, 5),
        ),
    )
    if failed:
        body += folded(
            counted(len(failed), "failed run"),
            plain_table("Runs that failed, and why", ["Model", "Seed", "Reason"], failed, [1]),
        )
    return section("runs", "Runs", body, "Every number of this page traces to one of these records.")


def _method(table: Table) -> str:
    seeds = {len(row.seeds) for row in table.rows}
    told = f"{min(seeds)} to {max(seeds)} seeds" if len(seeds) > 1 else counted(seeds.pop(), "seed")
    items = [
        f"A row is one model with one set of settings, run with {told}; scores are means over them, and ± is their "
        "standard deviation.",
        "The 95 % interval comes from drawing whole dialogues, and seeds, again and again "
        f"({grouped(table.resamples)} times): utterances of one dialogue are not independent.",
        "A new rank begins at a row that was told apart from its neighbour above, or from the leader; rows of one rank "
        "are neighbours that no test separates. A rank that is skipped belongs to the rows that share the one above.",
        "Scores were computed from stored predictions by one function for every model. The test split was scored once, "
        "after the epoch had been chosen.",
        f"A dash ({DASH}) is a value that was not measured. It is never a zero.",
        "UAR is the mean recall of the classes; ECE the expected calibration error of the top label in 15 bins; Shift "
        "the accuracy on utterances whose emotion differs from the same speaker's one before.",
    ]
    return section("method", "How to read this", f"<ul>{''.join(f'<li>{text(item)}</li>' for item in items)}</ul>")
