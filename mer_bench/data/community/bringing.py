"""Community releases as feature sets of an installed dataset: read for its card, checked against what is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mer_bench import registry
from mer_bench.atomic import copy_atomically
from mer_bench.cards import DatasetCard
from mer_bench.data.community.layouts import LAYOUTS, Scores
from mer_bench.data.community.reading import read_release
from mer_bench.data.community.release import Release
from mer_bench.data.corpus import Corpus, speaker_indices
from mer_bench.data.files import check_pin
from mer_bench.data.preparation import PreparationRequest, find_sources
from mer_bench.data.store import SPLITS
from mer_bench.data.tables import check_counts
from mer_bench.errors import DataError, SettingError
from mer_bench.locations import raw_folder
from mer_bench.registry import Plugin


@dataclass(frozen=True)
class Agreement:
    """How a release's dialogues compare with those of an annotation that is known.

    Attributes:
        dialogues: How many both have. utterances: How many were compared.
        labels: Utterances whose label differs. speakers: Dialogues in which other utterances share a speaker.
        texts: Utterances whose text differs, white space and typographic punctuation aside; None: one has no texts.
        first: The first difference in a label, in words; "" if there is none.
    """

    dialogues: int
    utterances: int
    labels: int
    speakers: int
    texts: int | None
    first: str


@dataclass(frozen=True)
class ReleaseImport:
    """What `import_release` did.

    Attributes:
        features: The feature set that the release is. imported: Where each source was copied from.
        counts: Dialogues and utterances by split as a store will hold them; empty where it cannot be prepared yet.
        agreement: With the published annotation; None where that is not on this machine.
        missing: Sources that the feature set needs besides.
        ready: Feature sets all of whose sources are there now.
    """

    dataset: str
    features: str
    raw: Path
    imported: Mapping[str, Path]
    counts: Mapping[str, tuple[int, int]]
    agreement: Agreement | None
    missing: tuple[str, ...]
    ready: tuple[str, ...]


def is_release(dataset: str, features: str) -> bool:
    """Whether a feature set of a dataset is a community release, by their names."""
    return any((layout.corpus, layout.feature_set) == (dataset, features) for layout in LAYOUTS)


def corpus_of(
    dataset: str,
    card: DatasetCard,
    request: PreparationRequest,
    *,
    files: Sequence[Path] | None = None,
    splits: Mapping[str, int] | None = None,
    dev: Collection[str | int] | None = None,
    classes: Mapping[str, str | None] | None = None,
) -> Corpus:
    """The corpus of the community release that a feature set of a dataset's card names.

    Args:
        files: Those of the release; None: every source of the feature set.
        splits: Split of each dialogue (index into SPLITS), instead of the lists of the files.
        dev: Dialogues that are dev where the files have no list of them.
        classes: Class of the card for a class of the release, where their names differ; None: no label.

    Raises:
        UnsafePickleError: If a file asks for anything but data.
        DataError: If a file is damaged, of another layout, of other widths or not of the published counts.
        SettingError: If the release lacks the labels that are asked for, or which dialogues are dev is not known.
    """
    features = card.feature_sets[request.features]
    given = [request.files[name] for name in features.sources] if files is None else list(files)
    fitting = [layout.id for layout in LAYOUTS if (layout.corpus, layout.feature_set) == (dataset, request.features)]
    release = read_release(given, fitting[0] if len(fitting) == 1 else None)
    if fitting and release.layout.id not in fitting:
        raise DataError(
            f"{release.origin} is {release.layout.title}, but {dataset}/{request.features} is made from "
            f"{' or '.join(fitting)}."
        )
    role, index_of = _label_indices(release, card, request.labels, classes or {})
    published = card.counts.get(request.protocol)
    counts = None
    if published is not None and release.layout.numbering is not None:
        counts = (published["train"].dialogues, published["dev"].dialogues, published["test"].dialogues)
    corpus = release.corpus(role, dev=dev, splits=splits, counts=counts)
    if published is not None and request.fold is None:
        _check_counts(release, corpus, {name: published[name].utterances for name in SPLITS if name in published})
    measurements = {
        name: measured
        for name, measured in corpus.measurements.items()
        if name in features.widths and not (name == "text" and features.text)
    }
    for name, measured in measurements.items():
        if features.widths[name] not in (0, measured.values.shape[1]):
            raise DataError(
                f"{release.origin} has {name} vectors of width {measured.values.shape[1]}, but "
                f"{dataset}/{request.features} has {features.widths[name]}."
            )
    return replace(corpus, labels=[index_of[label] for label in corpus.labels], measurements=measurements)


def compare(corpus: Corpus, known: Corpus) -> Agreement:
    """Compare dialogues of the same name, utterance by utterance.

    Raises:
        DataError: If a dialogue has another number of utterances.
    """
    from mer_bench.data.text.tokens import normalise

    starts = _starts(known)
    labels = speakers = texts = utterances = dialogues = 0
    first = ""
    place = 0
    has_texts = corpus.texts is not None and known.texts is not None
    for name, length in zip(corpus.dialogue_ids, corpus.lengths, strict=True):
        here = slice(place, place + length)
        place += length
        if name not in starts:
            continue
        start, known_length = starts[name]
        there = slice(start, start + known_length)
        if known_length != length:
            raise DataError(
                f"dialogue {name} has {length} utterances, but the published annotation has {known_length}."
            )
        dialogues += 1
        utterances += length
        for turn, (mine, theirs) in enumerate(zip(corpus.labels[here], known.labels[there], strict=True)):
            if mine != theirs:
                labels += 1
                first = first or f"{name}, turn {turn}: {mine} instead of {theirs}"
        ours, published = (
            speaker_indices(list(each.speakers[part]), [length]).tolist()  # type: ignore[arg-type]
            for each, part in ((corpus, here), (known, there))
        )
        speakers += ours != published
        if has_texts:
            assert corpus.texts is not None
            assert known.texts is not None
            pairs = zip(corpus.texts[here], known.texts[there], strict=True)
            texts += sum(normalise(mine) != normalise(theirs) for mine, theirs in pairs)
    return Agreement(dialogues, utterances, labels, speakers, texts if has_texts else None, first)


def feature_set_of(release: Release, plugin: Plugin[DatasetCard]) -> str:
    """The feature set of a dataset that a release is.

    Raises:
        SettingError: If it is none; says what it is.
    """
    layout = release.layout
    if layout.incomplete:
        raise SettingError(f"{release.origin} is {layout.title}: {layout.incomplete}.")
    if layout.corpus != plugin.name:
        what = f"holds {layout.corpus}" if layout.corpus else "holds a corpus that cannot be told"
        raise SettingError(
            f"{release.origin} is {layout.title} and {what}, not {plugin.name}. Import it under a name of your own: "
            "mer-bench data import NAME --from FILE"
        )
    if layout.feature_set not in plugin.card.feature_sets:
        raise SettingError(
            f"{release.origin} is {layout.title}, for which {plugin.name} has no feature set. Import it under a name "
            "of your own: mer-bench data import NAME --from FILE"
        )
    return layout.feature_set


def import_release(dataset: str, release: Release, root: Path) -> ReleaseImport:
    """Check a release against a dataset and copy its files to the raw data folder, under their sources' names.

    Its corpus is made once, so that what is copied can be used; nothing is copied before that.

    Raises:
        SettingError: If the release is no feature set of the dataset.
        DataError: If it is not the published one, or disagrees with the dataset's counts, labels or turns.
        StorageError: If a copy cannot be written.
    """
    plugin = registry.datasets(root).find(dataset)
    features = feature_set_of(release, plugin)
    names = plugin.card.feature_sets[features].sources
    files = dict(zip(names, release.files, strict=False))
    for name, file in files.items():
        check_pin(file, plugin.card.source(name))
    raw = raw_folder(root, plugin.name)
    others = {name: raw / name for name in names if name not in files}
    missing = tuple(name for name, file in others.items() if not file.is_file())
    counts: dict[str, tuple[int, int]] = {}
    agreement = None
    if not missing:
        counts, agreement = _tried(plugin, release, features, {**files, **others}, raw)
    for name, file in files.items():
        if not ((raw / name).exists() and file.samefile(raw / name)):
            copy_atomically(file, raw / name)
    ready = tuple(key for key in plugin.card.feature_sets if not find_sources(plugin, key, root)[1])
    return ReleaseImport(plugin.name, features, raw, files, counts, agreement, missing, ready)


def _tried(
    plugin: Plugin[DatasetCard], release: Release, features: str, files: Mapping[str, Path], raw: Path
) -> tuple[dict[str, tuple[int, int]], Agreement | None]:
    """Counts by split and the agreement with the annotation, of the corpus that the dataset makes of a release."""
    card = plugin.card
    loaded = registry.load_dataset(plugin.name)
    protocol, labels = next(iter(card.protocols)), next(iter(card.label_sets))
    fold = 1 if card.protocols[protocol].folds else None
    corpus: Corpus = loaded.release_corpus(PreparationRequest(features, labels, protocol, fold, files))
    counts: dict[str, tuple[int, int]] = {
        name: (
            sum(split == index for split in corpus.splits),
            sum(length for split, length in zip(corpus.splits, corpus.lengths, strict=True) if split == index),
        )
        for index, name in enumerate(SPLITS)
    }
    known = loaded.annotation(labels, raw)
    if known is None:
        return counts, None
    agreement = compare(corpus, known)
    if agreement.labels:
        raise DataError(
            f"{release.origin}: {agreement.labels} of {agreement.utterances} labels are not those of the published "
            f"annotation; the first: {agreement.first}."
        )
    return counts, agreement


def _label_indices(
    release: Release, card: DatasetCard, labels: str, classes: Mapping[str, str | None]
) -> tuple[str, dict[int, int]]:
    """The release's annotation that a label set of the card is, and the card's index of each of its classes."""
    wanted = {name.casefold(): index for index, name in enumerate(card.label_sets[labels].classes)}
    found: dict[str, dict[int, int]] = {}
    for role, known in release.layout.labels.items():
        names = known.classes if isinstance(known, Scores) else known
        renamed = [classes.get(name, name) for name in names]
        if names and all(name is None or name.casefold() in wanted for name in renamed):
            found[role] = {index: -1 if name is None else wanted[name.casefold()] for index, name in enumerate(renamed)}
    if not found:
        there = " and ".join(release.layout.labels) or "no labels"
        raise SettingError(f"{release.origin} has {there} alone, but labels '{labels}' were asked for.")
    role = labels if labels in found else next(iter(found))
    return role, found[role]


def _check_counts(release: Release, corpus: Corpus, published: Mapping[str, int]) -> None:
    for index, name in enumerate(SPLITS):
        if name not in published:
            continue
        lengths = (length for split, length in zip(corpus.splits, corpus.lengths, strict=True) if split == index)
        what = f"{name} utterances"
        check_counts(release.files[0], {what: sum(lengths)}, {what: published[name]})


def _starts(corpus: Corpus) -> dict[str, tuple[int, int]]:
    """First utterance and number of utterances of each dialogue, by its name."""
    found = {}
    start = 0
    for name, length in zip(corpus.dialogue_ids, corpus.lengths, strict=True):
        found[name] = (start, length)
        start += length
    return found
