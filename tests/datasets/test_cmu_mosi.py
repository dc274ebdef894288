"""CMU-MOSI from the bc-LSTM release: small made-up files with every fault, the real ones against the joined table."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mer_bench_datasets.cmu_mosi.reader import (
    PARTS,
    TRANSCRIPTS,
    WIDTHS,
    CmuMosi,
    features_file,
    order_file,
    read_corpus,
)

from mer_bench import registry
from mer_bench.cards import DatasetCard, SplitCount, SplitName
from mer_bench.data.corpus import Corpus
from mer_bench.data.preparation import PreparationRequest, import_files
from mer_bench.data.store import SPLITS, check_content
from mer_bench.errors import DataError

TRAIN_VIDEOS = [f"t{letter}-_{letter}" for letter in "abcdefg"]
TEST_VIDEOS = ["b1", "d_2", "e3"]
UTTERANCES = 11
"""More than nine in a video, so that the order of text and that of numbers differ."""

Rows = dict[str, list[list[str]]]


def mosi_card() -> DatasetCard:
    return registry.datasets().find("cmu-mosi").card


@pytest.fixture
def card() -> DatasetCard:
    """CMU-MOSI's card with the counts of the small files."""

    def counts(*dialogues: int) -> dict[SplitName, SplitCount]:
        return {
            split: SplitCount(dialogues=count, utterances=UTTERANCES * count)
            for split, count in zip(SPLITS, dialogues, strict=True)
        }

    return mosi_card().model_copy(update={"counts": {"unseen-dev": counts(7, 1, 2), "bclstm": counts(6, 1, 3)}})


def small_rows() -> Rows:
    """The nine files; value v of modality m of line l is l + v / 1000, plus 0, 0.3 or 0.6 by the modality."""
    named = sorted(f"{video}_{number}" for video in TRAIN_VIDEOS + TEST_VIDEOS for number in range(1, UTTERANCES + 1))
    classes = [int(sum(map(ord, name)) % 3 == 0) for name in named]
    words = ["GOOD FILM", "BAD FILM AND LONG", "I SAW IT TWICE"]
    rows: Rows = {
        TRANSCRIPTS: [
            [name, words[line % 3] + " YES" * classes[line], "1", str(classes[line])] for line, name in enumerate(named)
        ]
    }
    for part, videos in zip(PARTS, (TRAIN_VIDEOS, TEST_VIDEOS), strict=True):
        lines = [line for line, name in enumerate(named) if name.rsplit("_", 1)[0] in videos]
        lines.sort(key=lambda line: (-classes[line], line))
        for place, (modality, width) in enumerate(WIDTHS.items()):
            values = [[repr(line + 0.3 * place + column / 1000) for column in range(width)] for line in lines]
            rows[features_file(modality, part)] = [
                [*each, str(classes[line])] for each, line in zip(values, lines, strict=True)
            ]
            if modality == "text":
                rows[order_file(part)] = [[str(line), *each] for each, line in zip(values, lines, strict=True)]
    return rows


def write(folder: Path, rows: Rows) -> dict[str, Path]:
    for name, lines in rows.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(lines)
    return {name: folder / name for name in rows}


def request(files: dict[str, Path], features: str = "bclstm", protocol: str = "unseen-dev") -> PreparationRequest:
    return PreparationRequest(features, "polarity", protocol, None, files)


def test_rows_are_joined_and_put_in_the_order_of_speech(tmp_path: Path, card: DatasetCard) -> None:
    rows = small_rows()
    corpus = read_corpus(card, request(write(tmp_path, rows)))
    assert corpus.utterance_ids[:UTTERANCES] == [f"b1_{number}" for number in range(1, UTTERANCES + 1)]
    assert list(corpus.dialogue_ids) == sorted(TRAIN_VIDEOS + TEST_VIDEOS)
    line_of = {row[0]: line for line, row in enumerate(rows[TRANSCRIPTS])}
    lines = [line_of[name] for name in corpus.utterance_ids]
    assert list(corpus.labels) == [int(rows[TRANSCRIPTS][line][3]) for line in lines]
    assert corpus.texts == [rows[TRANSCRIPTS][line][1].lower() for line in lines]
    for place, (modality, width) in enumerate(WIDTHS.items()):
        expected = np.array(lines)[:, None] + 0.3 * place + np.arange(width) / 1000
        assert np.allclose(corpus.measurements[modality].values, expected, rtol=0, atol=1e-12)
        assert corpus.measurements[modality].present.all()


