"""The layouts in which the field releases its features, as a table; nothing here reads a file.

A layout is told by the number, the kinds and the widths of its fields. Widths are those that the releases' own
loaders expect. Where a release takes the text from four layers of a language model, `text` is their mean, unless its
own loader uses the first alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

IEMOCAP_SIX = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
IEMOCAP_FOUR = ("happy", "sad", "neutral", "angry")
MELD_EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
MELD_SENTIMENTS = ("neutral", "positive", "negative")
EMORYNLP_EMOTIONS = ("joyful", "mad", "peaceful", "neutral", "sad", "powerful", "scared")
M3ED_EMOTIONS = ("happy", "neutral", "sad", "disgust", "anger", "fear", "surprise")

MELD_NUMBERING = (1038, 114, 280)
"""Train, dev and test dialogues of MELD: numbered one after the other, from 0 and without 60."""


@dataclass(frozen=True)
class Field:
    """A field of a file: what it is, and the kind and width that tell it (see `structure.difference`)."""

    role: str
    kind: str = "anything"
    width: int = 0


@dataclass(frozen=True)
class Modality:
    """How fields become one modality: the vectors' mean, or side by side; of one field, the vectors themselves."""

    roles: tuple[str, ...]
    how: Literal["mean", "side by side"] = "mean"


@dataclass(frozen=True)
class Scores:
    """Classes of labels that are scores: class k lies above k of the edges.

    Attributes:
        edges: Ascending. at_edge: On which side of each edge a score lies that equals it: "below" or "above".
    """

    classes: tuple[str, ...]
    edges: tuple[float, ...]
    at_edge: tuple[Literal["below", "above"], ...]


POLARITY = Scores(("negative", "positive"), (0.0,), ("above",))
"""A score of 0 counts as positive, as in the bc-LSTM release of CMU-MOSI."""

SEVEN_BINS = Scores(
    ("under -2", "-2 to -1", "-1 to 0", "zero", "0 to 1", "1 to 2", "over 2"),
    (-2.0, -1.0, 0.0, 0.0, 1.0, 2.0),
    ("above", "above", "above", "below", "below", "below"),
)
"""GraphSmile's: below -2, [-2, -1), [-1, 0), 0, (0, 1], (1, 2], above 2."""

NO_CLASSES = Scores((), (), ())
"""Scores for which no classes are known."""


@dataclass(frozen=True)
class Layout:
    """One layout of one or several files.

    Attributes:
        id: What `--layout` names. title: In words.
        corpus: Dataset that it holds, as named on the command line; "" where that cannot be told.
        feature_set: Id of the feature set that a dataset's card may list for it.
        fields: In order. form: The file is a list of fields, one dict that is the only field, or named fields.
        numbered: Dialogues are named by whole numbers.
        labels: By role: names of the classes, in the order of their index (empty: not known), or scores.
        highest_label: Least index that some label must have; tells six classes from four.
        modalities: By name.
        numbering: Dialogues of train, dev and test where the order of their numbers tells them.
        label_supervised: Train labels shaped the features.
        generic: Only where nothing else fits. on_request: Only when it is named.
        incomplete: Why it is no release by itself; "" where it is one.
        parts: Of a release of several files: for each file the layouts that it may have; `fields` is empty then.
        hint: Part of a file's name that tells it from a layout of the very same structure; "" is none.
    """

    id: str
    title: str
    corpus: str
    feature_set: str
    fields: tuple[Field, ...] = ()
    form: Literal["fields", "dict", "named"] = "fields"
    numbered: bool = False
    labels: Mapping[str, tuple[str, ...] | Scores] = field(default_factory=dict)
    highest_label: int = 0
    modalities: Mapping[str, Modality] = field(default_factory=dict)
    numbering: tuple[int, int, int] | None = None
    label_supervised: bool = False
    caveats: tuple[str, ...] = ()
    generic: bool = False
    on_request: bool = False
    incomplete: str = ""
    parts: tuple[tuple[str, ...], ...] = ()
    hint: str = ""


