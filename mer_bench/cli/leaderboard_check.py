"""`mer-bench leaderboard check`: whether records that somebody hands in are what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mer_bench.cli.options import DataRoot, Debug, Json

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen, Tone
    from mer_bench.leaderboard.checking import Checked
    from mer_bench.leaderboard.witnesses import Prepared
    from mer_bench.records import Record

KNOWN_RECORDS = Path("leaderboards/records")
IN_FULL = 3
"""So many records are told of check by check; of more, each gets a line."""


def check(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Records, or folders of them; their predictions lie beside them."),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="PATH",
            help=f"Records that are trusted; default: {KNOWN_RECORDS}, where it is there. Repeat for more.",
            show_default=False,
        ),
    ] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check records that somebody hands in, against their predictions and against other records.

    Every score is computed again from the predictions. Utterances, labels and features are compared with the records
    that are there already and, where this machine has it, with the prepared store. What there is nothing to compare
    with is listed as not checked.

    \b
    Examples:
      mer-bench leaderboard check runs/meld/cmath
      mer-bench leaderboard check theirs/ --against leaderboards/records --json

    \b
    Exit codes:
      0 nothing is wrong, 1 a record was refused, 2 there is no such record
    """
    from mer_bench.cli.console import Bar, Screen
    from mer_bench.errors import RunError
    from mer_bench.leaderboard.checking import check_records, find_records

    files = find_records(records)
    if against is not None:
        trusted = find_records(against)
    else:
        trusted = find_records([KNOWN_RECORDS]) if KNOWN_RECORDS.is_dir() and any(KNOWN_RECORDS.rglob("*.json")) else []
    screen = Screen(quiet_output=as_json)
    with ExitStack() as stack:
        heard: Callable[[int, int], None] = _silent
        if screen.is_terminal:
            bar = stack.enter_context(Bar(screen, 0))

            def heard(done: int, count: int) -> None:
                bar.show("reading records", f"{done} of {count}", done, count)

        found = check_records(files, trusted, data_root=data_root, prepared=_store_reader(data_root), heard=heard)
    refused = [each for each in found if each.reasons]
    if as_json:
        screen.answer(_answer(found))
    else:
        _show(screen, found)
    if refused:
        of_several = f"{len(refused)} of {len(found)} records are refused; the first: " if len(found) > 1 else ""
        reason = refused[0].reasons[0]
        name = shown(str(refused[0].file))
        raise RunError(f"{of_several}{name} is refused ({reason.check}): {shown(reason.said)}.")


def _silent(done: int, count: int) -> None:
    pass


def shown(text: str) -> str:
    """A text of a stranger's file on a screen: what would steer a terminal stands there as its number."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _show(screen: Screen, found: Sequence[Checked]) -> None:
    from mer_bench.cli.console import Column

    if len(found) <= IN_FULL:
        for each in found:
            _show_in_full(screen, each)
        return
    tones: dict[int, Tone] = {row: "bad" for row, each in enumerate(found) if each.reasons}
    screen.table(
        [
            Column("record", narrow="start"),
            Column("verdict"),
            Column("passed", number=True),
            Column("not checked, or refused for", narrow="wrap"),
        ],
        [_line(each) for each in found],
        tones=tones,
    )
    screen.line()
    reasons = {(one.check, one.said) for each in found for one in each.findings if one.state == "not checked"}
    for name, said in sorted(reasons):
        screen.line(f"not checked: {name}: {shown(said)}", tone="quiet")
    refused = sum(bool(each.reasons) for each in found)
    fine = len(found) - refused
    if fine:
        screen.line(f"{fine} of {len(found)} records: nothing is wrong with what could be checked", tone="good")


def _line(each: Checked) -> list[str]:
    """One record on one line."""
    passed = sum(one.state == "passed" for one in each.findings)
    if each.reasons:
        said = "; ".join(f"{one.check}: {shown(one.said)}" for one in each.reasons)
        return [shown(str(each.file)), "refused", str(passed), said]
    open_names = ", ".join(one.check for one in each.findings if one.state == "not checked")
    return [shown(str(each.file)), "fine", str(passed), open_names]


def _show_in_full(screen: Screen, each: Checked) -> None:
    from mer_bench.cli.console import Column

    tone_of: dict[str, Tone] = {"refused": "bad", "not checked": "quiet", "passed": "plain"}
    screen.table(
        [Column("check"), Column("outcome"), Column("what was found", narrow="wrap")],
        [[one.check, one.state, shown(one.said)] for one in each.findings],
        title=shown(str(each.file)),
        tones={row: tone_of[one.state] for row, one in enumerate(each.findings)},
    )
    if not each.reasons:
        screen.line("nothing is wrong with what could be checked", tone="good")
    screen.line()


def _answer(found: Sequence[Checked]) -> dict[str, Any]:
    return {
        "refused": sum(bool(each.reasons) for each in found),
        "fine": sum(not each.reasons for each in found),
        "records": [
            {
                "file": str(each.file),
                "run": each.record.run if each.record else None,
                "verdict": "refused" if each.reasons else "fine",
                "checks": [{"check": one.check, "outcome": one.state, "said": one.said} for one in each.findings],
            }
            for each in found
        ],
    }


def _store_reader(root: Path | None) -> Callable[[Record], Prepared | None]:
    """What the prepared stores on this machine say; nothing is prepared or fetched for it."""
    from mer_bench import registry
    from mer_bench.data.store import Store, open_store
    from mer_bench.errors import MerBenchError
    from mer_bench.locations import StoreKey, data_root, store_folder

    def read(record: Record) -> Prepared | None:
        features, labels, name = (each.partition("/")[2] for each in (record.features, record.labels, record.protocol))
        try:
            card = registry.datasets(root).find(record.dataset).card
            protocol = card.protocols.get(name)
            if protocol is None or protocol.version != record.protocol_version:
                return None
        except MerBenchError:
            return None
        # External predictions have features of their own: any store has their utterances.
        for each in [features] if record.kind == "run" else card.feature_sets:
            key = StoreKey(record.dataset, each, labels, name)
            keys = [replace(key, fold=fold) for fold in range(1, protocol.folds + 1)] or [key]
            try:
                stores: list[Store] = [open_store(store_folder(data_root(root), one)) for one in keys]
                return _prepared(stores, bool(protocol.folds))
            except (MerBenchError, OSError):  # none here, or a damaged one: there is nothing to compare with
                continue
        return None

    return read


def _prepared(stores: Sequence[Any], has_folds: bool) -> Prepared:
    """What one store, or those of all folds, say of the test split."""
    import numpy as np

    from mer_bench.identity import joined_checksum
    from mer_bench.leaderboard.witnesses import Prepared
    from mer_bench.predictions import Predictions, pooled

    parts = []
    for store in stores:
        ids, dialogues = store.identifiers("test")
        rows = store.rows("test")[1]
        lengths = store.lengths("test")
        nothing = np.zeros(len(ids), np.int16)
        parts.append(
            Predictions(
                classes=store.classes,
                ids=ids,
                dialogues=dialogues,
                positions=np.concatenate([np.arange(length) for length in lengths]),
                speakers=np.asarray(store.arrays["speakers"][rows]),
                true=np.asarray(store.arrays["labels"][rows]),
                predicted=nothing,
                log_probabilities=None,
                subsets=store.subsets("test"),
            )
        )
    return Prepared(
        sources=joined_checksum([store.manifest.sources_checksum for store in stores]),
        test=pooled(parts) if has_folds else parts[0],
    )
