"""A community feature release under a name of the user's own."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench import registry
from mer_bench.data.own.dialogues import RandomSplit
from mer_bench.data.own.importing import import_own
from mer_bench.data.preparation import open_or_prepare, resolve
from mer_bench.data.store import SPLITS
from mer_bench.errors import DataError, RequestError, SettingError


def iemocap_like(file: Path, dialogues: int = 8) -> Path:
    """A made-up pickle of nine fields, without a list of dev: text 100, audio 1582, visual 342 values."""
    rng = np.random.default_rng(0)
    names = [f"Ses0{index}" for index in range(dialogues)]

    def fields(make: Any) -> dict[str, Any]:
        return {name: make(index) for index, name in enumerate(names)}

    release = [
        fields(lambda index: [f"{names[index]}_{turn}" for turn in range(6)]),
        fields(lambda index: ["M", "F"] * 3),
        fields(lambda index: [(index + turn) % 6 for turn in range(6)]),
        *(fields(lambda index, width=width: list(rng.normal(size=(6, width)))) for width in (100, 1582, 342)),
        fields(lambda index: [f"word {turn} of {index}" for turn in range(6)]),
        names[:6],
        names[6:],
    ]
    file.write_bytes(pickle.dumps(release, protocol=2))
    return file


def test_a_release_without_dev_has_some_of_train_drawn_when_asked(tmp_path: Path) -> None:
    file, root = iemocap_like(tmp_path / "features.pkl"), tmp_path / "root"
    with pytest.raises(SettingError, match=r"Say which dialogues are dev. Or have some.*--split 80/10/10"):
        import_own("my-iemocap", [file], root)
    assert not root.exists()
    report = import_own("my-iemocap", [file], root, RandomSplit((60, 30, 10)))
    assert {split: each.dialogues for split, each in report.splits.items()} == {"train": 4, "dev": 2, "test": 2}
    assert {name: each.width for name, each in report.modalities.items()} == {"audio": 1582, "text": 100, "visual": 342}
    assert report.texts == 48
    assert not report.made_card
    card = registry.datasets(root).find("my-iemocap").card
    assert card.label_sets["emotion"].classes[0] == "happy"
    assert card.traps == ("Dev was drawn at random from train by mer-bench: 60/30/10 by dialogue, seed 0.",)
    assert card.feature_sets["given"].text == ()
    assert "feature release" in card.feature_sets["given"].caveats[0]
    store = open_or_prepare(resolve("my-iemocap", root=root), root)
    assert store.widths == {"text": 100, "audio": 1582, "visual": 342}
    lines = [json.loads(line) for line in (root / "raw/my-iemocap/dialogues.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines if line["split"] == "test"} == {"Ses06", "Ses07"}
    again = import_own("my-iemocap", [file], root, RandomSplit((60, 30, 10)))
    assert (again.version, again.changed) == (1, False)


def test_what_is_no_release_is_refused_and_nothing_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "c.pkl").write_bytes(b"no pickle")
    for name in "abc":
        with pytest.raises(RequestError):
            import_own("mine", [tmp_path / f"{name}.pkl"], tmp_path / "root")
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "root").exists()
    with pytest.raises(RequestError):
        import_own("mine", [tmp_path / "absent.pkl"], tmp_path / "root")


@pytest.mark.real_data
def test_a_real_release_keeps_its_dialogues_labels_and_texts(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = shared_data.glob("published/declare-lab/conv-emotion/*/COSMIC/feature-extraction/emorynlp/emorynlp.pkl")
    from mer_bench.data.community import read_release
    from mer_bench.data.own.from_release import read_own_release
    from mer_bench.data.own.raw_form import dialogues_bytes

    _, stated, data = read_own_release([file])
    corpus = read_release([file]).corpus()
    assert np.bincount(data.dialogues.splits).tolist() == [659, 89, 79]
    lines = [json.loads(line) for line in dialogues_bytes(data.dialogues).decode().split("\n")[:-1]]
    assert [line["split"] for line in lines] == [SPLITS[split] for split in corpus.splits]
    turns = [turn for line in lines for turn in line["utterances"]]
    (classes,) = stated.classes.values()
    assert classes is not None
    assert [classes.index(turn["label"]) for turn in turns] == list(corpus.labels)
    assert [turn.get("text", "") for turn in turns] == list(corpus.texts or ())
    with pytest.raises(DataError, match="there is a list of dev already"):
        read_own_release([file], random_split=RandomSplit((80, 10, 10)))
