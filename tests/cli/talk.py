"""A corpus of three utterances, published on a loopback port: as a plugin, under a licence, and in folds."""

from __future__ import annotations

from pathlib import Path

from mer_bench.data.files import git_blob_of, sha256_of
from tests.conftest import ShelfWriter

COMMIT = "0123456789" * 4
TALK = b"hello,1\nbye,0\nagain,1\n"
BIG = bytes(range(256)) * 2000

CARD = f"""
title = "Small talk"
summary = "Three utterances."
entry = "reader:Talk"
licence = "ours"
modalities = ["text"]
[label_sets.mood]
title = "Mood"
classes = ["calm", "glad"]
[label_sets.other]
title = "Other"
classes = ["a", "b"]
[feature_sets.words]
title = "Words"
summary = "Word lengths."
widths = {{ text = 1 }}
sources = ["talk.csv"]
[feature_sets.vectors]
title = "Vectors"
summary = "Word lengths times a number that a file holds."
widths = {{ text = 1 }}
sources = ["talk.csv"]
needs = ["vectors"]
[feature_sets.big]
title = "Big"
summary = "With a file whose size the card does not know."
widths = {{ text = 1 }}
sources = ["talk.csv", "big.bin"]
[feature_sets.mixed]
title = "Mixed"
summary = "With the user's own table."
widths = {{ text = 1 }}
sources = ["talk.csv", "own.csv"]
[protocols.PROTOCOL]
title = "The default"
FOLDS
[protocols.crossed]
title = "Two folds"
folds = 2
[[sources]]
name = "talk.csv"
repository = "someone/talk"
commit = "{COMMIT}"
path = "data/talk.csv"
bytes = {len(TALK)}
sha256 = "{sha256_of(TALK)}"
[[sources]]
name = "big.bin"
repository = "someone/talk"
commit = "{COMMIT}"
path = "big.bin"
git_blob = "{git_blob_of(BIG)}"
[[sources]]
name = "own.csv"
"""

TERMS = """
[terms]
owner = "The Owner of Talk"
url = "https://owner.example/talk"
text = "You keep what is said to yourself."
"""

READER = """
    import numpy as np
    from mer_bench.api import Dataset, StoreContent

    class Talk(Dataset):
        def prepare(self, request):
            rows = [line.split(",") for line in request.files["talk.csv"].read_text().split()]
            factor = float(request.options["vectors"].read_text()) if request.options else 1.0
            return StoreContent(
                features={"text": np.array([[factor * len(text)] for text, _ in rows], dtype=np.float32)},
                present={"text": np.ones(3, dtype=bool)},
                speakers=np.zeros(3, dtype=np.int16),
                labels=np.array([int(label) for _, label in rows], dtype=np.int16),
                utterance_ids=["a", "b", "c"],
                dialogue_ids=["x", "y", "z"],
                offsets=np.arange(4),
                splits=np.arange(3, dtype=np.uint8),
                classes=self.card.label_sets[request.labels].classes,
            )
"""


def add_talk(shelves: ShelfWriter) -> ShelfWriter:
    """Add the datasets `talk`, `licensed`, `folded` and, with a stand-in, `backed` and `guarded`."""
    plain = CARD.replace("PROTOCOL", "official").replace("FOLDS", "")
    folded = CARD.replace("PROTOCOL", "loso").replace("FOLDS", "folds = 3")
    backed = plain.replace("entry =", 'stand_in = "meld-synthetic"\nentry =')
    cards = {"talk": plain, "licensed": plain + TERMS, "folded": folded, "backed": backed, "guarded": backed + TERMS}
    package = f"talk_shelf_{abs(hash(shelves.folder)):x}"
    files = {name: {"__init__.py": "", "card.toml": card, "reader.py": READER} for name, card in cards.items()}
    shelves.add("datasets", package, files)
    return shelves


def publish_talk(folder: Path) -> Path:
    """Write the published files as a mirror holds them."""
    for path, content in {"data/talk.csv": TALK, "big.bin": BIG}.items():
        file = folder / "someone" / "talk" / COMMIT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder
