"""Cards: what a plugin says of itself in `card.toml`, read and checked without importing its code."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mer_bench.errors import CardError


def _without_repeats(names: tuple[str, ...]) -> tuple[str, ...]:
    repeated = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if repeated is not None:
        raise ValueError(f"{repeated} is listed twice")
    return names


Entry = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$")]
_IDENTIFIER = r"^[a-z0-9]+(-[a-z0-9]+)*$"
Identifier = Annotated[str, Field(pattern=_IDENTIFIER)]
Modality = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Modalities = Annotated[tuple[Modality, ...], Field(min_length=1), AfterValidator(_without_repeats)]
SplitName = Literal["train", "dev", "test"]
SettingValues = dict[str, Any]


def is_identifier(name: str) -> bool:
    """Whether a name can be that of a dataset or of a part of one: `cmu-mosi`."""
    return re.fullmatch(_IDENTIFIER.strip("^$"), name) is not None


class CardPart(BaseModel):
    """A table of a card: frozen, and a key that no field has is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Paper(CardPart):
    """The publication a model or a corpus comes from."""

    title: str
    authors: str = ""
    venue: str
    year: Annotated[int, Field(ge=1950, le=2100)]
    url: str = ""


class Reported(CardPart):
    """A figure copied from a numbered table of the model's own paper.

    Attributes:
        weighted_f1, accuracy: Fractions in [0, 1]; None is "not printed".
        table: The paper's own number of the table: `Table 2`.
        features: The features the paper used, in words.
        selection: How the paper chose the epoch: `dev`, `test` or `unknown`.
    """

    weighted_f1: Annotated[float, Field(ge=0, le=1)] | None = None
    accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    table: str
    features: str
    selection: Literal["dev", "test", "unknown"] = "unknown"


class Ablation(CardPart):
    """One of a model's own ablations: settings that differ from its defaults, and the question it answers."""

    question: str
    settings: SettingValues


class ModelCard(CardPart):
    """What a model is, whose it is, and where its code is.

    Attributes:
        title: Name as written in a table.
        summary: One sentence.
        entry: `module:Class` inside the plugin's folder.
        config: `module:Class` of the settings, in a module that imports no torch.
        version: Raised whenever the same settings and seed would give other numbers.
        modalities: Every modality the model can take; any non-empty subset must work unless
            `needs` names modalities that must be there.
        needs: Modalities without which the model cannot run.
        causal: True when an utterance's result never depends on a later one.
        uses_speakers: False when the model never reads who speaks.
        speaker_symmetric: True when renaming the speakers of a dialogue changes nothing.
        memory: How the memory of a training step grows with the length of a dialogue. A model that compares
            all pairs of its utterances is `quadratic`.
        settings: Values that replace class defaults, by dataset (`default`: for every dataset).
        published: The paper's own settings, by dataset, for `--settings`.
        ablations: The model's own ablations, by name.
        reported: Figures printed in the model's own paper, by dataset.
        stated: Parts that follow the paper. ours: Choices made here where the paper leaves one open.
        code_licence: Licence of the code that the authors published, in words.
        excused: Checks of the conformance kit that do not apply, by name, each with its reason.
    """

    title: str
    summary: str
    entry: Entry
    config: Entry
    version: Annotated[int, Field(ge=1)] = 1
    modalities: Modalities
    needs: tuple[Modality, ...] = ()
    causal: bool = False
    uses_speakers: bool = True
    speaker_symmetric: bool = False
    memory: Literal["linear", "quadratic"] = "linear"
    paper: Paper | None = None
    settings: dict[str, SettingValues] = {}
    published: dict[str, SettingValues] = {}
    ablations: dict[Identifier, Ablation] = {}
    reported: dict[str, Reported] = {}
    stated: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    code_licence: str = "none published"
    excused: dict[str, str] = {}

    @model_validator(mode="after")
    def _needs_are_modalities(self) -> ModelCard:
        missing = [name for name in self.needs if name not in self.modalities]
        if missing:
            raise ValueError(f"needs lists {missing[0]}, which modalities does not")
        return self

    def settings_for(self, dataset: str) -> SettingValues:
        """The card's settings for a dataset: `default` first, then the dataset's own."""
        return {**self.settings.get("default", {}), **self.settings.get(dataset, {})}


