"""`mer-bench data verify`: check files and stores, and how much of dev and test stands word for word in train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mer_bench.cli.data.names import Dataset
from mer_bench.cli.options import DataRoot, Debug, Json

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen, Tone
    from mer_bench.data.overlap import Overlap
    from mer_bench.data.verification import Checked, State


def verify_data(name: Dataset, data_root: DataRoot = None, as_json: Json = False, debug: Debug = False) -> None:
    """Check files, stores, and the overlap of train and test.

    Reads everything of the dataset in full: files are compared with their pins, stores with their manifests and
    with the files they were made from. Then it counts how many utterances of dev and test stand word for word in
    train.

    \b
    Example:
      mer-bench data verify meld
    """
    from mer_bench import registry
    from mer_bench.cli.console import Screen
    from mer_bench.data.verification import verify_dataset
    from mer_bench.errors import DataError, MissingDataError
    from mer_bench.locations import data_root as data_root_of

    plugin = registry.datasets(data_root).find(name)
    root = data_root_of(data_root)
    screen = Screen(quiet_output=as_json)
    checked = verify_dataset(plugin, root)
    if not checked:
        raise MissingDataError(f"nothing of {name} is in {root}. See: mer-bench data status")
    if as_json:
        screen.answer({"dataset": name, "checked": [_as_json(each) for each in checked]})
    else:
        _show(screen, checked)
    problems = [each.problem for each in checked if each.problem]
    if problems:
        more = f" ({len(problems) - 1} more with a problem.)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)


def _as_json(each: Checked) -> dict[str, Any]:
    told: dict[str, Any] = {"what": each.what, "state": each.state, "problem": each.problem}
    if each.key is not None:
        told["overlap"] = None if each.overlap is None else [overlap_as_json(overlap) for overlap in each.overlap]
    return told


def overlap_as_json(overlap: Overlap) -> dict[str, Any]:
    """The counts with the shares that follow from them."""
    return {**overlap.model_dump(), "share": overlap.share, "share_with_dev": overlap.share_with_dev}


def _show(screen: Screen, checked: Sequence[Checked]) -> None:
    from mer_bench.cli.console import Column

    tone_of: dict[State, Tone] = {"damaged": "bad", "other sources": "bad", "older card": "warning"}
    tones = {row: tone_of[each.state] for row, each in enumerate(checked) if each.state in tone_of}
    screen.table([Column("what"), Column("state")], [[each.what, each.state] for each in checked], tones=tones)
    rows: list[list[str]] = []
    for each in checked:
        if each.key is not None:
            fold = "" if each.key.fold is None else f", fold {each.key.fold}"
            found = overlap_rows(each.overlap or (), f" ({each.key.labels}, {each.key.protocol}{fold})")
            rows += [row for row in found if row not in rows]  # once where several feature sets agree
    if rows:
        screen.line()
        show_overlap(screen, rows)
    silent = [each.what for each in checked if each.key is not None and not each.problem and each.overlap is None]
    if silent:
        more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
        screen.line(f"no texts are kept in {silent[0]}{more}, so nothing could be compared there.", tone="quiet")


def show_overlap(screen: Screen, rows: Sequence[Sequence[str]]) -> None:
    """A table of what `overlap_rows` gives."""
    from mer_bench.cli.console import Column
    from mer_bench.data.overlap import FEWEST_WORDS

    columns = [
        Column("part", narrow="wrap"),
        Column("dev in train", number=True),
        Column("test in train", number=True),
        Column("test in train or dev", number=True),
    ]
    screen.table(
        columns, rows, title=f"Scored utterances of {FEWEST_WORDS} words or more that stand there word for word"
    )


def overlap_rows(overlap: Sequence[Overlap], where: str = "") -> list[list[str]]:
    """A row for the whole and for each subset: its name with `where` behind it, and the shares in words."""
    by_part: dict[str, dict[str, Overlap]] = {}
    for each in overlap:
        by_part.setdefault(each.subset, {})[each.split] = each
    rows = []
    for subset, by_split in by_part.items():
        dev, test = by_split.get("dev"), by_split.get("test")
        rows.append(
            [
                f"{subset or 'whole'}{where}",
                _share(dev.in_train, dev.compared) if dev else "-",
                _share(test.in_train, test.compared) if test else "-",
                _share(test.in_train_or_dev, test.compared) if test else "-",
            ]
        )
    return rows


def _share(count: int | None, compared: int) -> str:
    return f"{100 * count / compared:.1f} % ({count} of {compared})" if count is not None and compared else "-"
