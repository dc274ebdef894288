"""The whole command line: help, mistyped words, and every error as one sentence with its exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mer_bench import runner
from mer_bench.errors import DataError, DivergedError, RequestError, RunError, UnreachableError

from .conftest import Invoke

RUN = ("run", "--model", "majority", "--dataset", "meld-synthetic")
PROGRAM = "from mer_bench.cli import main; main()"


def test_alone_it_shows_its_help(invoke: Invoke) -> None:
    result = invoke()
    assert result.exit_code == 0
    assert "Usage: mer-bench" in result.stdout
    for command in ("run", "list", "info", "data", "check"):
        assert f"  {command} " in result.stdout
    assert "import" in invoke("data").stdout


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["list"],
        ["info"],
        ["check"],
        ["new", "dataset"],
        ["new", "model"],
        ["data", "import"],
        ["data", "fetch"],
        ["data", "prepare"],
        ["data", "status"],
        ["data", "verify"],
    ],
    ids=" ".join,
)
def test_every_command_has_help_with_an_example(invoke: Invoke, command: list[str]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert f"mer-bench {' '.join(command)} " in result.stdout.partition("Example")[2] or command == ["data", "status"]
    assert "--debug" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 100


def test_the_version(invoke: Invoke) -> None:
    from mer_bench import __version__

    assert invoke("--version").stdout == f"mer-bench {__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rnu"], "no command is called 'rnu'. Did you mean 'run'? See: mer-bench --help"),
        (["data", "improt"], "no command is called 'improt'. Did you mean 'import'? See: mer-bench data --help"),
        (["run", "--modell", "x"], "no option is called '--modell'. Did you mean '--modalities' or '--model'?"),
        (["list", "models", "--jsn"], "no option is called '--jsn'. Did you mean '--json'? See: mer-bench list --help"),
        (["run", "--dataset", "meld"], "missing option '--model'. See: mer-bench run --help"),
        (["info"], "missing argument 'NAME'. See: mer-bench info --help"),
        ([*RUN, "--seed", "one"], "'--seed'"),
        ([*RUN, "--seed", "-1"], "'--seed'"),
        ([*RUN, "--seeds", "0"], "'--seeds'"),
        ([*RUN, "--model"], "'--model' requires an argument"),
        ([*RUN, "extra"], "unexpected extra argument"),
        ([*RUN, "--require-real=maybe"], "--require-real"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_mistyped_command_line_is_answered_with_the_nearest_words(
    invoke: Invoke, words: list[str], says: str
) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.startswith("mer-bench: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (RequestError("the request was wrong."), 2, "the request was wrong."),
        (DataError("test.csv, line 3: damaged."), 2, "test.csv, line 3: damaged."),
        (DivergedError("the loss became NaN."), 1, "the loss became NaN."),
        (UnreachableError("no host answered."), 1, "no host answered."),
        (MemoryError(), 1, "memory of this machine or its device was exhausted. Try smaller batches"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 1, "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 1, "memory of this machine"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            1,
            "the disk is full: runs/x could not be written",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "runs/x"), 1, "the disk is full: runs/x could not be written"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 1, "runs/x may not be read or written"),
        (OSError(errno.EROFS, "Read-only file system", "runs/x"), 1, "runs/x is on a read-only file system"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), 1, "a/b cannot be a folder: a file of that name"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), 1, "a/b is not there"),
        (OSError(errno.EIO, "Input/output error", "a/b"), 1, "a/b could not be read or written: Input/output error"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "the disk is full: a file could not be written"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "this should not have happened: ZeroDivisionError: division by zero",
        ),
        (AssertionError(), 1, "this should not have happened: AssertionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_is_one_sentence_with_its_exit_code(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(runner, "run", fail)
    result = invoke(*RUN)
    assert result.exit_code == code
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def test_an_error_that_hides_lost_memory_says_so(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise RunError("majority failed: MemoryError: ") from error

    monkeypatch.setattr(runner, "run", fail)
    result = invoke(*RUN)
    assert (result.exit_code, "memory of this machine" in result.stderr) == (1, True)


@pytest.mark.parametrize("place", [("--debug", *RUN), (*RUN, "--debug")], ids=["before", "after"])
def test_debug_shows_the_traceback(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, place: tuple[str, ...]) -> None:
    def broken(*_: object) -> None:
        raise RequestError("the request was wrong.")

    monkeypatch.setattr(runner, "run", broken)
    result = invoke(*place)
    assert result.exit_code == 2
    assert "in broken" in result.stderr
    assert result.stderr.endswith("mer-bench: the request was wrong.\n")


@pytest.mark.parametrize("given", ["results/new", "./results", "{absolute}/results"])
def test_a_path_is_named_as_it_was_given(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    given = given.format(absolute=tmp_path)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / given / "meld" / "x.json"))

    monkeypatch.setattr(runner, "run", fail)
    expected = f"the disk is full: {Path(given)}/meld/x.json could not be written"
    for words in (["--out", given], [f"--out={given}"]):
        assert expected in invoke(*RUN, *words).stderr


def test_ctrl_c_ends_the_program_with_130_and_a_sentence(tmp_path: Path) -> None:
    program = (
        "import time; from mer_bench import runner\n"
        "def wait(*_):\n    print('waiting', flush=True); time.sleep(60)\n"
        f"runner.run = wait\n{PROGRAM}"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, *RUN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MER_BENCH_DATA": str(tmp_path)},
        # A shell starts background jobs with Ctrl-C ignored, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert (child.returncode, errors) == (130, "mer-bench: stopped by Ctrl-C; nothing half-written was left behind.\n")


def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    command = f"{sys.executable} -c '{PROGRAM}' list metrics | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in result.stderr


def test_a_terminal_without_unicode_still_gets_its_answer(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "data", "status", "--data-root", str(tmp_path / "données")],
        capture_output=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert b"meld/transcripts" in result.stdout
    assert b"donn?es" in result.stdout