class Source(CardPart):
    """A file that a feature set is made from, pinned by its content.

    Attributes:
        name: File name as it is kept in the raw data folder.
        repository, commit, path: Where it is published; empty for a file that the user brings.
        git_blob: SHA-1 of `blob <bytes>\\0` + content. sha256: SHA-256 of the content.
        bytes: Size.
        licence: As stated by the publisher.
    """

    name: str
    repository: str = ""
    commit: str = ""
    path: str = ""
    git_blob: Annotated[str, Field(pattern=r"^([0-9a-f]{40})?$")] = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    bytes: Annotated[int, Field(ge=0)] = 0
    licence: str = "none stated"


class LabelSet(CardPart):
    """Which annotation is predicted: the classes in the order of their index.

    Attributes:
        unlabelled: What becomes of utterances without a label: they stay as context of the others, which a
            model sees and nothing scores, or they are left out.
    """

    title: str
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    unlabelled: Literal["context", "left out"] = "context"


class Subset(CardPart):
    """A named part of a corpus, made of whole dialogues, that is scored by itself beside the whole."""

    title: str
    summary: str


class Terms(CardPart):
    """Terms of a corpus that its user accepts before anything of it is downloaded.

    Attributes:
        owner: Who grants the licence. url: Where it is asked for. text: What the user accepts, in full sentences.
    """

    owner: str
    url: str
    text: str


class Protocol(CardPart):
    """A split, a selection rule and a headline metric, with a version.

    Attributes:
        selection: The dev metric that chooses the epoch.
        headline: The test metric that a leaderboard ranks by.
        folds: 0 for one fixed split, else the number of folds.
    """

    title: str
    version: Annotated[int, Field(ge=1)] = 1
    selection: str = "weighted_f1"
    headline: str = "weighted_f1"
    folds: Annotated[int, Field(ge=0)] = 0


class SplitCount(CardPart):
    """Dialogues and utterances of a split as published."""

    dialogues: Annotated[int, Field(ge=0)]
    utterances: Annotated[int, Field(ge=0)]


class FeatureSet(CardPart):
    """How utterances became vectors.

    Attributes:
        widths: Width of each modality, in the dataset's order of modalities; 0 where the data decide.
        modalities: Those a run uses when none are named; empty is all.
        sources: Names of the sources it is made from.
        text: Encoders of the texts (`tfidf`, `vectors`, ...) whose features stand side by side as the modality
            `text`; empty where that comes as numbers, or not at all.
        needs: Options of `data prepare` without which it cannot be made: `vectors`.
        takes: Further options that it can do without.
        label_supervised: True when train labels shaped the features.
        caveats: What a reader of a table must know.
    """

    title: str
    summary: str
    widths: dict[Modality, Annotated[int, Field(ge=0)]]
    modalities: tuple[Modality, ...] = ()
    sources: tuple[str, ...] = ()
    text: tuple[Identifier, ...] = ()
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    label_supervised: bool = False
    caveats: tuple[str, ...] = ()


class DatasetCard(CardPart):
    """What a corpus is, whose it is, how it is split and what to beware of.

    Attributes:
        title: Name as written in a table.
        entry: `module:Class` inside the plugin's folder.
        licence: Terms of the corpus in words. homepage: Where its owner publishes it.
        redistribute: False when a committed file may hold no per-utterance labels.
        synthetic: True for made-up dialogues.
        stand_in: Synthetic dataset that `mer-bench run` uses when nothing of this one is on disk and
            no host can be reached; "" is none. Such a dataset's first feature set is fetched by `run` itself.
        modalities: Every modality, in the canonical order.
        label_sets, feature_sets, protocols: By id without the dataset's name; the first of each is
            the default.
        counts: Published dialogues and utterances by protocol and split; checked while reading.
        subsets: Parts of the corpus that are scored by themselves too, by name.
        terms: What a user accepts before a download; None: nothing.
        traps: Known faults and surprises, one sentence each.
        excused: Checks of the conformance kit that do not apply, by name, each with its reason.
    """

    title: str
    summary: str
    entry: Entry
    version: Annotated[int, Field(ge=1)] = 1
    licence: str
    homepage: str = ""
    redistribute: bool = True
    synthetic: bool = False
    stand_in: Identifier | Literal[""] = ""
    paper: Paper | None = None
    modalities: Modalities
    label_sets: Annotated[dict[Identifier, LabelSet], Field(min_length=1)]
    feature_sets: Annotated[dict[Identifier, FeatureSet], Field(min_length=1)]
    protocols: Annotated[dict[Identifier, Protocol], Field(min_length=1)]
    counts: dict[str, dict[SplitName, SplitCount]] = {}
    subsets: dict[Identifier, Subset] = {}
    terms: Terms | None = None
    sources: tuple[Source, ...] = ()
    traps: tuple[str, ...] = ()
    excused: dict[str, str] = {}

    @model_validator(mode="after")
    def _parts_agree(self) -> DatasetCard:
        names = {source.name for source in self.sources}
        for key, features in self.feature_sets.items():
            for source in features.sources:
                if source not in names:
                    raise ValueError(f"feature set {key} is made from {source}, which sources does not list")
            for modality in (*features.widths, *features.modalities):
                if modality not in self.modalities:
                    raise ValueError(f"feature set {key} has {modality}, which modalities does not list")
        for key in self.counts:
            if key not in self.protocols:
                raise ValueError(f"counts names protocol {key}, which protocols does not list")
        return self

    def source(self, name: str) -> Source:
        """The source of that name; the card's own check guarantees those that feature sets name."""
        return next(source for source in self.sources if source.name == name)


