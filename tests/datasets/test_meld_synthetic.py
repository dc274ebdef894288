"""meld-synthetic: the shape of MELD, the same on every machine, and yardsticks that are right."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mer_bench_datasets.meld_synthetic import generator, reference
from mer_bench_datasets.meld_synthetic.generator import (
    CLASS_SHARES,
    CLASSES,
    LENGTHS,
    REACTION,
    SPEAKERS,
    WIDTHS,
    emotion_shares,
    generate,
    own_past,
)
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from mer_bench import registry
from mer_bench.api import PreparationRequest, StoreContent
from mer_bench.data.store import SPLITS
from mer_bench.errors import DataError, SettingError


@pytest.fixture(scope="module")
def content() -> StoreContent:
    made: StoreContent = generate()
    return made


@pytest.fixture(scope="module")
def scores(content: StoreContent) -> dict[str, reference.Reference]:
    found: dict[str, reference.Reference] = reference.references(content)
    return found


def lengths_of(content: StoreContent, split: int) -> list[int]:
    found: list[int] = np.diff(content.offsets)[content.splits == split].tolist()
    return found


def crowds_of(content: StoreContent, split: int) -> list[int]:
    return [
        int(content.speakers[content.offsets[d] : content.offsets[d + 1]].max()) + 1
        for d in np.flatnonzero(content.splits == split)
    ]


def check_consistent(content: StoreContent) -> None:
    rows = int(content.offsets[-1])
    assert content.offsets[0] == 0
    assert (np.diff(content.offsets) >= 1).all()
    assert (np.diff(content.splits.astype(int)) >= 0).all()
    assert set(content.splits.tolist()) == {0, 1, 2}
    assert len(content.dialogue_ids) == len(set(content.dialogue_ids)) == len(content.splits)
    assert len(content.utterance_ids) == len(set(content.utterance_ids)) == rows
    assert content.labels.shape == content.speakers.shape == (rows,)
    assert content.labels.dtype == content.speakers.dtype == np.int16
    assert content.labels.min() >= 0
    assert content.labels.max() < len(CLASSES)
    for name, width in WIDTHS.items():
        assert content.features[name].shape == (rows, width)
        assert content.features[name].dtype == np.float32
        assert content.present[name].shape == (rows,)
        assert content.present[name].dtype == np.bool_
        assert np.isfinite(content.features[name]).all()
        assert not content.features[name][~content.present[name]].any()
    for start, end in itertools.pairwise(content.offsets.tolist()):
        first_seen = list(dict.fromkeys(content.speakers[start:end].tolist()))
        assert first_seen == list(range(len(first_seen)))


class TestShape:
    def test_arrays_agree(self, content: StoreContent) -> None:
        check_consistent(content)

    def test_counts_are_the_cards(self, content: StoreContent) -> None:
        counts = registry.datasets().find("meld-synthetic").card.counts["official"]
        for index, split in enumerate(SPLITS):
            lengths = lengths_of(content, index)
            assert (len(lengths), sum(lengths)) == (counts[split].dialogues, counts[split].utterances)

    @pytest.mark.parametrize("split", [0, 1, 2])
    def test_lengths_and_speakers_are_melds(self, content: StoreContent, split: int) -> None:
        assert Counter(lengths_of(content, split)) == LENGTHS[split]
        assert Counter(crowds_of(content, split)) == SPEAKERS[split]

    def test_class_shares_are_near_melds(self, content: StoreContent) -> None:
        shares = np.bincount(content.labels, minlength=len(CLASSES)) / len(content.labels)
        assert np.abs(shares - CLASS_SHARES).max() < 0.015

    def test_modalities_are_missing_at_their_rates(self, content: StoreContent) -> None:
        for name, share in generator.MISSING.items():
            assert abs(1 - content.present[name].mean() - share) < 0.01

    def test_the_card_matches_the_arrays(self, content: StoreContent) -> None:
        card = registry.datasets().find("meld-synthetic").card
        assert card.synthetic
        assert card.label_sets["emotion"].classes == content.classes == CLASSES
        assert card.feature_sets["default"].widths == {name: value.shape[1] for name, value in content.features.items()}
        assert list(content.features) == list(card.modalities)

    @settings(max_examples=25, deadline=None)
    @given(dialogues=st.one_of(st.integers(1, 6), st.tuples(*[st.integers(1, 8)] * 3)), seed=st.integers(0, 2**63 - 1))
    def test_any_small_set_is_consistent(self, dialogues: int | tuple[int, int, int], seed: int) -> None:
        small = generate(dialogues=dialogues, seed=seed)
        check_consistent(small)
        wanted = [dialogues] * 3 if isinstance(dialogues, int) else list(dialogues)
        assert np.bincount(small.splits).tolist() == wanted

    @pytest.mark.parametrize("dialogues", [0, (1, 2), (3, 0, 3), (1, 1, -1), (1, 1, 1, 1)])
    def test_an_empty_split_is_refused(self, dialogues: int | tuple[int, ...]) -> None:
        with pytest.raises(DataError, match="dialogue or more"):
            generate(dialogues=dialogues)


class TestSeed:
    def test_every_machine_makes_the_same_arrays(self, content: StoreContent) -> None:
        digest = hashlib.sha256()
        for array in (
            content.labels.astype("<i2"),
            content.speakers.astype("<i2"),
            content.offsets.astype("<i8"),
            *(content.features[name].astype("<f4") for name in WIDTHS),
            *(content.present[name] for name in WIDTHS),
        ):
            digest.update(np.ascontiguousarray(array).tobytes())
        assert digest.hexdigest() == "a9169c154807db49983386842b261c47363f08e4b77b678ca9fbcd787a1d7565"

    def test_features_stand_on_the_grid(self, content: StoreContent) -> None:
        for values in content.features.values():
            steps = values.astype(np.float64) * generator.GRID
            assert (steps == np.rint(steps)).all()

    def test_another_seed_is_another_dialogue_of_the_same_world(self) -> None:
        one, two = generate((30, 2, 2), seed=1), generate((30, 2, 2), seed=2)
        assert one.labels.tolist() != two.labels.tolist()
        assert generate((30, 2, 2), seed=1).labels.tolist() == one.labels.tolist()
        # Centres learned under one seed tell the emotions under the other far better than chance.
        centres = [one.features["text"][one.labels == label].mean(axis=0) for label in (0, 4)]
        rows = np.isin(two.labels, (0, 4)) & two.present["text"]
        nearer = (two.features["text"][rows] @ (centres[1] - centres[0])) > 0
        assert balanced(two.labels[rows] == 4, nearer) > 0.6

    def test_one_split_does_not_depend_on_the_size_of_another(self) -> None:
        small, large = generate((2, 3, 4), seed=5), generate((9, 3, 4), seed=5)
        for split in ("dev", "test"):
            _, rows = reference._of_split(small, split)
            _, others = reference._of_split(large, split)
            np.testing.assert_array_equal(small.features["audio"][rows], large.features["audio"][others])
            np.testing.assert_array_equal(small.labels[rows], large.labels[others])

    def test_it_is_fast(self) -> None:
        started = time.perf_counter()
        generate()
        assert time.perf_counter() - started < 3


def balanced(true: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> float:
    return float((predicted[true].mean() + (~predicted[~true]).mean()) / 2)


class TestPlugin:
    def request(self, **options: object) -> PreparationRequest:
        return PreparationRequest("default", "emotion", "official", None, {}, options)

    def test_prepare_gives_the_published_counts(self, content: StoreContent) -> None:
        made = registry.load_dataset("meld-synthetic").prepare(self.request())
        np.testing.assert_array_equal(made.features["visual"], content.features["visual"])
        assert made.settings["seed"] == generator.SEED

    def test_an_option_is_refused(self) -> None:
        with pytest.raises(SettingError, match="vectors"):
            registry.load_dataset("meld-synthetic").prepare(self.request(vectors="glove.txt"))


class TestGeneratingModel:
    def test_reactions_leave_the_class_shares(self) -> None:
        np.testing.assert_allclose(REACTION.sum(axis=1), 1, atol=1e-12)
        np.testing.assert_allclose(CLASS_SHARES.sum(), 1, atol=1e-12)
        np.testing.assert_allclose(CLASS_SHARES @ REACTION, CLASS_SHARES, atol=6e-4)

    def test_own_past_is_the_last_turn_within_memory(self) -> None:
        assert own_past([0], 0) is None
        assert own_past([0, 1, 0], 2) == 0
        assert own_past([0, 0, 1, 0], 3) == 1
        assert own_past([0, *[1] * 5, 0], 6) == 0
        assert own_past([0, *[1] * 6, 0], 7) is None

    def test_emotions_follow_the_written_shares(self) -> None:
        """Transitions counted over many dialogues equal the model's own probabilities."""
        many = generate((4000, 1, 1), seed=11)
        seen = np.zeros((7, 7, 7))  # own last, previous, now
        for start, end in itertools.pairwise(many.offsets.tolist()):
            who, felt = many.speakers[start:end].tolist(), many.labels[start:end].tolist()
            for turn in range(len(who)):
                past = own_past(who, turn)
                if past is not None and past < turn - 1:
                    seen[felt[past], felt[turn - 1], felt[turn]] += 1
        own, react = emotion_shares([0, 1, 0], 2)
        for a, b in ((0, 0), (0, 4), (4, 0), (6, 0), (4, 1)):
            expected = own * np.eye(7)[a] + react * REACTION[b] + (1 - own - react) * CLASS_SHARES
            total = seen[a, b].sum()
            assert total > 100
            assert (np.abs(seen[a, b] / total - expected) < 4 * np.sqrt(expected / total) + 0.01).all()


