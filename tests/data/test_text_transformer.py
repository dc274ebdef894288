"""Transformers as encoders, with a tiny one that is made here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mer_bench.data.text.encoding import Features
from mer_bench.data.text.transformer import LoadedModel, TransformerEncoder, TransformerSettings
from mer_bench.errors import DataError, MissingDataError, RequestError

from .said import WORDS, corpus

transformers: Any = pytest.importorskip("transformers", reason="the extra mer-bench[transformers] is not installed")

TEXTS = ["oh no! i love great days", "", "caf\u00e9 zzz", "know " * 30, "great day.", "\u2014 \u65e5\u672c", "a", "oh"]


def save_model(folder: Path, seed: int = 0, layers: int = 6, **tokenizer: Any) -> Path:
    """A BERT with random weights and a vocabulary of some thirty pieces."""
    folder.mkdir(parents=True)
    letters = {word.strip("!?,.'").lower() for word in WORDS} - {""}
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(letters), "##s", "!", "?", ".", "'", ",", "a", "-"]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"), **tokenizer).save_pretrained(folder)
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(set(pieces)),
        hidden_size=8,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
        initializer_range=0.5,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


def loaded(folder: Path, **more: Any) -> LoadedModel:
    return LoadedModel(str(folder), TransformerSettings(**more))


def by_hand(folder: Path, text: str, layers: int = 4) -> Features:
    """One text at a time: no batch, no padding, no mask."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(text, truncation=True, max_length=18, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = model(input_ids=ids, output_hidden_states=True).hidden_states
    total = torch.zeros(8)
    for state in states[-layers:]:
        total += state[0].mean(dim=0) / layers
    found: Features = total.numpy()
    return found


def test_features_are_those_of_each_text_alone(folder: Path) -> None:
    features, known = loaded(folder, batch_size=3).encode(TEXTS)
    assert known.all()  # the tokenizer's own two tokens are there even where nothing is said
    assert features.dtype == np.float32
    texts = [*TEXTS[:5], "- \u65e5\u672c", *TEXTS[6:]]  # marks are brought into one form first
    assert features == pytest.approx(np.stack([by_hand(folder, text) for text in texts]), abs=1e-5)


def test_neither_batches_nor_order_matter(folder: Path) -> None:
    whole, _ = loaded(folder).encode(TEXTS)
    for size in (1, 2, 5):
        assert loaded(folder, batch_size=size).encode(TEXTS)[0] == pytest.approx(whole, abs=1e-5)
    assert loaded(folder).encode(TEXTS[::-1])[0][::-1] == pytest.approx(whole, abs=1e-5)
    assert loaded(folder).encode([])[0].shape == (0, 8)


@pytest.mark.parametrize("layers", [1, 2, 6])
def test_the_last_layers_are_taken_and_never_the_embedding(folder: Path, layers: int) -> None:
    features, _ = loaded(folder, layers=layers).encode(TEXTS[:1])
    assert features[0] == pytest.approx(by_hand(folder, TEXTS[0], layers), abs=1e-5)
    every, _ = loaded(folder, layers=100).encode(TEXTS[:1])
    assert every[0] == pytest.approx(by_hand(folder, TEXTS[0], 6), abs=1e-5)


def test_fit_scales_and_keeps_which_model_it_was(folder: Path) -> None:
    train = corpus()
    encoder, features = TransformerEncoder.fit(train, {"transformer": str(folder)})
    raw, _ = loaded(folder).encode(train.texts)
    assert features == pytest.approx((raw - raw.mean(axis=0)) / raw.std(axis=0), abs=1e-4)
    assert np.array_equal(encoder.transform(train.texts), features)
    _, values = encoder.state()
    assert (values["model"], values["revision"], values["settings"]["precision"]) == ("tiny", "", "float32")
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(values["files"])
    assert str(folder.parent) not in json.dumps(values)
    unlabelled = replace(train, labels=np.full_like(train.labels, -1))
    assert np.array_equal(TransformerEncoder.fit(unlabelled, {"transformer": str(folder)})[1], features)
    assert encoder.blocks() == {"transformer": 8}


