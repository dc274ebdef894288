"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mer_bench import registry

Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from (its traceback).")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, for programs.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="Folder of raw and prepared data; default: $MER_BENCH_DATA, else your user data folder.",
        show_default=False,
    ),
]
LabelsId = Annotated[
    str | None,
    typer.Option("--labels", metavar="ID", help="Label set; default: the dataset's first.", show_default=False),
]
ProtocolId = Annotated[
    str | None,
    typer.Option("--protocol", metavar="ID", help="Protocol; default: the dataset's first.", show_default=False),
]


def add_plugins(context: typer.Context, paths: list[Path] | None) -> list[Path] | None:
    """Take the plugins for as long as the command runs."""
    for path in paths or ():
        registry.add_plugin(path)
        context.call_on_close(lambda path=path: registry.remove_plugin(path))
    return paths


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="PATH",
        callback=add_plugins,
        help="Model that is not installed: a .py file, a plugin folder, or a folder of such; repeat for more.",
        show_default=False,
    ),
]