@pytest.mark.parametrize(
    ("protocol", "dev", "test"), [("unseen-dev", ["e3"], ["b1", "d_2"]), ("bclstm", ["tf-_f"], TEST_VIDEOS)]
)
def test_protocols(tmp_path: Path, card: DatasetCard, protocol: str, dev: list[str], test: list[str]) -> None:
    corpus = read_corpus(card, request(write(tmp_path, small_rows()), protocol=protocol))
    found = {split: [v for v, s in zip(corpus.dialogue_ids, corpus.splits, strict=True) if s == n]
             for n, split in enumerate(SPLITS)}  # fmt: skip
    assert found["dev"] == dev
    assert found["test"] == test
    assert sorted([*found["train"], *dev, *test]) == sorted(TRAIN_VIDEOS + TEST_VIDEOS)


def test_small_stores(tmp_path: Path, card: DatasetCard) -> None:
    files = write(tmp_path, small_rows())
    content = CmuMosi(card).prepare(request(files))
    check_content(content)
    assert {name: values.shape[1] for name, values in content.features.items()} == WIDTHS
    train = content.features["audio"][: 7 * UTTERANCES]
    assert train.mean(axis=0) == pytest.approx(np.zeros(73), abs=1e-5)
    assert not np.asarray(content.speakers).any()
    texts = CmuMosi(card).prepare(request(files, "transcripts"))
    check_content(texts)
    assert texts.settings["text"]["tfidf"]["blocks"]["class_scores"] == 2
    assert np.array_equal(texts.features["audio"], content.features["audio"])


def test_transcripts_need_no_text_features(tmp_path: Path, card: DatasetCard) -> None:
    files = write(tmp_path, small_rows())
    kept = {name: file for name, file in files.items() if name in card.feature_sets["transcripts"].sources}
    assert set(files) - set(kept) == {"text_train0.csv", "text_test0.csv"}
    assert list(read_corpus(card, request(kept, "transcripts")).measurements) == ["audio", "visual"]


Change = Callable[[Rows], object]


def swap(rows: list[list[str]]) -> None:
    """Exchange the first row with the first of the other class."""
    other = next(place for place, row in enumerate(rows) if row[-1] != rows[0][-1])
    rows[0], rows[other] = rows[other], rows[0]


