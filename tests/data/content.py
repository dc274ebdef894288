"""Random contents of a store, for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from mer_bench.data.store import StoreContent
from mer_bench.locations import StoreKey

KEY = StoreKey("made-up", "default", "emotion", "official")
CLASSES = ("calm", "glad", "cross")


def make_content(
    lengths: list[int],
    splits: list[int],
    widths: dict[str, int],
    seed: int = 0,
    texts: list[str] | None = None,
    subsets: dict[str, list[bool]] | None = None,
) -> StoreContent:
    """Dialogues of the given lengths in the given splits (in rising order), with random values."""
    rng = np.random.default_rng(seed)
    rows = sum(lengths)
    present = {name: rng.random(rows) < 0.8 for name in widths}
    speakers: list[int] = []
    for length in lengths:
        numbers: dict[int, int] = {}
        speakers += [numbers.setdefault(name, len(numbers)) for name in rng.integers(0, 3, length).tolist()]
    return StoreContent(
        features={
            name: (rng.normal(size=(rows, width)) * present[name][:, None]).astype(np.float32)
            for name, width in widths.items()
        },
        present=present,
        speakers=np.array(speakers, dtype=np.int16),
        labels=rng.integers(-1, len(CLASSES), rows).astype(np.int16),
        utterance_ids=[f"ü{row}" for row in range(rows)],
        dialogue_ids=[f"dialogue {index}" for index in range(len(lengths))],
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        splits=np.array(splits, dtype=np.uint8),
        classes=CLASSES,
        texts=texts,
        subsets={name: np.array(chosen, dtype=np.bool_) for name, chosen in (subsets or {}).items()},
        settings={"encoder": "random", "seed": seed},
        notes={"rows ignored": 3},
        pipeline={"mean": rng.normal(size=3), "terms": np.array([b"a", b"bc"])},
    )


def spoken() -> st.SearchStrategy[str]:
    """Any text that UTF-8 can hold, NUL and the empty one among them."""
    return st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
        ["", "\0", "a\0b", "\r\n", "\u2028", "é👩‍🚀"]
    )


@st.composite
def contents(draw: st.DrawFn) -> StoreContent:
    """Any small content; every split has at least one dialogue."""
    counts = [draw(st.integers(1, 4)) for _ in range(3)]
    lengths = [draw(st.integers(1, 6)) for _ in range(sum(counts))]
    names = draw(st.lists(st.sampled_from(["text", "audio", "visual"]), min_size=1, max_size=3, unique=True))
    widths = {name: draw(st.integers(1, 5)) for name in names}
    splits = [index for index, count in enumerate(counts) for _ in range(count)]
    rows, dialogues = sum(lengths), len(lengths)
    texts = draw(st.none() | st.lists(spoken(), min_size=rows, max_size=rows))
    chosen = st.lists(st.booleans(), min_size=dialogues, max_size=dialogues)
    subsets = draw(st.dictionaries(st.sampled_from(["scripted", "part-2"]), chosen))
    return make_content(lengths, splits, widths, draw(st.integers(0, 1000)), texts, subsets)
