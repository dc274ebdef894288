"""The convolutional network: its forward pass by hand, its training, and what it may and may not depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mer_bench.data.text.encoding import Features, TrainTexts
from mer_bench.data.text.textcnn import PADDING, UNKNOWN, TextCnn, TextCnnEncoder, TextCnnSettings, padded
from mer_bench.errors import DataError

from .said import corpus, table, vectors_file

SMALL = TextCnnSettings(maps=4, features=6, embedding=5, epochs=6, learning_rate=1e-2, batch_size=16)


def fitted(train: TrainTexts | None = None, **more: int) -> tuple[TextCnnEncoder, Features]:
    return TextCnnEncoder.fit(train or corpus(), {}, SMALL.model_copy(update=more))


def test_forward_by_hand() -> None:
    torch.manual_seed(0)
    network = TextCnn(torch.randn(9, 5), 3, SMALL.model_copy(update={"features": 30})).eval()
    text = [3, 8, UNKNOWN, 4, 2, 7, 3]
    embedded = network.embedding.weight[text].detach()  # (7, 5)
    pooled = []
    for span, convolution in zip((3, 4, 5), network.convolutions, strict=True):
        assert isinstance(convolution, torch.nn.Conv1d)
        assert convolution.bias is not None
        weight, bias = convolution.weight.detach(), convolution.bias.detach()  # (maps, 5, span), (maps,)
        answers = [
            [float((embedded[at : at + span].T * weight[place]).sum() + bias[place]) for at in range(7 - span + 1)]
            for place in range(4)
        ]
        pooled += [max(0.0, *each) for each in answers]
    hidden = torch.relu(network.dense(torch.tensor(pooled)))
    assert 0 < int((hidden == 0).sum()) < 30
    with torch.no_grad():
        torch.testing.assert_close(network.hidden(*padded([text], 5))[0], hidden)
        torch.testing.assert_close(network(*padded([text], 5))[0], network.out(hidden))


def test_padding_has_no_influence() -> None:
    torch.manual_seed(0)
    network = TextCnn(torch.randn(9, 5), 3, SMALL).eval()
    # The filters like padding, which is all zero, more than any word.
    for convolution in network.convolutions:
        assert isinstance(convolution, torch.nn.Conv1d)
        assert convolution.bias is not None
        torch.nn.init.constant_(convolution.bias, 2.0)
        torch.nn.init.constant_(convolution.weight, -1.0)
    with torch.no_grad():
        network.embedding.weight.abs_()
        network.embedding.weight[PADDING] = 0
        texts = [[3, 4, 5, 6, 7, 8], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2], [7], []]
        together = network.hidden(*padded(texts, 5))
        for row, text in enumerate(texts):
            torch.testing.assert_close(network.hidden(*padded([text], 5))[0], together[row])
    assert bool((together[2] != together[3]).any())
    assert padded([[]], 5)[0].tolist() == [[PADDING] * 5]


def test_it_learns_and_its_features_tell_the_label() -> None:
    train, other = corpus(40), corpus(10, seed=3)
    encoder, features = fitted(train, maps=16, features=16, epochs=15)
    assert features.shape == (200, 16)
    assert features.dtype == np.float32
    assert features.mean(axis=0) == pytest.approx(np.zeros(16), abs=1e-5)
    assert (features**2).mean() == pytest.approx(1, abs=1e-5)
    new = encoder.transform(other.texts)
    centres = np.array([features[train.labels == label].mean(axis=0) for label in range(3)])
    nearest = ((new[:, None, :] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == other.labels).mean() > 0.8
    assert 1 <= encoder.trained["epochs"] <= 15
    assert encoder.trained["held_out_loss"] < np.log(3)


def test_a_unit_that_sleeps_in_train_stays_small_where_another_text_wakes_it() -> None:
    train = corpus()
    encoder, _ = TextCnnEncoder.fit(train, {}, TextCnnSettings())
    assert np.abs(encoder.transform(["what what what", "blorg", "love love day oh oh oh"])).max() < 100


def test_train_and_other_splits_are_encoded_by_one_network() -> None:
    train = corpus()
    encoder, features = fitted(train)
    assert np.array_equal(encoder.transform(train.texts), features)
    one_by_one = np.concatenate([encoder.transform([text]) for text in train.texts[:10]])
    assert one_by_one == pytest.approx(features[:10], abs=1e-4)
    assert encoder.transform([]).shape == (0, 6)


def test_the_seed_decides_and_nothing_else() -> None:
    first = fitted()[1]
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        second = fitted()[1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's own numbers go on as they were
    assert not np.array_equal(first, fitted(seed=1)[1])


def test_an_utterance_without_a_label_teaches_nothing() -> None:
    train = corpus()
    labels = train.labels.copy()
    labels[::4] = -1
    hidden = replace(train, labels=labels)
    encoder, features = fitted(hidden)
    assert np.isfinite(features).all()
    taken = labels >= 0
    # Its words are known and it is scaled with, but the network is that of the labelled utterances.
    alone, _ = fitted(
        replace(
            train,
            texts=[text for text, chosen in zip(train.texts, taken.tolist(), strict=True) if chosen],
            labels=labels[taken],
            dialogues=train.dialogues[taken],
        )
    )
    assert alone.row_of == encoder.row_of
    for name, weights in alone.network.state_dict().items():
        assert torch.equal(weights, encoder.network.state_dict()[name])


def test_no_label_at_all_and_one_class_and_one_dialogue() -> None:
    train = corpus(4)
    with pytest.raises(DataError, match="no train utterance has one"):
        fitted(replace(train, labels=np.full_like(train.labels, -1)))
    assert np.isfinite(fitted(replace(train, labels=np.zeros_like(train.labels)))[1]).all()
    encoder, features = fitted(replace(train, dialogues=np.zeros_like(train.dialogues)))
    assert np.isfinite(features).all()
    assert (encoder.trained["epochs"], encoder.trained["held_out_loss"]) == (6, None)


def test_the_epochs_are_found_on_dialogues_that_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that contradict the texts of the held-out dialogues stop the training at once."""
    from mer_bench.data.text import textcnn

    train = corpus(40)
    fold = np.where(train.dialogues < 4, 0, 1)
    monkeypatch.setattr(textcnn, "dialogue_folds", lambda *_: fold)
    wrong = train.labels.copy()
    wrong[fold == 0] = (wrong[fold == 0] + 1) % 3
    assert fitted(replace(train, labels=wrong), patience=6)[0].trained["epochs"] < 3
    assert fitted(train, patience=6)[0].trained["epochs"] > 3


