"""The command line: `mer-bench`. One file a command; heavy rooms are imported inside the commands."""

from __future__ import annotations

from typing import Annotated

import typer

from mer_bench import __version__
from mer_bench.cli import (
    ablate,
    check,
    compare,
    data,
    doctor,
    info,
    leaderboard,
    leaderboard_check,
    listing,
    new,
    predict,
    run,
    score,
    sweep,
    tune,
    tune_show,
)
from mer_bench.cli.commands import Program, help_when_alone
from mer_bench.cli.options import Debug

app = typer.Typer(
    name="mer-bench",
    cls=Program,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mer-bench {__version__}")
        raise typer.Exit


@app.callback()
def program(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Compare models of multimodal emotion recognition in conversation, fairly and fast.

    \b
    Examples:
      mer-bench run --model cmath --dataset meld
      mer-bench list models
      mer-bench data import meld --from ~/Downloads/MELD
    """
    help_when_alone(context)


app.command("run")(run.run)
tune.commands.command("show")(tune_show.show)
tune.commands.command("export")(tune_show.export)
app.add_typer(tune.commands, name="tune", help="Search a model's settings on dev, within a fair budget.")
app.command("sweep")(sweep.sweep)
app.command("ablate")(ablate.ablate)
app.command("score")(score.score)
leaderboard.commands.command("check")(leaderboard_check.check)
app.add_typer(
    leaderboard.commands, name="leaderboard", help="Tables of records: build their pages, show one here, check records."
)
app.command("compare")(compare.compare)
app.command("list")(listing.list_names)
app.command("info")(info.info)
app.add_typer(data.commands, name="data", help="Bring a dataset's files here, prepare them, see what is there.")
app.add_typer(new.commands, name="new", help="Write something to start from, for a model or a dataset of your own.")
app.command("check")(check.check)
app.command("predict")(predict.predict)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; never returns."""
    app(prog_name="mer-bench")
