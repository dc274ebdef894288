"""A trained model on new dialogues: the test split, given as raw text, gets the very labels that the record has."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import mer_bench
from mer_bench.applying import Labelled
from mer_bench.data.own.arrays import FORMATS
from mer_bench.data.store import open_store
from mer_bench.errors import DataError, MerBenchError, RecordError, RequestError
from mer_bench.records import Condition, read_record, record_file, record_folder, weights_file, write_record
from tests.conftest import ShelfWriter
from tests.sessions import CARD, DATASET

from .conftest import Talks, Trained

SPOKEN = ("dialogue", "speaker", "text")


def label(trained: Trained, dialogues: Any, **options: Any) -> Labelled:
    return mer_bench.predict(trained.file, dialogues, data_root=trained.root, threads=1, **options)


def assert_is_record(labelled: Labelled, trained: Trained) -> None:
    """The same labels, and the same scores as far as half precision keeps them."""
    kept = trained.predictions
    assert labelled.classes == kept.classes
    assert [labelled.classes.index(name) for name in labelled.labels] == kept.predicted.tolist()
    assert kept.log_probabilities is not None
    np.testing.assert_array_equal(np.log(labelled.scores).astype(np.float16), kept.log_probabilities)


def columns(talks: Talks) -> list[dict[str, Any]]:
    """The test split with its measurements as columns; a blank is an empty value."""
    names = ("audio.loud", "audio.pitch", "audio.rate")
    rows = []
    for row, values in zip(talks.of_test(*SPOKEN), talks.test_audio.tolist(), strict=True):
        rows.append(
            {**row, **{name: None if np.isnan(value) else value for name, value in zip(names, values, strict=True)}}
        )
    return rows


def test_the_test_split_from_its_words_gets_the_labels_of_the_record(talks: Talks, on_words: Trained) -> None:
    labelled = label(on_words, talks.of_test(*SPOKEN))
    assert_is_record(labelled, on_words)
    assert labelled.notes == []
    np.testing.assert_allclose(labelled.scores.sum(axis=1), 1, atol=1e-6)


def test_and_from_its_words_and_measurements(talks: Talks, on_both: Trained) -> None:
    labelled = label(on_both, columns(talks))
    assert_is_record(labelled, on_both)
    assert labelled.missing == ()


@pytest.mark.parametrize("form", FORMATS)
def test_measurements_come_in_any_form(talks: Talks, on_both: Trained, tmp_path: Path, form: str) -> None:
    values, file = talks.test_audio, tmp_path / f"audio{form}"
    write_array(file, values)
    assert_is_record(label(on_both, talks.of_test(*SPOKEN), arrays={"audio": file}), on_both)


def write_array(file: Path, values: NDArray[np.float64]) -> None:
    if file.suffix == ".npy":
        np.save(file, values)
    elif file.suffix == ".npz":
        np.savez(file, values=values[:, ::-1], columns=np.array(["rate", "pitch", "loud"]))  # told apart by name
    elif file.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({"audio": values}, file)
    else:
        import pyarrow
        import pyarrow.parquet

        named = zip(("loud", "pitch", "rate"), values.T, strict=True)
        pyarrow.parquet.write_table(pyarrow.table(dict(named)), file)


def test_measurements_by_id_leave_the_others_missing(talks: Talks, on_both: Trained, tmp_path: Path) -> None:
    spoken = talks.of_test("utterance", *SPOKEN)
    some = [2, 0, 5]
    np.savez(
        tmp_path / "audio.npz", values=talks.test_audio[some], ids=np.array([spoken[row]["utterance"] for row in some])
    )
    labelled = label(on_both, spoken, arrays={"audio": tmp_path / "audio.npz"})
    rows = columns(talks)
    for number, row in enumerate(rows):
        if number not in some:
            rows[number] = row | dict.fromkeys(("audio.loud", "audio.pitch", "audio.rate"))
    np.testing.assert_array_equal(labelled.scores, label(on_both, rows).scores)
    assert any("audio is missing in" in note for note in labelled.notes)


def test_a_modality_that_nobody_gave_is_missing_and_told(talks: Talks, on_both: Trained) -> None:
    labelled = label(on_both, talks.of_test(*SPOKEN))
    assert labelled.missing == ("audio",)
    assert "no audio was given" in labelled.notes[0]
    # As the ablation's condition: the same model with the audio of the test split masked away.
    kept = on_both.predictions
    assert kept.log_probabilities is not None
    assert not np.array_equal(np.log(labelled.scores).astype(np.float16), kept.log_probabilities)
    assert_masked(labelled, on_both, talks)


def assert_masked(labelled: Labelled, trained: Trained, talks: Talks) -> None:
    from mer_bench.applying.trained import open_trained
    from mer_bench.data.missing import masked, only
    from mer_bench.trainer import log_probabilities

    opened = open_trained(trained.file, None, talks.root, torch.device("cpu"))
    split = opened.store.split("test", trained.record.modalities, labels=False)
    there = only(split.utterance_count, trained.record.modalities, ("text",))
    expected = log_probabilities(opened.network, masked(split, there))
    np.testing.assert_array_equal(labelled.scores, expected.double().exp().numpy())


def test_answers_come_in_the_order_of_the_rows(talks: Talks, on_words: Trained) -> None:
    rows = talks.of_test(*SPOKEN)
    turns: dict[str, int] = {}
    for row in rows:
        turns[row["dialogue"]] = row["turn"] = turns.get(row["dialogue"], 10) - 1  # falling: the last is said first
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    labelled = label(on_words, shuffled)
    assert [(a, b) for a, b in zip(labelled.dialogues, labelled.turns, strict=True)] == [
        (row["dialogue"], row["turn"]) for row in shuffled
    ]
    whole = label(on_words, sorted(rows, key=lambda row: (row["dialogue"], row["turn"])))
    told = {(a, b): c for a, b, c in zip(whole.dialogues, whole.turns, whole.scores.tolist(), strict=True)}
    for at, scores in zip(zip(labelled.dialogues, labelled.turns, strict=True), labelled.scores.tolist(), strict=True):
        np.testing.assert_allclose(scores, told[at], atol=1e-6)


def test_a_file_of_measurements_has_its_rows_in_the_order_of_the_rows(
    talks: Talks, on_both: Trained, tmp_path: Path
) -> None:
    rows = [{**row, "turn": -place} for place, row in enumerate(talks.of_test(*SPOKEN))]
    np.save(tmp_path / "audio.npy", talks.test_audio)
    inside = [{**row, "turn": -place} for place, row in enumerate(columns(talks))]
    by_file = label(on_both, rows, arrays={"audio": tmp_path / "audio.npy"})
    np.testing.assert_array_equal(by_file.scores, label(on_both, inside).scores)


def test_a_dialogue_is_labelled_alike_alone_and_among_others(talks: Talks, on_words: Trained) -> None:
    rows = talks.of_test(*SPOKEN)
    together = label(on_words, rows).scores
    for name in {row["dialogue"] for row in rows}:
        places = [place for place, row in enumerate(rows) if row["dialogue"] == name]
        np.testing.assert_allclose(
            label(on_words, [rows[place] for place in places]).scores, together[places], atol=1e-6
        )


@pytest.mark.parametrize("model", ["majority", "logistic", "modality-dropout", "cmath"])
def test_other_kinds_of_models(talks: Talks, model: str) -> None:
    trained = talks.train(model, ("text", "audio"))
    assert_is_record(label(trained, columns(talks)), trained)


def test_models_of_folds_are_chosen_by_number(shelves: ShelfWriter, tmp_path: Path) -> None:
    """Each fold's own model labels the session that it was tested on as the record says."""
    plugin = {"__init__.py": '"""Made up."""', "card.toml": CARD.format(redistribute="true"), "dataset.py": DATASET}
    shelves.add("datasets", "shelf_of_folds", {"sessions": plugin})
    made: dict[str, Any] = {"data_root": tmp_path / "data", "threads": 1}
    record = mer_bench.run("logistic", "sessions", protocol="loso", out=tmp_path / "runs", **made)
    trained = Trained(record_file(record_folder(tmp_path / "runs", record), record.run), record, tmp_path / "data")
    kept = trained.predictions
    store = open_store(tmp_path / "data/prepared/sessions/default/emotion/loso/fold2")
    ids, dialogues = store.identifiers("test")
    split = store.split("test")
    rows = [
        {"dialogue": dialogue, "utterance": name, "speaker": str(speaker), **dict(zip(COLUMNS, values, strict=True))}
        for name, dialogue, speaker, values in zip(
            ids, dialogues, split.speakers.tolist(), split.features["text"].tolist(), strict=True
        )
    ]
    labelled = label(trained, rows, fold=2)
    places = [kept.ids.index(name) for name in ids]
    assert [kept.classes.index(name) for name in labelled.labels] == kept.predicted[places].tolist()
    assert any("has no scaler of text" in note for note in labelled.notes)
    other = label(trained, rows, fold=4)
    assert not np.array_equal(other.scores, labelled.scores)
    with pytest.raises(RequestError, match=r"has 5 folds .* choose one with --fold N"):
        label(trained, rows)
    with pytest.raises(RequestError, match="has the folds 1 to 5, but fold 6 was asked for"):
        label(trained, rows, fold=6)


