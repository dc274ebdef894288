"""`mer-bench compare`: two models of one leaderboard, the verdict in words, and where they differ most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mer_bench.cli.options import Debug, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mer_bench.cli.console import Screen
    from mer_bench.leaderboard.building import Experiment, Outline
    from mer_bench.leaderboard.comparing import Comparison, DialogueDifference, Side

DEFAULT_RECORDS = "leaderboards/records"


def _option(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, show_default=False)


def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="Model, row of a leaderboard, record, or folder of records of one row.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    records: Annotated[
        list[Path] | None,
        _option(
            "--records", "PATH", f"Record, or folder that holds some; repeat for more; default: {DEFAULT_RECORDS}."
        ),
    ] = None,
    dataset: Annotated[str | None, _option("--dataset", "NAME", "Of this dataset.")] = None,
    labels: Annotated[str | None, _option("--labels", "ID", "With this label set.")] = None,
    features: Annotated[str | None, _option("--features", "ID", "From these features.")] = None,
    protocol: Annotated[str | None, _option("--protocol", "ID", "Under this protocol.")] = None,
    modalities: Annotated[str | None, _option("--modalities", "LIST", "With these, such as text,audio.")] = None,
    condition: Annotated[
        str | None,
        _option("--condition", "NAME", "Tested under this, such as only-text; default: the complete test split."),
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="N", min=0, help="So many dialogues for either.")] = 5,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two models on one test split: who leads, by how much, how sure that is, and where they differ.

    \b
    Examples:
      mer-bench compare cmath mmgcn --dataset meld --features transcripts --modalities text,audio
      mer-bench compare 'cmath (tuned)' cmath --records runs --dataset iemocap
      mer-bench compare runs/meld/cmath my-friend/runs/meld/cmath
    """
    from mer_bench.cli.console import Screen
    from mer_bench.leaderboard.comparing import chosen_pair, compare_experiments

    wanted = {
        "dataset": dataset,
        "labels": labels,
        "features": features,
        "protocol": protocol,
        "modalities": modalities,
        "condition": condition,
    }
    screen = Screen(quiet_output=as_json)
    found = _rows((first, second), records or [Path(DEFAULT_RECORDS)], wanted)
    compared = compare_experiments(*chosen_pair(found[0], found[1], (first, second)))
    if as_json:
        screen.answer(_as_values(compared))
    else:
        show_comparison(screen, compared, top)


def show_comparison(screen: Screen, compared: Comparison, top: int) -> None:
    """The verdict, the classes, and the dialogues that speak most for either."""
    from mer_bench.leaderboard import cells

    screen.line(cells.title(compared.key))
    screen.line()
    for sentence in verdict(compared):
        screen.line(sentence)
    _show_classes(screen, compared)
    dialogues = [each for each in compared.dialogues if abs(each.contribution) > 0]
    ahead = [each for each in dialogues if each.contribution > 0][:top]
    behind = [each for each in reversed(dialogues) if each.contribution < 0][:top]
    for side, some in ((compared.first, ahead), (compared.second, behind)):
        if some:
            _show_dialogues(screen, compared, side, some)
    if ahead or behind:
        screen.line(
            "right: utterances, mean over the seeds; points: what the dialogue adds to the difference", tone="quiet"
        )


def verdict(compared: Comparison) -> list[str]:
    """What the comparison says, in sentences; the first one is the verdict."""
    from mer_bench.leaderboard.cells import probability
    from mer_bench.statistics import FEWEST_DIALOGUES

    first, second, found = compared.first, compared.second, compared.difference
    points = 100 * (first.score - second.score)
    scores = f"{_scored(first)} against {_scored(second)}"
    if found is None:
        return [
            f"{first.label} has {points:.2f} points of weighted F1 more than {second.label} ({scores}). Whether that "
            f"is more than chance cannot be told: a test needs at least {FEWEST_DIALOGUES} dialogues, and there are "
            f"{compared.test_dialogues}."
        ]
    p_value = probability(found.p_value)
    p_value = p_value if "<" in p_value else f"= {p_value}"
    sure = f"95 % interval {100 * found.low:+.2f} to {100 * found.high:+.2f}, p {p_value}"
    if compared.is_separated:
        told = [f"{first.label} leads {second.label} by {points:.2f} points of weighted F1 ({scores}; {sure})."]
    elif points:
        told = [
            f"{first.label} and {second.label} are not separated: {first.label} has {points:.2f} points of weighted F1 "
            f"more ({scores}), which chance alone may well explain ({sure})."
        ]
    else:
        told = [f"{first.label} and {second.label} have the same weighted F1 ({scores}; {sure})."]
    if compared.effect is not None:
        size = "the dialogues do not vary" if compared.effect.size is None else f"{compared.effect.size:.2f}"
        told.append(
            f"Effect size {size} (in standard deviations over dialogues); on a drawn dialogue {first.label} is the "
            f"better one with probability {compared.effect.superiority:.2f}, ties counting half."
        )
    alone = [side.label for side in (first, second) if len(side.seeds) == 1]
    if alone:
        runs = " and ".join(alone)
        told.append(
            f"There is one run of {runs}: this holds for the trained model, since nothing shows how another seed "
            "would do. Run more seeds: mer-bench run --seeds 5"
        )
    told.append(
        f"Paired bootstrap over {compared.test_dialogues} dialogues; one comparison, not corrected for others: among "
        "many pairs some differ by chance, which a leaderboard corrects for."
    )
    return told


