"""What is to be scored, whose it is, and against what; every name is checked before a file is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mer_bench import registry
from mer_bench.cards import DatasetCard
from mer_bench.data.preparation import resolve
from mer_bench.errors import RequestError, UnknownNameError
from mer_bench.locations import StoreKey
from mer_bench.records import EXTERNAL_FEATURES, Name

LONGEST_TEXT = {"selection": 500, "source": 500, "note": 2000}
"""Characters that a stated text may have, by the option that holds it."""


@dataclass(frozen=True)
class ScoreRequest:
    """Predictions of an external system on a test split.

    Attributes:
        predictions: A CSV, JSONL or Parquet file; see `mer_bench.external.reading`.
        name: Of the system: letters, digits, `.`, `_` and `-`.
        selection: How model, prompt, epoch or raters were chosen, as its submitter says; `unknown` is an answer.
        labels, protocol: Ids, short or full; None: the dataset's first.
        features: A feature set of the dataset, where the system read that one; None: features of its own.
        modalities: What the system was given; may be left out where `features` is there.
        file_format: `csv`, `jsonl` or `parquet`; None: by the file's name.
        source: Where the system is described: a title, arXiv id, DOI or repository. note: What else there is to say.
        seed: A number that tells several runs of the same system apart.
        out: Folder of records. data_root: Folder of data; None: the default one.
        keep_predictions: As that of a run.
    """

    predictions: Path
    dataset: str
    name: str
    selection: str
    labels: str | None = None
    features: str | None = None
    protocol: str | None = None
    modalities: tuple[str, ...] | None = None
    file_format: str | None = None
    source: str = ""
    note: str = ""
    seed: int = 0
    out: Path = Path("runs")
    data_root: Path | None = None
    keep_predictions: bool = False


@dataclass(frozen=True)
class ScorePlan:
    """A request whose every name was found to be right.

    Attributes:
        key: Of the stores that hold the test split; its feature set is the system's only where `own_features` is
            False.
        modalities: In the dataset's order.
    """

    request: ScoreRequest
    key: StoreKey
    card: DatasetCard
    own_features: bool
    modalities: tuple[str, ...]

    @property
    def labels(self) -> str:
        """In full: `meld/emotion`."""
        return f"{self.key.dataset}/{self.key.labels}"

    @property
    def features(self) -> str:
        """In full; `meld/external` where the system brought its own."""
        return f"{self.key.dataset}/{EXTERNAL_FEATURES if self.own_features else self.key.features}"

    @property
    def protocol(self) -> str:
        """In full: `meld/official`."""
        return f"{self.key.dataset}/{self.key.protocol}"


def plan(request: ScoreRequest) -> ScorePlan:
    """Check every name of a request, without data.

    Raises:
        UnknownNameError, RequestError: For the first thing that is wrong.
    """
    key = resolve(request.dataset, request.features, request.labels, request.protocol, root=request.data_root)
    card = registry.datasets(request.data_root).find(request.dataset).card
    _check_name(request.name)
    stated = {name: getattr(request, name).strip() for name in LONGEST_TEXT}
    for name, text in stated.items():
        _check_text(name, text)
    if not stated["selection"]:
        raise RequestError(
            "selection is blank. Say how model, prompt or epoch were chosen, such as 'best dev weighted F1', "
            "'zero-shot' or 'unknown'; it is shown as you state it."
        )
    if request.seed < 0:
        raise RequestError(f"a seed must be 0 or more, but is {request.seed}.")
    return ScorePlan(
        request=replace(request, **stated),
        key=key,
        card=card,
        own_features=request.features is None,
        modalities=_modalities(request, card, key),
    )


def _check_name(name: str) -> None:
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-._")[:100]
        hint = f" Call it '{plain}', say, and put the rest into the note." if plain else ""
        raise RequestError(
            f"the name of a system is made of letters from A to Z, digits, '.', '_' and '-', and begins with a letter "
            f"or a digit, but is {name!r}.{hint}"
        ) from None
    ours = {model.casefold() for model in registry.models().plugins}
    if name.casefold() in ours:
        raise RequestError(
            f"'{name}' is a model of mer-bench, whose runs have that name in the tables. Give the system another, such "
            f"as '{name}-original'."
        )


def _check_text(name: str, text: str) -> None:
    if not text.isprintable():
        raise RequestError(f"{name} should be one line of printable text, but is {text!r}.")
    if len(text) > LONGEST_TEXT[name]:
        raise RequestError(f"{name} should have at most {LONGEST_TEXT[name]} characters, but has {len(text)}.")


def _modalities(request: ScoreRequest, card: DatasetCard, key: StoreKey) -> tuple[str, ...]:
    """What the system was given, in the dataset's order."""
    features = card.feature_sets[key.features]
    there = tuple(name for name in card.modalities if request.features is None or name in features.widths)
    if request.modalities is None:
        if request.features is None:
            raise RequestError(
                f"say which modalities {request.name} was given, of {', '.join(there)} (--modalities text): systems "
                "that were given different ones are not ranked together."
            )
        return tuple(name for name in there if not features.modalities or name in features.modalities)
    of = request.dataset if request.features is None else f"{request.dataset}/{key.features}"
    for name in request.modalities:
        if name not in there:
            raise UnknownNameError(f"modality of {of}", name, there)
    chosen = tuple(name for name in there if name in request.modalities)
    if not chosen:
        raise RequestError(f"modalities is empty; {of} has {', '.join(there)}.")
    return chosen