COLUMNS = tuple(f"text.{place}" for place in range(5))


def test_a_model_without_folds_has_none(talks: Talks, on_words: Trained) -> None:
    with pytest.raises(RequestError, match="has one model and no folds, but fold 1 was asked for"):
        label(on_words, talks.of_test(*SPOKEN), fold=1)


Break = Callable[[Trained], object]


def without_weights(trained: Trained) -> None:
    weights_file(trained.file.parent, trained.record.run).unlink()


def cut_weights(trained: Trained) -> None:
    file = weights_file(trained.file.parent, trained.record.run)
    file.write_bytes(file.read_bytes()[:-100])


def rewrite(trained: Trained, **changes: Any) -> None:
    write_record(trained.file, trained.record.model_copy(update=changes))


def failed(trained: Trained) -> None:
    from mer_bench.records import Failure

    rewrite(trained, status="failed", failure=Failure(kind="RunError", reason="it broke"), test=None, predictions=None)


def conditioned(trained: Trained) -> None:
    rewrite(
        trained,
        modalities=("text", "audio"),
        test_condition=Condition(name="only-text", present=("text",), model_of="a" * 64),
    )


def other_features(trained: Trained) -> None:
    assert trained.record.features_detail is not None
    rewrite(trained, features_detail=trained.record.features_detail.model_copy(update={"sources": "b" * 64}))


