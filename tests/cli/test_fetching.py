"""`mer-bench data fetch`, against servers on a loopback port and, where it asks, on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mer_bench import registry
from mer_bench.cli.data import fetching
from tests.conftest import ShelfWriter
from tests.servers import ranges

from .conftest import Invoke
from .talk import BIG, TALK, add_talk, publish_talk


@pytest.fixture
def talk(shelves: ShelfWriter) -> ShelfWriter:
    return add_talk(shelves)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return publish_talk(tmp_path / "published")


@pytest.fixture
def host(published: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    with ranges(published) as served:
        yield served


@pytest.fixture
def mirror(host: tuple[str, list[tuple[str, str]]], talk: ShelfWriter) -> str:
    return host[0]


def stores(root: Path) -> list[str]:
    return sorted(str(file.parent.relative_to(root / "prepared")) for file in root.rglob("manifest.json"))


class TestFetchAndPrepare:
    def test_what_is_fetched_is_prepared(self, invoke: Invoke, mirror: str, tmp_path: Path) -> None:
        root = tmp_path / "data"
        result = invoke("data", "fetch", "talk", "--mirror", mirror)
        lines = result.stdout.splitlines()
        assert lines[0] == "fetching talk/words: 1 file, 22 bytes"
        assert lines[1] == "fetched talk.csv (22 bytes)"
        assert lines[2] == f"talk/words: 1 file in {root}/raw/talk, each as published"
        assert lines[3] == "preparing talk/words (mood, official)"
        assert lines[4].startswith("ready in ")
        assert lines[4].endswith(f"{root}/prepared/talk/words/mood/official")
        assert stores(root) == ["talk/words/mood/official"]

    def test_a_second_time_nothing_is_fetched_or_made(self, invoke: Invoke, mirror: str, tmp_path: Path) -> None:
        assert invoke("data", "fetch", "talk", "--mirror", mirror).exit_code == 0
        (manifest,) = (tmp_path / "data").rglob("manifest.json")
        made = manifest.stat().st_mtime_ns
        result = invoke("data", "fetch", "talk", "--mirror", "http://127.0.0.1:9")
        assert result.exit_code == 0
        assert "already there, each as published" in result.stdout
        assert "preparing" not in result.stdout
        assert manifest.stat().st_mtime_ns == made

    def test_json_is_one_answer(self, invoke: Invoke, mirror: str, tmp_path: Path) -> None:
        answer = json.loads(invoke("data", "fetch", "talk", "--mirror", mirror, "--json").stdout)
        assert answer == {
            "dataset": "talk",
            "features": "words",
            "files": [f"{tmp_path}/data/raw/talk/talk.csv"],
            "fetched": ["talk.csv"],
            "unpublished": [],
            "stores": [f"{tmp_path}/data/prepared/talk/words/mood/official"],
        }

    def test_no_preparing_where_it_is_not_wanted(self, invoke: Invoke, mirror: str, tmp_path: Path) -> None:
        assert invoke("data", "fetch", "talk", "--mirror", mirror, "--no-prepare").exit_code == 0
        assert stores(tmp_path / "data") == []

    def test_every_fold_of_the_default_protocol(self, invoke: Invoke, mirror: str, tmp_path: Path) -> None:
        assert invoke("data", "fetch", "folded", "--mirror", mirror).exit_code == 0
        assert stores(tmp_path / "data") == [f"folded/words/mood/loso/fold{fold}" for fold in (1, 2, 3)]

    def test_a_set_that_needs_an_option_is_fetched_and_says_how_to_go_on(
        self, invoke: Invoke, mirror: str, tmp_path: Path
    ) -> None:
        result = invoke("data", "fetch", "talk/vectors", "--mirror", mirror)
        assert result.exit_code == 0
        assert "prepare it with: mer-bench data prepare talk/vectors --vectors FILE" in result.stdout
        assert stores(tmp_path / "data") == []
        (tmp_path / "vectors.txt").write_text("2")
        result = invoke("data", "fetch", "talk/vectors", "--vectors", "vectors.txt")
        assert result.exit_code == 0
        assert stores(tmp_path / "data") == ["talk/vectors/mood/official"]

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["talk", "--vectors", "conftest.py"], "talk/words takes no word vectors"),
            (["talk/vectors", "--vectors", "absent.txt"], "absent.txt, from --vectors, is not a file"),
        ],
    )
    def test_wrong_options_are_told_before_anything_is_fetched(
        self, invoke: Invoke, host: tuple[str, list[tuple[str, str]]], talk: ShelfWriter, words: list[str], says: str
    ) -> None:
        result = invoke("data", "fetch", *words, "--mirror", host[0])
        assert result.exit_code == 2
        assert says in result.stderr
        assert host[1] == []

    def test_what_nobody_publishes_is_the_users_to_bring(self, invoke: Invoke, mirror: str, tmp_path: Path) -> None:
        result = invoke("data", "fetch", "talk/mixed", "--mirror", mirror)
        assert result.exit_code == 0
        assert (tmp_path / "data" / "raw" / "talk" / "talk.csv").is_file()
        assert "own.csv, which nobody publishes: bring it yourself" in result.stdout
        assert "mer-bench data import talk --from FOLDER" in result.stdout
        assert stores(tmp_path / "data") == []
        result = invoke("data", "fetch", "talk/mixed", "--mirror", mirror)
        assert result.exit_code == 2
        assert "own.csv of talk/mixed is not published" in result.stderr
        (tmp_path / "data" / "raw" / "talk" / "own.csv").write_text("mine")
        result = invoke("data", "fetch", "talk/mixed", "--mirror", mirror)
        assert result.exit_code == 0
        assert "not all published" in result.stdout
        assert stores(tmp_path / "data") == ["talk/mixed/mood/official"]

    def test_a_dataset_made_from_no_files(self, invoke: Invoke, tmp_path: Path, synthetic: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "prepared").symlink_to(synthetic / "prepared")
        result = invoke("data", "fetch", "meld-synthetic", "--mirror", "http://127.0.0.1:9")
        assert result.exit_code == 0
        assert "made from no files; there is nothing to fetch" in result.stdout


class TestSize:
    @pytest.fixture(autouse=True)
    def small_is_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert fetching.LARGE_BYTES == 100_000_000
        monkeypatch.setattr(fetching, "LARGE_BYTES", len(BIG) - 1)

    def test_without_a_terminal_it_is_an_error(
        self, invoke: Invoke, host: tuple[str, list[tuple[str, str]]], talk: ShelfWriter, tmp_path: Path
    ) -> None:
        result = invoke("data", "fetch", "talk/big", "--mirror", host[0])
        assert result.exit_code == 2
        assert "fetching talk/big: 2 files, 512.0 kB" in result.stdout
        assert result.stderr.count("\n") == 1
        assert "512.0 kB to download" in result.stderr
        assert "Add --yes" in result.stderr
        assert [method for method, _ in host[1]] == ["HEAD"]
        assert list((tmp_path / "data").rglob("*.*")) == []

    def test_yes_goes_on(self, invoke: Invoke, mirror: str, tmp_path: Path) -> None:
        result = invoke("data", "fetch", "talk/big", "--mirror", mirror, "--yes")
        assert result.exit_code == 0
        assert (tmp_path / "data" / "raw" / "talk" / "big.bin").read_bytes() == BIG
        assert stores(tmp_path / "data") == ["talk/big/mood/official"]
        # What is there does not count.
        assert invoke("data", "fetch", "talk/big", "--mirror", mirror).exit_code == 0

    def test_a_size_that_nobody_knows_counts_as_large(
        self, invoke: Invoke, published: Path, talk: ShelfWriter, tmp_path: Path
    ) -> None:
        with ranges(published, sizes=False) as (address, _):
            result = invoke("data", "fetch", "talk/big", "--mirror", address)
            assert result.exit_code == 2
            assert "of unknown size to download" in result.stderr
            assert invoke("data", "fetch", "talk/big", "--mirror", address, "-y").exit_code == 0
        assert (tmp_path / "data" / "raw" / "talk" / "big.bin").read_bytes() == BIG


class TestLicence:
    def test_it_is_shown_and_refused_without_a_terminal(
        self, invoke: Invoke, host: tuple[str, list[tuple[str, str]]], talk: ShelfWriter, tmp_path: Path
    ) -> None:
        result = invoke("data", "fetch", "licensed", "--mirror", host[0], "--yes")
        assert result.exit_code == 2
        for part in ("You keep what is said to yourself.", "The Owner of Talk", "https://owner.example/talk"):
            assert part in result.stdout
        assert "mer-bench data fetch licensed --accept-licence" in result.stderr
        assert result.stderr.count("\n") == 1
        assert host[1] == []
        assert not (tmp_path / "data").exists()

    def test_it_is_accepted_once(self, invoke: Invoke, mirror: str, tmp_path: Path) -> None:
        result = invoke("data", "fetch", "licensed", "--mirror", mirror, "--accept-licence")
        assert result.exit_code == 0
        assert "You keep what is said to yourself." in result.stdout
        (tmp_path / "data" / "raw" / "licensed" / "talk.csv").unlink()
        result = invoke("data", "fetch", "licensed", "--mirror", mirror)
        assert result.exit_code == 0
        assert "You keep what is said" not in result.stdout
        assert (tmp_path / "data" / "raw" / "licensed" / "talk.csv").read_bytes() == TALK

    def test_json_shows_it_on_standard_error(self, invoke: Invoke, mirror: str) -> None:
        result = invoke("data", "fetch", "licensed", "--mirror", mirror, "--accept-licence", "--json")
        assert json.loads(result.stdout)["fetched"] == ["talk.csv"]
        assert "You keep what is said" in result.stderr

    def test_a_run_never_downloads_and_says_how(
        self, invoke: Invoke, host: tuple[str, list[tuple[str, str]]], talk: ShelfWriter
    ) -> None:
        result = invoke("run", "--model", "majority", "--dataset", "licensed", env={"MER_BENCH_MIRROR": host[0]})
        assert result.exit_code == 2
        assert "mer-bench data fetch licensed --features words (it shows the licence" in result.stderr
        assert host[1] == []


SCRIPT = """
import os, signal, sys
os.login_tty(0)  # its controlling terminal, so that Ctrl-C reaches it
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
from mer_bench.cli import app
from mer_bench.cli.data import fetching
fetching.LARGE_BYTES = int(sys.argv.pop(1))
app(prog_name="mer-bench")
"""


class Terminal:
    """`mer-bench` on a terminal of its own, as a person has it.

    Attributes:
        shown: Everything that stood on the screen so far.
    """

    def __init__(self, shelves: ShelfWriter, root: Path, *words: str, large: int = 100_000_000) -> None:
        self.master, slave = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(shelves.folder), "MER_BENCH_DATA": str(root)}
        environment |= {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"}
        command = [sys.executable, "-c", SCRIPT, str(large), *words]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.shown = ""

    def until(self, text: str) -> None:
        """Read until the text was shown."""
        while text not in self.shown:
            assert self._read(), f"{text!r} never came: {self.shown}"

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C once the command waits for an answer.

        Python forgets a signal that comes between the prompt and the read until the read returns, so a key pressed the
        moment the prompt shows may have to be pressed again.
        """
        while psutil.Process(self.process.pid).status() != psutil.STATUS_SLEEPING:
            time.sleep(0.05)
        self.type("\x03")

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read():
            pass
        os.close(self.master)
        return self.process.wait(timeout=60)

    def _read(self) -> bool:
        ready, _, _ = select.select([self.master], [], [], 60)
        assert ready, f"nothing more came: {self.shown}"
        try:
            new = os.read(self.master, 1 << 16)
        except OSError:  # the other end was closed
            return False
        self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", new.decode(errors="replace").replace("\r\n", "\n"))
        return bool(new)