def option_shown(option: str) -> str:
    """An option of `data prepare` as it is written on a command line: `--vectors FILE`."""
    return f"--{option} {'MODEL' if option == 'transformer' else 'FILE'}"


BLOCK_START, BLOCK_END = "# /// mer-bench", "# ///"

CardType = TypeVar("CardType", bound=CardPart)


def read_card(file: Traversable, kind: type[CardType]) -> CardType:
    """Read and check one card.toml.

    Raises:
        CardError: If the file is absent, not TOML, or not a complete card; names file and key.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise CardError(f"{file} is not there; a plugin's folder needs a card.toml.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(f"{file} cannot be read: {error}.") from None
    return parse_card(text, kind, str(file))


def parse_card(text: str, kind: type[CardType], origin: str) -> CardType:
    """The same for a card's text; `origin` names it in messages."""
    return _checked(_toml_values(text, origin), kind, origin)


def parse_block_card(source: str, module: str, origin: str) -> ModelCard:
    """The card of a model that is a single file: a comment block in it, in the manner of PEP 723::

        # /// mer-bench
        # title = "Tiny"
        # entry = "Tiny"              a class of the file
        # config = "TinySettings"     another
        # ///

    Runs nothing of the file.

    Args:
        module: Name of the file as a module, which `entry` and `config` of the card then hold too.
        origin: The file, for messages.

    Raises:
        CardError: If there is no block or more than one, or it is not a complete card; names the line.
    """
    lines = source.splitlines()
    starts = [number for number, line in enumerate(lines) if line.rstrip() == BLOCK_START]
    if not starts:
        raise CardError(
            f"{origin} has no card: a model in a single file carries it in a comment block that starts with the line "
            f"'{BLOCK_START}' and ends with '{BLOCK_END}'. An example: mer-bench new model NAME --file"
        )
    if len(starts) > 1:
        raise CardError(f"{origin} has two cards, in lines {starts[0] + 1} and {starts[1] + 1}; it may have one.")
    start = starts[0]
    # Empty lines before it, so that a fault of the TOML is counted in lines of the file.
    block = [""] * (start + 1)
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if line.rstrip() == BLOCK_END:
            break
        if not (line.rstrip() == "#" or line.startswith("# ")):
            raise CardError(
                f"{origin}, line {number}: each line of the card starts with '# ', and '{BLOCK_END}' ends it."
            )
        block.append(line[2:])
    else:
        raise CardError(f"{origin}, line {start + 1}: the card never ends; close it with the line '{BLOCK_END}'.")
    origin = f"the card in {origin} (line {start + 1})"
    values = _toml_values("\n".join(block), origin)
    for key in ("entry", "config"):
        given = values.get(key)
        if isinstance(given, str):
            if not given.isidentifier():
                raise CardError(f"{origin}: {key} should be the name of a class of the file, but is '{given}'.")
            values[key] = f"{module}:{given}"
    return _checked(values, ModelCard, origin)


def _toml_values(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"{origin} is not valid TOML: {error}.") from None


def _checked(values: Mapping[str, Any], kind: type[CardType], origin: str) -> CardType:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        first = faults[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
        key = f"'{where}': " if where else ""
        raise CardError(f"{origin} is not a complete card: {key}{message}{more}.") from None
