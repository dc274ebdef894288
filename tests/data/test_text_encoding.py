"""What every text encoder promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench.data.text.encoding import ENCODERS, EncoderChain, TrainTexts, encoder_class, fit_text
from mer_bench.errors import UnknownNameError

from .said import corpus, vectors_file
from .test_text_transformer import save_model

OTHERS = {
    "dev": corpus(4, seed=1).texts,
    "test": [*corpus(5, seed=2).texts, "", "\u65e5\u672c \ud83d \x00 na\u00efve!!"],
}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("options")
    return {"vectors": vectors_file(folder), "transformer": str(save_model(folder / "tiny", layers=2))}


@pytest.mark.parametrize("name", ENCODERS)
def test_other_splits_change_neither_train_nor_what_is_kept(name: str, options: dict[str, Any]) -> None:
    train = corpus()
    first = fit_text([name], train, OTHERS, options)
    second = fit_text([name], train, {"dev": ["what great news", ""], "test": []}, options)
    assert np.array_equal(first.features[:100], second.features[:100])
    assert first.arrays.keys() == second.arrays.keys()
    for key, array in first.arrays.items():
        assert np.array_equal(array, second.arrays[key])
    assert first.settings == second.settings
    assert (len(first.features), len(second.features)) == (100 + 20 + 27, 102)


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_kept_gives_the_very_same_features(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    encoded = fit_text([name], corpus(), OTHERS, options)
    np.savez(tmp_path / "kept.npz", **encoded.arrays)  # type: ignore[arg-type]  # its stub takes the names for its own
    with np.load(tmp_path / "kept.npz", allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    settings = json.loads(json.dumps(encoded.settings, allow_nan=False))
    needed = {key: value for key, value in options.items() if key == "transformer"}  # the others keep what they need
    again = EncoderChain.from_state(arrays, settings, needed)
    assert np.array_equal(again.transform(OTHERS["test"]), encoded.features[-27:])
    assert np.array_equal(again.transform(OTHERS["dev"]), encoded.features[100:120])
    assert str(tmp_path) not in json.dumps(settings)


@pytest.mark.parametrize("name", ENCODERS)
def test_any_text_has_finite_features_that_no_other_text_changes(name: str, options: dict[str, Any]) -> None:
    encoder, train_features = encoder_class(name).fit(corpus(), options)
    assert train_features.dtype == np.float32
    assert sum(encoder.blocks().values()) == train_features.shape[1]
    texts = OTHERS["test"]
    together = encoder.transform(texts)
    assert np.isfinite(together).all()
    assert together.shape == (27, train_features.shape[1])
    assert np.concatenate([encoder.transform([text]) for text in texts]) == pytest.approx(together, abs=1e-4)
    assert encoder.transform([]).shape == (0, train_features.shape[1])
    again, _ = encoder_class(name).fit(corpus(), options)
    assert np.array_equal(again.transform(texts), together)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("kind", ["one class", "half without a label", "one dialogue"])
def test_labels_of_every_kind(name: str, kind: str, options: dict[str, Any]) -> None:
    train = corpus()
    labels = train.labels
    changed: dict[str, TrainTexts] = {
        "one class": replace(train, labels=np.ones_like(labels)),
        "half without a label": replace(train, labels=np.where(np.arange(len(labels)) % 2, labels, -1)),
        "one dialogue": replace(train, dialogues=np.zeros_like(train.dialogues)),
    }
    encoder, features = encoder_class(name).fit(changed[kind], options)
    assert np.isfinite(features).all()
    assert np.isfinite(encoder.transform(OTHERS["test"])).all()


def test_encoders_stand_side_by_side_in_the_order_named(options: dict[str, Any]) -> None:
    train = corpus()
    both = fit_text(["vectors", "tfidf"], train, OTHERS, options)
    alone = {name: fit_text([name], train, OTHERS, options) for name in ("vectors", "tfidf")}
    assert np.array_equal(both.features, np.concatenate([each.features for each in alone.values()], axis=1))
    assert list(both.settings) == ["vectors", "tfidf"]
    assert both.settings["tfidf"]["blocks"] == alone["tfidf"].settings["tfidf"]["blocks"]
    assert set(both.arrays) == {*alone["vectors"].arrays, *alone["tfidf"].arrays}
    assert "tfidf.topic_mean" in both.arrays
    assert [key for key in both.notes if "word vector" in key] == [
        f"{split}: share of tokens with a word vector" for split in ("train", "dev", "test")
    ]
    chain = EncoderChain.from_state(both.arrays, both.settings)
    assert np.array_equal(chain.transform(OTHERS["test"]), both.features[-27:])


def test_an_unknown_encoder() -> None:
    with pytest.raises(UnknownNameError, match=r"no text encoder is called 'tfid'. Did you mean 'tfidf'"):
        fit_text(["tfid"], corpus(), {}, {})
