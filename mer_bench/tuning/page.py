"""A study as one HTML page that needs nothing else: no host, no file beside it, light and dark, on paper too.

The figures are Optuna's, drawn by the plotly that is installed, whose script is written into the page. The page
forbids itself every request (Content-Security-Policy), so that it shows the same wherever it is opened.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mer_bench.atomic import storage_errors, write_atomically
from mer_bench.errors import RequestError
from mer_bench.metrics import METRICS
from mer_bench.tuning.kept import KeptStudy, seconds_of, settings_of, state_of
from mer_bench.tuning.summary import (
    budget_text,
    counts_text,
    evaluation_of,
    importances_of,
    range_text,
    reason_of,
    searched_of,
    settings_line,
    value_text,
)
from mer_bench.tuning.workers import seconds_worked

MOST_BEST = 10


@dataclass(frozen=True)
class Figure:
    """One figure of the page.

    Attributes:
        alone: What it shows, for whoever cannot see it.
        json: For plotly, with no `<` in it.
        kind: Decides its size: `wide`, or `small` where several stand beside each other.
    """

    alone: str
    json: str
    kind: str = "wide"


def write_page(kept: KeptStudy, file: Path) -> None:
    """Write the page about a study.

    Raises:
        RequestError: If plotly is not installed.
        StorageError: If the file cannot be written.
    """
    text = page_text(kept)
    with storage_errors(f"write the page to {file}"):
        write_atomically(file, text.encode("utf-8"))


def page_text(kept: KeptStudy) -> str:
    """The page.

    Raises:
        RequestError: If plotly is not installed.
    """
    script = _plotly_script()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # experimental parts of Optuna
        body = "\n".join(_sections(kept))
    return Template(_part("page.html")).substitute(
        title=escape(f"Study {kept.name}"),
        name=escape(kept.name),
        lead=escape(_lead(kept)),
        style=_part("page.css"),
        body=body,
        plotly=script,
        script=_part("page.js"),
    )


def _part(name: str) -> str:
    return files("mer_bench.tuning").joinpath(name).read_text(encoding="utf-8")


def _plotly_script() -> str:
    """The library for the browser, from the installed package."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise RequestError(
            "a page needs plotly, which is not installed. Install it with: pip install 'mer-bench[plot]'"
        ) from None
    # What ends a script in HTML means the same in JavaScript's texts with a backslash in it.
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def _lead(kept: KeptStudy) -> str:
    about = kept.about
    made_up = " (synthetic)" if about["synthetic"] else ""
    return (
        f"{about['model']} on {about['features']}{made_up}: {counts_text(kept)}. "
        "Chosen on dev alone; no trial scores test."
    )


def _sections(kept: KeptStudy) -> Iterator[str]:
    yield _section("What was searched", _facts(kept))
    if kept.ranked:
        yield _section("Best trials", _best_table(kept))
        yield _section("Best settings", _settings_table(kept))
    score = _score_name(kept)
    enough = len(kept.ranked) > 1
    target = _score if kept.weighs_cost else None
    draw = optuna.visualization
    one_axis = partial(_figure, score=score)
    yield _section(
        "History",
        "<p>The score of each trial in its order; the line is the best so far.</p>",
        [
            one_axis(
                lambda: draw.plot_optimization_history(kept.study, target=target, target_name=score),
                f"{score} by number of the trial",
                tick="yaxis",
            )
        ]
        if kept.ranked
        else [],
    )
    importances = importances_of(kept)
    yield _section(
        "Importances",
        "<p>What sets the best trials apart from the others, by setting (PED-ANOVA).</p>"
        if importances.shares
        else f"<p>No importances: {escape(importances.reason)}</p>",
        [
            one_axis(
                lambda: _importances(kept, score),
                "share of each setting",
            )
        ]
        if importances.shares
        else [],
    )
    names = [name for name in kept.about["space"] if any(name in trial.params for trial in kept.ranked)]
    yield _section(
        "Slices",
        "<p>The score against each setting; a dot is a trial, the stronger its colour the later.</p>",
        [
            one_axis(
                partial(draw.plot_slice, kept.study, params=[name], target=target, target_name=score),
                f"{score} against {name}",
                tick="yaxis",
                kind="small",
            )
            for name in names
        ]
        if enough
        else [],
    )
    yield _section(
        "Parallel coordinates",
        "<p>A line is a trial, through all its settings; trials without one of them, by a condition, are left out.</p>",
        [
            one_axis(
                lambda: draw.plot_parallel_coordinate(
                    kept.study, params=_in_all(kept, names), target=target, target_name=score
                ),
                "settings and score of each trial",
                kind="broad",
            )
        ]
        if enough and _in_all(kept, names)
        else [],
    )
    yield _section(
        "Pruning",
        f"<p>The best dev score so far of each trial, as the {escape(str(kept.about['pruner']))} pruner heard of it. "
        f"{len(kept.in_state(TrialState.PRUNED))} trials were given up; they are "
        "<span class=given-up>drawn in this colour</span>.</p>",
        [one_axis(lambda: _pruning(kept, score), f"{score} of each trial as it went on", tick="yaxis", kind="unnamed")]
        if not kept.weighs_cost and any(trial.intermediate_values for trial in kept.trials)
        else [],
    )
    yield _section(
        "Cost",
        "<p>The score against the seconds of training. On the line are the trials than which none is both better "
        "and faster.</p>",
        [_figure(lambda: _cost(kept, score), f"{score} against seconds of training", score, tick="yaxis")]
        if kept.ranked
        else [],
    )
    failed = [trial for trial in kept.trials if trial.state in (TrialState.PRUNED, TrialState.FAIL)]
    if failed:
        yield _section("Given up and failed", _reasons_table(kept, failed))
    yield _section("All trials", _all_trials(kept))