MERGED = "Its train list holds train and dev together."
NO_VISUAL = "It has no visual features."
NO_FEATURES = "It has no features; texts must be encoded."
CONTEXTUAL = "Text and audio are outputs of a model that was trained on the labels: they are contextual already."
TEXTCNN = "Its text features come from a convolutional network that was trained on train labels."
TUNED = "Its text features come from a language model that was fine-tuned on train labels."
MEAN_OF_LAYERS = "Text is the mean of the four layers that are released."
FIRST_LAYER = "Text is the first of the four layers that are released, as its own loader takes it."

IDS, SENTENCES = Field("utterance ids"), Field("sentences", "strings")
SEXES, ONE_HOT, DIGITS = Field("speakers", "sexes"), Field("speakers", "one-hot"), Field("speakers", "digits")
EMOTION, SENTIMENT, ACT = (Field(role, "classes") for role in ("emotion", "sentiment", "act"))
TRAIN, DEV, TEST = (Field(role, "dialogues") for role in ("train", "dev", "test"))
UNUSED = Field("unused")
LAYERS = tuple(f"layer {number}" for number in range(1, 5))
LAYER_FIELDS = tuple(Field(role, "vectors", 1024) for role in LAYERS)
RELATIONS = ("xIntent", "xAttr", "xNeed", "xWant", "xEffect", "xReact", "oWant", "oEffect", "oReact")


def vectors(role: str, width: int) -> Field:
    """A field of vectors by dialogue."""
    return Field(role, "vectors", width)


def trio(text: int, audio: int, visual: int) -> tuple[Field, ...]:
    """Text, audio and visual vectors."""
    return vectors("text", text), vectors("audio", audio), vectors("visual", visual)


TRIO = {name: Modality((name,)) for name in ("text", "audio", "visual")}
LAYERED = {"text": Modality(LAYERS)}


def _nine(speakers: Field, label: Field, widths: tuple[int, int, int]) -> tuple[Field, ...]:
    """The nine fields of DialogueRNN's pickles."""
    return (IDS, speakers, label, *trio(*widths), SENTENCES, TRAIN, TEST)


