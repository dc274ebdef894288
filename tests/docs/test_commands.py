"""Every command that a page shows is one that works: all are parsed by the real command line, and all are run.

Each page is run from top to bottom in a folder of its own, as a reader would go through it, on a small `meld-synthetic`
and for one epoch or trial: `SCALED` says what is exchanged. What cannot be run here says why, in a comment above its
block, and is skipped with that reason.
"""

from __future__ import annotations

import configparser
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import mer_bench_datasets.meld_synthetic.dataset as synthetic
import pytest
import typer
from typer.testing import CliRunner

import mer_bench
from mer_bench import registry
from mer_bench.cli import app
from mer_bench.data.preparation import open_or_prepare, resolve
from tests.docs.blocks import ROOT, Block, Command, blocks, commands, mentions, pages, pages_of_plugins

DIALOGUES = (40, 10, 16)
"""Of train, dev and test of the small `meld-synthetic`."""

SCALED = (
    (r"\b(meld|iemocap|emorynlp|cmu-mosi)\b(?!-synthetic|\.png|\.toml)", "meld-synthetic"),
    (r"^meld-synthetic([/.](?:emotion\.)?)(transcripts[a-z-]*|mmgcn)", r"meld-synthetic\1default"),
    (r"(meld-synthetic)(,meld-synthetic)+", r"\1"),
    (r"\.(cosmic|loso|bclstm)\.", ".official."),
)
"""What takes the place of what in each word of a command, in this order."""

SMALLER = {"--seeds": "2", "--trials": "2", "--timeout": "5", "--workers": "1"}
"""Options whose value is exchanged: fewer show as well that the command works."""

LEFT_OUT = {"--features", "--protocol", "--labels", "--modalities", "--jobs", "--track", "--settings"}
"""Options of a training that are left out: they name what only the corpus of the page has, or start other programs,
which have tests of their own. Modalities stay where the small corpus has them, and so does a file of settings."""

SHORT = {"run": ["--set", "epochs=1"], "sweep": ["--set", "epochs=1"], "ablate": ["--set", "epochs=1"]}
SHORT["tune"] = ["--fix", "epochs=1"]
"""What is added to a training."""

SHELL = {"mkdir", "cp", "mv", "ls", "cat", "cd"}


def every_command() -> list[Command]:
    found = [block for page in pages() + pages_of_plugins() for block in blocks(page) if block.language == "sh"]
    return [command for block in found for command in commands(block)]


@cache
def program() -> Any:
    return typer.main.get_command(app)