class TestReferences:
    def test_the_readme_prints_them(self, scores: dict[str, reference.Reference]) -> None:
        readme = (Path(generator.__file__).parent / "README.md").read_text(encoding="utf-8")
        printed = re.search(r"\| --- \| --- \| --- \|\n((?:\|.*\n)+)<!-- end -->", readme)
        assert printed
        assert printed[1].strip() == reference.table(scores)

    def test_modalities_are_unequal_and_context_helps(self, scores: dict[str, reference.Reference]) -> None:
        f1 = {name: score.weighted_f1 for name, score in scores.items()}
        assert f1["text alone"] > f1["audio alone"] + 0.05 > f1["visual alone"] + 0.1
        assert f1["text, audio and visual"] > f1["text alone"] + 0.08
        assert f1["text, audio and visual with the dialogue"] > f1["text, audio and visual"] + 0.08
        assert f1["text, audio and visual with the dialogue"] > f1["text with the dialogue"] + 0.08
        ahead = f1["text, audio and visual with the dialogue"] - f1["text, audio and visual with what came before"]
        assert ahead > 0.02

    def test_scores_agree_with_scikit_learn(
        self, content: StoreContent, scores: dict[str, reference.Reference]
    ) -> None:
        _, rows = reference._of_split(content, "test")
        predicted = reference.posteriors(content, "test", ["text"], "whole").argmax(axis=1)
        true = content.labels[rows]
        score = scores["text with the dialogue"]
        assert score.accuracy == pytest.approx(accuracy_score(true, predicted))
        assert score.weighted_f1 == pytest.approx(f1_score(true, predicted, average="weighted", zero_division=0))

    def test_posteriors_are_calibrated(self, content: StoreContent) -> None:
        """A right posterior expects its own accuracy: the mean of its maximum is the share it gets right."""
        for context in ("none", "past", "whole"):
            chances = reference.posteriors(content, "train", ["text", "audio", "visual"], context)
            _, rows = reference._of_split(content, "train")
            right = (chances.argmax(axis=1) == content.labels[rows]).mean()
            assert chances.max(axis=1).mean() == pytest.approx(right, abs=0.015)

    @settings(max_examples=40, deadline=None)
    @given(who=st.lists(st.integers(0, 3), min_size=1, max_size=5), seed=st.integers(0, 1000))
    def test_smoothing_equals_summing_over_every_course(self, who: list[int], seed: int) -> None:
        evidence = np.random.default_rng(seed).random((len(who), 7)) ** 4
        check_against_enumeration(who, evidence)

    def test_smoothing_forgets_like_the_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(generator, "MEMORY", 2)
        monkeypatch.setattr(reference, "MEMORY", 2)
        random = np.random.default_rng(3)
        for who in ([0, 1, 2, 0, 1], [0, 1, 1, 2, 0], [0, 1, 0, 2, 1]):
            check_against_enumeration(who, random.random((5, 7)) ** 4)


def check_against_enumeration(who: list[int], evidence: NDArray[np.float64]) -> None:
    whole, past = np.zeros_like(evidence), np.zeros_like(evidence)
    courses = {turn: np.zeros((7,) * (turn + 1)) for turn in range(len(who))}
    for turn, table in courses.items():
        before = courses[turn - 1] if turn else np.ones(())
        for felt in np.ndindex(table.shape):
            own, react = emotion_shares(who, turn)
            last = own_past(who, turn)
            chance = (1 - own - react) * CLASS_SHARES[felt[-1]]
            if own and last is not None:
                chance += own * (felt[last] == felt[-1])
            if react:
                chance += react * REACTION[felt[-2], felt[-1]]
            table[felt] = before[felt[:-1]] * chance * evidence[turn, felt[-1]]
        past[turn] = table.sum(axis=tuple(range(turn)))
    final = courses[len(who) - 1]
    for turn in range(len(who)):
        whole[turn] = final.sum(axis=tuple(axis for axis in range(len(who)) if axis != turn))
    for expected, everything in ((whole, True), (past, False)):
        found = reference._smoothed(who, evidence, everything)
        np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)
