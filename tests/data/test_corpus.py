"""From a corpus to a store: what is left out, in which order, and what is fitted on train alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench.cards import DatasetCard
from mer_bench.data.corpus import Corpus, Measurements, make_store, speaker_indices
from mer_bench.data.preparation import PreparationRequest
from mer_bench.data.store import check_content
from mer_bench.errors import DataError

CARD = DatasetCard.model_validate(
    {
        "title": "Talks",
        "summary": "Made-up talks.",
        "entry": "reader:Talks",
        "licence": "none",
        "modalities": ["text", "audio"],
        "label_sets": {
            "context": {"title": "With context", "classes": ["calm", "glad"]},
            "alone": {"title": "Labelled alone", "classes": ["calm", "glad"], "unlabelled": "left out"},
        },
        "feature_sets": {"sound": {"title": "Sound", "summary": "Two values.", "widths": {"audio": 2}}},
        "protocols": {"official": {"title": "As drawn"}},
        "subsets": {"long": {"title": "Long", "summary": "Three utterances or more."}},
    }
)


def request(labels: str = "context", features: str = "sound") -> PreparationRequest:
    return PreparationRequest(features, labels, "official", None, {})


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    """Dialogues in any order of splits, each split labelled somewhere, values with blanks and missing rows."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=3, max_size=8))
    splits = [0, 1, 2, *draw(st.lists(st.integers(0, 2), min_size=len(lengths) - 3, max_size=len(lengths) - 3))]
    order = draw(st.permutations(range(len(lengths))))
    splits = [splits[place] for place in order]
    count = sum(lengths)
    firsts = set(np.cumsum([0, *lengths[:-1]]).tolist())
    labels = [draw(st.integers(0 if row in firsts else -1, 1)) for row in range(count)]
    values = np.array(draw(st.lists(st.integers(-9, 9), min_size=2 * count, max_size=2 * count)), dtype=float)
    values = values.reshape(count, 2)
    values[draw(st.lists(st.booleans(), min_size=count, max_size=count)), 1] = np.nan
    present = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    # One whole row in train, so that both columns have a value there.
    first = int(np.cumsum([0, *lengths])[splits.index(0)])
    values[first], present[first] = (1.0, 2.0), True
    return Corpus(
        dialogue_ids=[f"d{number}" for number in range(len(lengths))],
        lengths=lengths,
        splits=splits,
        utterance_ids=[f"u{row}" for row in range(count)],
        speakers=[draw(st.sampled_from("ABC")) for _ in range(count)],
        labels=labels,
        texts=[f"text {row}" for row in range(count)],
        measurements={"audio": Measurements(values, present, "a ruler", ("height", "width"))},
        subsets={"long": np.array([length > 2 for length in lengths])},
    )


@settings(deadline=None, max_examples=60)
@given(corpora())
def test_every_utterance_keeps_what_is_its_own(corpus: Corpus) -> None:
    content = make_store(corpus, CARD, request())
    check_content(content)
    assert sorted(content.utterance_ids) == sorted(corpus.utterance_ids)
    assert content.texts is not None
    assert corpus.texts is not None
    row_of = {name: row for row, name in enumerate(corpus.utterance_ids)}
    dialogue_of = corpus.dialogue_index
    owner = np.repeat(np.arange(len(content.dialogue_ids)), np.diff(content.offsets))
    for row, name in enumerate(content.utterance_ids):
        before = row_of[name]
        assert content.labels[row] == corpus.labels[before]
        assert content.texts[row] == corpus.texts[before]
        dialogue = int(dialogue_of[before])
        assert content.dialogue_ids[owner[row]] == corpus.dialogue_ids[dialogue]
        assert content.splits[owner[row]] == corpus.splits[dialogue]
        assert content.subsets["long"][owner[row]] == corpus.subsets["long"][dialogue]
        assert content.present["audio"][row] == corpus.measurements["audio"].present[before]