def parse(words: tuple[str, ...]) -> None:
    """Let the real command line take the words apart, without doing anything; raises what it would refuse them by."""
    command = program()
    context = command.make_context("mer-bench", [*words])
    while hasattr(command, "commands") and (rest := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def check_other(words: tuple[str, ...]) -> None:
    """A command of another program: what it names of this repository must be there. `.ci/run` runs most of them."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    match words:
        case ("python", "-m", "pip", "install", *rest) | ("pip", "install", *rest):
            for word in rest:
                wanted = re.search(r"(?:^|mer-bench|\.)\[(.+)\]$", word)
                assert not wanted or set(wanted[1].split(",")) <= set(extras), f"{word}: no such extra"
                assert not word.endswith(".txt") or (ROOT / word).is_file(), f"{word} is not there"
        case ("python", "-m", "pytest", *rest):
            assert [w for w in rest if w.startswith("tests/") and not (ROOT / w).exists()] == []
        case ("python", "-m", module, *rest) if module.startswith("tests."):
            # Hours at full scale. It takes its words, and what it does is tested at small scale beside it.
            called = [sys.executable, "-m", module, *rest, "--help"]
            # As in a clone, also where tox keeps the current folder off the path.
            there = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run(called, cwd=ROOT, env=there, check=True, timeout=100, stdout=subprocess.DEVNULL)
            if module.startswith("tests.speed."):
                return  # measurements are no tests
            beside = (ROOT / module.replace(".", "/")).parent.rglob("test_*.py")
            assert any(f"from {module}" in file.read_text() for file in beside), f"no test calls {module}"
        case ("tox", "-e", environment) | ("tox", "-e", environment, "--", *_):
            tox = configparser.ConfigParser()
            tox.read(ROOT / "tox.ini")
            assert f"testenv:{environment}" in tox.sections()
        case ("pre-commit", "install"):
            assert (ROOT / ".pre-commit-config.yaml").is_file()
        case ("tox",) | ("mypy",) | ("ruff", *_):
            pass
        case (script,) if script.startswith(".ci/"):
            assert (ROOT / script).is_file()
        case (program, *_):
            assert program in SHELL, f"nothing here runs {program}: say above the block why it is not run"


@pytest.mark.parametrize("command", every_command(), ids=lambda command: command.place)
def test_every_command_is_taken_by_the_program_that_it_calls(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    # A plugin of the page is not there yet; the test below makes it as the page does.
    monkeypatch.setattr(registry, "add_plugin", lambda path: ())
    if command.words[0] == "mer-bench":
        parse(command.words[1:])
    elif not command.block.reason:
        check_other(command.words)
    if command.block.reason:
        pytest.skip(f"parsed, not run: {command.block.reason}")


@pytest.mark.parametrize("page", pages() + pages_of_plugins(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_in_a_sentence_is_one_that_there_is(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "add_plugin", lambda path: ())
    for mentioned in mentions(page):
        try:
            parse(tuple(shlex.split(mentioned)))
        except Exception as error:
            # A sentence may leave out what it is not about. Typer has this error in a private module.
            if type(error).__name__ != "MissingParameter":
                raise


def scaled(text: str) -> str:
    for pattern, instead in SCALED:
        text = re.sub(pattern, instead, text)
    return text


def small(words: tuple[str, ...], folder: Path) -> list[str]:
    """The words of a command as they are run here.

    Args:
        folder: In which it runs; the name RUN in a path stands for a record there.
    """
    verb, result = words[0], []
    rest = iter(words)
    for word in rest:
        if verb == "check" and word in ("NAME", "cmath"):
            result.append("latefusion")  # the quickest of all; tests/contract/ checks each
        elif word in SMALLER:
            result += [word, SMALLER[word]]
            next(rest)
        elif word in LEFT_OUT and (verb in SHORT or verb == "compare"):
            value = next(rest)
            kept = word == "--modalities" and value in ("text", "text,audio")
            result += [word, value] if kept or (word == "--settings" and value != "published") else []
        elif "RUN" in word:
            result.append(str(min(folder.glob(scaled(word).replace("RUN", "*")))))
        else:
            result.append(scaled(word))
    trains = verb in SHORT and not {"show", "export"} & set(words)
    return result + (SHORT[verb] if trains else [])


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the small `meld-synthetic`, and beside it two runs on it, to be copied."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "generate", partial(synthetic.generate, DIALOGUES))
        open_or_prepare(resolve("meld-synthetic"), root / "data")
    for seed in (0, 1):
        options: dict[str, Any] = {"seed": seed, "modalities": ("text", "audio"), "settings": {"epochs": 1}}
        for model in ("dialoguernn", "cmath"):
            mer_bench.run(model, "meld-synthetic", data_root=root / "data", out=root / "records", **options)
    return root


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as a reader has it: prepared data, and examples and records where a clone of the repository has them."""
    shutil.copytree(prepared / "data", tmp_path / "data")
    here = tmp_path / "here"
    shutil.copytree(prepared / "records", here / "leaderboards" / "records")
    shutil.copytree(ROOT / "examples", here / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(here)
    monkeypatch.setenv("MER_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("run", "ablate"):
        monkeypatch.setattr(mer_bench, name, partial(one_epoch, getattr(mer_bench, name)))
    yield here
    for place in registry.added_places():
        registry.remove_plugin(place)


def one_epoch(function: Any, *given: Any, **options: Any) -> Any:
    return function(*given, **{**options, "settings": {**options.get("settings", {}), "epochs": 1}})


def run_command(command: Command, folder: Path) -> None:
    if command.words[0] == "mer-bench":
        words = small(command.words[1:], folder)
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{command.place}: mer-bench {' '.join(words)}\n{result.output}"
        if "--template" in words:
            fill_in(folder / words[words.index("--template") + 1])
    elif command.words[0] in SHELL:
        subprocess.run(scaled(" ".join(command.words)), shell=True, check=True, cwd=folder, timeout=20)


def fill_in(template: Path) -> None:
    """Predict one class for every utterance of a template, as a reader would fill it in."""
    with template.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with template.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "label"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows([{**row, "label": "neutral"} for row in rows])


def run_block(block: Block, folder: Path, names: dict[str, Any]) -> None:
    """Run a block, or write it to the file that its first line names in a comment."""
    named = re.match(r"# ([\w-]+\.(?:toml|py|csv))\b", block.text)
    if named:
        (folder / named[1]).write_text(scaled(block.text), encoding="utf-8")
    elif block.language == "sh":
        for command in commands(block):
            run_command(command, folder)
    elif block.language == "python":
        code = compile("\n" * (block.line - 1) + scaled(block.text), str(block.page), "exec")
        exec(code, names)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_run_from_top_to_bottom(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "py":
            compile(block.text, str(page), "exec")
        elif not block.reason:
            run_block(block, folder, names)
