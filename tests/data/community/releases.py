"""Small releases in every layout, written as their repositories wrote them."""

from __future__ import annotations

from typing import Any

import numpy as np

LENGTHS = {"a1": 3, "a2": 2, "b1": 4, "c1": 1, "d1": 2}
"""Utterances by dialogue: three train ones, one dev, one test; the names sort in that order."""
NAMES = tuple(LENGTHS)
TRAIN, DEV, TEST = ["a1", "a2", "b1"], ["c1"], ["d1"]
MERGED = [*TRAIN, *DEV]
WHO = {"a1": "MFM", "a2": "FF", "b1": "MMFM", "c1": "F", "d1": "FM"}
CLASSES = {"a1": [0, 5, 2], "a2": [3, 3], "b1": [1, 0, 4, 2], "c1": [2], "d1": [5, 0]}
"""Class indices of six; `FOUR` of four."""
FOUR = {name: [label % 4 for label in labels] for name, labels in CLASSES.items()}
SCORES = {name: [label - 2.5 for label in labels] for name, labels in CLASSES.items()}


def vectors(width: int, shift: int = 0, kind: Any = np.float32) -> dict[str, list[Any]]:
    """Random vectors by dialogue, the same for the same width and shift."""
    random = np.random.default_rng(width * 10 + shift)
    return {name: list(random.normal(1, 2, (length, width)).astype(kind)) for name, length in LENGTHS.items()}


def one_hot(width: int = 9) -> dict[str, list[list[int]]]:
    return {name: [[int(place == "MF".index(who)) for place in range(width)] for who in WHO[name]] for name in NAMES}


def sexes() -> dict[str, list[str]]:
    return {name: list(who) for name, who in WHO.items()}


def digits() -> dict[str, list[str]]:
    return {name: [str("MF".index(each)) for each in who] for name, who in WHO.items()}


def sentences() -> dict[str, list[str]]:
    return {name: [f"caf\xe9, turn\x92s {turn}" for turn in range(length)] for name, length in LENGTHS.items()}


def ids() -> dict[str, list[str]]:
    return {name: [f"{name}_u{turn}" for turn in range(length)] for name, length in LENGTHS.items()}


def layers() -> list[dict[str, list[Any]]]:
    return [vectors(1024, shift) for shift in range(4)]


def nine(widths: tuple[int, int, int], speakers: Any = None, labels: Any = None) -> list[Any]:
    text, audio, visual = (vectors(width, shift) for shift, width in enumerate(widths))
    who = sexes() if speakers is None else speakers
    return [ids(), who, CLASSES if labels is None else labels, text, audio, visual, sentences(), MERGED, TEST]


def numbered(value: Any) -> Any:
    """The same with dialogues numbered from 0, as MELD's are."""
    if isinstance(value, dict):
        return {NAMES.index(name): of for name, of in value.items()}
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        return [NAMES.index(name) for name in value]
    return value


def meld(fields: list[Any]) -> list[Any]:
    return [numbered(field) for field in fields]


def sentiments() -> dict[str, list[int]]:
    return {name: [label % 3 for label in labels] for name, labels in CLASSES.items()}


def unused() -> dict[str, list[int]]:
    return {name: [0] * length for name, length in LENGTHS.items()}


def cosmic(speakers: Any, *, short: bool = False, sentiment: bool = False) -> list[Any]:
    more = [sentiments()] if sentiment else []
    return [speakers, CLASSES, *more, *([] if short else layers()), sentences(), TRAIN, TEST, DEV]


def sdt() -> list[Any]:
    return [
        *(ids(), sexes(), CLASSES, *layers(), vectors(1582), vectors(342), sentences(), MERGED, TEST),
    ]


def mosi(width: int, shift: int = 0) -> list[Any]:
    random = np.random.default_rng(width + shift)
    train = random.normal(size=(3, 4, width)).astype(np.float32)
    test = random.normal(size=(2, 4, width)).astype(np.float32)
    labels = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 0, 0]]), np.array([[0, 1, 0, 0], [1, 0, 0, 0]])
    return [train, labels[0], test, labels[1], 4, [4, 2, 3], [2, 1]]


