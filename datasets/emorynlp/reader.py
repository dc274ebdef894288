"""EmoryNLP from its three published csv files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mer_bench.data import community
from mer_bench.data.corpus import Corpus, make_store
from mer_bench.data.dataset import Dataset, DatasetCard, PreparationRequest, SplitName, StoreContent
from mer_bench.data.store import SPLITS
from mer_bench.data.tables import Table, check_counts, read_table
from mer_bench.errors import DataError

SENTIMENT = {
    "Joyful": "positive",
    "Peaceful": "positive",
    "Powerful": "positive",
    "Neutral": "neutral",
    "Mad": "negative",
    "Sad": "negative",
    "Scared": "negative",
}
"""The corpus has no sentiment of its own: this grouping is that of COSMIC (Ghosal et al., Findings of EMNLP 2020)."""

_NAME = r"""'[^']+'|"[^"]+\""""
_SPEAKERS = re.compile(rf"\[(?:{_NAME})(?:, (?:{_NAME}))*\]")

Scene = tuple[int, int, int]
"""Season, episode and the scene's number in the episode."""


@dataclass(frozen=True)
class Scenes:
    """One split's csv, in the order of the file.

    Attributes:
        keys: Scene and number of each utterance.
        emotions: Index of each utterance's emotion.
        speakers: Everybody who speaks an utterance together, in the order of the file, which is the alphabet's.
        lengths: Utterances of each scene.
    """

    keys: Sequence[tuple[Scene, int]]
    texts: Sequence[str]
    speakers: Sequence[tuple[str, ...]]
    emotions: Sequence[int]
    lengths: Sequence[int]

    @property
    def scenes(self) -> list[Scene]:
        """Each scene, in order."""
        return list(dict.fromkeys(scene for scene, _ in self.keys))

    @property
    def left_out(self) -> int:
        """Numbers that an utterance of these scenes skips: the corpus has those utterances, the csv has not."""
        last: dict[Scene, int] = {}
        skipped = 0
        for scene, number in self.keys:
            skipped += number - last.get(scene, 0) - 1
            last[scene] = number
        return skipped


class EmoryNlp(Dataset):
    """The EmoryNLP corpus."""

    def prepare(self, request: PreparationRequest) -> StoreContent:
        is_release = community.is_release("emorynlp", request.features)
        corpus = self.release_corpus(request) if is_release else read_corpus(self.card, request)
        return make_store(corpus, self.card, request)

    def release_corpus(self, request: PreparationRequest) -> Corpus:
        classes = SENTIMENT if request.labels == "sentiment" else None
        return community.corpus_of("emorynlp", self.card, request, classes=classes)

    def annotation(self, labels: str, raw: Path) -> Corpus | None:
        files = {source_of(split): raw / source_of(split) for split in SPLITS}
        if not all(file.is_file() for file in files.values()):
            return None
        known = read_corpus(self.card, PreparationRequest("transcripts", labels, "official", None, files))
        # Releases call a scene 1_2_3 where the corpus, and this dataset, write s01_e02_c03.
        return replace(known, dialogue_ids=[release_id(name) for name in known.dialogue_ids])

    def examine(self, source: str, file: Path) -> None:
        for split in SPLITS:
            if source == source_of(split):
                read_scenes(file, split, self.card)


def source_of(split: str) -> str:
    """Name of the source with a split's scenes."""
    return f"emorynlp_{split}_final.csv"


def scene_id(scene: Scene) -> str:
    """Id of a scene as the corpus' own release writes it: `s01_e02_c03`."""
    return "s{:02}_e{:02}_c{:02}".format(*scene)


def release_id(scene: str) -> str:
    """Id of a scene as community releases write it, from `scene_id`: `1_2_3`."""
    return "_".join(str(int(part[1:])) for part in scene.split("_"))