def test_state_asks_for_the_same_model(folder: Path, tmp_path: Path) -> None:
    encoder, _ = TransformerEncoder.fit(corpus(), {"transformer": folder})
    arrays, values = encoder.state()
    values = json.loads(json.dumps(values))
    with pytest.raises(MissingDataError, match=r"transformer tiny from a folder.*--transformer FOLDER"):
        TransformerEncoder.from_state(arrays, values, {})
    other = save_model(tmp_path / "tiny", seed=1)
    with pytest.raises(DataError, match=r"is not the one that made the features: its file model.safetensors differs"):
        TransformerEncoder.from_state(arrays, values, {"transformer": other})
    again = TransformerEncoder.from_state(arrays, values, {"transformer": folder})
    assert np.array_equal(again.transform(TEXTS), encoder.transform(TEXTS))


def test_long_texts_are_cut_and_counted(folder: Path, tmp_path: Path) -> None:
    encoder, _ = TransformerEncoder.fit(corpus(), {"transformer": folder})
    assert encoder.loaded.longest == 18  # of 20 positions, two of which some models do not use
    assert encoder.noticed(TEXTS) == {"texts cut to the transformer's 18 tokens": 1}
    assert encoder.noticed(["oh"]) == {}
    cut = encoder.transform(["know " * 16, "know " * 30])
    assert np.array_equal(cut[0], cut[1])
    short = save_model(tmp_path / "short", model_max_length=7)
    assert loaded(short).longest == 7
    assert loaded(folder, longest=5).longest == 5


def test_sentence_transformers_keep_the_model_one_folder_below(folder: Path, tmp_path: Path) -> None:
    outer = tmp_path / "sentences"
    save_model(outer / "0_Transformer")
    modules = outer / "modules.json"
    modules.write_text(json.dumps([{"idx": 0, "name": "0", "path": "0_Transformer", "type": "x"}]))
    assert np.array_equal(loaded(outer).encode(TEXTS)[0], loaded(folder).encode(TEXTS)[0])
    assert loaded(outer).identity.name == "sentences"
    modules.write_text("[]")
    with pytest.raises(DataError, match="does not say where the transformer is"):
        loaded(outer)


def test_a_tokenizer_without_padding_and_a_text_without_tokens(tmp_path: Path) -> None:
    """Models that only look back have neither a padding token nor tokens around the text."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: place for place, word in enumerate(["<end>", "oh", "no", "great", "day"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    place = tmp_path / "looks-back"
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>").save_pretrained(place)
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=5, n_embd=8, n_layer=4, n_head=2, n_positions=16)
    transformers.GPT2Model(config).save_pretrained(place)
    features, known = loaded(place, batch_size=4).encode(["oh no great day", "", "oh"])
    assert known.tolist() == [True, False, True]
    assert not features[1].any()
    assert features[2] == pytest.approx(loaded(place).encode(["oh"])[0][0], abs=1e-5)
    train = corpus()
    encoder, _ = TransformerEncoder.fit(train, {"transformer": place})
    assert encoder.transform([""]).tolist() == [[0.0] * 8]
    with pytest.raises(DataError, match="not one token"):
        TransformerEncoder.fit(replace(train, texts=[""] * 100), {"transformer": place})


def test_half_precision_only_on_request(folder: Path) -> None:
    assert loaded(folder).model.dtype == torch.float32
    half = loaded(folder, precision="bfloat16")
    assert half.model.dtype == torch.bfloat16
    whole, _ = loaded(folder).encode(TEXTS)
    assert half.encode(TEXTS)[0] == pytest.approx(whole, abs=0.1)
    assert not np.array_equal(half.encode(TEXTS)[0], whole)


def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDataError, match=r"need a transformer.*--transformer MODEL"):
        TransformerEncoder.fit(corpus(), {})
    with pytest.raises(DataError, match=f"the folder {tmp_path} holds no transformer that can be loaded"):
        loaded(tmp_path)
    with pytest.raises(MissingDataError, match=r"transformer 'no such name!' cannot be loaded: .* Give a folder"):
        LoadedModel("no such name!", TransformerSettings())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"python -m pip install 'mer-bench\[transformers\]'"):
        loaded(tmp_path)


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "hostile")
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="made-up", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(
        f"open({str(tmp_path / 'was-run')!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    )
    with pytest.raises(DataError, match="holds no transformer that can be loaded"):
        loaded(folder)
    assert not (tmp_path / "was-run").exists()


def test_a_pickle_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "was-run"), "w"))

    folder = save_model(tmp_path / "hostile")
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="holds no transformer that can be loaded"):
        loaded(folder)
    assert not (tmp_path / "was-run").exists()
