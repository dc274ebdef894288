"""`mer-bench data verify`: compare files and stores with their checksums."""

from __future__ import annotations

from mer_bench.cli.data.names import Dataset
from mer_bench.cli.options import DataRoot, Debug, Json


def verify_data(name: Dataset, data_root: DataRoot = None, as_json: Json = False, debug: Debug = False) -> None:
    """Compare files and stores with their checksums.

    Reads everything of the dataset in full.

    \b
    Example:
      mer-bench data verify meld
    """
    from mer_bench import registry
    from mer_bench.cli.console import Column, Screen
    from mer_bench.data.files import difference_from_pin
    from mer_bench.data.preparation import status
    from mer_bench.errors import DataError, MissingDataError
    from mer_bench.locations import data_root as data_root_of
    from mer_bench.locations import raw_folder

    plugin = registry.datasets(data_root).find(name)
    root = data_root_of(data_root)
    screen = Screen(quiet_output=as_json)
    rows: list[dict[str, str]] = []
    for source in plugin.card.sources:
        file = raw_folder(root, name) / source.name
        if not file.is_file():
            continue
        difference = difference_from_pin(file, source)
        problem = f"{file} is not the published file: {difference}. Delete it and bring it again." if difference else ""
        pinned = bool(source.sha256 or source.git_blob)
        rows.append(
            {
                "what": source.name,
                "state": "damaged" if problem else "good" if pinned else "not pinned",
                "problem": problem,
            }
        )
    for dataset in status(root, verify=True):
        if dataset.dataset == name:
            for store in [store for features in dataset.features for store in features.stores]:
                problem = store.problem or ""
                rows.append({"what": str(store.key), "state": "damaged" if problem else "good", "problem": problem})
    if not rows:
        raise MissingDataError(f"nothing of {name} is in {root}. See: mer-bench data status")
    if as_json:
        screen.answer({"dataset": name, "checked": rows})
    else:
        tones = {row: "bad" for row, each in enumerate(rows) if each["problem"]}
        screen.table([Column("what"), Column("state")], [[each["what"], each["state"]] for each in rows], tones=tones)  # type: ignore[arg-type]
    problems = [each["problem"] for each in rows if each["problem"]]
    if problems:
        more = f" ({len(problems) - 1} more are damaged.)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
