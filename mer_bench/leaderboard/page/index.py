"""The parts of the index: all leaderboards with their leaders, and what compares models across them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mer_bench.leaderboard.page.links import address_of
from mer_bench.leaderboard.page.markup import drawing, folded, name, plain_table, scrolling, section, text
from mer_bench.leaderboard.table import AcrossDatasets, Boards, Table, Unscored
from mer_bench.leaderboard.words import DASH, counted, listed, part, percent, probability, verdict


def board_list(tables: Sequence[Table]) -> str:
    """The table of tables."""
    headers = (
        ("dataset", "Leaderboard", "words", "rises"),
        ("modalities", "Modalities", "words", "rises"),
        ("leader", "Leader", "words", "rises"),
        ("score", "Weighted F1", "number", "falls"),
        ("margin", "Ahead by", "number", "falls"),
        ("holds", "More than chance?", "words", "rises"),
        ("rows", "Rows", "number", "falls"),
        ("runs", "Runs", "number", "falls"),
    )
    head = "".join(
        f'<th scope="col" class="{kind} c-{key}" data-column="{key}" data-first="{order}"><button type="button">{title}'
        "</button></th>"
        for key, title, kind, order in headers
    )
    body = "".join(f'<tr data-row="{place}">{_board(table)}</tr>' for place, table in enumerate(tables))
    return scrolling(
        "All leaderboards",
        '<table id="scores" class="boards"><caption><span>Scores in percent. Rows of different leaderboards are never '
        f"ranked together.</span></caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
    )


def _board(table: Table) -> str:
    key, told = table.key, verdict(table)
    condition = f'<span class="tag">{name(key.condition)}</span>' if key.condition else ""
    made_up = ' <span class="tag warn">made-up data</span>' if key.synthetic else ""
    figure = table.rows[0].weighted_f1
    sd = "" if figure.sd is None else f'<span class="sd">± {percent(figure.sd)}</span>'
    link = (
        f'<a href="{address_of(table)}">{name(key.dataset)} · {name(part(key.labels))}</a>{made_up}'
        f'<span class="under">{name(part(key.features))}, {name(part(key.protocol))} {condition}</span>'
    )
    runs = sum(len(row.runs) for row in table.rows)
    margin = DASH if told.margin is None else told.margin
    cells = (
        ("th", "words", "dataset", f"{key.dataset} {key.labels} {key.features} {key.condition or ''}", link),
        ("td", "words", "modalities", " ".join(key.modalities), name(", ".join(key.modalities))),
        ("td", "words", "leader", told.leader, name(told.leader)),
        ("td", "number", "score", f"{figure.mean:.6g}", f'<span class="mean">{told.score}</span>{sd}'),
        ("td", "number", "margin", _margin(table), margin),
        ("td", "words", "holds", told.meaning, f'<span class="holds-{_holds(told.holds)}">{text(told.meaning)}</span>'),
        ("td", "number", "rows", str(len(table.rows)), str(len(table.rows))),
        ("td", "number", "runs", str(runs), str(runs)),
    )
    scope = {"th": ' scope="row"', "td": ""}
    return "".join(
        f'<{tag}{scope[tag]} class="{kind} c-{column}" data-value="{text(value)}">{html}</{tag}>'
        for tag, kind, column, value, html in cells
    )


def _margin(table: Table) -> str:
    return f"{table.rows[0].weighted_f1.mean - table.rows[1].weighted_f1.mean:.6g}" if len(table.rows) > 1 else ""


def _holds(holds: bool | None) -> str:
    return "unknown" if holds is None else "yes" if holds else "no"


def across_section(across: AcrossDatasets | None) -> str:
    """Mean ranks over several tables, with the critical-difference diagram."""
    if across is None or len(across.models) < 2:
        return section(
            "across",
            "Across leaderboards",
            '<p class="note">Too few models have a row in several leaderboards to compare them across.</p>',
        )
    distance = across.critical_difference
    cliques = [across.models[first : last + 1] for first, last in across.cliques if last > first]
    groups = "; ".join(listed(list(models)) for models in cliques) or "none"
    ranks = ", ".join(f"{model} {rank:.2f}" for model, rank in zip(across.models, across.mean_ranks, strict=True))
    alternative = f"Mean ranks, the best first: {ranks}. Not separated from each other: {groups}."
    rows = [
        (name(model), f"{mean:.2f}", *(f"{rank:g}" for rank in each))
        for model, mean, each in zip(across.models, across.mean_ranks, across.ranks, strict=True)
    ]
    numbers = plain_table(
        "Rank of each model in each leaderboard; ties share the mean of their places",
        ["Model", "Mean", *across.tables],
        rows,
        range(1, len(across.tables) + 2),
    )
    differ = [
        (name(first), name(second), probability(value).removeprefix("=").strip())
        for first, second, value in sorted(across.wilcoxon_pairs, key=lambda pair: (pair[2], pair[0], pair[1]))
    ]
    pairs = (
        folded(
            "Pairs by Wilcoxon's signed-rank test",
            plain_table("Holm-corrected p-values", ["First", "Second", "p"], differ, [2]),
        )
        if differ
        else ""
    )
    told = (
        f"{counted(len(across.models), 'model')} with a row in each of {counted(len(across.tables), 'leaderboard')}. "
    )
    if across.friedman_p is not None:
        told += (
            f"Friedman's test: p {probability(across.friedman_p)}, so that the models "
            f"{'differ' if across.friedman_p < 0.05 else 'can not be said to differ'}. "
        )
    if distance is not None:
        told += (
            f"Two models differ by Nemenyi's test at 5 % where their mean ranks are further apart than {distance:.2f}; "
            "thick lines join those that do not."
        )
    return section(
        "across", "Across leaderboards", drawing("draw-across", alternative, table=numbers) + pairs, text(told)
    )


def unscored_section(unscored: Iterable[Unscored]) -> str | None:
    """Leaderboards all of whose runs failed; None where there is none."""
    rows = [
        (name(board.name), name(each.label), str(seed), name(reason))
        for board in unscored
        for each in board.failed
        for seed, reason in sorted(each.failed.items())
    ]
    if not rows:
        return None
    return section(
        "unscored",
        "Without a score",
        plain_table(
            "Runs of leaderboards on which every run failed", ["Leaderboard", "Model", "Seed", "Reason"], rows, [2]
        ),
    )


def headline(boards: Boards) -> str:
    """What the index says at its top, as text."""
    tables = boards.tables
    if not tables:
        return "No record has a score yet."
    runs = sum(len(row.runs) for table in tables for row in table.rows)
    models = {row.model for table in tables for row in table.rows}
    datasets = sorted({table.key.dataset for table in tables})
    held = sum(verdict(table).holds is True for table in tables)
    several = sum(len(table.rows) > 1 for table in tables)
    return (
        f"{counted(len(tables), 'leaderboard')} from {counted(runs, 'run')} of {counted(len(models), 'model')} on "
        f"{listed(datasets)}. Of the {counted(several, 'leaderboard')} with more than one row, {held or 'none'} "
        f"{'has' if held in (0, 1) else 'have'} a leader whose lead is more than chance."
    )