def read_scenes(file: Path, split: SplitName, card: DatasetCard) -> Scenes:
    """Read one split.

    Raises:
        DataError: If it is damaged or its counts are not the published ones; names file, line and column.
    """
    table = read_table(file, ["Utterance", "Speaker", "Emotion", "Scene_ID", "Utterance_ID", "Season", "Episode"])
    texts = table.filled("Utterance")
    speakers = _speakers(table)
    emotions = table.choices("Emotion", card.label_sets["emotion"].classes)
    scenes = list(zip(*(table.integers(column) for column in ("Season", "Episode", "Scene_ID")), strict=True))
    numbers = table.integers("Utterance_ID")
    lengths: list[int] = []
    finished: set[Scene] = set()
    for row, scene in enumerate(scenes):
        if row == 0 or scene != scenes[row - 1]:
            if scene in finished:
                raise table.fault(row, "Scene_ID", f"the scene {scene_id(scene)} goes on here after another began")
            finished.add(scene)
            lengths.append(0)
        elif numbers[row] <= numbers[row - 1]:
            raise table.fault(row, "Utterance_ID", f"should be above {numbers[row - 1]}, but is {numbers[row]}")
        lengths[-1] += 1
    published = card.counts["official"][split]
    check_counts(
        file,
        {"scenes": len(lengths), "utterances": len(scenes)},
        {"scenes": published.dialogues, "utterances": published.utterances},
    )
    return Scenes(list(zip(scenes, numbers, strict=True)), texts, speakers, emotions, lengths)


def _speakers(table: Table) -> list[tuple[str, ...]]:
    found = []
    for row, value in enumerate(table.filled("Speaker")):
        if not _SPEAKERS.fullmatch(value):
            raise table.fault(row, "Speaker", f"should look like ['Monica Geller', 'Ross Geller'], but is {value[:60]}")
        found.append(tuple(name[1:-1] for name in re.findall(_NAME, value)))
    return found


def read_corpus(card: DatasetCard, request: PreparationRequest) -> Corpus:
    """The three splits with the labels that are asked for.

    Who speaks is the first whom the file names: a line that several speak together then belongs to somebody
    who does speak it, as in the releases of this corpus, and not to a person of its own.

    Raises:
        DataError: If a file is damaged, or two splits share a scene; names it.
    """
    splits = {split: read_scenes(request.files[source_of(split)], split, card) for split in SPLITS}
    where: dict[Scene, str] = {}
    for split in SPLITS:
        for scene in splits[split].scenes:
            if scene in where:
                raise DataError(
                    f"{request.files[source_of(split)]} holds the scene {scene_id(scene)}, which {where[scene]} has "
                    "too. One of the two files is not the published one; obtain both again."
                )
            where[scene] = source_of(split)
    classes = card.label_sets[request.labels].classes
    named = card.label_sets["emotion"].classes
    index = [classes.index(name if request.labels == "emotion" else SENTIMENT[name]) for name in named]
    several = {split: sum(len(names) > 1 for names in splits[split].speakers) for split in SPLITS}
    left_out = {split: splits[split].left_out for split in SPLITS}
    return Corpus(
        dialogue_ids=[scene_id(scene) for split in SPLITS for scene in splits[split].scenes],
        lengths=[length for split in SPLITS for length in splits[split].lengths],
        splits=[number for number, split in enumerate(SPLITS) for _ in splits[split].lengths],
        utterance_ids=[f"{scene_id(scene)}_u{number:03}" for split in SPLITS for scene, number in splits[split].keys],
        speakers=[names[0] for split in SPLITS for names in splits[split].speakers],
        labels=[index[emotion] for split in SPLITS for emotion in splits[split].emotions],
        texts=[text for split in SPLITS for text in splits[split].texts],
        notes={
            **{
                f"{split}: utterances of several speakers, counted as the first one's": several[split]
                for split in SPLITS
            },
            **{f"{split}: utterances of these scenes that the file leaves out": left_out[split] for split in SPLITS},
        },
    )
