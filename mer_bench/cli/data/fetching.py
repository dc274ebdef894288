"""`mer-bench data fetch`: download the published files of a feature set, and prepare it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mer_bench.cli.data.names import DatasetOrFeatures, FeaturesId, named_features
from mer_bench.cli.options import DataRoot, Debug, Json

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen
    from mer_bench.data.download import Extent, Fetched

LARGE_BYTES = 100_000_000
"""Above this a download is confirmed by the user."""


def fetch_data(
    *,
    name: DatasetOrFeatures,
    features: FeaturesId = None,
    vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Word vectors, text or npz, where the set needs them.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Fetch more than 100 MB without asking.")] = False,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence that the dataset's owner asks for.")
    ] = False,
    prepare: Annotated[
        bool, typer.Option("--prepare/--no-prepare", help="Make the default feature store too.", show_default=True)
    ] = True,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Fetch <URL>/<repository>/<commit>/<path> instead.", show_default=False),
    ] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch the published files of a feature set, and prepare it.

    Each is checked by its content; a file that does not match is deleted and named. What broke off goes on
    where it stopped when the same command is given again.

    \b
    Examples:
      mer-bench data fetch meld
      mer-bench data fetch meld/mmgcn --mirror http://localhost:8000 --yes
      mer-bench data fetch iemocap --accept-licence
    """
    from mer_bench.cli.console import Screen
    from mer_bench.errors import MissingDataError, SettingError
    from mer_bench.locations import data_root as data_root_of

    screen = Screen(quiet_output=as_json)
    plugin, chosen = named_features(name, features, data_root)
    needs = plugin.card.feature_sets[chosen].needs
    # Said before a long download rather than after it.
    if vectors is not None and "vectors" not in needs:
        raise SettingError(f"{plugin.name}/{chosen} takes no word vectors, but --vectors {vectors} was given.")
    if vectors is not None and not vectors.is_file():
        raise MissingDataError(f"{vectors}, from --vectors, is not a file.")
    options: dict[str, Any] = {} if vectors is None else {"vectors": vectors}
    root = data_root_of(data_root)
    fetched = _bring(screen, plugin, chosen, root, mirror=mirror, yes=yes, accept_licence=accept_licence)
    _tell(screen, plugin, chosen, fetched)
    stores = []
    obstacle = _obstacle(plugin, chosen, fetched, options)
    if prepare and obstacle:
        screen.line(obstacle)
    elif prepare:
        stores = _prepare(screen, plugin, chosen, root, options)
    if as_json:
        answer = {"dataset": plugin.name, "features": chosen, "files": fetched.files, "fetched": fetched.brought}
        screen.answer({**answer, "unpublished": fetched.unpublished, "stores": stores})


def _bring(
    screen: Screen, plugin: Any, features: str, root: Path, *, mirror: str | None, yes: bool, accept_licence: bool
) -> Fetched:
    """Fetch, after the licence was accepted and the size confirmed where either is to be asked for."""
    from mer_bench.cli.console import transfer_progress
    from mer_bench.data.download import fetch
    from mer_bench.errors import LicenceError

    def attempt(accept: bool) -> Fetched:
        with transfer_progress(screen) as progress:
            return fetch(
                plugin,
                features,
                root,
                accept_licence=accept,
                mirror=mirror,
                progress=progress,
                confirm=lambda extent: _confirm(screen, f"{plugin.name}/{features}", extent, yes),
            )

    try:
        return attempt(accept=False)
    except LicenceError as error:
        # Shown even to those who accepted it unseen.
        screen.panel(
            f"Licence of {plugin.card.title}",
            [plugin.card.terms.text.strip(), "", f"Owner: {error.owner}", f"Address: {error.url}"],
        )
        if not accept_licence and not (screen.can_ask and screen.ask(f"Do you accept the licence of {error.owner}?")):
            raise
    return attempt(accept=True)


def _confirm(screen: Screen, name: str, extent: Extent, yes: bool) -> None:
    """Say what comes; go on only with the user's consent where it is large, or nobody knows how large.

    Raises:
        RequestError: If there is no consent.
    """
    from mer_bench.cli.console import size_text
    from mer_bench.errors import RequestError

    count = f"{len(extent.files)} file{'s' if len(extent.files) > 1 else ''}"
    size = "of unknown size" if extent.bytes is None else size_text(extent.bytes)
    screen.line(f"fetching {name}: {count}, {size}")
    if yes or (extent.bytes is not None and extent.bytes <= LARGE_BYTES):
        return
    if not screen.can_ask:
        raise RequestError(
            f"{name} is {size} to download, and more than {size_text(LARGE_BYTES)} is fetched only when you say so; "
            "nothing was fetched. Add --yes."
        )
    if not screen.ask(f"Fetch {size}?" if extent.bytes is not None else "Fetch a file of unknown size?"):
        raise RequestError(f"{name} was not fetched, as you said.")


def _tell(screen: Screen, plugin: Any, features: str, fetched: Fetched) -> None:
    if fetched.files:
        folder = fetched.files[0].parent
        count = f"{len(fetched.files)} file{'s' if len(fetched.files) > 1 else ''}"
        state = "" if fetched.brought else "already there, "
        state += "each as published" if all(_is_pinned(plugin, file) for file in fetched.files) else "not all published"
        screen.exactly(f"{plugin.name}/{features}: {count} in {folder}, {state}")
    elif not fetched.unpublished:
        screen.line(f"{plugin.name}/{features} is made from no files; there is nothing to fetch.")


def _is_pinned(plugin: Any, file: Path) -> bool:
    source = plugin.card.source(file.name)
    return bool(source.sha256 or source.git_blob)


def _obstacle(plugin: Any, features: str, fetched: Fetched, options: dict[str, Any]) -> str:
    """Why the feature set cannot be prepared by itself, and what to do; "" where it can."""
    name = f"{plugin.name}/{features}"
    if fetched.unpublished:
        files = ", ".join(fetched.unpublished)
        return (
            f"{name} also needs {files}, which nobody publishes: bring it yourself with: mer-bench data import "
            f"{plugin.name} --from FOLDER"
        )
    asked = [need for need in plugin.card.feature_sets[features].needs if need not in options]
    if asked:
        given = " ".join(f"--{need} FILE" for need in asked)
        return f"{name} needs more than these files; prepare it with: mer-bench data prepare {name} {given}"
    return ""


def _prepare(screen: Screen, plugin: Any, features: str, root: Path, options: dict[str, Any]) -> list[Path]:
    """Make the stores of the default label set and protocol, all its folds, where they are not there."""
    from mer_bench.cli.console import duration_text
    from mer_bench.data.preparation import open_or_prepare, prepare, resolve
    from mer_bench.locations import store_folder

    key = resolve(plugin.name, features)
    folds = plugin.card.protocols[key.protocol].folds
    keys = [resolve(plugin.name, features, fold=fold) for fold in range(1, folds + 1)] or [key]
    folders = []
    for each in keys:
        begun = time.monotonic()
        if options:
            screen.line(f"preparing {each}")
            prepare(each, root, options)
        else:
            open_or_prepare(each, root, on_prepare=lambda line: screen.line(line[:1].lower() + line[1:].rstrip(".")))
        folder = store_folder(root, each)
        folders.append(folder)
        screen.exactly(f"ready in {duration_text(time.monotonic() - begun)}: {folder}")
    return folders
