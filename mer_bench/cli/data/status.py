"""`mer-bench data status`: which files and stores are on this machine."""

from __future__ import annotations

from dataclasses import asdict

from mer_bench.cli.options import DataRoot, Debug, Json


def show_status(data_root: DataRoot = None, as_json: Json = False, debug: Debug = False) -> None:
    """Show which files and stores are on this machine.

    \b
    Example:
      mer-bench data status
    """
    from mer_bench.cli.console import Column, Screen, Tone, size_text
    from mer_bench.data.preparation import status
    from mer_bench.locations import data_root as data_root_of

    screen = Screen(quiet_output=as_json)
    root = data_root_of(data_root)
    found = status(root)
    if as_json:
        screen.answer({"data_root": root, "datasets": [asdict(each) for each in found]})
        return
    rows: list[list[str]] = []
    tones: dict[int, Tone] = {}
    problems: list[str] = []
    for dataset in found:
        for features in dataset.features:
            count = len(features.found) + len(features.missing)
            files = f"{len(features.found)} of {count}" if count else "none needed"
            if not features.stores:
                rows.append([f"{dataset.dataset}/{features.features}", files, "not prepared", ""])
                tones[len(rows) - 1] = "quiet"
            for store in features.stores:
                fold = "" if store.key.fold is None else f", fold {store.key.fold}"
                state = "damaged" if store.problem else f"{store.key.labels}, {store.key.protocol}{fold}"
                rows.append([f"{dataset.dataset}/{features.features}", files, state, size_text(store.bytes)])
                if store.problem:
                    tones[len(rows) - 1] = "bad"
                    problems.append(store.problem)
    columns = [Column("feature set"), Column("files"), Column("prepared", narrow="end"), Column("size", number=True)]
    screen.table(columns, rows, tones=tones)
    screen.exactly(f"data folder: {root}")
    for problem in problems:
        screen.warn(problem)