CONV_EMOTION_IEMOCAP = Layout(
    "conv-emotion-iemocap", "IEMOCAP of conv-emotion (DialogueRNN, bc-LSTM, DialogueGCN), also COGMEN and CORECT",
    "iemocap", "conv-emotion",
    _nine(SEXES, EMOTION, (100, 100, 512)),
    labels={"emotion": IEMOCAP_SIX}, highest_label=4, modalities=TRIO,
    label_supervised=True, caveats=(MERGED, TEXTCNN),
)  # fmt: skip
MMGCN_IEMOCAP = replace(
    CONV_EMOTION_IEMOCAP,
    id="mmgcn-iemocap",
    title="IEMOCAP of MMGCN, also MM-DFN",
    feature_set="mmgcn",
    fields=_nine(SEXES, EMOTION, (100, 1582, 342)),
)
MMGCN_MELD = Layout(
    "mmgcn-meld", "MELD of MMGCN, also MM-DFN", "meld", "mmgcn",
    (*_nine(ONE_HOT, EMOTION, (600, 300, 342)), UNUSED),
    numbered=True, labels={"emotion": MELD_EMOTIONS}, modalities=TRIO, numbering=MELD_NUMBERING,
    label_supervised=True, caveats=(MERGED, CONTEXTUAL),
)  # fmt: skip
COSMIC_IEMOCAP = Layout(
    "cosmic-iemocap", "IEMOCAP of COSMIC", "iemocap", "cosmic",
    (SEXES, EMOTION, *LAYER_FIELDS, SENTENCES, TRAIN, TEST, DEV),
    labels={"emotion": IEMOCAP_SIX}, modalities=LAYERED, label_supervised=True, caveats=(TUNED, MEAN_OF_LAYERS),
)  # fmt: skip
COSMIC_MELD = Layout(
    "cosmic-meld", "MELD of COSMIC", "meld", "cosmic",
    (ONE_HOT, EMOTION, SENTIMENT, *LAYER_FIELDS, SENTENCES, TRAIN, TEST, DEV),
    numbered=True, labels={"emotion": MELD_EMOTIONS, "sentiment": MELD_SENTIMENTS}, modalities=LAYERED,
    numbering=MELD_NUMBERING, label_supervised=True, caveats=(TUNED, MEAN_OF_LAYERS),
)  # fmt: skip
COSMIC_EMORYNLP = replace(
    COSMIC_IEMOCAP,
    id="cosmic-emorynlp",
    title="EmoryNLP of COSMIC",
    corpus="emorynlp",
    fields=(ONE_HOT, *COSMIC_IEMOCAP.fields[1:]),
    labels={"emotion": EMORYNLP_EMOTIONS},
)
COSMIC_DAILYDIALOG = replace(
    COSMIC_IEMOCAP,
    id="cosmic-dailydialog",
    title="DailyDialog of COSMIC",
    corpus="dailydialog",
    fields=(DIGITS, *COSMIC_IEMOCAP.fields[1:]),
    labels={"emotion": ()},
)
SDT_IEMOCAP = Layout(
    "sdt-iemocap", "IEMOCAP of SDT", "iemocap", "sdt",
    (IDS, SEXES, EMOTION, *LAYER_FIELDS, vectors("audio", 1582), vectors("visual", 342), SENTENCES, TRAIN, TEST),
    labels={"emotion": IEMOCAP_SIX},
    modalities={"text": Modality(("layer 1",)), "audio": Modality(("audio",)), "visual": Modality(("visual",))},
    label_supervised=True, caveats=(MERGED, TUNED, FIRST_LAYER),
)  # fmt: skip
SDT_MELD = replace(
    SDT_IEMOCAP,
    id="sdt-meld",
    title="MELD of SDT",
    corpus="meld",
    fields=(
        *(IDS, ONE_HOT, EMOTION, *LAYER_FIELDS, vectors("audio", 300), vectors("visual", 342)),
        *(SENTENCES, TRAIN, TEST, UNUSED),
    ),
    numbered=True,
    labels={"emotion": MELD_EMOTIONS},
    numbering=MELD_NUMBERING,
)
_LAYERED_TRIO = {**LAYERED, "audio": Modality(("audio",)), "visual": Modality(("visual",))}
GRAPHSMILE_IEMOCAP = replace(
    SDT_IEMOCAP,
    id="graphsmile-iemocap",
    title="IEMOCAP of GraphSmile",
    feature_set="graphsmile",
    modalities=_LAYERED_TRIO,
    caveats=(MERGED, TUNED, MEAN_OF_LAYERS),
)
GRAPHSMILE_MELD = replace(
    SDT_MELD,
    id="graphsmile-meld",
    title="MELD of GraphSmile",
    feature_set="graphsmile",
    fields=(*SDT_MELD.fields[:3], SENTIMENT, *SDT_MELD.fields[3:]),
    labels={"emotion": MELD_EMOTIONS, "sentiment": MELD_SENTIMENTS},
    modalities=_LAYERED_TRIO,
    caveats=(MERGED, TUNED, MEAN_OF_LAYERS),
)

COMET = Layout(
    "cosmic-comet", "commonsense features of COSMIC", "", "cosmic",
    tuple(vectors(relation, 0) for relation in RELATIONS),
    incomplete="it has the commonsense features alone: give the file of the same corpus that ends in "
    "_features_roberta.pkl with it",
)  # fmt: skip
SENTENCES_ALONE = Layout(
    "sentences", "sentences by dialogue", "", "", (SENTENCES,), form="dict",
    incomplete="it has sentences alone, without labels or speakers",
)  # fmt: skip


def _short_cosmic(full: Layout) -> Layout:
    """COSMIC's file from before the features were extracted."""
    return replace(
        full,
        id=full.id.replace("cosmic", "cosmic-short"),
        title=f"{full.title}, before features were extracted",
        feature_set="cosmic-short",
        fields=tuple(each for each in full.fields if each not in LAYER_FIELDS),
        modalities={},
        label_supervised=False,
        caveats=(NO_FEATURES,),
    )