def _score(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _score_name(kept: KeptStudy) -> str:
    name = str(kept.about["metric"])
    return f"dev {METRICS[name].title.lower() if name in METRICS else name}".replace(" f1", " F1")


def _in_all(kept: KeptStudy, names: Sequence[str]) -> list[str]:
    """Settings that most complete trials have: those of a condition that seldom held would hide the others."""
    half = len(kept.ranked) / 2
    return [name for name in names if sum(name in trial.params for trial in kept.ranked) > half]


def _pruning(kept: KeptStudy, score: str) -> Any:
    figure = optuna.visualization.plot_intermediate_values(kept.study)
    given_up = {str(trial.number) for trial in kept.in_state(TrialState.PRUNED)}
    for trace in figure.data:
        number = "".join(letter for letter in str(trace.name) if letter.isdigit())
        trace.meta = {"tone": "--second" if number in given_up else "--first"}
    unit = "seeds" if kept.about["pruner"] == "wilcoxon" else "epochs"
    figure.update_layout(xaxis_title=unit, yaxis_title=score if unit == "seeds" else f"{score}, best so far")
    return figure


def _importances(kept: KeptStudy, score: str) -> Any:
    figure = optuna.visualization.plot_param_importances(kept.study, **evaluation_of(kept), target_name=score)
    figure.update_layout(xaxis_title="share", yaxis_title=None, showlegend=False)
    return figure


def _cost(kept: KeptStudy, score: str) -> Any:
    import plotly.graph_objects as go

    front = kept.front
    figure = go.Figure(
        [
            go.Scatter(
                x=[seconds_of(trial) for trial in trials],
                y=[_score(trial) for trial in trials],
                text=[f"trial {trial.number}<br>{_in_lines(trial, kept)}" for trial in trials],
                mode=mode,
                name=name,
                line={"shape": "hv"},
            )
            for name, mode, trials in (
                ("other trials", "markers", [trial for trial in kept.ranked if trial not in front]),
                ("none is both better and faster", "lines+markers", front),
            )
        ]
    )
    figure.update_layout(xaxis_title="seconds of training", yaxis_title=score)
    return figure


def _in_lines(trial: FrozenTrial, kept: KeptStudy) -> str:
    return "<br>".join(
        f"{escape(name)}: {escape(value_text(value))}" for name, value in searched_of(trial, kept).items()
    )


def _figure(draw: Callable[[], Any], alone: str, score: str, tick: str = "", kind: str = "wide") -> Figure:
    figure = draw()
    figure.update_layout(title=None, template="none", width=None, height=None)
    if tick:
        # All scores are shares; the screen and the tables show them in percent.
        figure.update_layout({tick: {"tickformat": ".1%"}})
    if kind in ("small", "unnamed"):
        figure.update_layout(showlegend=False)
    if kind == "small":
        figure.update_layout(yaxis_title=None)
        figure.update_traces(marker_showscale=False)
    if kind == "broad":
        for trace in figure.data:
            if trace.type == "scatter" and trace.mode == "lines" and trace.y:
                trace.meta = {"share": trace.y[0]}  # its height on the first axis, which is the score's
    return Figure(alone, str(figure.to_json()).replace("<", "\\u003c"), kind)


def _section(title: str, html: str, figures: Sequence[Figure] = ()) -> str:
    boxes = "".join(
        f'<figure class="{each.kind}"><div class="plot" role="img" aria-label="{escape(each.alone, quote=True)}"></div>'
        f'<script type="application/json">{each.json}</script></figure>'
        for each in figures
    )
    drawn = f'<div class="figures">{boxes}</div>' if boxes else ""
    return f"<section><h2>{escape(title)}</h2>{html}{drawn}</section>"


def _facts(kept: KeptStudy) -> str:
    about = kept.about
    pairs = {
        "Model": f"{about['model']}, version {about['model_version']}",
        "Features": about["features"],
        "Labels": about["labels"],
        "Protocol": f"{about['protocol']}, version {about['protocol_version']}",
        "Modalities": ", ".join(about["modalities"]),
        "Data": about["data_checksum"],
        "Score": f"{_score_name(kept)}, mean over the seeds {', '.join(map(str, about['seeds']))}",
        "Sampler, pruner": f"{about['sampler']}, {about['pruner']}",
        "Budget": budget_text(kept),
        "Trials": counts_text(kept),
        "Seconds of work": f"{seconds_worked(kept.study):.0f}",
        "Fixed": settings_line(about["fixed"]) or "nothing",
    }
    return (
        f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>' for name, value in pairs.items())}</dl>"
    )


def _best_table(kept: KeptStudy) -> str:
    start = kept.start
    rows = [
        [
            str(trial.number),
            f"{100 * _score(trial):.2f}",
            f"{seconds_of(trial):.1f}",
            str(trial.user_attrs.get("epochs", "-")),
            str(trial.user_attrs.get("parameters", "-")),
            "the settings that the study began with" if trial is start else settings_line(searched_of(trial, kept)),
        ]
        for trial in kept.ranked[:MOST_BEST]
    ]
    return _table(
        ["Trial", "Dev, %", "Seconds", "Epochs", "Parameters", "Settings"], rows, numbers=range(5), kind="trials"
    )


def _settings_table(kept: KeptStudy) -> str:
    best, shares = kept.best(), importances_of(kept).shares
    chosen = searched_of(best, kept)
    rows = [
        [
            name,
            value_text(chosen[name]) if name in chosen else "-",
            value_text(told["start"]),
            f"{100 * shares[name]:.1f}" if name in shares else "-",
            range_text(told),
        ]
        for name, told in kept.about["space"].items()
    ]
    rows.sort(key=lambda row: -shares.get(row[0], -1.0))
    table = _table(["Setting", "Best", "Start", "Importance, %", "Searched"], rows, numbers=range(1, 4))
    start = kept.start
    told = f"<p>Trial {best.number}"
    if start and start.values and start.number != best.number:
        told += f", {100 * (_score(best) - _score(start)):+.2f} on dev against the start (trial {start.number})"
    return f"{told}.</p>{table}"


def _reasons_table(kept: KeptStudy, trials: Sequence[FrozenTrial]) -> str:
    rows = [[str(trial.number), reason_of(trial, kept), settings_line(searched_of(trial, kept))] for trial in trials]
    table = _table(["Trial", "Why", "Settings"], rows, numbers=range(1))
    return f"<details><summary>{len(rows)} trials</summary>{table}</details>"


def _all_trials(kept: KeptStudy) -> str:
    rows = [
        [
            str(trial.number),
            f"{100 * _score(trial):.2f}" if trial.values and trial.state == TrialState.COMPLETE else "-",
            f"{seconds_of(trial):.1f}",
            state_of(trial),
            settings_line(settings_of(trial)),
        ]
        for trial in kept.trials
    ]
    table = _table(["Trial", "Dev, %", "Seconds", "State", "Settings"], rows, numbers=range(3), kind="trials")
    return f"<details><summary>{len(rows)} trials</summary>{table}</details>"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: range, kind: str = "plain") -> str:
    """A table, in which the columns `numbers` hold numbers.

    Args:
        kind: Of `trials` the last cell gets a line of its own where the page is narrow.
    """

    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if place in numbers else ''}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        )

    head = f"<thead><tr>{row(headers, 'th')}</tr></thead>"
    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="scroll"><table class="{kind}">{head}<tbody>{body}</tbody></table></div>'
