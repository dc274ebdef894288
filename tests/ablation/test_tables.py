"""Records → tables: means and spreads by hand, and what is compared with what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.ablation.tables import Mean, make_row, make_table
from mer_bench.metrics import score
from mer_bench.predictions import Predictions, write_predictions
from mer_bench.records import Condition, PredictionsFile, Record, predictions_file, record_folder
from mer_bench.statistics import adjust_holm, compare

MODEL = "f" * 64


def predicted(errors: int, dialogues: int = 20, seed: int = 0) -> Predictions:
    """Five utterances a dialogue, so many of which are wrong."""
    random = np.random.default_rng(seed)
    true = random.integers(0, 3, dialogues * 5)
    wrong = random.permutation(dialogues * 5)[:errors]
    guess = true.copy()
    guess[wrong] = (guess[wrong] + 1) % 3
    return Predictions(
        classes=("calm", "glad", "cross"),
        ids=[f"u{row}" for row in range(dialogues * 5)],
        dialogues=[f"d{row // 5}" for row in range(dialogues * 5)],
        positions=np.arange(dialogues * 5, dtype=np.int32) % 5,
        speakers=np.zeros(dialogues * 5, np.int16),
        true=true.astype(np.int16),
        predicted=guess.astype(np.int16),
        log_probabilities=None,
    )


class Shelf:
    """Records with made-up predictions, written where the tables look for them."""

    def __init__(self, base: Record, out: Path) -> None:
        self.base, self.out = base, out

    def add(self, name: str, made: Predictions, seed: int = 0, condition: Condition | None = None) -> Record:
        folder = record_folder(self.out, self.base)
        folder.mkdir(parents=True, exist_ok=True)
        file = predictions_file(folder, name)
        checksum = write_predictions(file, made)
        changed = {
            "run": name,
            "seed": seed,
            "dev": score(predicted(30)),
            "test": score(made),
            "predictions": PredictionsFile(file=file.name, sha256=checksum, utterances=made.utterances),
            "test_condition": condition,
        }
        return Record(**dict(self.base) | changed)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    from tests.test_records import record

    return Shelf(record(predicted(0)), tmp_path)


def random_condition(mask: int) -> Condition:
    return Condition(name="missing-0.3", present=("text", "audio"), rate=0.3, reached=0.31, mask=mask, model_of=MODEL)


def test_mean_and_spread() -> None:
    found = Mean.of([0.2, 0.4])
    assert found.mean == pytest.approx(0.3)
    assert found.spread == pytest.approx(0.1414, abs=1e-4)
    assert found.each == (0.2, 0.4)
    assert Mean.of([0.2]).spread is None


def test_masks_are_averaged_within_a_seed_and_their_spread_is_kept(shelf: Shelf) -> None:
    runs = [
        [shelf.add(f"s{seed}m{mask}", predicted(10 * mask + seed), seed, random_condition(mask)) for mask in (1, 2)]
        for seed in (0, 1)
    ]
    each = [[run.test.weighted_f1 for run in seed if run.test] for seed in runs]
    row = make_row("missing-0.3", runs)
    assert row.test.each == tuple(np.mean(values) for values in each)
    assert row.test.spread == pytest.approx(np.std(row.test.each, ddof=1))
    assert row.between_masks == pytest.approx(np.mean([np.std(values, ddof=1) for values in each]))
    assert (row.reached, row.seeds) == (0.31, (0, 1))


def test_each_row_is_compared_with_the_whole_and_corrected_for_the_others(shelf: Shelf) -> None:
    whole = make_row("whole", [[shelf.add("whole", predicted(10))]])
    rows = [make_row(name, [[shelf.add(name, predicted(errors))]]) for name, errors in (("a", 14), ("b", 60))]
    table = make_table("settings", whole, rows, ["a note."], shelf.out)
    from mer_bench.metrics import count_dialogues

    against = count_dialogues(predicted(10))
    expected = [compare([count_dialogues(predicted(errors))], [against]) for errors in (14, 60)]
    assert [row.difference for row in table.rows] == expected
    assert [row.p_value for row in table.rows] == adjust_holm([each.p_value for each in expected])
    assert table.rows[1].p_value == pytest.approx(2 * expected[1].p_value)
    assert table.notes == ("a note.",)


def test_conditions_are_compared_with_the_very_models_that_they_are_of(shelf: Shelf) -> None:
    errors = {0: 5, 1: 35}
    whole = make_row("whole", [[shelf.add(f"w{seed}", predicted(errors[seed]), seed)] for seed in (0, 1)])
    only = Condition(name="only-text", present=("text",), model_of=MODEL)
    both = make_row("only-text", [[shelf.add(f"o{seed}", predicted(errors[seed] + 8), seed, only)] for seed in (0, 1)])
    paired = make_table("missing", whole, [both], [], shelf.out).rows[0].difference
    apart = make_table("settings", whole, [both], [], shelf.out).rows[0].difference
    assert paired
    assert apart
    assert paired.high - paired.low < (apart.high - apart.low) / 3  # what the seed does to both is no chance
    # A seed that failed under the condition is left out of the whole too.
    late = replace(both, runs=both.runs[1:])
    found = make_table("missing", whole, [late], [], shelf.out).rows[0].difference
    assert found
    assert found.seeds == (1, 1)
    alone = replace(whole, runs=whole.runs[1:])
    assert found.difference == pytest.approx(Mean.of([score(predicted(43)).weighted_f1]).mean - _test(alone.runs[0][0]))


def _test(record: Record) -> float:
    assert record.test
    return record.test.weighted_f1


def test_with_too_few_dialogues_the_scores_stand_alone(shelf: Shelf) -> None:
    whole = make_row("whole", [[shelf.add("whole", predicted(5, dialogues=9))]])
    row = make_row("a", [[shelf.add("a", predicted(9, dialogues=9))]])
    (found,) = make_table("settings", whole, [row], [], shelf.out).rows
    assert (found.difference, found.p_value) == (None, None)
    assert found.test.mean < whole.test.mean