@pytest.mark.parametrize(
    ("change", "file", "expected"),
    [
        (lambda r: r[TRANSCRIPTS].pop(), TRANSCRIPTS, "holds 109 utterances, but the published file holds 110"),
        (lambda r: r[TRANSCRIPTS][3].__setitem__(0, "b1"), TRANSCRIPTS, "line 4, column utterance: should look like"),
        (lambda r: r[TRANSCRIPTS][3].__setitem__(0, "b1_1"), TRANSCRIPTS, "line 4, column utterance: b1_1 occurs twic"),
        (lambda r: r[TRANSCRIPTS][3].__setitem__(1, ""), TRANSCRIPTS, "line 4, column words: is blank"),
        (lambda r: r[TRANSCRIPTS][3].__setitem__(3, "2"), TRANSCRIPTS, "line 4, column class: should be one of 0, 1"),
        (lambda r: r[TRANSCRIPTS][3].append("x"), TRANSCRIPTS, "line 4: there should be 4 values, but there are 5."),
        (
            lambda r: r["text_train.csv"][2].__setitem__(0, "a"),
            "text_train.csv",
            "line 3, column line: should be a who",
        ),
        (
            lambda r: r["text_train.csv"][2].__setitem__(0, r["text_train.csv"][1][0]),
            "text_train.csv",
            f"line 3, column line: {small_rows()['text_train.csv'][1][0]} occurs twice",
        ),
        (lambda r: r["text_train.csv"][2].__setitem__(0, "110"), "text_train.csv", "line 3: 110 is no line of transcr"),
        (lambda r: r["text_train.csv"][2].__setitem__(0, "-1"), "text_train.csv", "line 3: -1 is no line of transcrip"),
        (lambda r: r["text_test.csv"][0].__setitem__(0, "40"), "text_test.csv", "is in text_train.csv too"),
        (lambda r: r["audio_train0.csv"].pop(), "audio_train0.csv", "has 76 rows and"),
        (lambda r: r["audio_train0.csv"][4].pop(), "audio_train0.csv", "line 5: there should be 74 values, but there"),
        (lambda r: r["audio_train0.csv"][4].__setitem__(6, ""), "audio_train0.csv", "line 5, column audio 7: is blank"),
        (lambda r: r["video_test0.csv"][4].__setitem__(0, "nan"), "video_test0.csv", "line 5, column visual 1: should"),
        (
            lambda r: r["video_test0.csv"][4].__setitem__(-1, "3"),
            "video_test0.csv",
            "line 5, column class: should be o",
        ),
        (
            lambda r: swap(r["video_test0.csv"]),
            "video_test0.csv",
            "line 1, column class: is 0, but transcripts.csv say",
        ),
        (lambda r: r["text_test0.csv"][4].__setitem__(0, "7.5"), "text_test0.csv", "hold other text features"),
        (
            lambda r: [r[name].pop() for name in ("text_test.csv", *(features_file(m, "test") for m in WIDTHS))],
            "text_train.csv",
            "name 109 of the 110 utterances",
        ),
    ],
)
def test_faults(tmp_path: Path, card: DatasetCard, change: Change, file: str, expected: str) -> None:
    rows = small_rows()
    change(rows)
    files = write(tmp_path, rows)
    with pytest.raises(DataError) as caught:
        read_corpus(card, request(files))
    assert str(caught.value).startswith(str(files[file]))
    assert expected in str(caught.value)


def test_examine_names_the_place_in_every_file(tmp_path: Path, card: DatasetCard) -> None:
    rows = small_rows()
    for lines in rows.values():
        lines[5].append("1")
    for name, file in write(tmp_path, rows).items():
        with pytest.raises(DataError, match=r"line 6: there should be") as caught:
            CmuMosi(card).examine(name, file)
        assert str(file) in str(caught.value)


def test_counts_of_a_protocol_are_checked(tmp_path: Path, card: DatasetCard) -> None:
    wrong = {**card.counts["unseen-dev"], "dev": SplitCount(dialogues=1, utterances=12)}
    other = card.model_copy(update={"counts": {**card.counts, "unseen-dev": wrong}})
    with pytest.raises(DataError, match="holds 11 dev utterances, but the published file holds 12"):
        read_corpus(other, request(write(tmp_path, small_rows())))


def test_what_a_run_takes_unless_told_otherwise() -> None:
    card = mosi_card()
    assert next(iter(card.feature_sets)) == "bclstm"
    assert next(iter(card.protocols)) == "unseen-dev"
    assert card.feature_sets["transcripts"].modalities == ("text", "audio")
    for source in card.sources:
        assert source.repository
        assert source.bytes
        assert len(source.commit) == len(source.git_blob) == 40
        assert len(source.sha256) == 64