@settings(deadline=None, max_examples=40)
@given(corpora())
def test_values_are_standardised_on_train_alone(corpus: Corpus) -> None:
    content = make_store(corpus, CARD, request())
    audio = corpus.measurements["audio"]
    rows = [corpus.utterance_ids.index(name) for name in content.utterance_ids]
    train = (np.asarray(corpus.splits)[corpus.dialogue_index] == 0) & audio.present
    mean, deviation = np.nanmean(audio.values[train], axis=0), np.nanstd(audio.values[train], axis=0)
    deviation[deviation < 1e-12] = 1
    wanted = np.nan_to_num((audio.values[rows] - mean) / deviation) * audio.present[rows][:, None]
    assert content.features["audio"][:, :2] == pytest.approx(wanted, abs=1e-5)
    # Whatever happens in dev and test, train's features stay.
    other = audio.values.copy()
    other[np.asarray(corpus.splits)[corpus.dialogue_index] != 0] = 77.0
    changed = replace(corpus, measurements={"audio": replace(audio, values=other)})
    count = int((np.asarray(corpus.splits)[corpus.dialogue_index] == 0).sum())
    again = make_store(changed, CARD, request())
    assert np.array_equal(again.features["audio"][:count], content.features["audio"][:count])


@settings(deadline=None, max_examples=40)
@given(corpora())
def test_unlabelled_utterances_are_context_or_left_out(corpus: Corpus) -> None:
    kept = make_store(corpus, CARD, request("context"))
    alone = make_store(corpus, CARD, request("alone"))
    check_content(alone)
    assert (alone.labels >= 0).all()
    named = [name for name, label in zip(kept.utterance_ids, kept.labels.tolist(), strict=True) if label >= 0]
    assert list(alone.utterance_ids) == named


def test_dialogues_without_any_label_go_when_the_unlabelled_are_left_out() -> None:
    corpus = Corpus(
        dialogue_ids=["a", "b", "c"],
        lengths=[2, 1, 2],
        splits=[0, 0, 1],
        utterance_ids=["a1", "a2", "b1", "c1", "c2"],
        speakers=[4, 7, 7, 7, 4],
        labels=[-1, 1, -1, 0, -1],
        subsets={"long": np.array([True, False, True])},
    )
    left = corpus.labelled()
    assert (left.dialogue_ids, left.lengths, left.splits) == (["a", "c"], [1, 1], [0, 1])
    assert (left.utterance_ids, left.labels) == (["a2", "c1"], [1, 0])
    assert left.subsets["long"].tolist() == [True, True]


def test_speakers_are_numbered_by_first_appearance_in_each_dialogue() -> None:
    found = speaker_indices(["Ada", "Ben", "Ada", "Ben", "Cleo", "Ben"], [3, 3])
    assert found.tolist() == [0, 1, 0, 0, 1, 0]
    assert speaker_indices([], []).tolist() == []


def test_blanks_and_missing_rows_are_noted_where_there_are_any() -> None:
    values = np.array([[1.0, np.nan], [2.0, 3.0], [np.nan, np.nan], [4.0, 5.0]])
    corpus = Corpus(
        dialogue_ids=["a", "b", "c"],
        lengths=[2, 1, 1],
        splits=[0, 1, 2],
        utterance_ids=["1", "2", "3", "4"],
        speakers=["x"] * 4,
        labels=[0, 1, 0, 1],
        measurements={"audio": Measurements(values, np.array([True, True, False, True]), "a ruler", ("h", "w"))},
    )
    assert make_store(corpus, CARD, request()).notes == {
        "train: blanks of audio set to the train mean": {"w": 1},
        "dev: utterances without audio": 1,
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"measurements": {}}, "no values of the modality audio"),
        ({"splits": [1, 1, 2]}, "the train split of sound has no utterances"),
    ],
)
def test_what_is_not_there_is_named(changes: dict[str, Any], says: str) -> None:
    corpus = Corpus(
        dialogue_ids=["a", "b", "c"],
        lengths=[1, 1, 1],
        splits=[0, 1, 2],
        utterance_ids=["1", "2", "3"],
        speakers=["x"] * 3,
        labels=[0, 1, 0],
        measurements={"audio": Measurements(np.ones((3, 2)), np.ones(3, dtype=np.bool_), "a ruler")},
    )
    with pytest.raises(DataError, match=says):
        make_store(replace(corpus, **changes), CARD, request())


def test_an_encoder_needs_texts() -> None:
    features = CARD.feature_sets["sound"].model_copy(update={"widths": {"text": 0}, "text": ("tfidf",)})
    card = CARD.model_copy(update={"feature_sets": {"words": features}})
    corpus = Corpus(["a"], [1], [0], ["1"], ["x"], [0])
    with pytest.raises(DataError, match="words needs texts, which the dialogues do not have"):
        make_store(corpus, card, request(features="words"))