def other_version(trained: Trained) -> None:
    rewrite(trained, model_version=99)


def other_settings(trained: Trained) -> None:
    rewrite(trained, settings={**trained.record.settings, "width": 2 * trained.record.settings["width"]})


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (without_weights, r"is not beside the record, .* Train it again with: mer-bench run --model textonly"),
        (cut_weights, "cannot be read: .* Train the model again"),
        (failed, "is the record of a run that failed"),
        (conditioned, "is a record under the test condition only-text"),
        (other_features, "made from other files, or in another way"),
        (other_settings, "holds the weights of another model: .* does not fit the record.s settings"),
        (other_version, r"trained by version 99 of textonly, and version \d+ is installed"),
    ],
)
def test_a_record_that_cannot_label_says_why(
    on_words: Trained, talks: Talks, tmp_path: Path, fault: Break, says: str
) -> None:
    for file in on_words.file.parent.glob(f"{on_words.record.run}.*"):
        shutil.copy(file, tmp_path)
    copy = replace(on_words, file=tmp_path / on_words.file.name)
    fault(copy)
    with pytest.raises(MerBenchError, match=says):
        label(copy, talks.of_test(*SPOKEN))


def test_weights_of_another_model_are_refused(
    on_words: Trained, on_both: Trained, talks: Talks, tmp_path: Path
) -> None:
    shutil.copy(on_words.file, tmp_path)
    other = weights_file(on_both.file.parent, on_both.record.run)
    shutil.copy(other, weights_file(tmp_path, on_words.record.run))
    with pytest.raises(RecordError, match="holds the weights of another model"):
        label(replace(on_words, file=tmp_path / on_words.file.name), talks.of_test(*SPOKEN))


def test_what_is_given_as_the_record(on_words: Trained, talks: Talks) -> None:
    for file in (on_words.file.parent, weights_file(on_words.file.parent, on_words.record.run)):
        with pytest.raises(RequestError, match="is no record"):
            label(replace(on_words, file=file), talks.of_test(*SPOKEN))
    with pytest.raises(RecordError, match="cannot be read: No such file"):
        label(replace(on_words, file=Path("absent.json")), talks.of_test(*SPOKEN))


def test_nothing_to_label_by(talks: Talks, on_words: Trained, on_both: Trained) -> None:
    for trained in (on_words, on_both):
        with pytest.raises(RequestError, match=r"row 1 and the rest hold none\. Give it by a column text"):
            label(trained, talks.of_test("dialogue", "speaker"))


PLUGIN = """# /// mer-bench
# title = "Needy"
# summary = "One linear layer."
# entry = "Needy"
# config = "NeedySettings"
# modalities = ["text", "audio"]
# needs = ["audio"]
# ///

import torch
from torch import nn

from mer_bench.api import Batch, InputSpec, Model, Output, Settings


class NeedySettings(Settings):
    pass


class Needy(Model):
    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.out = nn.Linear(sum(spec.widths.values()), spec.class_count)

    def forward(self, batch: Batch) -> Output:
        return Output(self.out(torch.cat(list(batch.features.values()), dim=-1)))
"""