@pytest.fixture(scope="module")
def corpora(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """The real corpus under both protocols."""
    root = tmp_path_factory.mktemp("mosi")
    report = import_files("cmu-mosi", shared_data / "published", root)
    assert not report.missing
    files = {name: root / "raw" / "cmu-mosi" / name for name in report.imported}
    return {name: read_corpus(mosi_card(), request(files, protocol=name)) for name in mosi_card().protocols}


@pytest.mark.real_data
class TestReal:
    """Against the published files and the table joined from them."""

    def test_it_is_the_joined_table(self, corpora: dict[str, Corpus], shared_data: Path) -> None:
        corpus = corpora["bclstm"]
        with (shared_data / "cmu-mosi/utterances.csv").open(encoding="utf-8") as stream:
            rows = {row["utterance"]: (number, row) for number, row in enumerate(csv.DictReader(stream))}
        assert corpus.texts is not None
        assert set(corpus.utterance_ids) == set(rows)
        split_of = np.asarray(corpus.splits)[corpus.dialogue_index]
        starts = np.repeat(np.cumsum([0, *corpus.lengths])[:-1], corpus.lengths)
        for place, name in enumerate(corpus.utterance_ids):
            row = rows[name][1]
            assert (corpus.texts[place], corpus.labels[place]) == (row["text"].lower(), int(row["polarity"]))
            assert corpus.dialogue_ids[corpus.dialogue_index[place]] == row["video"]
            assert place - starts[place] == int(row["position"])
            assert (split_of[place] == 2) == (row["split"] == "test")
        archive = np.load(shared_data / "cmu-mosi/features.npz")
        order = [rows[name][0] for name in corpus.utterance_ids]
        for modality, measured in corpus.measurements.items():
            joined = archive[{"visual": "video"}.get(modality, modality)][order]
            assert np.array_equal(measured.values.astype(np.float32), joined)

    def test_splits_are_those_of_the_readme(self, corpora: dict[str, Corpus]) -> None:
        readme = (Path(__file__).parents[2] / "datasets/cmu_mosi/README.md").read_text(encoding="utf-8")
        for name, corpus in corpora.items():
            dev = [v for v, split in zip(corpus.dialogue_ids, corpus.splits, strict=True) if split == 1]
            assert f"Dev of `{name}`: {', '.join(f'`{video}`' for video in dev)}." in readme

    def test_what_the_card_says_of_the_files(self, corpora: dict[str, Corpus]) -> None:
        corpus = corpora["bclstm"]
        test = np.asarray(corpus.splits)[corpus.dialogue_index] == 2
        labels = np.asarray(corpus.labels)
        assert [labels[~test].mean(), labels[test].mean()] == pytest.approx([709 / 1447, 467 / 752])
        visual, audio = (corpus.measurements[name].values for name in ("visual", "audio"))
        assert (visual[~test].std(axis=0) == 0).sum() == 32
        assert (visual == 0).mean() == pytest.approx(0.79, abs=0.005)
        for values in (visual, audio):
            apart = np.abs(values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12)
            assert apart.max() == pytest.approx(46.9, abs=0.1)

    def test_the_release_knows_the_labels_of_its_train_videos(self, corpora: dict[str, Corpus]) -> None:
        """The trap that decides the protocols: scored on videos that the regression did not see."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import f1_score

        corpus = corpora["bclstm"]
        split = np.asarray(corpus.splits)[corpus.dialogue_index]
        labels = np.asarray(corpus.labels)
        scores = {}
        for modality, measured in corpus.measurements.items():
            values = measured.values
            fitted = values[split == 0]
            scaled = (values - fitted.mean(axis=0)) / np.maximum(fitted.std(axis=0), 1e-12)
            model = LogisticRegression(C=0.01, max_iter=1000).fit(scaled[split == 0], labels[split == 0])
            scores[modality] = [
                f1_score(labels[split == each], model.predict(scaled[split == each]), average="weighted")
                for each in (1, 2)
            ]
        assert scores["text"][0] > 0.95
        assert scores["visual"][0] > 0.85
        assert scores["text"][1] < 0.8
        assert scores["visual"][1] < 0.6
        assert scores["audio"][0] < 0.65
