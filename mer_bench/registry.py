"""Find plugins by their cards: every sub-package of a shelf is one model or one dataset.

A shelf is an importable package that an entry point of the group `mer_bench.models` or
`mer_bench.datasets` names; the built-in ones are found in just the same way. Looking around reads
cards and imports no plugin code. A broken plugin is kept by name with its reason and harms no other.

A user's own dialogues are a dataset too: a folder of the raw data folder that holds a card.toml, as
`mer-bench data import` writes it. They are looked for below one data folder, and share one reader.

A model need not be installed: `add_plugin` takes a file or a folder for as long as the process lives.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from mer_bench.cards import CardPart, DatasetCard, ModelCard, is_identifier, parse_block_card, read_card
from mer_bench.config import Settings, TrainerSettings, names_in_both, validated
from mer_bench.errors import CardError, MerBenchError, PluginError, RequestError, UnknownNameError
from mer_bench.locations import data_root, raw_folder
from mer_bench.plugin_files import PluginFiles, absolute, failing_line, make_importable, module_name, read_plugin_files

OWN_PACKAGE, OWN_ENTRY, OWN_DISTRIBUTION = "mer_bench", "own:OwnDialogues", "yours"
"""Where the reader of a user's own dialogues is, and what stands for the distribution that brought them."""

BUILT_IN_DISTRIBUTION = "mer-bench"

Card = TypeVar("Card", bound=CardPart)