def _multiemo_modality(name: str, width: int) -> Layout:
    return Layout(
        f"multiemo-{name}", f"{name} features of MultiEMO", "", "multiemo", (vectors(f"multiemo {name}", width),),
        form="dict", incomplete="it has one modality of MultiEMO alone: give Speakers.pkl and the other two with it",
    )  # fmt: skip


MULTIEMO_WIDTHS = {"text": 768, "audio": 512, "visual": 1000}


def _multiemo(corpus: str, speakers: tuple[str, ...], like: Layout) -> Layout:
    return replace(
        like,
        id=f"multiemo-{corpus}",
        title=f"{like.title.split()[0]} of MultiEMO",
        feature_set="multiemo",
        fields=(),
        modalities={name: Modality((f"multiemo {name}",)) for name in MULTIEMO_WIDTHS},
        parts=(speakers, *((f"multiemo-{name}",) for name in MULTIEMO_WIDTHS)),
        caveats=(MERGED, TUNED),
    )


def _m3net(base: Layout, second: Layout) -> Layout:
    return replace(
        base,
        id=base.id.replace("mmgcn", "m3net"),
        title=base.title.split()[0] + " of M3Net",
        feature_set="m3net",
        fields=(),
        modalities=_LAYERED_TRIO,
        parts=((base.id,), (second.id,)),
        caveats=("Which dialogues are dev is told by its second file, that of COSMIC.", TUNED, MEAN_OF_LAYERS),
    )


def _with_comet(full: Layout) -> Layout:
    return replace(
        full,
        id=f"{full.id}-comet",
        title=f"{full.title}, with commonsense features",
        feature_set="cosmic-comet",
        fields=(),
        modalities={**LAYERED, "knowledge": Modality(RELATIONS, "side by side")},
        parts=((full.id,), (COMET.id,)),
    )


def _four_way(six: Layout, widths: tuple[int, int, int], **changes: str) -> Layout:
    return replace(
        six,
        fields=_nine(SEXES, EMOTION, widths),
        labels={"emotion": IEMOCAP_FOUR},
        highest_label=0,
        title=changes.pop("title"),
        caveats=(*six.caveats, "Four classes: happy is merged with excited, frustrated is left out."),
        **changes,  # type: ignore[arg-type]
    )


_MOSI_ARRAYS = (
    *(Field("train values", "array"), Field("train labels", "matrix"), Field("test values", "array")),
    *(Field("test labels", "matrix"), Field("longest", "number")),
    *(Field("train lengths", "numbers"), Field("test lengths", "numbers")),
)
MOSI_WIDTHS = {"text": 100, "audio": 73, "visual": 100}


def _mosi_modality(name: str) -> Layout:
    width = MOSI_WIDTHS[name]
    fields = tuple(replace(each, width=width) if each.kind == "array" else each for each in _MOSI_ARRAYS)
    return Layout(
        f"bc-lstm-mosi-{name}", f"CMU-MOSI {name} of bc-LSTM", "cmu-mosi", "bc-lstm", fields,
        labels={"polarity": ("negative", "positive")}, modalities={name: Modality((name,))},
        label_supervised=name == "text", hint="video" if name == "visual" else name,
        caveats=("Dialogues have no names: they are numbered.", "It has 62 train and 31 test videos and no dev ones."),
    )  # fmt: skip


def _meld_authors(kind: str, width: int, what: str, supervised: bool) -> Layout:
    return Layout(
        f"meld-authors-{what.replace(' ', '-')}", f"MELD of its authors: {what}", "meld", "authors",
        tuple(Field(f"{split} values", kind, width) for split in ("train", "dev", "test")),
        label_supervised=supervised,
        incomplete="it has the features of one modality without labels or speakers: those stand in the csv files",
    )  # fmt: skip


