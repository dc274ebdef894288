"""Two rows compared: what is said of them comes from their records, and rows of different tables are refused."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from mer_bench.errors import RequestError, UnknownNameError
from mer_bench.leaderboard.building import outline
from mer_bench.leaderboard.comparing import Comparison, chosen_pair, compare_experiments, rows_called
from mer_bench.leaderboard.gathering import gather
from mer_bench.metrics import count_dialogues, score
from mer_bench.statistics import compare
from tests.leaderboard.runs import predictions, write_failure, write_run


def compared(folder: Path, first: str, second: str) -> Comparison:
    outlines = outline(gather([folder]))
    return compare_experiments(
        *chosen_pair(rows_called(outlines, first), rows_called(outlines, second), (first, second))
    )


@pytest.mark.parametrize("counts", [False, True], ids=["predictions", "dialogue counts"])
def test_a_comparison_by_hand(tmp_path: Path, counts: bool) -> None:
    for seed in (0, 1):
        write_run(tmp_path, 0.5, counts=counts, model="low", seed=seed)
        write_run(tmp_path, 0.8, counts=counts, model="high", seed=seed)
    found = compared(tmp_path, "low", "high")
    assert (found.first.label, found.second.label) == ("high", "low")
    high, low = ([predictions(right, seed) for seed in (0, 1)] for right in (0.8, 0.5))
    assert found.first.score == pytest.approx(statistics.fmean(score(each).weighted_f1 for each in high))
    assert found.difference == compare(*([count_dialogues(each) for each in runs] for runs in (high, low)))
    for each in found.classes:
        wanted = [statistics.fmean(score(run).classes[each.name].f1 for run in runs) for runs in (high, low)]
        assert (each.first, each.second) == pytest.approx(wanted)
    assert len(found.dialogues) == found.test_dialogues == 12
    for told in found.dialogues:
        rows = [at for at, name in enumerate(high[0].dialogues) if name == told.dialogue]
        right = [
            statistics.fmean(int(np.sum(run.true[rows] == run.predicted[rows])) for run in runs) for runs in (high, low)
        ]
        assert (told.first, told.second, told.utterances) == (*right, 5)
    values = [each.contribution for each in found.dialogues]
    assert values == sorted(values, reverse=True)
    assert compared(tmp_path, "high", "low") == found


def test_with_nine_dialogues_the_rest_is_told_all_the_same(tmp_path: Path) -> None:
    for model, right in (("low", 0.5), ("high", 0.8)):
        write_run(tmp_path, right, model=model, dialogues=9)
    found = compared(tmp_path, "high", "low")
    assert (found.difference, found.effect, found.is_separated) == (None, None, False)
    assert len(found.dialogues) == 9
    assert len(found.classes) == 3


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    write_run(tmp_path, model="gru")
    write_run(tmp_path, model="lstm", protocol="talks/other")
    write_failure(tmp_path, model="broken")
    with pytest.raises(RequestError, match=r"no leaderboard in common and cannot be compared.*differ in protocol"):
        compared(tmp_path, "gru", "lstm")
    with pytest.raises(UnknownNameError, match=r"no row or model is called 'gur'. Did you mean 'gru'"):
        compared(tmp_path, "gur", "lstm")
    with pytest.raises(RequestError, match=r"every run of broken in .* failed: .*the loss became NaN"):
        compared(tmp_path, "broken", "gru")
    with pytest.raises(RequestError, match="are the same row"):
        compared(tmp_path, "gru", "gru")
    write_run(tmp_path, model="gru", protocol="talks/other")
    write_run(tmp_path, model="lstm")
    with pytest.raises(RequestError, match=r"together in 2 leaderboards: .*Choose one with --dataset"):
        compared(tmp_path, "gru", "lstm")


def test_a_model_with_several_rows_is_asked_for_by_label(tmp_path: Path) -> None:
    write_run(tmp_path, model="gru")
    write_run(tmp_path, 0.7, model="gru", settings={"width": 32}, options={"settings": {"width": 32}})
    write_run(tmp_path, model="lstm")
    labels = sorted(each.label for each in outline(gather([tmp_path]))[0].experiments if each.first.model == "gru")
    assert len(labels) == 2
    if "gru" not in labels:
        with pytest.raises(RequestError, match=r"has 2 rows of gru: .* Name one of them"):
            compared(tmp_path, "gru", "lstm")
    assert compared(tmp_path, labels[0], labels[1]).test_dialogues == 12