class TestTerminal:
    def test_the_size_is_asked_for(self, talk: ShelfWriter, published: Path, tmp_path: Path) -> None:
        root = tmp_path / "data"
        with ranges(published) as (address, asked):
            words = ("data", "fetch", "talk/big", "--no-prepare", "--mirror", address)
            for answer in ("n\n", "\x04"):
                terminal = Terminal(talk, root, *words, large=1000)
                terminal.until("Fetch 512.0 kB? [y/N] ")
                terminal.type(answer)
                assert terminal.end() == 2
                assert "mer-bench: talk/big was not fetched, as you said." in terminal.shown
            assert {method for method, _ in asked} == {"HEAD"}
            terminal = Terminal(talk, root, *words, large=1000)
            terminal.until("[y/N] ")
            terminal.type("y\n")
            assert terminal.end() == 0
        assert (root / "raw" / "talk" / "big.bin").read_bytes() == BIG

    def test_the_licence_is_asked_for(self, talk: ShelfWriter, published: Path, tmp_path: Path) -> None:
        root = tmp_path / "data"
        with ranges(published) as (address, asked):
            words = ("data", "fetch", "licensed", "--no-prepare", "--mirror", address)
            terminal = Terminal(talk, root, *words)
            terminal.until("Do you accept the licence of The Owner of Talk? [y/N] ")
            assert "https://owner.example/talk" in terminal.shown
            terminal.type("no\n")
            assert terminal.end() == 2
            assert "nothing was downloaded" in terminal.shown
            assert asked == []
            assert not root.exists()
            terminal = Terminal(talk, root, *words)
            terminal.until("[y/N] ")
            terminal.type("yes\n")
            assert terminal.end() == 0
        assert (root / "raw" / "licensed" / "licence-accepted.json").is_file()

    def test_ctrl_c_at_the_question(self, talk: ShelfWriter, published: Path, tmp_path: Path) -> None:
        terminal = Terminal(talk, tmp_path / "data", "data", "fetch", "licensed", "--mirror", "http://127.0.0.1:9")
        terminal.until("[y/N] ")
        terminal.interrupt()
        assert terminal.end() == 130
        assert not (tmp_path / "data").exists()

    def test_a_bar_shows_how_far_it_is(self, talk: ShelfWriter, published: Path, tmp_path: Path) -> None:
        with ranges(published, seconds=0.3) as (address, _):
            words = ("data", "fetch", "talk/big", "--no-prepare", "--mirror", address)
            terminal = Terminal(talk, tmp_path / "data", *words)
            began = time.monotonic()
            assert terminal.end() == 0
        assert time.monotonic() - began > 2
        assert "big.bin" in terminal.shown
        assert " of 512.0 kB" in terminal.shown
        assert "kB/s, " in terminal.shown
        assert " left" in terminal.shown


@pytest.mark.real_data
@pytest.mark.parametrize(("dataset", "count"), [("meld", 6), ("iemocap", 4), ("emorynlp", 3), ("cmu-mosi", 9)], ids=str)
def test_the_published_files_of_every_corpus(
    invoke: Invoke, shared_data: Path, tmp_path: Path, dataset: str, count: int
) -> None:
    if dataset not in registry.datasets().plugins:
        pytest.skip(f"{dataset} is not installed")
    card = registry.datasets().find(dataset).card
    with ranges(shared_data / "published") as (address, asked):
        words = ["data", "fetch", dataset, "--no-prepare", "--mirror", address + "/", "--accept-licence", "--json"]
        answer = json.loads(invoke(*words).stdout)
    sources = next(iter(card.feature_sets.values())).sources
    assert answer["fetched"] == list(sources)
    assert len(sources) == count
    assert {method for method, _ in asked} == {"GET"}, "the card states every size"
    for file in map(Path, answer["files"]):
        assert file.stat().st_size == card.source(file.name).bytes
