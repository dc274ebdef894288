"""`mer-bench data`: bring a dataset's files here, prepare feature stores, and see what is there."""

from __future__ import annotations

import typer

from mer_bench.cli.commands import Commands, help_when_alone
from mer_bench.cli.data.exporting import export_data
from mer_bench.cli.data.fetching import fetch_data
from mer_bench.cli.data.importing import import_data
from mer_bench.cli.data.preparing import prepare_data
from mer_bench.cli.data.status import show_status
from mer_bench.cli.data.verifying import verify_data

commands = typer.Typer(cls=Commands, rich_markup_mode=None, invoke_without_command=True, callback=help_when_alone)
commands.command("import")(import_data)
commands.command("fetch")(fetch_data)
commands.command("prepare")(prepare_data)
commands.command("status")(show_status)
commands.command("verify")(verify_data)
commands.command("export")(export_data)
