"""Fetching from real servers on a loopback port: good ones, broken ones, hostile ones and none."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mer_bench import registry
from mer_bench.cards import DatasetCard, Source, parse_card
from mer_bench.data import transfer
from mer_bench.data.download import fetch
from mer_bench.data.files import git_blob_of
from mer_bench.errors import (
    DataError,
    MissingDataError,
    RunError,
    SettingError,
    StorageError,
    UnreachableError,
)
from mer_bench.locations import raw_folder
from mer_bench.registry import Plugin

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "data" / "published"
COMMIT = "0123456789" * 4
FILES = {
    "small.csv": ("data/small.csv", b"a,b\n1,2\n"),
    "large.bin": ("data/deep folder/l\xe4rge#1.bin", bytes(range(256)) * 4000),
}
LARGE = FILES["large.bin"][1]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.delenv(transfer.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(transfer, "BACK_OFF_SECONDS", 0.01)
    monkeypatch.setattr(transfer, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(transfer, "READ_SECONDS", 0.5)


def source_of(name: str, **changes: Any) -> Source:
    path, content = FILES[name]
    values = {
        "name": name,
        "repository": "owner/corpus",
        "commit": COMMIT,
        "path": path,
        "git_blob": git_blob_of(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    return Source(**{**values, **changes})


def plugin_of(*sources: Source) -> Plugin[DatasetCard]:
    card = parse_card(
        """
        title = "Corpus"
        summary = "A corpus."
        entry = "reader:Corpus"
        licence = "none"
        modalities = ["text"]
        [label_sets.emotion]
        title = "two"
        classes = ["calm", "cross"]
        [feature_sets.all]
        title = "all"
        summary = "All."
        widths = { text = 0 }
        [protocols.official]
        title = "official"
        """,
        DatasetCard,
        "card.toml",
    )
    features = card.feature_sets["all"].model_copy(update={"sources": tuple(source.name for source in sources)})
    card = card.model_copy(update={"sources": sources, "feature_sets": {"all": features}})
    return Plugin("corpus", card, "corpus", "corpus")


BOTH = plugin_of(source_of("small.csv"), source_of("large.bin"))
ONE = plugin_of(source_of("large.bin"))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    root = tmp_path / "published"
    for path, content in FILES.values():
        file = root / "owner" / "corpus" / COMMIT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class QuietFiles(SimpleHTTPRequestHandler):
    """Python's own static file server: answers no Range requests."""

    def log_message(self, *_: Any) -> None:
        pass


