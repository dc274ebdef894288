"""Leaderboards made by hand, with every part that a page can show."""

from __future__ import annotations

import math

from mer_bench.leaderboard.table import (
    AcrossDatasets,
    Boards,
    ClassFigure,
    Curve,
    Figure,
    Key,
    Pair,
    Published,
    Row,
    Run,
    Table,
)

CLASSES = ("neutral", "joy", "fear")

HOSTILE = (
    "</script><script>alert('x')</script><img src=x onerror=alert(1)> & \"quotes\" ${name} `"
    "\N{RIGHT-TO-LEFT OVERRIDE}<!--"
)
"""What a name may hold at worst."""


def make_key(dataset: str = "meld", condition: str | None = None, synthetic: bool = False) -> Key:
    return Key(
        dataset=dataset,
        labels=f"{dataset}/emotion",
        features=f"{dataset}/transcripts",
        protocol=f"{dataset}/official",
        protocol_version=1,
        modalities=("text", "audio"),
        condition=condition,
        sources="0123456789abcdef" * 4,
        synthetic=synthetic,
    )


def make_row(
    label: str,
    mean: float,
    rank: int | None,
    *,
    seeds: int = 3,
    audited: bool = False,
    cost: float | None = 1.0,
    epochs: int = 6,
    **changes: object,
) -> Row:
    """A row whose other scores follow from its weighted F1; with `cost` None nothing is known of its cost."""
    runs = tuple(
        Run(
            run=f"{label}.seed{seed}",
            seed=seed,
            weighted_f1=mean + 0.004 * (seed - (seeds - 1) / 2),
            dev=mean - 0.01,
            epoch=min(4, epochs),
            curve=tuple((e, 2.0 / e, mean * (1 - math.exp(-e)) + 0.001 * seed) for e in range(1, epochs + 1)),
            audit=tuple((e, mean * (1 - math.exp(-e)) + 0.01) for e in range(1, epochs + 1)) if audited else (),
            best_on_test=mean + 0.015 if audited else None,
        )
        for seed in range(seeds)
    )
    sd = 0.004 if seeds > 1 else None

    def figure(value: float) -> Figure:
        return Figure(mean=value, sd=sd)

    row = Row(
        label=label,
        model=label.partition(" ")[0] or "unnamed",
        rank=rank,
        setting="card settings",
        trials=None,
        overrides=(),
        selection_rule="highest dev weighted F1",
        seeds=tuple(range(seeds)),
        failed={},
        weighted_f1=Figure(mean=mean, sd=sd, low=mean - 0.02, high=mean + 0.02),
        dev=figure(mean - 0.01),
        accuracy=figure(1 - mean),  # falls as the weighted F1 rises, so that sorting by it shows
        macro_f1=figure(mean - 0.2),
        uar=figure(mean - 0.21),
        calibration_error=figure(0.05),
        emotion_shift_accuracy=figure(mean - 0.1),
        classes={
            name: ClassFigure(precision=0.5, recall=0.5, f1=f1, f1_sd=0.01, support=100)
            for name, f1 in zip(CLASSES, (0.8, mean / 2, 0.0), strict=True)
        },
        confusion=((80, 15, 5), (30, 60, 10), (70, 30, 0)),
        selection_gap=figure(0.015) if audited else None,
        parameters=None if cost is None else round(10_000 * cost),
        train_seconds=None if cost is None else 3.0 * cost,
        memory_bytes=None if cost is None else round(2e8 * cost),
        device=None if cost is None else "cpu",
        threads=None if cost is None else 1,
        effect_size=None,
        superiority=None,
        runs=runs,
    )
    return row.model_copy(update=changes)


def make_table(*rows: Row, name: str = "meld.emotion", **changes: object) -> Table:
    """A table of some rows, best first; without any, of six rows in three rank groups and with every other part."""
    found = rows or (
        make_row("mmdfn", 0.60, 1, cost=20, audited=True),
        make_row("cmath (tuned)", 0.595, 1, cost=8, setting="tuned", trials=50),
        make_row("mmgcn", 0.57, 3, cost=9, overrides=("layers=4",), setting="own settings"),
        make_row("logistic", 0.56, 3, cost=0.0001, failed={3: "the loss became nan in epoch 2"}),
        make_row("my system", 0.55, 3, seeds=1, cost=None, setting="external", epochs=0),
        make_row("majority", 0.31, 6, cost=0, seeds=3),
    )
    leader = found[0]
    table = Table(
        key=make_key(),
        name=name,
        classes=CLASSES,
        test_dialogues=280,
        test_utterances=2610,
        rows=found,
        pairs=tuple(make_pair(leader, row) for row in found[1:]),
        resamples=10_000,
        published=() if rows else PUBLISHED,
        missing=() if rows else MISSING,
    )
    return table.model_copy(update=changes)


def make_pair(first: Row, second: Row) -> Pair:
    """Their difference, separated exactly where their ranks differ."""
    difference = first.weighted_f1.mean - second.weighted_f1.mean
    p_value = 0.4 if first.rank == second.rank else 0.002
    return Pair(
        first=first.label,
        second=second.label,
        difference=difference,
        low=difference - 0.02,
        high=difference + 0.02,
        p_value=p_value,
        adjusted=p_value,
    )


PUBLISHED = (
    Published(
        model="CMATH",
        metric="weighted F1",
        value=None,
        features="",
        kind="unknown",
        selection="unknown",
        source="no public code",
    ),
    Published(
        model="MMGCN",
        metric="weighted F1",
        value=58.31,
        features="GloVe",
        kind="reprint",
        selection="test",
        source="M3Net, Table 2, https://example.org/m3net?a=1&b=2.",
        note="copied from <elsewhere>",
    ),
)

MISSING = (
    Curve(label="mmdfn", rates=((0.0, 0.60), (0.3, 0.55), (0.5, 0.50)), only={"only-text": 0.58, "only-audio": 0.38}),
    Curve(label="mmgcn", rates=((0.0, 0.57), (0.3, 0.54), (0.5, 0.51)), only={"only-text": 0.56}),
)

ACROSS = AcrossDatasets(
    tables=("meld.emotion", "iemocap.six"),
    models=("mmdfn", "cmath", "mmgcn", "majority"),
    ranks=((1.0, 2.0), (2.0, 1.0), (3.0, 3.0), (4.0, 4.0)),
    mean_ranks=(1.5, 1.5, 3.0, 4.0),
    friedman_p=0.02,
    critical_difference=2.1,
    cliques=((0, 2), (2, 3)),
    wilcoxon_pairs=(("mmdfn", "majority", 0.03),),
)


def make_boards() -> Boards:
    """Three leaderboards of two datasets, and what compares models across them."""
    return Boards(
        tables=(
            make_table(
                make_row("cmath", 0.7, 1), make_row("mmgcn", 0.6, 2), name="iemocap.six", key=make_key("iemocap")
            ),
            make_table(),
            make_table(make_row("textonly", 0.5, 1), name="meld.text", key=make_key(condition="only-text")),
        ),
        across=ACROSS,
    )