def test_a_model_of_ones_own_with_what_it_needs_and_the_very_code(
    talks: Talks, tmp_path: Path, add_plugin: Callable[[Path], tuple[str, ...]]
) -> None:
    file = tmp_path / "needy.py"
    file.write_text(PLUGIN)
    add_plugin(file)
    trained = talks.train("needy", ("text", "audio"))
    assert_is_record(label(trained, columns(talks)), trained)
    with pytest.raises(RequestError, match=r"needy cannot do without audio, of which row 1 and the rest hold none\."):
        label(trained, talks.of_test(*SPOKEN))
    file.write_text(file.read_text() + "# changed\n")
    add_plugin(file)
    with pytest.raises(RequestError, match="the code of needy is not the one that was trained"):
        label(trained, columns(talks))


def test_more_speakers_than_the_model_has_room_for(talks: Talks) -> None:
    trained = talks.train("textonly", ("text",), {"speakers": True})
    crowd = [{"dialogue": "d", "speaker": f"s{number}", "text": "tea"} for number in range(9)]
    with pytest.raises(DataError, match=r"row 4, column speaker: the dialogue 'd' has more speakers than the 3 that"):
        label(trained, crowd)


def test_numbers_where_words_are_read(talks: Talks, on_words: Trained) -> None:
    rows = [{**row, "text.0": 1.0} for row in talks.of_test(*SPOKEN)]
    with pytest.raises(DataError, match="makes its text features of what is said"):
        label(on_words, rows)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"audio.loud": 1, "audio.pitch": 2}, "no audio.rate"),
        ({"audio.loud": 1, "audio.pitch": 2, "audio.rate": 3, "audio.pich": 4}, "audio.pich, which it does not know"),
        ({"audio": [1, 2]}, "by 3 numbers an utterance, but 2 were given"),
        ({"audio": [1, 2, 1e300]}, "audio column rate is 1e\\+300, which is beyond any measurement"),
    ],
)
def test_measurements_that_do_not_fit(talks: Talks, on_both: Trained, values: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        label(on_both, [{**row, **values} for row in talks.of_test(*SPOKEN)])


def test_another_unit_is_noticed(talks: Talks, on_both: Trained) -> None:
    rows = [{**row, "audio": [40_000.0, 40.0, 40.0]} for row in talks.of_test(*SPOKEN)]
    assert any("audio column loud lies" in note and "same unit" in note for note in label(on_both, rows).notes)


def test_arrays_of_what_the_model_does_not_take(talks: Talks, on_words: Trained, tmp_path: Path) -> None:
    np.save(tmp_path / "audio.npy", talks.test_audio)
    with pytest.raises(RequestError, match=r"takes text, but .* was given as audio"):
        label(on_words, talks.of_test(*SPOKEN), arrays={"audio": tmp_path / "audio.npy"})


@pytest.mark.real_data
def test_melds_test_split_from_its_published_csv(shared_data: Path, tmp_path: Path) -> None:
    """Real words and real prosody, through a real run."""
    from mer_bench.data.preparation import import_files

    folder = next((place.parent for place in shared_data.rglob("test_sent_emo.csv")), None)
    if folder is None:
        pytest.skip("MELD's transcripts are not among the shared data")
    root, out = tmp_path / "data", tmp_path / "runs"
    import_files("meld", shared_data, root)
    record = mer_bench.run("logistic", "meld", data_root=root, out=out, threads=1)
    trained = Trained(out / "meld" / "logistic" / f"{record.run}.json", record, root)
    with (root / "raw/meld/test_sent_emo.csv").open(encoding="utf-8", newline="") as stream:
        said = list(csv.DictReader(stream))
    with (root / "raw/meld/meld_test_audio_features.csv").open(encoding="utf-8", newline="") as stream:
        prosody = {row.pop("filename"): row for row in csv.DictReader(stream)}
    file = tmp_path / "test.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for row in said:
            clip = prosody.get(f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}.wav", {})
            told: dict[str, Any] = {"dialogue": row["Dialogue_ID"], "turn": int(row["Utterance_ID"])}
            told |= {"speaker": row["Speaker"], "text": row["Utterance"]}
            told |= {f"audio.{name}": float(value) if value else None for name, value in clip.items()}
            stream.write(json.dumps(told) + "\n")
    assert_is_record(label(trained, file), trained)
    assert read_record(trained.file) == record
