"""Find plugins by their cards: every sub-package of a shelf is one model or one dataset.

A shelf is an importable package that an entry point of the group `mer_bench.models` or
`mer_bench.datasets` names; the built-in ones are found in just the same way. Looking around reads
cards and imports no plugin code. A broken plugin is kept by name with its reason and harms no other.

A user's own dialogues are a dataset too: a folder of the raw data folder that holds a card.toml, as
`mer-bench data import` writes it. They are looked for below one data folder, and share one reader.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, TypeVar

from mer_bench.cards import CardPart, DatasetCard, ModelCard, is_identifier, read_card
from mer_bench.config import Settings, TrainerSettings, names_in_both, validated
from mer_bench.errors import CardError, MerBenchError, PluginError, UnknownNameError
from mer_bench.locations import data_root, raw_folder

OWN_PACKAGE, OWN_ENTRY, OWN_DISTRIBUTION = "mer_bench", "own:OwnDialogues", "yours"
"""Where the reader of a user's own dialogues is, and what stands for the distribution that brought them."""

Card = TypeVar("Card", bound=CardPart)


@dataclass(frozen=True)
class Plugin(Generic[Card]):
    """A plugin that was found: its name on the command line, its card and where it comes from.

    Attributes:
        package: Import name of the plugin's folder: `mer_bench_models.cmath`.
        distribution: The installed distribution that brought it: `mer-bench`; `yours` for the user's own dialogues.
    """

    name: str
    card: Card
    package: str
    distribution: str

    @property
    def is_own(self) -> bool:
        """Whether it is made of the user's own dialogues, in the data folder."""
        return self.package == OWN_PACKAGE


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin, or a whole shelf, that cannot be used, and why.

    Attributes:
        package: Import name of its folder; for the user's own dialogues the folder itself.
    """

    name: str
    package: str
    reason: str


@dataclass(frozen=True)
class Shelf(Generic[Card]):
    """Every plugin of one kind."""

    kind: str
    plugins: Mapping[str, Plugin[Card]]
    broken: tuple[BrokenPlugin, ...]

    def find(self, name: str) -> Plugin[Card]:
        """The plugin of that name.

        Raises:
            PluginError: If it is there and broken. UnknownNameError: If nothing has that name.
        """
        if name in self.plugins:
            return self.plugins[name]
        for broken in self.broken:
            if name in (broken.name, broken.package):
                raise PluginError(f"the {self.kind} '{name}' ({broken.package}) cannot be used: {broken.reason}")
        raise UnknownNameError(self.kind, name, self.plugins, f"mer-bench list {self.kind}s")


def command_name(folder: str) -> str:
    """Name on the command line of a plugin's folder: `cmu_mosi` is `cmu-mosi`."""
    return folder.replace("_", "-")


@lru_cache(maxsize=1)
def models() -> Shelf[ModelCard]:
    """Every model that is installed."""
    return _walk("model", ModelCard)


def datasets(root: Path | None = None) -> Shelf[DatasetCard]:
    """Every dataset that is installed, and the user's own ones.

    Args:
        root: The data folder; None is the default one.
    """
    return _datasets_below(data_root(root))


@lru_cache(maxsize=1)
def installed_datasets() -> Shelf[DatasetCard]:
    """Every dataset that a distribution brought."""
    return _walk("dataset", DatasetCard)


def forget() -> None:
    """Look around again at the next question: a dataset was imported, or a test added plugins."""
    models.cache_clear()
    installed_datasets.cache_clear()
    _datasets_below.cache_clear()


@lru_cache(maxsize=16)
def _datasets_below(root: Path) -> Shelf[DatasetCard]:
    installed = installed_datasets()
    found, broken = dict(installed.plugins), list(installed.broken)
    for file in sorted(raw_folder(root, "").glob("[!.]*/card.toml")):
        name = file.parent.name
        try:
            card = read_card(file, DatasetCard)
            if name in installed.plugins:
                raise CardError(f"the name is taken by {installed.plugins[name].package}; import it by another name.")
            if not is_identifier(name):
                raise CardError("a dataset's name is made of lower-case letters, digits and hyphens between them.")
            if card.entry != OWN_ENTRY:
                raise CardError(f"entry should be {OWN_ENTRY} in a card of the data folder, but is {card.entry}.")
        except CardError as error:
            broken.append(BrokenPlugin(name, str(file.parent), str(error)))
        else:
            found[name] = Plugin(name, card, OWN_PACKAGE, OWN_DISTRIBUTION)
    return Shelf("dataset", found, tuple(broken))


