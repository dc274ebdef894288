"""Cards: a complete card is read, anything else is one sentence that names file and key."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mer_bench.cards import DatasetCard, ModelCard, parse_card, read_card
from mer_bench.errors import CardError

MODEL = """
title = "MMGCN"
summary = "A graph of modalities."
entry = "model:Mmgcn"
config = "config:MmgcnConfig"
modalities = ["text", "audio", "visual"]
needs = ["text"]
[paper]
title = "MMGCN: Multimodal Fusion"
venue = "ACL-IJCNLP"
year = 2021
[settings.default]
hidden_dim = 100
learning_rate = 3e-4
[settings.iemocap]
hidden_dim = 192
[reported.iemocap]
weighted_f1 = 0.6622
table = "Table 2"
features = "own"
[ablations.no-speaker]
question = "Do speakers help?"
settings = { speakers = false }
"""

DATASET = """
title = "Talks"
summary = "Conversations."
entry = "reader:Talks"
licence = "public domain"
modalities = ["text", "audio"]
[label_sets.mood]
title = "Mood"
classes = ["good", "bad"]
[feature_sets.words]
title = "Words"
summary = "Counts of words."
widths = { text = 5, audio = 0 }
sources = ["talks.csv"]
[protocols.official]
title = "Official"
[counts.official.train]
dialogues = 3
utterances = 9
[[sources]]
name = "talks.csv"
"""


def fault(text: str, kind: type[Any] = ModelCard) -> str:
    with pytest.raises(CardError) as caught:
        parse_card(text, kind, "models/x/card.toml")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_model_card_is_read_in_full() -> None:
    card = parse_card(MODEL, ModelCard, "card")
    assert card.modalities == ("text", "audio", "visual")
    assert card.paper is not None
    assert card.paper.year == 2021
    assert card.reported["iemocap"].weighted_f1 == 0.6622
    assert card.reported["iemocap"].accuracy is None
    assert card.ablations["no-speaker"].settings == {"speakers": False}
    assert (card.version, card.causal, card.uses_speakers, card.speaker_symmetric) == (1, False, True, False)


def test_settings_of_a_dataset_replace_those_of_every_dataset() -> None:
    card = parse_card(MODEL, ModelCard, "card")
    assert card.settings_for("iemocap") == {"hidden_dim": 192, "learning_rate": 3e-4}
    assert card.settings_for("meld") == {"hidden_dim": 100, "learning_rate": 3e-4}


def test_dataset_card_is_read_in_full() -> None:
    card = parse_card(DATASET, DatasetCard, "card")
    assert list(card.label_sets) == ["mood"]
    assert card.counts["official"]["train"].utterances == 9
    assert card.source("talks.csv").licence == "none stated"
    assert card.redistribute
    assert not card.synthetic


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('title = "MMGCN"\n', "", "models/x/card.toml is not a complete card: 'title': Field required."),
        ('summary = "A graph', 'summarry = 1\nsummary = "A graph', "'summarry': Extra inputs are not permitted."),
        ('"model:Mmgcn"', '"model"', "'entry': String should match pattern"),
        ('"model:Mmgcn"', '"../model:Mmgcn"', "'entry': String should match pattern"),
        ('"config:MmgcnConfig"', "3", "'config': Input should be a valid string"),
        ('["text", "audio", "visual"]', "[]", "'modalities': Tuple should have at least 1 item"),
        ('["text", "audio", "visual"]', '["Text"]', "'modalities.0': String should match pattern"),
        ('["text", "audio", "visual"]', '["text", "audio", "text"]', "'modalities': text is listed twice."),
        ('needs = ["text"]', 'needs = ["face"]', "needs lists face, which modalities does not."),
        ("year = 2021", "year = 21", "'paper.year': Input should be greater than or equal to 1950"),
        ("0.6622", "66.22", "'reported.iemocap.weighted_f1': Input should be less than or equal to 1"),
        ('table = "Table 2"\n', "", "'reported.iemocap.table': Field required"),
        ("no-speaker", "No_Speaker", "'ablations.No_Speaker.[key]': String should match pattern"),
        ('title = "MMGCN"\n', "version = 0\n", "'title': Field required (1 more)."),
    ],
)
def test_fault_of_a_model_card_is_one_sentence_with_the_key(old: str, new: str, expected: str) -> None:
    assert old in MODEL
    assert expected in fault(MODEL.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('classes = ["good", "bad"]', 'classes = ["good"]', "'label_sets.mood.classes': Tuple should have at least 2"),
        (
            'sources = ["talks.csv"]',
            'sources = ["talk.csv"]',
            "words is made from talk.csv, which sources does not list",
        ),
        ("audio = 0 }", "face = 0 }", "feature set words has face, which modalities does not list"),
        (
            "audio = 0 }",
            "audio = -1 }",
            "'feature_sets.words.widths.audio': Input should be greater than or equal to 0",
        ),
        ("[counts.official.train]", "[counts.loso.train]", "counts names protocol loso, which protocols does not list"),
        (
            "[counts.official.train]",
            "[counts.official.valid]",
            "'counts.official.valid.[key]': Input should be 'train'",
        ),
        ('licence = "public domain"\n', "", "'licence': Field required"),
        ('name = "talks.csv"', 'name = "talks.csv"\nsha256 = "abc"', "'sources.0.sha256': String should match pattern"),
        ("[label_sets.mood]", '[label_sets."my mood"]', "'label_sets.my mood.[key]': String should match pattern"),
    ],
)
def test_fault_of_a_dataset_card_is_one_sentence_with_the_key(old: str, new: str, expected: str) -> None:
    assert old in DATASET
    assert expected in fault(DATASET.replace(old, new, 1), DatasetCard)


def test_text_that_is_no_toml_is_named_with_its_line() -> None:
    assert "is not valid TOML" in fault(MODEL + "\n[paper")
    assert "line" in fault('title = "a\n')


@pytest.mark.parametrize("content", [b"\xff\xfe\x00t", "title = 'é'".encode("latin-1")], ids=["utf-16", "latin-1"])
def test_card_that_is_no_utf8_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "card.toml").write_bytes(content)
    with pytest.raises(CardError, match=r"card\.toml cannot be read: .*utf-8"):
        read_card(tmp_path / "card.toml", ModelCard)


def test_card_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"card\.toml is not there; a plugin's folder needs a card\.toml"):
        read_card(tmp_path / "card.toml", ModelCard)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CardError, match="is not there"):
        read_card(tmp_path / "folder", ModelCard)


@given(st.text(max_size=200))
def test_any_text_is_a_card_or_a_card_error(text: str) -> None:
    for kind in (ModelCard, DatasetCard):
        with pytest.raises(CardError):
            parse_card(text, kind, "card")


@given(key=st.sampled_from(MODEL.split()), value=st.sampled_from(["0", "[]", "{}", "''", "=", "nan", "1979-05-27"]))
def test_card_with_one_word_spoiled_is_a_card_or_a_card_error(key: str, value: str) -> None:
    with suppress(CardError):
        parse_card(MODEL.replace(key, value, 1), ModelCard, "card")