@dataclass(frozen=True)
class Plugin(Generic[Card]):
    """A plugin that was found: its name on the command line, its card and where it comes from.

    Attributes:
        package: Import name of the plugin's folder: `mer_bench_models.cmath`.
        distribution: The installed distribution that brought it: `mer-bench`; `yours` for the user's own dialogues;
            the path as it was given for a model that was added without being installed.
        files: Of a model that was added without being installed; None for every other.
    """

    name: str
    card: Card
    package: str
    distribution: str
    files: PluginFiles | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is made of the user's own dialogues, in the data folder."""
        return self.package == OWN_PACKAGE

    def place(self, module: str = "") -> str:
        """Where it is, or one of its modules, for messages: an import name, or a path as it was given."""
        if self.files is None:
            return f"{self.package}.{module}" if module else self.package
        if not module or self.files.path.is_file():
            return self.distribution
        return str(Path(self.distribution, *module.split(".")).with_suffix(".py"))


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin, or a whole shelf, that cannot be used, and why.

    Attributes:
        package: Import name of its folder; for what is not installed the folder itself.
        distribution: The installed distribution that brought it; "" where none did.
    """

    name: str
    package: str
    reason: str
    distribution: str = ""


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
    """Every model that is installed, and those that were added."""
    shelf = installed_models()
    found, broken = dict(shelf.plugins), list(shelf.broken)
    for added in _added.values():
        found |= added.plugins
        broken += added.broken
    return Shelf("model", found, tuple(broken))


@lru_cache(maxsize=1)
def installed_models() -> Shelf[ModelCard]:
    """Every model that a distribution brought."""
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
    installed_models.cache_clear()
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
            broken.append(BrokenPlugin(point.name, point.value, f"{type(error).__name__}: {error}", distribution))
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
                broken.append(BrokenPlugin(name, package, str(error), distribution))
            except (Exception, SystemExit) as error:  # importing the folder's __init__ may fail in any way
                broken.append(BrokenPlugin(name, package, f"{type(error).__name__}: {error}", distribution))
            else:
                found[name] = Plugin(name, card, package, distribution)
    return Shelf(kind, found, tuple(broken))


_added: dict[Path, Shelf[ModelCard]] = {}


def add_plugin(path: Path | str) -> tuple[str, ...]:
    """Take a model, or a shelf of models, that is not installed, for as long as this process lives.

    Reads cards and runs no code. The same path again takes what is there now.

    Args:
        path: A .py file whose card is a comment block, a plugin folder (with a card.toml), or a shelf: a
            folder of such folders, of which a broken one is kept with its reason.

    Returns:
        The names of the models that were added.

    Raises:
        RequestError: If there is nothing of that kind at the path, its card is broken, or another model has the name.
    """
    given = Path(path)
    place = given.expanduser()
    if not place.exists():
        raise RequestError(f"there is no plugin at {given}: the path does not exist.")
    found: dict[str, Plugin[ModelCard]] = {}
    broken: list[BrokenPlugin] = []
    if place.is_file() or (place / "card.toml").is_file():
        plugin = _read_plugin(place)
        found[plugin.name] = plugin
    else:
        for folder in sorted(card.parent for card in place.glob("[!.]*/card.toml")):
            try:
                plugin = _read_plugin(folder)
            except MerBenchError as error:
                broken.append(BrokenPlugin(command_name(folder.name), str(folder), str(error)))
            else:
                _expect_free(plugin, found)
                found[plugin.name] = plugin
        if not found and not broken:
            raise RequestError(f"{given} holds no plugin: neither a card.toml nor a folder that has one.")
    others = dict(installed_models().plugins)
    for taken, shelf in _added.items():
        if taken != absolute(place):
            others.update(shelf.plugins)
    for plugin in found.values():
        _expect_free(plugin, others)
    for plugin in found.values():
        assert plugin.files is not None
        make_importable(plugin.files)
    _added[absolute(place)] = Shelf("model", found, tuple(broken))
    models.cache_clear()
    return tuple(found)


def added_plugins(path: Path | str) -> Shelf[ModelCard]:
    """What `add_plugin` took from a path; empty where it took nothing."""
    return _added.get(absolute(Path(path)), Shelf("model", {}, ()))


def added_places() -> tuple[Path, ...]:
    """The paths that `add_plugin` took, in order: another process can take the same."""
    return tuple(_added)


def remove_plugin(path: Path | str) -> None:
    """Forget what `add_plugin` took from a path; nothing happens where it took nothing."""
    _added.pop(absolute(Path(path)), None)
    models.cache_clear()


def _read_plugin(path: Path) -> Plugin[ModelCard]:
    """A file or a folder as a plugin; runs nothing of it."""
    name = command_name(module_name(absolute(path)))
    kind = "file" if path.is_file() else "folder"
    if path.is_file() and path.suffix != ".py":
        raise RequestError(f"a plugin is a .py file or a folder, but {path} is another kind of file.")
    if not is_identifier(name):
        raise CardError(
            f"a model takes the name of its {kind}, of lower-case letters, digits and underscores between them, "
            f"but {path} is called otherwise; rename it."
        )
    sources = read_plugin_files(path)
    if path.is_dir():
        card = read_card(path / "card.toml", ModelCard)
        if "__init__.py" not in sources.sources:
            raise CardError(f"{path / '__init__.py'} is not there; a plugin's folder needs one that holds a docstring.")
    else:
        try:
            text = sources.sources[path.name].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise CardError(f"{path} cannot be read: it is not UTF-8 text ({error.reason}).") from None
        card = parse_block_card(text, module_name(absolute(path)), str(path))
    return Plugin(name, card, sources.package, str(path), sources)


def _expect_free(plugin: Plugin[ModelCard], others: Mapping[str, Plugin[ModelCard]]) -> None:
    if plugin.name in others:
        raise CardError(
            f"{plugin.place()} is a model called {plugin.name}, but {others[plugin.name].place()} has that name; "
            "rename the file or folder."
        )


def code_checksum(plugin: Plugin[Any]) -> str | None:
    """SHA-256 over the files of a plugin that mer-bench itself did not bring; None for its own, which have a version.

    The same for a folder whether it is installed or not.

    Raises:
        PluginError: If the files of an installed one cannot be read.
    """
    if plugin.files is not None:
        return plugin.files.sha256
    if plugin.is_own or plugin.distribution == BUILT_IN_DISTRIBUTION:
        return None
    return _installed_checksum(plugin.package)


def built_in_checksum() -> str:
    """SHA-256 over the files of all models that mer-bench itself brings: any change to them changes it."""
    own = sorted(p.package for p in models().plugins.values() if p.distribution == BUILT_IN_DISTRIBUTION)
    return hashlib.sha256("\n".join(_installed_checksum(package) for package in own).encode()).hexdigest()


@lru_cache(maxsize=256)
def _installed_checksum(package: str) -> str:
    # Remembered, since what was imported stays what it was while a file changes.
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise PluginError(f"the files of {package} are nowhere to be found.")
    return read_plugin_files(Path(next(iter(spec.submodule_search_locations)))).sha256


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
        raise PluginError(f"{_entry_place(plugin, plugin.card.config)} should be a child of mer_bench.config.Settings.")
    hidden = names_in_both(found.model_fields, TrainerSettings.model_fields)
    if hidden:
        raise PluginError(f"{plugin.place()}: the setting {hidden[0]} hides the trainer's; rename it.")
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
        raise PluginError(f"{_entry_place(plugin, plugin.card.entry)} should be a child of {base}.")
    if unwritten := sorted(getattr(found, "__abstractmethods__", ())):
        raise PluginError(f"{_entry_place(plugin, plugin.card.entry)} has no method {unwritten[0]}.")


def _entry_place(plugin: Plugin[Any], entry: str) -> str:
    """A class for messages: `their_models.gru:model:Gru`, `my_gru.py:MyGru`."""
    if plugin.files is None:
        return f"{plugin.package}:{entry}"
    module, _, attribute = entry.partition(":")
    return f"{plugin.place(module)}:{attribute}"


def _import_entry(plugin: Plugin[Any], entry: str) -> Any:
    module, _, attribute = entry.partition(":")
    try:
        code = importlib.import_module(f"{plugin.package}.{module}")
    except MerBenchError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(f"{plugin.place(module)} cannot be imported: {_import_fault(plugin, error)}") from error
    try:
        return getattr(code, attribute)
    except AttributeError:
        named = attribute if plugin.files is not None and plugin.files.path.is_file() else entry
        raise PluginError(f"{plugin.place(module)} has no {attribute}, which its card names as {named}.") from None


def _import_fault(plugin: Plugin[Any], error: BaseException) -> str:
    """What went wrong, and where in the plugin's own files if it is not installed."""
    if plugin.files is None:
        return f"{type(error).__name__}: {error}"
    # A module that is missing is named as the file names it: `.config`.
    told = error.msg if isinstance(error, SyntaxError) else str(error).replace(plugin.package, "")
    line = failing_line(error, plugin.files)
    where = ""
    if line is not None:
        file, number = line
        given = Path(plugin.distribution)
        shown = given if file == plugin.files.path else given / file.relative_to(plugin.files.path)
        where = f" ({shown}, line {number})"
    return f"{type(error).__name__}: {told}{where}"