def test_vectors_are_where_the_embeddings_begin(tmp_path: Path) -> None:
    file = vectors_file(tmp_path, width=7)
    barely = SMALL.model_copy(update={"epochs": 1, "learning_rate": 1e-9})
    encoder, _ = TextCnnEncoder.fit(corpus(), {"vectors": file}, barely)
    embeddings = encoder.network.embedding.weight.detach().numpy()
    for word, vector in table(7).items():
        if word != "zebra":
            assert embeddings[encoder.row_of[word]] == pytest.approx(vector, abs=1e-5)
    assert "zebra" not in encoder.row_of
    assert "pizza" in encoder.row_of
    assert not embeddings[PADDING].any()
    learnt, _ = TextCnnEncoder.fit(corpus(), {"vectors": file}, SMALL)
    assert learnt.network.embedding.weight.detach().numpy()[learnt.row_of["oh"]] != pytest.approx(table(7)["oh"])
    assert len(str(learnt.trained["vectors_sha256"])) == 64


def test_rare_words_are_unknown_ones() -> None:
    train = corpus()
    texts = [f"{train.texts[0]} onlyonce", *train.texts[1:]]
    encoder, _ = fitted(replace(train, texts=texts))
    assert "onlyonce" not in encoder.row_of
    one, two, none = encoder.transform(["oh onlyonce no", "oh na\u00efvet\u00e9s no", "oh no"])
    assert one.shape == two.shape
    assert not np.array_equal(one, none)
    other, same = encoder.transform(["oh blorg no", "oh onlyonce no"])
    assert np.array_equal(other, same)


def test_long_texts_are_cut_and_counted() -> None:
    encoder, _ = fitted(longest=6)
    text = "oh no yes i know what"
    short, long = encoder.transform([text, f"{text} love day"])
    assert np.array_equal(short, long)
    told = encoder.noticed([text, f"{text} love day", "blorg"])
    assert told["texts cut to textcnn's 6 tokens"] == 1
    assert told["share of tokens that textcnn knows"] == pytest.approx(14 / 15, abs=1e-4)
