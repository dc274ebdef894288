"""For each check of a dataset: one that breaks that promise and no other, and is found out."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench.api import Dataset, DatasetCard, PreparationRequest, StoreContent
from mer_bench.registry import Plugin
from mer_bench.testing import DATASET_CHECKS, CheckResult, DatasetSubject

CARD: dict[str, Any] = {
    "title": "Sample",
    "summary": "Random talk.",
    "entry": "reader:Sample",
    "licence": "public domain",
    "modalities": ["text", "audio"],
    "label_sets": {
        "mood": {"title": "Mood", "classes": ["good", "bad", "none"]},
        "tone": {"title": "Tone", "classes": ["high", "low"]},
    },
    "feature_sets": {
        "plain": {"title": "Plain", "summary": "Numbers.", "widths": {"text": 6, "audio": 0}},
        "rich": {"title": "Rich", "summary": "Needs a file.", "widths": {"text": 6, "audio": 0}, "needs": ["vectors"]},
    },
    "protocols": {"official": {"title": "Official"}},
    "counts": {
        "official": {
            "train": {"dialogues": 6, "utterances": 30},
            "dev": {"dialogues": 3, "utterances": 15},
            "test": {"dialogues": 3, "utterances": 15},
        }
    },
}


class Sample(Dataset):
    """Twelve random dialogues of five turns; audio is standardised on train and partly missing."""

    def prepare(self, request: PreparationRequest) -> StoreContent:
        generator = np.random.default_rng(0)
        rows, train = 60, np.arange(60) < 30
        present = {"text": np.ones(rows, dtype=bool), "audio": generator.random(rows) > 0.2}
        audio = generator.normal(3, 2, (rows, 4))
        base = audio[train & present["audio"]] if self.statistics_from_train() else audio[present["audio"]]
        audio = (audio - base.mean(axis=0)) / base.std(axis=0) * present["audio"][:, None]
        classes = self.card.label_sets[request.labels].classes
        return StoreContent(
            features={
                "text": generator.normal(size=(rows, 6)).astype(np.float32),
                "audio": audio.astype(np.float32),
            },
            present=present,
            speakers=np.tile(np.array([0, 1, 0, 2, 1], dtype=np.int16), 12),
            labels=(np.arange(rows) % len(classes)).astype(np.int16),
            utterance_ids=[f"u{row}" for row in range(rows)],
            dialogue_ids=[f"d{index}" for index in range(12)],
            offsets=np.arange(0, rows + 1, 5, dtype=np.int64),
            splits=np.repeat(np.arange(3, dtype=np.uint8), [6, 3, 3]),
            classes=classes,
        )

    def statistics_from_train(self) -> bool:
        return True


class StatisticsFromAll(Sample):
    def statistics_from_train(self) -> bool:
        return False


class NeverTheSame(Sample):
    count = 0

    def prepare(self, request: PreparationRequest) -> StoreContent:
        NeverTheSame.count += 1
        content = super().prepare(request)
        text = content.features["text"] + np.float32(NeverTheSame.count)
        return replace(content, features={**content.features, "text": text})


def changed(**changes: Callable[[StoreContent], Any]) -> type[Dataset]:
    """A sample dataset some of whose arrays are made from the sound ones."""

    class Changed(Sample):
        def prepare(self, request: PreparationRequest) -> StoreContent:
            content = super().prepare(request)
            return replace(content, **{name: change(copy.deepcopy(content)) for name, change in changes.items()})

    return Changed


def put(values: Any, index: Any, value: Any) -> Any:
    """The array or list with one entry replaced."""
    values = list(values) if isinstance(values, list) else np.array(values)
    values[index] = value
    return values


def subject(dataset: type[Dataset] = Sample, **card: Any) -> tuple[DatasetSubject, Mapping[str, str]]:
    plugin = Plugin("sample", DatasetCard.model_validate({**CARD, **card}), "sample_shelf.sample", "sample")
    return DatasetSubject(plugin, dataset(plugin.card), Path("nowhere")), plugin.card.excused


def results(what: tuple[DatasetSubject, Mapping[str, str]]) -> dict[str, CheckResult]:
    """Every check except that of the folder, which needs one on disk and has tests of its own."""
    return {name: check.run(*what) for name, check in DATASET_CHECKS.items() if name != "folder"}


def test_sound_dataset_passes_every_check() -> None:
    assert {name: result for name, result in results(subject()).items() if result.status != "passed"} == {}


def test_every_label_set_is_prepared_and_no_set_that_needs_an_option() -> None:
    requests = subject()[0].requests()
    assert [(request.features, request.labels) for request in requests] == [("plain", "mood"), ("plain", "tone")]


def test_first_and_last_fold_are_prepared() -> None:
    requests = subject(protocols={"folds": {"title": "Folds", "folds": 5}}, counts={})[0].requests()
    assert [request.fold for request in requests] == [1, 5, 1]


def test_data_that_are_not_here_excuse_all_but_the_card(tmp_path: Path) -> None:
    source = {"name": "talk.csv", "repository": "a/b", "commit": "0" * 40, "path": "talk.csv", "sha256": "0" * 64}
    features = {"plain": {**CARD["feature_sets"]["plain"], "sources": ["talk.csv"]}}
    what = subject(sources=[source], feature_sets=features)
    found = results((replace(what[0], root=tmp_path), what[1]))
    assert found.pop("card").status == "passed"
    assert {result.status for result in found.values()} == {"excused"}
    assert "the data of sample are not on this machine" in found["arrays"].reason


PUBLISHED = {"name": "talk.csv", "repository": "a/b", "commit": "0" * 40, "path": "talk.csv", "sha256": "0" * 64}
PLAIN = CARD["feature_sets"]["plain"]
Subject = tuple[DatasetSubject, Mapping[str, str]]

BROKEN: list[tuple[str, Callable[[], Subject], str]] = [
    ("card", lambda: subject(counts={}), "no counts of train, dev and test for the protocol official"),
    ("card", lambda: subject(licence=" "), "licence is empty"),
    ("card", lambda: subject(excused={"arrays": ""}), "without a reason"),
    ("card", lambda: subject(sources=[PUBLISHED]), "no feature set is made from the source talk.csv"),
    (
        "card",
        lambda: subject(protocols={"official": {"title": "Official", "selection": "accuracie"}}),
        "names the metric accuracie",
    ),
    (
        "card",
        lambda: subject(feature_sets={"plain": {**PLAIN, "modalities": ["text"], "widths": {"audio": 0, "text": 6}}}),
        "in the order text, audio",
    ),
    ("prepares", lambda: subject(changed(settings=lambda content: {"path": Path("x")})), "settings should be JSON"),
    ("prepares", lambda: subject(changed(notes=lambda content: {"share": float("nan")})), "notes should be JSON"),
    (
        "prepares",
        lambda: subject(changed(pipeline=lambda content: {"words": np.array(["a", None], dtype=object)})),
        "pipeline array words holds Python objects",
    ),
    (
        "arrays",
        lambda: subject(changed(offsets=lambda content: content.offsets[:-1])),
        "speakers should have 55 entries, but has 60",
    ),
    ("arrays", lambda: subject(changed(offsets=lambda content: put(content.offsets, 2, 5))), "no utterance"),
    (
        "arrays",
        lambda: subject(changed(splits=lambda content: content.splits[::-1])),
        "in the order train, dev, test",
    ),
    ("arrays", lambda: subject(changed(labels=lambda content: put(content.labels, 3, 7))), "labels should be whole"),
    (
        "arrays",
        lambda: subject(changed(labels=lambda content: np.where(np.arange(60) < 30, 0, content.labels))),
        "no train utterance has the label bad",
    ),
    (
        "arrays",
        lambda: subject(changed(labels=lambda content: np.where(np.arange(60) >= 45, -1, content.labels))),
        "no utterance of test has a label",
    ),
    (
        "arrays",
        lambda: subject(changed(speakers=lambda content: put(content.speakers, 5, 1))),
        "by first appearance, which they are not from u5 on",
    ),
    (
        "arrays",
        lambda: subject(changed(utterance_ids=lambda content: put(content.utterance_ids, 1, "u0"))),
        "utterance id occurs twice",
    ),
    (
        "arrays",
        lambda: subject(
            changed(features=lambda content: {**content.features, "audio": content.features["audio"] + np.float32(1)})
        ),
        "audio should be zero where it is not present",
    ),
    (
        "arrays",
        lambda: subject(
            changed(features=lambda content: {**content.features, "text": content.features["text"].astype(np.float64)})
        ),
        "float64",
    ),
    (
        "arrays",
        lambda: subject(changed(features=lambda content: {name: content.features[name] for name in ("audio", "text")})),
        "the modalities should be text, audio, but are audio, text",
    ),
    (
        "arrays",
        lambda: subject(
            changed(features=lambda content: {**content.features, "text": content.features["text"][:, :5]})
        ),
        "text should be 6 wide",
    ),
    ("arrays", lambda: subject(changed(classes=lambda content: content.classes[::-1])), "the classes should be"),
    (
        "counts",
        lambda: subject(counts={"official": {**CARD["counts"]["official"], "dev": {"dialogues": 3, "utterances": 16}}}),
        "dev should have 3 dialogues and 16 utterances, but has 3 and 15",
    ),
    (
        "splits-apart",
        lambda: subject(changed(dialogue_ids=lambda content: put(content.dialogue_ids, 11, "d0"))),
        "dialogue id occurs twice",
    ),
    (
        "splits-apart",
        lambda: subject(
            changed(
                features=lambda content: {
                    name: put(values, slice(55, 60), values[10:15]) for name, values in content.features.items()
                },
                present=lambda content: {
                    name: put(values, slice(55, 60), values[10:15]) for name, values in content.present.items()
                },
            )
        ),
        "d2 of train and d11 of test have the same features",
    ),
    ("train-statistics", lambda: subject(StatisticsFromAll), "audio is centred over all splits and not over train"),
    ("same-twice", lambda: subject(NeverTheSame), "different features of text"),
]


@pytest.mark.parametrize(("check", "broken", "message"), BROKEN, ids=[f"{name}-{text}" for name, _, text in BROKEN])
def test_broken_dataset_fails_that_check_alone(check: str, broken: Callable[[], Subject], message: str) -> None:
    found = {name: result.reason for name, result in results(broken()).items() if result.status == "failed"}
    assert list(found) == [check], found
    assert re.search(message, found[check]), found[check]


def test_every_check_has_a_broken_dataset() -> None:
    assert {name for name, _, _ in BROKEN} | {"folder"} == set(DATASET_CHECKS)
