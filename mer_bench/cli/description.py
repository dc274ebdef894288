"""How a prepared store's numbers look on a screen, and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mer_bench.cli.console import Column, Screen, percent

if TYPE_CHECKING:
    from mer_bench.data.description import StoreDescription, Tally
    from mer_bench.data.overlap import Overlap


def show_description(screen: Screen, description: StoreDescription) -> None:
    """Counts, label shares, lengths, speakers and gaps of each split, and what recurs from train."""
    splits = description.splits
    screen.table(
        [
            Column("split"),
            Column("dialogues", number=True),
            Column("utterances", number=True),
            Column("labelled", number=True),
            Column("utterances of a dialogue", narrow="wrap"),
            Column("speakers of a dialogue", narrow="wrap"),
        ],
        [
            [
                split,
                str(each.dialogues),
                str(each.utterances),
                str(each.labelled),
                tally_text(each.lengths),
                tally_text(each.speakers),
            ]
            for split, each in splits.items()
        ],
        title=f"Prepared on this machine: {description.key}",
    )
    screen.line()
    numbers = [Column(f"{split}{unit}", number=True) for split in splits for unit in ("", ", %")]
    screen.table(
        [Column("label", narrow="end"), *numbers],
        [
            [name, *_counts_and_shares([(each.labels[name], each.label_share(name)) for each in splits.values()])]
            for name in description.classes
        ],
    )
    screen.line()
    without = [("label", [(each.utterances - each.labelled, each.unlabelled_share) for each in splits.values()])]
    without += [
        (name, [(each.missing[name], each.missing_share(name)) for each in splits.values()])
        for name in description.widths
    ]
    screen.table(
        [Column("utterances without", narrow="end"), *numbers],
        [[name, *_counts_and_shares(found)] for name, found in without],
    )
    if description.overlaps:
        screen.line()
        screen.pairs(
            [(f"word for word in train, {_part(each)}", overlap_text(each)) for each in description.overlaps],
        )


def description_as_json(description: StoreDescription) -> dict[str, Any]:
    """The same numbers; shares are fractions in [0, 1], and None where there is nothing to divide."""
    key = description.key
    return {
        "features": key.features,
        "labels": key.labels,
        "protocol": key.protocol,
        "fold": key.fold,
        "classes": list(description.classes),
        "widths": dict(description.widths),
        "splits": {
            split: {
                "dialogues": each.dialogues,
                "utterances": each.utterances,
                "labelled": each.labelled,
                "labels": {
                    name: {"count": each.labels[name], "share": each.label_share(name)} for name in description.classes
                },
                "lengths": _tally_as_json(each.lengths),
                "speakers": _tally_as_json(each.speakers),
                "missing": {
                    name: {"count": each.missing[name], "share": each.missing_share(name)}
                    for name in description.widths
                },
            }
            for split, each in description.splits.items()
        },
        "overlap": [
            {**each.model_dump(mode="json"), "share": each.share, "share_with_dev": each.share_with_dev}
            for each in description.overlaps
        ],
    }


def tally_text(tally: Tally) -> str:
    """`1 to 24, median 9, mean 9.6`."""
    if not tally.counts:
        return "-"
    if tally.lowest == tally.highest:
        return f"always {tally.lowest}"
    return f"{tally.lowest} to {tally.highest}, median {tally.median:g}, mean {tally.mean:.1f}"


def overlap_text(overlap: Overlap) -> str:
    """`1.3 % (25 of 1895 utterances of four words or more)`."""
    from mer_bench.data.overlap import FEWEST_WORDS

    if overlap.share is None:
        return f"no utterance has {FEWEST_WORDS} words"
    compared = f"{overlap.in_train} of {overlap.compared} labelled utterances of {FEWEST_WORDS} words or more"
    return f"{percent(overlap.share)} % ({compared})"


def _part(overlap: Overlap) -> str:
    return f"{overlap.split}, {overlap.subset}" if overlap.subset else overlap.split


def _counts_and_shares(found: list[tuple[int, float | None]]) -> list[str]:
    return [text for count, share in found for text in (str(count), percent(share))]


def _tally_as_json(tally: Tally) -> dict[str, Any]:
    return {
        "min": tally.lowest,
        "median": tally.median,
        "mean": tally.mean,
        "max": tally.highest,
        "counts": {str(number): count for number, count in tally.counts.items()},
    }
