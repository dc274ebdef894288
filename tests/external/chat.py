"""A corpus of small talks: utterances without a label, named parts, folds, and a twin that may not be passed on."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import ShelfWriter

CARD = """
title = "Chats"
summary = "Twelve talks."
entry = "reader:Chat"
licence = "ours"
modalities = ["text", "audio"]
redistribute = REDISTRIBUTE
[label_sets.mood]
title = "Mood"
classes = ["calm", "glad", "sad"]
[feature_sets.words]
title = "Words"
summary = "Random."
widths = { text = 2, audio = 1 }
[feature_sets.text-only]
title = "Text"
summary = "Random."
widths = { text = 2 }
[protocols.official]
title = "One split"
[protocols.crossed]
title = "Three folds"
folds = 3
[subsets.even]
title = "Even"
summary = "Every second talk."
"""

READER = """
    import numpy as np
    from mer_bench.api import Dataset, StoreContent

    class Chat(Dataset):
        def prepare(self, request):
            draw = np.random.default_rng(7)
            names = [f"talk{number}" for number in range(12)]
            lengths = draw.integers(3, 7, 12)
            of_talk = [draw.integers(-1, 3, length) for length in lengths]
            of_talk[5][:] = -1
            fold = request.fold or 3
            split = [2 if number % 3 == fold - 1 else 1 if number % 3 == fold % 3 else 0 for number in range(12)]
            order = sorted(range(12), key=lambda number: (split[number], number))
            lengths = lengths[order]
            rows = int(lengths.sum())
            labels = np.concatenate([of_talk[number] for number in order])
            return StoreContent(
                features={
                    name: draw.normal(size=(rows, width)).astype(np.float32)
                    for name, width in self.card.feature_sets[request.features].widths.items()
                },
                present={name: np.ones(rows, bool) for name in self.card.feature_sets[request.features].widths},
                speakers=np.concatenate([np.arange(length) % 2 for length in lengths]).astype(np.int16),
                labels=labels.astype(np.int16),
                utterance_ids=[
                    f"{names[number]}_{turn}" for number, length in zip(order, lengths) for turn in range(length)
                ],
                dialogue_ids=[names[number] for number in order],
                offsets=np.concatenate([[0], np.cumsum(lengths)]),
                splits=np.array(sorted(split), dtype=np.uint8),
                classes=self.card.label_sets[request.labels].classes,
                subsets={"even": np.array([number % 2 == 0 for number in order])},
            )
"""


def add_chats(shelves: ShelfWriter) -> Path:
    """Add the datasets `chat`, and `secret-chat`, whose labels may not be passed on."""
    files = {
        name: {"__init__.py": "", "card.toml": CARD.replace("REDISTRIBUTE", allowed), "reader.py": READER}
        for name, allowed in (("chat", "true"), ("secret_chat", "false"))
    }
    shelves.add("datasets", f"chat_shelf_{abs(hash(shelves.folder)):x}", files)
    return shelves.folder