def _walk(kind: str, card_class: type[Card]) -> Shelf[Card]:
    found: dict[str, Plugin[Card]] = {}
    broken: list[BrokenPlugin] = []
    # Sorted, so that which of two plugins of one name is refused does not depend on the machine.
    for point in sorted(set(metadata.entry_points(group=f"mer_bench.{kind}s")), key=lambda point: point.value):
        distribution = point.dist.name if point.dist else "unknown"
        try:
            shelf = importlib.import_module(point.value)
            places = list(shelf.__path__)
        except (Exception, SystemExit) as error:  # a stranger's package may fail in any way; it is reported by name
            broken.append(BrokenPlugin(point.name, point.value, f"{type(error).__name__}: {error}"))
            continue
        for module in sorted(pkgutil.iter_modules(places), key=lambda module: module.name):
            if not module.ispkg:
                continue
            package = f"{point.value}.{module.name}"
            name = command_name(module.name)
            try:
                card = read_card(files(package) / "card.toml", card_class)
                if name in found:
                    raise CardError(f"the name is taken by {found[name].package}; rename the folder.")
            except MerBenchError as error:
                broken.append(BrokenPlugin(name, package, str(error)))
            except (Exception, SystemExit) as error:  # importing the folder's __init__ may fail in any way
                broken.append(BrokenPlugin(name, package, f"{type(error).__name__}: {error}"))
            else:
                found[name] = Plugin(name, card, package, distribution)
    return Shelf(kind, found, tuple(broken))


@dataclass(frozen=True)
class LoadedModel:
    """A model's code: its class and its settings class."""

    plugin: Plugin[ModelCard]
    model_class: Any
    settings_class: type[Settings]

    def settings(self, values: Mapping[str, Any], origin: str = "") -> Settings:
        """Settings of the model from raw values; see `config.validated` for the errors."""
        return validated(self.settings_class, values, origin)


def settings_class(name: str) -> type[Settings]:
    """The settings class of a model; imports no torch.

    Raises:
        PluginError: If it cannot be imported, is no Settings class, or hides a field of the trainer.
    """
    plugin = models().find(name)
    found = _import_entry(plugin, plugin.card.config)
    if not (isinstance(found, type) and issubclass(found, Settings)):
        raise PluginError(f"{plugin.package}:{plugin.card.config} should be a child of mer_bench.config.Settings.")
    hidden = names_in_both(found.model_fields, TrainerSettings.model_fields)
    if hidden:
        raise PluginError(f"{plugin.package}: the setting {hidden[0]} hides the trainer's; rename it.")
    return found


def load_model(name: str) -> LoadedModel:
    """Import a model's code.

    Raises:
        UnknownNameError, PluginError: If there is no such model, it cannot be imported, or it is no Model.
    """
    plugin = models().find(name)
    found = _import_entry(plugin, plugin.card.entry)
    _expect_child(plugin, found, "mer_bench.api.Model")
    return LoadedModel(plugin, found, settings_class(name))


def load_dataset(name: str, root: Path | None = None) -> Any:
    """Import a dataset's code and build its `Dataset`.

    Args:
        root: The data folder, for the user's own ones; None is the default one.

    Raises:
        UnknownNameError, PluginError: If there is no such dataset, it cannot be imported, or it is no Dataset.
    """
    plugin = datasets(root).find(name)
    found = _import_entry(plugin, plugin.card.entry)
    _expect_child(plugin, found, "mer_bench.data.dataset.Dataset")
    return found(plugin.card)


def _expect_child(plugin: Plugin[Any], found: Any, base: str) -> None:
    # By name, since this room lies below `api` and must not import torch.
    if base not in {f"{ancestor.__module__}.{ancestor.__qualname__}" for ancestor in getattr(found, "__mro__", ())}:
        raise PluginError(f"{plugin.package}:{plugin.card.entry} should be a child of {base}.")
    if unwritten := sorted(getattr(found, "__abstractmethods__", ())):
        raise PluginError(f"{plugin.package}:{plugin.card.entry} has no method {unwritten[0]}.")


def _import_entry(plugin: Plugin[Any], entry: str) -> Any:
    module, _, attribute = entry.partition(":")
    try:
        code = importlib.import_module(f"{plugin.package}.{module}")
    except MerBenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{plugin.package}.{module} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        return getattr(code, attribute)
    except AttributeError:
        raise PluginError(f"{plugin.package}.{module} has no {attribute}, which its card names as {entry}.") from None