def releases() -> dict[str, list[Any]]:
    """By layout's id: the value of each file."""
    mmgcn = nine((100, 1582, 342))
    mmgcn_meld = meld([*nine((600, 300, 342), one_hot()), unused()])
    comet = [vectors(8, place) for place in range(9)]
    full = {
        "cosmic-iemocap": cosmic(sexes()),
        "cosmic-meld": meld(cosmic(one_hot(), sentiment=True)),
        "cosmic-emorynlp": cosmic(one_hot()),
        "cosmic-dailydialog": cosmic(digits()),
    }
    short = {
        "cosmic-short-iemocap": cosmic(sexes(), short=True),
        "cosmic-short-meld": meld(cosmic(one_hot(), short=True, sentiment=True)),
        "cosmic-short-emorynlp": cosmic(one_hot(), short=True),
        "cosmic-short-dailydialog": cosmic(digits(), short=True),
    }
    modalities = [vectors(width) for width in (768, 512, 1000)]
    users = {name: ["user" if each == "M" else "operator" for each in who] for name, who in WHO.items()}
    words = {name: [[1, 2, 3], *([[4]] * (length - 1))] for name, length in LENGTHS.items()}
    sixty = {name: [np.ones((3, 80)) * turn for turn in range(1, length + 1)] for name, length in LENGTHS.items()}
    mosei = nine((768, 80, 35), {name: ["M"] * length for name, length in LENGTHS.items()}, SCORES)
    gcnet = [ids(), CLASSES, sexes(), sentences(), set(MERGED), set(TEST)]
    sdt_meld = [*sdt()[:1], one_hot(), *sdt()[2:7], vectors(300), *sdt()[8:], unused()]
    return {
        "conv-emotion-iemocap": [nine((100, 100, 512))],
        "mmgcn-iemocap": [mmgcn],
        "mmgcn-meld": [mmgcn_meld],
        "cogmen-iemocap-4": [nine((100, 100, 512), labels=FOUR)],
        "graphsmile-iemocap-4": [nine((1024, 100, 512), labels=FOUR)],
        "conv-emotion-avec": [nine((100, 30, 20), users, SCORES)],
        "conv-emotion-meld": [
            meld([*nine((600, 300, 1), one_hot())[:5], sentences(), MERGED, TEST, sentiments()]),
        ],
        "conv-emotion-dailydialog": [
            [digits(), words, dict.fromkeys(NAMES, 3), sentiments(), CLASSES, TRAIN, TEST, DEV],
        ],
        "mmgcn-dailydialog": [[digits(), vectors(50), sentiments(), CLASSES, TRAIN, TEST, DEV]],
        "mmgcn-dailydialog-8": [[digits(), vectors(50), unused(), sentiments(), CLASSES, TRAIN, TEST, DEV]],
        **{name: [value] for name, value in {**full, **short}.items()},
        **{f"{name}-comet": [value, meld(comet) if "meld" in name else comet] for name, value in full.items()},
        "sdt-iemocap": [sdt()],
        "graphsmile-iemocap": [sdt()],
        "sdt-meld": [meld(sdt_meld)],
        "graphsmile-meld": [meld([*sdt_meld[:3], sentiments(), *sdt_meld[3:]])],
        "m3net-iemocap": [mmgcn, full["cosmic-iemocap"]],
        "m3net-meld": [mmgcn_meld, full["cosmic-meld"]],
        "graphsmile-mosei": [nine((1024, 384, 35), labels=SCORES)],
        "cogmen-mosei": [[*mosei[:4], sixty, *mosei[5:7], TRAIN, DEV, TEST]],
        "cogmen-mosei-categorical": [nine((768, 80, 35))],
        "multiemo-iemocap": [nine((100, 100, 512)), *modalities],
        "multiemo-meld": [mmgcn_meld, *map(numbered, modalities)],
        "gcnet-iemocap-6": [gcnet],
        "gcnet-iemocap-4": [[gcnet[0], FOUR, *gcnet[2:]]],
        "gcnet-mosi": [
            [ids(), SCORES, {name: [""] * length for name, length in LENGTHS.items()}, sentences(),
             set(TRAIN), set(DEV), set(TEST)],
        ],
        "bc-lstm-mosi": [mosi(100), mosi(73), mosi(100, 7)],
        "m3ed": [nine((50, 40, 30))],
        "dialoguernn": [nine((50, 40, 30))],
    }  # fmt: skip


def parts() -> dict[str, Any]:
    """Files that are no release by themselves, by layout's id."""

    def table(width: int) -> dict[str, Any]:
        return {f"{dialogue}_{turn}": np.ones(width) for dialogue in range(2) for turn in range(2)}

    records = [{"text": "a b", "y": "joy", "split": "train", "dialog": "0", "utterance": "0"}]
    padded = {"0": np.zeros((33, 300)), "1": np.zeros((33, 300))}
    return {
        "cosmic-comet": [vectors(8, place) for place in range(9)],
        "sentences": sentences(),
        "multiemo-text": vectors(768),
        "multiemo-audio": vectors(512),
        "multiemo-visual": vectors(1000),
        "meld-authors-averaged-word-vectors": [table(300)] * 3,
        "meld-authors-selected-audio-for-emotion": [table(1611)] * 3,
        "meld-authors-selected-audio-for-sentiment": [table(1422)] * 3,
        "meld-authors-text-network": [table(100)] * 3,
        "meld-authors-contextual-outputs": [padded] * 3,
        "meld-authors-data": [records, np.zeros((3, 300)), {"a": 1}, {"a": 2}, 33, {"joy": 0}],
        "mertools-labels": {
            f"{split}_corpus": np.array({"x_utt0": {"emo": "joy", "val": 0}}, dtype=object)
            for split in ("train", "val", "test")
        },
    }
