"""`mer-bench new`: something to start from, for a model or a dataset of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mer_bench.cli.commands import Commands, help_when_alone
from mer_bench.cli.options import Debug

commands = typer.Typer(cls=Commands, rich_markup_mode=None, invoke_without_command=True, callback=help_when_alone)


@commands.command("dataset")
def new_dataset(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Lower-case letters and digits, with hyphens between them.")
    ],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write it; default: ./NAME", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a card and a small example of dialogues, to be replaced by your own.

    \b
    Example:
      mer-bench new dataset my-talks
      mer-bench data import my-talks --from my-talks
    """
    from mer_bench.cli.console import Screen
    from mer_bench.data.own.example import write_example
    from mer_bench.data.own.importing import check_name

    check_name(name)
    place = folder or Path(name)
    files = write_example(name, place)
    screen = Screen()
    for file in files:
        screen.exactly(f"wrote {file}")
    screen.line("Put your dialogues and features there (README.md says how), and describe them in card.toml. Then:")
    screen.exactly(f"mer-bench data import {name} --from {place}")


@commands.command("model")
def new_model(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Lower-case letters and digits, with hyphens between them.")
    ],
    file: Annotated[bool, typer.Option("--file", help="One .py file instead of a plugin folder.")] = False,
    package: Annotated[
        bool,
        typer.Option("--package", help="A package to install and publish: the plugin folder, and tests."),
    ] = False,
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to put it in; default: this one.", show_default=False)
    ] = Path(),
    debug: Debug = False,
) -> None:
    """Write a small model that works as it stands, to be changed into your own.

    \b
    Examples:
      mer-bench new model my-model --file
      mer-bench new model my-model --package
    """
    from mer_bench.cli.console import Screen
    from mer_bench.errors import RequestError
    from mer_bench.templates.writing import write_model

    if file and package:
        raise RequestError("--file is one file and --package a whole package; give one of the two.")
    plugin, written = write_model(name, "file" if file else "package" if package else "folder", folder)
    screen = Screen()
    for each in written:
        screen.exactly(f"wrote {each}")
    screen.line("It is a small network that works as it stands; change it into yours. Then:")
    screen.exactly(f"mer-bench check {plugin}")
    screen.exactly(f"mer-bench run --plugin {plugin} --model {name} --dataset meld")
