"""`mer-bench data import` of the user's own dialogues: what was found, where it is now, what to do next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mer_bench.errors import RequestError

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen
    from mer_bench.data.own.dialogues import RandomSplit
    from mer_bench.data.own.importing import OwnReport


def is_users_own(name: str) -> bool:
    """Whether a name is open to the user's dialogues: no installed dataset has it, broken ones included."""
    from mer_bench import registry

    shelf = registry.installed_datasets()
    return name not in shelf.plugins and name not in {broken.name for broken in shelf.broken}


def import_own_dialogues(
    name: str,
    given: Sequence[Path],
    root: Path,
    screen: Screen,
    as_json: bool,
    split: str | None = None,
    seed: int | None = None,
    layout: str | None = None,
) -> None:
    """Import a folder, a file of dialogues or a feature release under a name of the user's; show what it holds.

    Args:
        split: Shares of train, dev and test as `80/10/10`, where the files have no splits.
        layout: What a feature release is, where it cannot be told.

    Raises:
        RequestError: If the name or the shares are wrong. Else as `mer_bench.data.own.importing.import_own`.
    """
    from mer_bench.data.own.importing import import_own

    report = import_own(name, given, root, random_split(split, seed), layout)
    if as_json:
        screen.answer(asdict(report))
    else:
        show_report(screen, report)


def random_split(split: str | None, seed: int | None) -> RandomSplit | None:
    """What `--split` and `--seed` say together.

    Raises:
        RequestError: If the shares are not three whole numbers that make 100.
    """
    from mer_bench.data.own.dialogues import RandomSplit

    if split is None:
        if seed is not None:
            raise RequestError(f"--seed {seed} belongs to a random split; give its shares too: --split 80/10/10")
        return None
    shares = [int(each) for each in split.split("/")] if re.fullmatch(r"\d{1,3}/\d{1,3}/\d{1,3}", split) else []
    if len(shares) != 3 or sum(shares) != 100 or min(shares) < 1:
        raise RequestError(f"--split gives train, dev and test in percent, as in 80/10/10, but is '{split}'.")
    train, dev, test = shares
    return RandomSplit((train, dev, test), seed or 0)


def show_report(screen: Screen, report: OwnReport) -> None:
    """Tables of what was found, then where it is and what it can be used for."""
    from mer_bench.cli.console import Column

    if report.recognised:
        screen.line(f"recognised: {report.recognised}")
    columns = [
        Column("split"),
        Column("dialogues", number=True),
        Column("utterances", number=True),
        Column("speakers", number=True),
    ]
    rows = [
        [split, str(found.dialogues), str(found.utterances), str(found.speakers)]
        for split, found in report.splits.items()
    ]
    screen.table(columns, rows)
    for label_set, histogram in report.histogram.items():
        screen.line()
        names = list(next(iter(histogram.values())))
        header = [Column("split"), *(Column(each, number=True) for each in names), Column("no label", number=True)]
        table = [
            [
                split,
                *(str(count) for count in counts.values()),
                str(report.splits[split].utterances - report.splits[split].labelled[label_set]),
            ]
            for split, counts in histogram.items()
        ]
        screen.table(header, table, title=f"labels {report.dataset}/{label_set}")
    if report.modalities:
        screen.line()
        screen.table(
            [
                Column("modality"),
                Column("width", number=True),
                Column("split"),
                Column("missing", number=True),
                Column("blank values", number=True),
                Column("from", narrow="end"),
            ],
            [
                [modality, str(found.width), split, str(found.missing[split]), str(found.blanks[split]), name]
                for modality, found in report.modalities.items()
                for split, name in zip(found.missing, _files_by_split(found.files), strict=True)
            ],
        )
    screen.line()
    utterances = sum(found.utterances for found in report.splits.values())
    texts = f"{report.texts} of {utterances} utterances" if report.texts else "none"
    screen.pairs(
        [
            ("texts", texts),
            ("most speakers in a dialogue", str(report.most_speakers)),
            ("feature sets", ", ".join(f"{report.dataset}/{each}" for each in report.features)),
        ]
    )
    for note in report.notes:
        screen.warn(note)
    if report.passed_over:
        screen.warn(f"passed over: {', '.join(report.passed_over)}")
    if report.made_card:
        screen.line(
            "there was no card.toml, so a small one was made; to say whose the dialogues are and to order the classes, "
            "see: mer-bench new dataset NAME"
        )
    screen.exactly(f"kept in {report.raw}")
    screen.exactly(f"prepared: {report.store}")
    state = f"version {report.version}" if report.changed else f"version {report.version}, as it was before"
    screen.line(f"ready: {report.dataset}/{report.features[0]}, {state}", tone="good")
    screen.line(f"next: mer-bench run --model cmath --dataset {report.dataset}", tone="quiet")


def _files_by_split(files: Sequence[str]) -> list[str]:
    """The file of each of three splits, where one file may hold them all."""
    return list(files) if len(files) == 3 else [files[0]] * 3
