"""What a leaderboard says, before it is a page: every format is written from a `Table` and from nothing else.

Scores are fractions in [0, 1]; a format multiplies by 100. None is a value that was not measured, and every format
shows it as a dash, never as a zero. `Table` as JSON is the `.json` of a leaderboard.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Setting = Literal["card settings", "tuned", "own settings", "external"]
"""Where the settings of a row come from."""


class TablePart(BaseModel):
    """A part of a table: frozen, and a key that no field has is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Key(TablePart):
    """Rows with different keys are never ranked together.

    Attributes:
        labels, features, protocol: Full ids: `meld/emotion`.
        condition: Name of the test condition, such as `only-text`; None: the complete test split.
        sources: SHA-256 of what the features were made from: another version of the data is another table.
    """

    dataset: str
    labels: str
    features: str
    protocol: str
    protocol_version: int
    modalities: tuple[str, ...]
    condition: str | None
    sources: str
    synthetic: bool


class Figure(TablePart):
    """A score of a row: the mean over its seeds, and how sure it is.

    Attributes:
        sd: Standard deviation between seeds; None with one seed.
        low, high: 95 % interval of the mean, where one was computed (weighted F1 alone).
    """

    mean: float
    sd: float | None
    low: float | None = None
    high: float | None = None


class ClassFigure(TablePart):
    """Mean scores of a class over the seeds."""

    precision: float
    recall: float
    f1: float
    f1_sd: float | None
    support: int


class Run(TablePart):
    """One record of a row: what a plot of the seeds or of the curves needs.

    Attributes:
        run: Name of its files; a reader finds the record by it.
        epoch: The chosen epoch; None under a protocol with folds and for external predictions.
        curve: By epoch: (epoch, train loss or None, dev value of the selection metric or None). Of folds, the first's.
        audit: By epoch: (epoch, test value of the selection metric), scored only after selection was frozen. Empty
            where the run was not audited.
        best_on_test: The score that the epoch chosen on test would have had.
    """

    run: str
    seed: int
    weighted_f1: float
    dev: float | None
    epoch: int | None
    curve: tuple[tuple[int, float | None, float | None], ...]
    audit: tuple[tuple[int, float], ...]
    best_on_test: float | None


class Row(TablePart):
    """One experiment: runs that differ in nothing but the seed.

    Attributes:
        label: Unique in the table; the model, and what tells it from other rows of the same model.
        rank: Of the group that no test separates from each other, from 1: 1, 1, 3, 4, 4, 6. None where the row
            cannot be ranked (fewer than ten dialogues).
        trials: Trials of the study that chose the settings, where they were tuned.
        overrides: Settings that somebody chose himself, as text: `layers=4`.
        selection_rule: How the epoch was chosen; of external predictions what their submitter states.
        failed: Runs of this experiment that failed, by seed: the reason.
        selection_gap: Mean of (score with the epoch chosen on test - score), where runs were audited.
        confusion: Summed over the seeds; rows true, columns predicted.
        parameters, train_seconds, memory_bytes, device, threads: Of one run; means over the seeds. None for external
            predictions that do not say. Several devices are joined by ", ".
        effect: Difference to the leader in standard deviations over dialogues, and the probability that the leader is
            better on a drawn dialogue; see `statistics`. None for the leader.
    """

    label: str
    model: str
    rank: int | None
    setting: Setting
    trials: int | None
    overrides: tuple[str, ...]
    selection_rule: str
    seeds: tuple[int, ...]
    failed: dict[int, str]
    weighted_f1: Figure
    dev: Figure | None
    accuracy: Figure
    macro_f1: Figure
    uar: Figure
    calibration_error: Figure | None
    emotion_shift_accuracy: Figure | None
    classes: dict[str, ClassFigure]
    confusion: tuple[tuple[int, ...], ...]
    selection_gap: Figure | None
    parameters: int | None
    train_seconds: float | None
    memory_bytes: int | None
    device: str | None
    threads: int | None
    effect_size: float | None
    superiority: float | None
    runs: tuple[Run, ...]


class FailedExperiment(TablePart):
    """An experiment of which no run was done: it has no row, and its reasons are shown all the same.

    Attributes:
        failed: By seed: the reason.
    """

    label: str
    model: str
    failed: dict[int, str]


class Pair(TablePart):
    """A tested pair of rows: each row with the leader and with its neighbour below.

    Attributes:
        difference, low, high: Mean weighted F1 of the first minus that of the second, with its 95 % interval.
        p_value: Two-sided. adjusted: After Holm's correction over all pairs of the table.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted: float


class Published(TablePart):
    """A published figure of the same dataset: shown apart, never ranked with measured rows.

    Attributes:
        value: In percent, as printed; None: unknown, and shown so.
        kind: Who measured: the model's own paper, another one's re-run, or a copy of somebody's figure.
        selection: How the epoch was selected: `test`, `dev` or `unknown`.
    """

    model: str
    metric: str
    value: float | None
    features: str
    kind: Literal["own", "re-run", "reprint", "derived", "unknown"]
    selection: Literal["test", "dev", "unknown"]
    source: str
    note: str = ""


class Curve(TablePart):
    """How a row's score falls when modalities are missing in test: from the tables of other test conditions.

    Attributes:
        rates: Share of missing modalities asked for; mean weighted F1 at each. The first is 0, the complete split.
        only: Mean weighted F1 with only some modalities, by the condition's name.
    """

    label: str
    rates: tuple[tuple[float, float], ...]
    only: dict[str, float]


class Table(TablePart):
    """A leaderboard: rows, best first, and all that their pages show."""

    schema_version: Literal[1] = 1
    key: Key
    name: str
    """Unique among the tables that are built together, and the name of its files."""
    classes: tuple[str, ...]
    test_dialogues: int
    test_utterances: int
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    resamples: int
    published: tuple[Published, ...]
    missing: tuple[Curve, ...]
    failed: tuple[FailedExperiment, ...] = ()


class AcrossDatasets(TablePart):
    """Mean ranks of the models that have a row in each of several tables, and what separates them.

    Attributes:
        tables: Names of the tables. models: Best mean rank first.
        ranks: (models, tables), 1 is best; ties share the mean of their places.
        friedman_p: Of the Friedman test (Iman and Davenport's F).
        critical_difference: Of Nemenyi's test at 5 %; models further apart in mean rank differ.
        cliques: Models that Nemenyi's test does not separate, as ranges of `models` (first, last).
        wilcoxon_pairs: Holm-corrected p-values of Wilcoxon's signed-rank test, pair by pair.
        verdict: In words, with the number of datasets that a test without a verdict would need.
    """

    tables: tuple[str, ...]
    models: tuple[str, ...]
    ranks: tuple[tuple[float, ...], ...]
    mean_ranks: tuple[float, ...]
    friedman_p: float | None
    critical_difference: float | None
    cliques: tuple[tuple[int, int], ...]
    wilcoxon_pairs: tuple[tuple[str, str, float], ...]
    verdict: str = ""


class Unscored(TablePart):
    """A leaderboard without a row: every run of its key failed. It has no page; the index tells of it."""

    name: str
    key: Key
    failed: tuple[FailedExperiment, ...]


class Boards(TablePart):
    """All tables that are built together, in the order of their names, and what compares models across them."""

    tables: tuple[Table, ...]
    across: AcrossDatasets | None
    unscored: tuple[Unscored, ...] = ()