def _rows(
    names: tuple[str, str], records: Sequence[Path], wanted: dict[str, str | None]
) -> list[list[tuple[Outline, Experiment]]]:
    """Where each of the two is: the table and the row, of each table that is wanted."""
    from mer_bench.leaderboard.building import outline
    from mer_bench.leaderboard.comparing import rows_called
    from mer_bench.leaderboard.gathering import gather, processes_here

    shared: list[Outline] | None = None
    found = []
    for name in names:
        if _is_path(name):
            found.append(_only_row(name, _filtered(outline(gather([Path(name)])), wanted, name)))
            continue
        if shared is None:
            entries = gather(records, processes_here())
            shared = _filtered(outline(entries), wanted, " and ".join(map(str, records)))
        found.append(rows_called(shared, name))
    return found


def _is_path(name: str) -> bool:
    return name.endswith(".json") or "/" in name or (Path(name).is_dir() and any(Path(name).rglob("*.json")))


def _only_row(name: str, outlines: Sequence[Outline]) -> list[tuple[Outline, Experiment]]:
    from mer_bench.errors import RequestError

    rows = [(each, row) for each in outlines for row in each.experiments]
    tables = {each.name for each, _ in rows}
    if len(rows) == 1 or (len(rows) == len(tables) and len({row.label for _, row in rows}) == 1):
        return rows
    if not rows:
        reasons = [reason for each in outlines for row in each.failed for reason in row.reasons.values()]
        raise RequestError(f"every run in {name} failed: {reasons[0] if reasons else 'there is none'}")
    told = ", ".join(f"'{row.label}' in {each.name}" for each, row in rows[:4])
    more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
    raise RequestError(
        f"{name} holds {len(rows)} rows ({told}{more}), and one is compared. Name a folder of one, or give "
        f"--records {name} and the names of two rows."
    )


def _filtered(outlines: Sequence[Outline], wanted: dict[str, str | None], where: str) -> list[Outline]:
    """The tables that have what was asked for; without --condition those of the complete test split."""
    from mer_bench.errors import RequestError

    left = list(outlines)
    for name, value in wanted.items():
        if value is None and name != "condition":
            continue
        fitting = [each for each in left if _fits(each, name, value)]
        if not fitting:
            there = sorted({_told(each, name) for each in left})
            asked = f"--{name} {value}" if value else "the complete test split"
            raise RequestError(f"no leaderboard of {where} fits {asked}; there: {', '.join(there)}.")
        left = fitting
    return left


def _fits(each: Outline, name: str, value: str | None) -> bool:
    key = each.key
    if name == "modalities":
        return set(key.modalities) == {part.strip() for part in (value or "").split(",")}
    told = getattr(key, name)
    return told == value or (name in ("labels", "features", "protocol") and told.partition("/")[2] == value)


def _told(each: Outline, name: str) -> str:
    value = getattr(each.key, name)
    return ",".join(value) if isinstance(value, tuple) else value or "the complete test split"


def _scored(side: Side) -> str:
    spread = "" if side.spread is None else f" ± {100 * side.spread:.2f}"
    return f"{100 * side.score:.2f}{spread} over {len(side.seeds)} seed{'s' * (len(side.seeds) != 1)}"


def _show_classes(screen: Screen, compared: Comparison) -> None:
    from mer_bench.cli.console import Column

    screen.line()
    screen.table(
        [
            Column("class", narrow="end"),
            Column("utterances", number=True),
            Column(compared.first.label, number=True, narrow="end"),
            Column(compared.second.label, number=True, narrow="end"),
            Column("difference", number=True),
        ],
        [
            [
                each.name,
                str(each.support),
                f"{100 * each.first:.2f}",
                f"{100 * each.second:.2f}",
                f"{100 * each.difference:+.2f}",
            ]
            for each in compared.classes
        ],
        title="F1 of each class, the largest difference first",
    )


def _show_dialogues(screen: Screen, compared: Comparison, side: Side, dialogues: Sequence[DialogueDifference]) -> None:
    from mer_bench.cli.console import Column

    screen.line()
    screen.table(
        [
            Column("dialogue", narrow="end"),
            Column("utterances", number=True),
            Column(f"right: {compared.first.label}", number=True, narrow="end"),
            Column(f"right: {compared.second.label}", number=True, narrow="end"),
            Column("points", number=True),
        ],
        [
            [
                each.dialogue,
                str(each.utterances),
                f"{each.first:.1f}",
                f"{each.second:.1f}",
                f"{100 * each.contribution:+.3f}",
            ]
            for each in dialogues
        ],
        title=f"dialogues that speak most for {side.label}",
    )


def _as_values(compared: Comparison) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "leaderboard": compared.key.model_dump(mode="json"),
        "verdict": verdict(compared),
        "separated": compared.is_separated,
        **{name: asdict(part) for name, part in (("first", compared.first), ("second", compared.second))},
        "test_dialogues": compared.test_dialogues,
        "difference": asdict(compared.difference) if compared.difference else None,
        "effect": asdict(compared.effect) if compared.effect else None,
        "classes": [{**asdict(each), "difference": each.difference} for each in compared.classes],
        "dialogues": [asdict(each) for each in compared.dialogues],
    }