LAYOUTS: tuple[Layout, ...] = (
    CONV_EMOTION_IEMOCAP,
    MMGCN_IEMOCAP,
    MMGCN_MELD,
    _four_way(CONV_EMOTION_IEMOCAP, (100, 100, 512), id="cogmen-iemocap-4", feature_set="cogmen-4",
              title="IEMOCAP of COGMEN and CORECT, four classes"),
    _four_way(CONV_EMOTION_IEMOCAP, (1024, 100, 512), id="graphsmile-iemocap-4", feature_set="graphsmile-4",
              title="IEMOCAP of GraphSmile, four classes"),
    Layout(
        "conv-emotion-avec", "AVEC of conv-emotion", "avec", "conv-emotion",
        _nine(Field("speakers", "users"), Field("score", "scores"), (100, 0, 0)),
        labels={"score": NO_CLASSES}, modalities=TRIO, caveats=(MERGED, TEXTCNN), label_supervised=True,
    ),
    Layout(
        "conv-emotion-meld", "MELD of conv-emotion (DialogueRNN, bc-LSTM)", "meld", "conv-emotion",
        (IDS, ONE_HOT, EMOTION, vectors("text", 600), vectors("audio", 300), SENTENCES, TRAIN, TEST, SENTIMENT),
        numbered=True, labels={"emotion": MELD_EMOTIONS, "sentiment": MELD_SENTIMENTS},
        modalities={name: Modality((name,)) for name in ("text", "audio")}, numbering=MELD_NUMBERING,
        label_supervised=True, caveats=(MERGED, CONTEXTUAL, NO_VISUAL),
    ),
    Layout(
        "conv-emotion-dailydialog", "DailyDialog of conv-emotion", "dailydialog", "conv-emotion",
        (DIGITS, Field("word indices", "indices"), UNUSED, ACT, EMOTION, TRAIN, TEST, DEV),
        labels={"emotion": (), "act": ()},
        caveats=("Its text is indices into a vocabulary that it does not hold; it has no features.",),
    ),
    Layout(
        "mmgcn-dailydialog", "DailyDialog of MMGCN", "dailydialog", "mmgcn",
        (DIGITS, Field("text", "float vectors"), ACT, EMOTION, TRAIN, TEST, DEV),
        labels={"emotion": (), "act": ()}, modalities={"text": Modality(("text",))},
    ),
    Layout(
        "mmgcn-dailydialog-8", "DailyDialog of MMGCN, with one more field", "dailydialog", "mmgcn",
        (DIGITS, Field("text", "float vectors"), UNUSED, ACT, EMOTION, TRAIN, TEST, DEV),
        labels={"emotion": (), "act": ()}, modalities={"text": Modality(("text",))},
    ),
    COSMIC_IEMOCAP,
    COSMIC_MELD,
    COSMIC_EMORYNLP,
    COSMIC_DAILYDIALOG,
    *map(_short_cosmic, (COSMIC_IEMOCAP, COSMIC_MELD, COSMIC_EMORYNLP, COSMIC_DAILYDIALOG)),
    COMET,
    *map(_with_comet, (COSMIC_IEMOCAP, COSMIC_MELD, COSMIC_EMORYNLP, COSMIC_DAILYDIALOG)),
    SENTENCES_ALONE,
    SDT_IEMOCAP,
    SDT_MELD,
    _m3net(MMGCN_IEMOCAP, COSMIC_IEMOCAP),
    _m3net(MMGCN_MELD, COSMIC_MELD),
    GRAPHSMILE_IEMOCAP,
    GRAPHSMILE_MELD,
    Layout(
        "graphsmile-mosei", "CMU-MOSEI of GraphSmile", "cmu-mosei", "graphsmile",
        _nine(Field("speakers", "strings"), Field("sentiment", "scores"), (1024, 384, 35)),
        labels={"sentiment": SEVEN_BINS}, modalities=TRIO, label_supervised=True, caveats=(MERGED, TUNED),
    ),
    Layout(
        "cogmen-mosei", "CMU-MOSEI of COGMEN", "cmu-mosei", "cogmen",
        (*_nine(Field("speakers", "strings"), Field("sentiment", "scores"), (768, 80, 35))[:8], DEV, TEST),
        labels={"sentiment": SEVEN_BINS}, modalities=TRIO, caveats=("Audio is the mean over an utterance's frames.",),
    ),
    Layout(
        "cogmen-mosei-categorical", "CMU-MOSEI of COGMEN and CORECT, emotions", "cmu-mosei", "cogmen",
        _nine(Field("speakers", "strings"), EMOTION, (768, 80, 35)),
        labels={"emotion": ()}, modalities=TRIO, caveats=(MERGED, "Audio is the mean over an utterance's frames."),
    ),
    *(_multiemo_modality(name, width) for name, width in MULTIEMO_WIDTHS.items()),
    _multiemo("iemocap", ("conv-emotion-iemocap", "mmgcn-iemocap"), CONV_EMOTION_IEMOCAP),
    _multiemo("meld", ("mmgcn-meld",), MMGCN_MELD),
    Layout(
        "gcnet-iemocap-6", "IEMOCAP of GCNet, six classes", "iemocap", "gcnet",
        (Field("utterance ids", "strings"), EMOTION, SEXES, SENTENCES, TRAIN, TEST),
        labels={"emotion": IEMOCAP_SIX}, highest_label=4, caveats=(MERGED, NO_FEATURES),
    ),
    Layout(
        "gcnet-iemocap-4", "IEMOCAP of GCNet, four classes", "iemocap", "gcnet-4",
        (Field("utterance ids", "strings"), EMOTION, SEXES, SENTENCES, TRAIN, TEST),
        labels={"emotion": IEMOCAP_FOUR},
        caveats=(MERGED, NO_FEATURES, "Four classes: happy is merged with excited, frustrated is left out."),
    ),
    Layout(
        "gcnet-mosi", "CMU-MOSI of GCNet", "cmu-mosi", "gcnet",
        (*(Field("utterance ids", "strings"), Field("score", "scores"), Field("speakers", "strings")),
         *(SENTENCES, TRAIN, DEV, TEST)),
        labels={"score": POLARITY}, caveats=(NO_FEATURES, "A score of 0 counts as positive."),
    ),
    *map(_mosi_modality, MOSI_WIDTHS),
    replace(
        _mosi_modality("text"),
        id="bc-lstm-mosi", title="CMU-MOSI of bc-LSTM", fields=(), hint="",
        modalities={name: Modality((name,)) for name in MOSI_WIDTHS},
        parts=tuple((f"bc-lstm-mosi-{name}",) for name in MOSI_WIDTHS),
    ),
    _meld_authors("table", 300, "averaged word vectors", supervised=False),
    _meld_authors("table", 1611, "selected audio for emotion", supervised=True),
    _meld_authors("table", 1422, "selected audio for sentiment", supervised=True),
    _meld_authors("table", 100, "text network", supervised=True),
    _meld_authors("padded", 0, "contextual outputs", supervised=True),
    Layout(
        "meld-authors-data", "MELD of its authors: texts and vocabulary", "meld", "authors",
        (Field("records", "records"), Field("word vectors", "matrix"), UNUSED, UNUSED, Field("longest"),
         Field("label index", "dict")),
        incomplete="it has texts and a vocabulary, which the csv files of MELD hold in full",
    ),
    Layout(
        "mertools-labels", "labels of MERTools", "", "mertools",
        tuple(Field(f"{split}_corpus", "labels by name") for split in ("train", "val", "test")),
        form="named",
        incomplete="it has labels by utterance alone, without dialogues, speakers or features",
    ),
    Layout(
        "m3ed", "M3ED, in the nine fields of DialogueRNN", "m3ed", "m3ed",
        _nine(Field("speakers", "turns"), EMOTION, (0, 0, 0)),
        labels={"emotion": M3ED_EMOTIONS}, modalities=TRIO, caveats=(MERGED,), on_request=True,
    ),
    Layout(
        "dialoguernn", "the nine fields of DialogueRNN, in widths of no known release", "", "dialoguernn",
        _nine(Field("speakers", "turns"), EMOTION, (0, 0, 0)),
        labels={"emotion": ()}, modalities=TRIO, generic=True,
        caveats=(MERGED, "Which corpus it holds cannot be told."),
    ),
)  # fmt: skip
"""Every layout that is known; several files of one release are a layout too."""

BY_ID: Mapping[str, Layout] = {layout.id: layout for layout in LAYOUTS}