class Scripted(BaseHTTPRequestHandler):
    """Answers each request by the next step of a script, the last one for ever; remembers what was asked."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, script: list[Callable[[Scripted], None]], asked: list[tuple[str, str]]) -> None:
        self.script, self.asked = script, asked
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Range", "")))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        step(self)

    @property
    def start(self) -> int:
        asked = self.headers.get("Range", "")
        return int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), "Connection": "close", **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = True


@contextmanager
def scripted(*script: Callable[[Scripted], None]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    asked: list[tuple[str, str]] = []
    with serving(partial(Scripted, script=list(script), asked=asked)) as address:
        yield address, asked


def whole(request: Scripted) -> None:
    """A server that knows ranges."""
    if request.start:
        rest = LARGE[request.start :]
        request.answer(206, rest, Content_Range=f"bytes {request.start}-{len(LARGE) - 1}/{len(LARGE)}")
    else:
        request.answer(200, LARGE)


def cut_after(count: int) -> Callable[[Scripted], None]:
    def step(request: Scripted) -> None:
        start = request.start
        headers = {"Content_Range": f"bytes {start}-{len(LARGE) - 1}/{len(LARGE)}"} if start else {}
        rest = LARGE[start : start + count]
        request.answer(206 if start else 200, rest, Content_Length=str(len(LARGE) - start), **headers)

    return step


def status(code: int, body: bytes = b"", **headers: str) -> Callable[[Scripted], None]:
    return lambda request: request.answer(code, body, **headers)


def left_in(root: Path) -> list[str]:
    folder = raw_folder(root, "corpus")
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


def check_whole(root: Path) -> None:
    for file in raw_folder(root, "corpus").iterdir():
        assert file.read_bytes() == FILES[file.name][1]


class TestSuccess:
    def test_from_a_static_server(self, published: Path, tmp_path: Path) -> None:
        told: list[tuple[str, int, int]] = []
        with serving(partial(QuietFiles, directory=str(published))) as address:
            fetched = fetch(BOTH, "all", tmp_path, mirror=address + "/", progress=lambda *step: told.append(step))
        assert list(fetched.files) == [raw_folder(tmp_path, "corpus") / name for name in FILES]
        assert left_in(tmp_path) == sorted(FILES)
        check_whole(tmp_path)
        for name in FILES:
            size = len(FILES[name][1])
            steps = [(done, total) for told_name, done, total in told if told_name == name]
            assert steps[0] == (0, size)
            assert steps[-1] == (size, size)
            assert steps == sorted(steps)

    def test_what_is_there_and_right_is_not_asked_for(self, tmp_path: Path) -> None:
        with scripted(whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
            fetch(ONE, "all", tmp_path, mirror=address)
            assert len(asked) == 1
        fetch(ONE, "all", tmp_path, mirror="http://127.0.0.1:9")

    def test_what_is_there_and_wrong_is_fetched_again(self, tmp_path: Path) -> None:
        raw_folder(tmp_path, "corpus").mkdir(parents=True)
        (raw_folder(tmp_path, "corpus") / "large.bin").write_bytes(b"old")
        with scripted(whole) as (address, _):
            fetch(ONE, "all", tmp_path, mirror=address)
        check_whole(tmp_path)

    def test_the_environment_names_the_mirror(
        self, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(partial(QuietFiles, directory=str(published))) as address:
            monkeypatch.setenv("MER_BENCH_MIRROR", address)
            fetch(BOTH, "all", tmp_path)
            with scripted(whole) as (other, asked):
                fetch(ONE, "all", tmp_path / "other", mirror=other)  # the argument goes before
                assert len(asked) == 1
        check_whole(tmp_path)

    def test_the_path_is_quoted_and_begins_with_repository_and_commit(self, tmp_path: Path) -> None:
        with scripted(whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address + "/sub")
        assert asked == [(f"/sub/owner/corpus/{COMMIT}/data/deep%20folder/l%C3%A4rge%231.bin", "")]

    def test_a_source_pinned_by_git_alone(self, tmp_path: Path) -> None:
        told = []
        plugin = plugin_of(source_of("large.bin", sha256="", bytes=0))
        with scripted(whole) as (address, _):
            fetch(plugin, "all", tmp_path, mirror=address, progress=lambda *step: told.append(step))
        check_whole(tmp_path)
        assert told[-1] == ("large.bin", len(LARGE), len(LARGE))  # the host said how much

    def test_an_answer_compressed_unasked(self, tmp_path: Path) -> None:
        with scripted(status(200, gzip.compress(LARGE), Content_Encoding="gzip")) as (address, _):
            fetch(ONE, "all", tmp_path, mirror=address)
        check_whole(tmp_path)

    def test_a_redirect(self, tmp_path: Path) -> None:
        with scripted(whole) as (there, asked), scripted(status(302, Location=there + "/x")) as (here, _):
            fetch(ONE, "all", tmp_path, mirror=here)
            assert asked == [("/x", "")]
        check_whole(tmp_path)

    def test_through_a_proxy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with scripted(whole) as (proxy, asked):
            monkeypatch.setenv("HTTP_PROXY", proxy)
            monkeypatch.setenv("http_proxy", proxy)
            fetch(ONE, "all", tmp_path, mirror="http://nowhere.invalid")
        assert asked[0][0].startswith("http://nowhere.invalid/owner/corpus/")
        check_whole(tmp_path)

    def test_no_proxy_is_honoured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with scripted(whole) as (address, _):
            fetch(ONE, "all", tmp_path, mirror=address)
        check_whole(tmp_path)


class TestInterrupted:
    def test_a_cut_connection_goes_on_where_it_stopped(self, tmp_path: Path) -> None:
        with scripted(cut_after(300_000), cut_after(500_000), whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert [wanted for _, wanted in asked] == ["", "bytes=300000-", "bytes=800000-"]
        assert left_in(tmp_path) == ["large.bin"]
        check_whole(tmp_path)

    def test_a_later_call_goes_on_as_well(self, tmp_path: Path) -> None:
        def nothing(request: Scripted) -> None:
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True

        with scripted(cut_after(300_000), nothing) as (address, asked):
            with pytest.raises(RunError, match="run the same command again"):
                fetch(ONE, "all", tmp_path, mirror=address)
            assert len(asked) == 1 + transfer.ATTEMPTS
        assert [name.startswith(".large.bin") for name in left_in(tmp_path)] == [True]
        with scripted(whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert [wanted for _, wanted in asked] == ["bytes=300000-"]
        check_whole(tmp_path)

    def test_a_whole_file_left_behind_is_not_fetched_again(self, tmp_path: Path) -> None:
        self.leave(tmp_path, LARGE)
        with scripted(whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
            assert asked == []
        check_whole(tmp_path)

    @pytest.mark.parametrize("left", [b"wrong" * 1000, LARGE[:-5] + b"wrong", LARGE + b"more"])
    def test_a_wrong_beginning_is_fetched_once_more_from_the_start(self, tmp_path: Path, left: bytes) -> None:
        self.leave(tmp_path, left)
        with scripted(whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert asked[-1][1] == ""
        assert left_in(tmp_path) == ["large.bin"]
        check_whole(tmp_path)

    def leave(self, root: Path, content: bytes) -> None:
        folder = raw_folder(root, "corpus")
        folder.mkdir(parents=True)
        (folder / f".large.bin.{ONE.card.source('large.bin').sha256[:16]}.partial").write_bytes(content)

    def test_a_server_without_ranges_starts_again(self, tmp_path: Path) -> None:
        with scripted(cut_after(300_000), status(200, LARGE)) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert len(asked) == 2
        check_whole(tmp_path)

    @pytest.mark.parametrize(
        "refusal", [status(416), status(206, LARGE[7:], Content_Range="bytes 7-1023999/1024000"), status(206, LARGE)]
    )
    def test_a_server_that_muddles_ranges(self, tmp_path: Path, refusal: Callable[[Scripted], None]) -> None:
        with scripted(cut_after(300_000), refusal, whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert [wanted for _, wanted in asked] == ["", "bytes=300000-", ""]
        check_whole(tmp_path)

    def test_no_end_of_muddled_ranges(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transfer, "MAX_TRIES", 10)
        monkeypatch.setattr(transfer, "BACK_OFF_SECONDS", 0)

        def muddled(request: Scripted) -> None:
            if request.start:
                request.answer(416)
            else:
                cut_after(1000)(request)

        with scripted(muddled) as (address, asked), pytest.raises(RunError):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert len(asked) == 10

    @pytest.mark.parametrize("code", [429, 500, 502, 503])
    def test_a_host_in_trouble_is_asked_again(self, tmp_path: Path, code: int) -> None:
        with scripted(status(code), status(code), whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
            assert len(asked) == 3
        with scripted(status(code)) as (address, asked):
            with pytest.raises(RunError, match=f"answered {code}"):
                fetch(ONE, "all", tmp_path / "other", mirror=address)
            assert len(asked) == transfer.ATTEMPTS
        assert left_in(tmp_path / "other") == []

    def test_an_answer_that_stalls(self, tmp_path: Path) -> None:
        def stalled(request: Scripted) -> None:
            request.answer(200, LARGE[:1000], Content_Length=str(len(LARGE)))
            time.sleep(1)

        with scripted(stalled, whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert asked[1][1] == "bytes=1000-"
        check_whole(tmp_path)

    def test_an_answer_that_never_comes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Somebody listened: that is no unreachable host."""
        monkeypatch.setattr(transfer, "READ_SECONDS", 0.1)
        with scripted(lambda request: time.sleep(0.5)) as (address, _), pytest.raises(RunError):
            fetch(ONE, "all", tmp_path, mirror=address)

    def test_an_answer_without_a_length_that_ends_early(self, tmp_path: Path) -> None:
        with scripted(status(200, LARGE[:1000], Content_Length=""), whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert asked[1][1] == "bytes=1000-"
        check_whole(tmp_path)

    def test_two_at_a_time_do_not_mix(self, tmp_path: Path) -> None:
        def slow(request: Scripted) -> None:
            request.send_response(200)
            request.send_header("Content-Length", str(len(LARGE)))
            request.end_headers()
            for place in range(0, len(LARGE), 100_000):
                request.wfile.write(LARGE[place : place + 100_000])
                time.sleep(0.02)

        faults: list[BaseException] = []

        def one() -> None:
            try:
                fetch(ONE, "all", tmp_path, mirror=address)
            except BaseException as error:
                faults.append(error)

        with scripted(slow) as (address, _):
            threads = [threading.Thread(target=one) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not faults
        assert left_in(tmp_path) == ["large.bin"]
        check_whole(tmp_path)

    def test_ctrl_c_leaves_a_start_and_no_file(self, tmp_path: Path) -> None:
        def stop(name: str, done: int, total: int) -> None:
            if done:
                raise KeyboardInterrupt

        with scripted(whole) as (address, _), pytest.raises(KeyboardInterrupt):
            fetch(ONE, "all", tmp_path, mirror=address, progress=stop)
        assert [name.endswith(".partial") for name in left_in(tmp_path)] == [True]
        with scripted(whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert asked[0][1].startswith("bytes=")
        check_whole(tmp_path)


class TestRefused:
    @pytest.mark.parametrize(
        "sent",
        [
            LARGE[:-1] + b"!",
            LARGE[:-1],
            LARGE + b"!",
            b"<html>Sign in</html>",
            b"",
            b"version https://git-lfs.github.com/spec/v1\n",
        ],
        ids=["changed", "short", "long", "page", "empty", "pointer"],
    )
    @pytest.mark.parametrize("pin", [{}, {"sha256": ""}, {"git_blob": ""}, {"bytes": 0, "sha256": ""}])
    def test_another_content_is_deleted_and_named(self, tmp_path: Path, sent: bytes, pin: dict[str, Any]) -> None:
        plugin = plugin_of(source_of("large.bin", **pin))
        with (
            scripted(status(200, sent)) as (address, _),
            pytest.raises(DataError, match=r"large\.bin.*published|more than") as caught,
        ):
            fetch(plugin, "all", tmp_path, mirror=address)
        assert "It was deleted" in str(caught.value)
        assert left_in(tmp_path) == []

    def test_both_checksums_are_named(self, tmp_path: Path) -> None:
        wrong = LARGE[:-1] + b"!"
        with scripted(status(200, wrong)) as (address, _), pytest.raises(DataError) as caught:
            fetch(ONE, "all", tmp_path, mirror=address)
        assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
        assert hashlib.sha256(LARGE).hexdigest() in str(caught.value)

    def test_an_endless_answer_is_ended(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transfer, "MAX_BYTES", 2_000_000)
        sent = 0

        def endless(request: Scripted) -> None:
            nonlocal sent
            request.send_response(200)
            request.send_header("Connection", "close")
            request.end_headers()
            request.close_connection = True
            try:
                for _ in range(2000):
                    request.wfile.write(b"x" * 100_000)
                    sent += 100_000
            except OSError:
                pass

        plugin = plugin_of(source_of("large.bin", bytes=0))
        with scripted(endless) as (address, _), pytest.raises(DataError, match="more than the 2000000 bytes"):
            fetch(plugin, "all", tmp_path, mirror=address)
        assert sent < 100_000_000
        assert left_in(tmp_path) == []

    @pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 204, 304])
    def test_an_answer_without_the_file(self, tmp_path: Path, code: int) -> None:
        with (
            scripted(status(code, b"" if code in (204, 304) else b"no")) as (address, asked),
            pytest.raises(DataError, match=str(code)),
        ):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert len(asked) == 1
        assert left_in(tmp_path) == []

    def test_the_missing_file_is_named(self, published: Path, tmp_path: Path) -> None:
        (published / "owner" / "corpus" / COMMIT / "data" / "small.csv").unlink()
        with (
            serving(partial(QuietFiles, directory=str(published))) as address,
            pytest.raises(DataError, match=r"data/small\.csv is not there \(404\)"),
        ):
            fetch(BOTH, "all", tmp_path, mirror=address)
        assert left_in(tmp_path) == []

    def test_redirects_without_end(self, tmp_path: Path) -> None:
        with (
            scripted(status(302, Location="/again")) as (address, asked),
            pytest.raises(DataError, match="without end"),
        ):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert len(asked) <= transfer.MAX_REDIRECTS + 1

    @pytest.mark.parametrize("target", ["ftp://x/y", "http://[", "file:///etc/passwd"])
    def test_a_redirect_to_nowhere(self, tmp_path: Path, target: str) -> None:
        with scripted(status(302, Location=target)) as (address, _), pytest.raises((DataError, RunError)):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert left_in(tmp_path) == []

    def test_something_that_is_no_web_server(self, tmp_path: Path) -> None:
        def noise(request: Scripted) -> None:
            request.wfile.write(b"SSH-2.0-OpenSSH_9\r\n")
            request.close_connection = True

        with scripted(noise) as (address, _), pytest.raises(RunError):
            fetch(ONE, "all", tmp_path, mirror=address)

    @pytest.mark.parametrize(
        "mirror", ["localhost:8000", "ftp://x", "/srv/mirror", "http://", "http://[x", "http://x:y"]
    )
    def test_an_address_that_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
        with pytest.raises(SettingError, match="--mirror"):
            fetch(ONE, "all", tmp_path, mirror=mirror)
        monkeypatch.setenv("MER_BENCH_MIRROR", mirror)
        with pytest.raises(SettingError, match="MER_BENCH_MIRROR"):
            fetch(ONE, "all", tmp_path)

    def test_a_source_that_nobody_publishes(self, tmp_path: Path) -> None:
        plugin = plugin_of(source_of("small.csv"), source_of("large.bin", repository="", commit="", path=""))
        with pytest.raises(MissingDataError, match=r"large\.bin.*mer-bench data import corpus"):
            fetch(plugin, "all", tmp_path, mirror="http://127.0.0.1:9")

    def test_a_source_without_a_pin(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no checksum"):
            fetch(plugin_of(source_of("large.bin", sha256="", git_blob="")), "all", tmp_path)

    def test_a_proxy_that_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:9")
        with pytest.raises(SettingError, match="proxy"):
            fetch(ONE, "all", tmp_path, mirror="http://nowhere.invalid")

    @pytest.mark.parametrize("call", ["fsync", "replace", "open"])
    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        def full(*_: Any, **__: Any) -> Any:
            raise OSError(28, "No space left on device")

        if call == "fsync":
            monkeypatch.setattr("os.fsync", full)
        else:
            monkeypatch.setattr(Path, call, full)
        with scripted(whole) as (address, _), pytest.raises(StorageError, match="disk is full"):
            fetch(ONE, "all", tmp_path, mirror=address)
        monkeypatch.undo()
        assert left_in(tmp_path) == []

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "raw").write_text("in the way")
        with pytest.raises(StorageError):
            fetch(ONE, "all", tmp_path, mirror="http://127.0.0.1:9")


class TestUnreachable:
    def nobody(self) -> str:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{taken.getsockname()[1]}"

    def test_nobody_listens(self, tmp_path: Path) -> None:
        started = time.perf_counter()
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:\d+ cannot be reached: Connection refused"):
            fetch(ONE, "all", tmp_path, mirror=self.nobody())
        assert time.perf_counter() - started < 1
        assert left_in(tmp_path) == []

    def test_nobody_has_the_name(self, tmp_path: Path) -> None:
        with pytest.raises(UnreachableError, match=r"nowhere\.invalid cannot be reached"):
            fetch(ONE, "all", tmp_path, mirror="http://nowhere.invalid")

    def test_a_name_that_cannot_be_one(self, tmp_path: Path) -> None:
        with pytest.raises(UnreachableError):
            fetch(ONE, "all", tmp_path, mirror=f"http://{'x' * 300}.invalid")

    def test_the_default_is_the_usual_host(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
            asked.append(address)
            raise ConnectionRefusedError(111, "Connection refused")

        monkeypatch.setattr(socket, "create_connection", refuse)
        with pytest.raises(UnreachableError, match=r"raw\.githubusercontent\.com"):
            fetch(ONE, "all", tmp_path)
        assert asked == [("raw.githubusercontent.com", 443)]

    def test_a_search_for_the_name_that_takes_long_is_not_awaited(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        over = threading.Event()
        monkeypatch.setattr(transfer, "CONNECT_SECONDS", 0.3)

        def search(*_: Any, **__: Any) -> list[Any]:
            over.wait(20)
            return []

        monkeypatch.setattr(socket, "getaddrinfo", search)
        started = time.perf_counter()
        with pytest.raises(UnreachableError, match=r"within 0\.3 seconds"):
            fetch(BOTH, "all", tmp_path)
        assert time.perf_counter() - started < 2
        over.set()

    def test_a_machine_without_a_network_knows_it_within_five_seconds(self) -> None:
        """The value that ships, which the other tests shorten."""
        code = "from mer_bench.data import transfer; print(transfer.CONNECT_SECONDS)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert float(done.stdout) <= 4

    def test_the_proxy_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = self.nobody().replace("//", "//user:secret@")
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(UnreachableError, match="through the proxy 127") as caught:
            fetch(ONE, "all", tmp_path, mirror="http://nowhere.invalid")
        assert "secret" not in str(caught.value)

    def test_a_proxy_that_lets_nobody_through(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Closed(QuietFiles):
            def do_CONNECT(self) -> None:
                self.send_error(403)

        with serving(Closed) as proxy:
            monkeypatch.setenv("https_proxy", proxy)
            with pytest.raises(UnreachableError, match="403"):
                fetch(ONE, "all", tmp_path, mirror="https://nowhere.invalid")

    def test_a_host_that_answered_once_is_not_unreachable(self, tmp_path: Path) -> None:
        """Half the files came: nothing may take that for a machine without a network."""
        script = [status(200, FILES["small.csv"][1])]
        with scripted(*script) as (address, _):
            first = plugin_of(source_of("small.csv"))
            fetch(first, "all", tmp_path, mirror=address)

        def last(request: Scripted) -> None:
            status(200, FILES["small.csv"][1])(request)
            threading.Thread(target=request.server.shutdown).start()
            request.server.server_close()

        with pytest.raises(RunError), scripted(last) as (address, _):
            fetch(BOTH, "all", tmp_path / "other", mirror=address)
        assert left_in(tmp_path / "other") == ["small.csv"]

    def test_a_certificate_that_nobody_signed(self, tmp_path: Path) -> None:
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        try:
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                 "-keyout", str(key), "-out", str(certificate)],
                check=True, capture_output=True,
            )  # fmt: skip
        except FileNotFoundError:
            pytest.skip("openssl is not installed")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), QuietFiles)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(RunError, match="certificate"):
                fetch(ONE, "all", tmp_path, mirror=f"https://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.mark.real_data
def test_the_published_files_of_meld(tmp_path: Path) -> None:
    if not PUBLISHED.is_dir():
        pytest.skip("../shared/data/published is not there")
    plugin = registry.datasets().find("meld")
    with serving(partial(QuietFiles, directory=str(PUBLISHED))) as address:
        files = fetch(plugin, "transcripts", tmp_path, mirror=address).files
        assert [file.name for file in files] == list(plugin.card.feature_sets["transcripts"].sources)
        with pytest.raises(DataError, match=r"MELD_features_raw1\.pkl is not there \(404\)"):
            fetch(plugin, "mmgcn", tmp_path, mirror=address)
    for file in files:
        assert file.stat().st_size == plugin.card.source(file.name).bytes
