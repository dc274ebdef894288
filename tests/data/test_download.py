"""Fetching from real servers on a loopback port: good ones, broken ones, hostile ones and none."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mer_bench import registry
from mer_bench.cards import DatasetCard, Source, Terms, parse_card
from mer_bench.data import licence, transfer
from mer_bench.data.download import Extent, Fetched, fetch
from mer_bench.data.files import git_blob_of
from mer_bench.errors import (
    DataError,
    LicenceError,
    MissingDataError,
    RunError,
    SettingError,
    StorageError,
    UnreachableError,
)
from mer_bench.locations import raw_folder
from mer_bench.registry import Plugin
from tests.conftest import ShelfWriter
from tests.servers import QuietFiles, Scripted, ranges, scripted, serving, status

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


def card_text() -> str:
    """The card of ONE as a plugin's file holds it."""
    card = ONE.card.model_dump(mode="json", exclude_defaults=True)
    source = card["sources"][0]
    lines = [f"{key} = {json.dumps(value)}" for key, value in source.items()]
    return "\n".join(
        [
            'title = "Corpus"',
            'summary = "A corpus."',
            'entry = "reader:Corpus"',
            'licence = "none"',
            'modalities = ["text"]',
            'label_sets = { emotion = { title = "two", classes = ["calm", "cross"] } }',
            'feature_sets = { all = { title = "all", summary = "", widths = { text = 0 }, sources = ["large.bin"] } }',
            'protocols = { official = { title = "official" } }',
            "[[sources]]",
            *lines,
        ]
    )


def size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


OWN = source_of("small.csv", repository="", commit="", path="", sha256="", git_blob="", bytes=0)
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

    def test_progress_ends_with_the_size_where_nobody_says_it_before(self, tmp_path: Path) -> None:
        told = []
        plugin = plugin_of(source_of("large.bin", bytes=0))
        with scripted(status(200, LARGE, Content_Length="")) as (address, _):
            fetch(plugin, "all", tmp_path, mirror=address, progress=lambda *step: told.append(step))
        assert {total for _, _, total in told[:-1]} == {0}
        assert told[-1] == ("large.bin", len(LARGE), len(LARGE))

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

    def test_what_the_user_brings_is_named_and_the_rest_is_fetched(self, tmp_path: Path) -> None:
        plugin = plugin_of(OWN, source_of("large.bin"))
        with scripted(whole) as (address, _):
            fetched = fetch(plugin, "all", tmp_path, mirror=address)
        assert fetched == Fetched((raw_folder(tmp_path, "corpus") / "large.bin",), ("large.bin",), ("small.csv",))
        with pytest.raises(MissingDataError, match=r"small\.csv"):
            fetch(plugin, "all", tmp_path, mirror="http://127.0.0.1:9")
        (raw_folder(tmp_path, "corpus") / "small.csv").write_bytes(b"the user's own")
        fetched = fetch(plugin, "all", tmp_path, mirror="http://127.0.0.1:9")
        assert [file.name for file in fetched.files] == ["small.csv", "large.bin"]
        assert fetched.brought == fetched.unpublished == ()

    def test_nothing_is_passed_on_to_another_host(self, tmp_path: Path) -> None:
        seen: list[dict[str, str]] = []

        def note(request: Scripted) -> None:
            seen.append(dict(request.headers))
            whole(request)

        with scripted(note) as (there, _):
            moved = status(302, Location=there.replace("127.0.0.1", "localhost") + "/x?signature=1")

            def move(request: Scripted) -> None:
                seen.append(dict(request.headers))
                moved(request)

            with scripted(move) as (here, _):
                fetch(ONE, "all", tmp_path, mirror=here.replace("//", "//me:secret@"))
        assert [each.get("Authorization", "")[:6] for each in seen] == ["Basic ", ""]
        assert not {"Cookie", "Referer"} & set(seen[1])
        check_whole(tmp_path)

    def test_secrets_of_an_address_are_not_printed(self, tmp_path: Path) -> None:
        with (
            scripted(status(404)) as (there, _),
            scripted(status(302, Location=there + "/x?signature=hidden")) as (here, _),
            pytest.raises(DataError, match=r"/x is not there") as caught,
        ):
            fetch(ONE, "all", tmp_path, mirror=here.replace("//", "//me:hidden@"))
        assert "hidden" not in str(caught.value)


class TestConfirmed:
    """The size is known before anything comes, from the card, the host, or not at all."""

    def extents(self, plugin: Plugin[DatasetCard], root: Path, mirror: str) -> list[Extent]:
        told: list[Extent] = []
        fetch(plugin, "all", root, mirror=mirror, confirm=told.append)
        return told

    def test_what_the_card_says_needs_no_host(self, tmp_path: Path) -> None:
        def stop(extent: Extent) -> None:
            assert extent == Extent(("small.csv", "large.bin"), 8 + len(LARGE))
            raise SettingError("no.")

        with scripted(whole) as (address, asked), pytest.raises(SettingError):
            fetch(BOTH, "all", tmp_path, mirror=address, confirm=stop)
        assert asked == []
        assert left_in(tmp_path) == []

    def test_what_is_there_does_not_count(self, tmp_path: Path) -> None:
        folder = raw_folder(tmp_path, "corpus")
        folder.mkdir(parents=True)
        (folder / "small.csv").write_bytes(FILES["small.csv"][1])
        left = folder / f".large.bin.{ONE.card.source('large.bin').sha256[:16]}.partial"
        left.write_bytes(LARGE[:300_000])
        with scripted(whole) as (address, _):
            assert self.extents(BOTH, tmp_path, address) == [Extent(("large.bin",), len(LARGE) - 300_000)]
            assert self.extents(BOTH, tmp_path, address) == []

    def test_what_the_card_does_not_say_the_host_is_asked(self, published: Path, tmp_path: Path) -> None:
        plugin = plugin_of(source_of("small.csv"), source_of("large.bin", bytes=0))
        with ranges(published) as (address, asked):
            assert self.extents(plugin, tmp_path, address) == [Extent(("small.csv", "large.bin"), 8 + len(LARGE))]
        assert [method for method, _ in asked] == ["HEAD", "GET", "GET"]
        check_whole(tmp_path)

    def test_a_host_that_does_not_say_either(self, published: Path, tmp_path: Path) -> None:
        plugin = plugin_of(source_of("small.csv"), source_of("large.bin", bytes=0))
        with ranges(published, sizes=False) as (address, _):
            assert self.extents(plugin, tmp_path, address) == [Extent(("small.csv", "large.bin"), None)]
        check_whole(tmp_path)

    def test_a_host_that_has_no_such_file(self, published: Path, tmp_path: Path) -> None:
        (published / "owner" / "corpus" / COMMIT / FILES["large.bin"][0]).unlink()
        plugin = plugin_of(source_of("small.csv"), source_of("large.bin", bytes=0))
        with ranges(published) as (address, asked), pytest.raises(DataError, match="404"):
            self.extents(plugin, tmp_path, address)
        assert [method for method, _ in asked] == ["HEAD"]
        assert left_in(tmp_path) == []

    def test_no_host_at_all(self, tmp_path: Path) -> None:
        plugin = plugin_of(source_of("large.bin", bytes=0))
        with pytest.raises(UnreachableError):
            self.extents(plugin, tmp_path, "http://127.0.0.1:9")

    def test_without_the_question_no_size_is_asked_for(self, published: Path, tmp_path: Path) -> None:
        with ranges(published) as (address, asked):
            fetch(plugin_of(source_of("large.bin", bytes=0)), "all", tmp_path, mirror=address)
        assert [method for method, _ in asked] == ["GET"]


class TestLicence:
    def plugin(self, text: str = "Research alone.") -> Plugin[DatasetCard]:
        terms = Terms(owner="The owner", url="https://owner.example/licence", text=text)
        return replace(ONE, card=ONE.card.model_copy(update={"terms": terms}))

    def test_without_acceptance_no_host_is_asked(self, tmp_path: Path) -> None:
        with scripted(whole) as (address, asked), pytest.raises(LicenceError) as caught:
            fetch(self.plugin(), "all", tmp_path, mirror=address, confirm=lambda extent: pytest.fail("asked"))
        assert asked == []
        assert not (tmp_path / "raw").exists()
        assert "The owner (https://owner.example/licence)" in str(caught.value)
        assert "mer-bench data fetch corpus --accept-licence" in str(caught.value)

    def test_an_acceptance_is_remembered_by_its_text(self, tmp_path: Path) -> None:
        folder = raw_folder(tmp_path, "corpus")
        with scripted(whole) as (address, asked):
            fetch(self.plugin(), "all", tmp_path, mirror=address, accept_licence=True)
            told = json.loads((folder / "licence-accepted.json").read_text())
            (entry,) = told["accepted"]
            assert entry["sha256"] == hashlib.sha256(b"Research alone.").hexdigest()
            assert abs((datetime.now(UTC) - datetime.fromisoformat(entry["when"])).total_seconds()) < 60
            (folder / "large.bin").unlink()
            fetch(self.plugin(), "all", tmp_path, mirror=address)
            (folder / "large.bin").unlink()
            with pytest.raises(LicenceError):
                fetch(self.plugin("Other words."), "all", tmp_path, mirror=address)
            assert len(asked) == 2
            fetch(self.plugin("Other words."), "all", tmp_path, mirror=address, accept_licence=True)
            (folder / "large.bin").unlink()
            fetch(self.plugin(), "all", tmp_path, mirror=address)  # the first is still accepted
        assert [each.text for each in licence.accepted("corpus", tmp_path).accepted] == [
            "Research alone.",
            "Other words.",
        ]

    def test_what_is_here_needs_no_acceptance(self, tmp_path: Path) -> None:
        folder = raw_folder(tmp_path, "corpus")
        folder.mkdir(parents=True)
        (folder / "large.bin").write_bytes(LARGE)
        assert fetch(self.plugin(), "all", tmp_path, mirror="http://127.0.0.1:9").brought == ()
        assert left_in(tmp_path) == ["large.bin"]

    @pytest.mark.parametrize("damage", ["", "[]", '{"accepted": [{"sha256": 1}]}', "\x00"])
    def test_a_damaged_acceptance_is_no_acceptance(self, tmp_path: Path, damage: str) -> None:
        folder = raw_folder(tmp_path, "corpus")
        folder.mkdir(parents=True)
        (folder / "licence-accepted.json").write_text(damage)
        with pytest.raises(DataError, match=r"licence-accepted\.json is damaged. Delete it"):
            fetch(self.plugin(), "all", tmp_path, mirror="http://127.0.0.1:9", accept_licence=True)


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

    def test_a_server_that_sends_small_parts(self, tmp_path: Path) -> None:
        """A host may answer with less than was asked for: then the rest is asked for, not all of it again."""

        def part(request: Scripted) -> None:
            start, end = request.start, min(request.start + 400_000, len(LARGE))
            headers = {"Content_Range": f"bytes {start}-{end - 1}/{len(LARGE)}"}
            request.answer(206, LARGE[start:end], **headers)

        with scripted(cut_after(100_000), part) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert [wanted for _, wanted in asked] == ["", *(f"bytes={start}-" for start in (100_000, 500_000, 900_000))]
        check_whole(tmp_path)

    def test_a_compressed_part_does_not_go_on_what_is_plain(self, tmp_path: Path) -> None:
        def squeezed(request: Scripted) -> None:
            rest = gzip.compress(LARGE)[request.start :]
            headers = {"Content_Range": f"bytes {request.start}-{len(LARGE) - 1}/{len(LARGE)}"}
            request.answer(206, rest, Content_Encoding="gzip", **headers)

        with scripted(cut_after(1000), squeezed, status(200, gzip.compress(LARGE), Content_Encoding="gzip")) as (
            address,
            asked,
        ):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert [wanted for _, wanted in asked] == ["", "bytes=1000-", ""]
        check_whole(tmp_path)

    def test_a_cut_compressed_answer_begins_again(self, tmp_path: Path) -> None:
        sent = gzip.compress(LARGE)
        cut = status(200, sent[: len(sent) // 2], Content_Encoding="gzip", Content_Length=str(len(sent)))
        with scripted(cut, whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert [wanted for _, wanted in asked] == ["", ""]
        check_whole(tmp_path)

    def test_a_file_that_changes_on_the_host_between_two_tries(self, tmp_path: Path) -> None:
        """Whatever its ETag says: the pin tells, and all of it is fetched once more."""
        other = bytes(len(LARGE))
        first = status(200, other[:300_000], ETag='"old"', Content_Length=str(len(LARGE)))
        with scripted(first, whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert [wanted for _, wanted in asked] == ["", "bytes=300000-", ""]
        check_whole(tmp_path)

    def test_a_whole_file_of_unknown_size_left_behind_is_kept(self, published: Path, tmp_path: Path) -> None:
        plugin = plugin_of(source_of("large.bin", bytes=0))
        self.leave(tmp_path, LARGE)
        there = status(416, Content_Range=f"bytes */{len(LARGE)}")
        with scripted(there) as (address, asked):
            fetch(plugin, "all", tmp_path, mirror=address)
        assert [wanted for _, wanted in asked] == [f"bytes={len(LARGE)}-"]
        check_whole(tmp_path)

    def test_a_beginning_of_last_week_is_gone_on_with(self, tmp_path: Path) -> None:
        self.leave(tmp_path, LARGE[:300_000])
        (left,) = raw_folder(tmp_path, "corpus").iterdir()
        old = raw_folder(tmp_path, "corpus") / ".large.bin.other.partial"
        old.write_bytes(b"another version")
        for file in (left, old):
            os.utime(file, (time.time() - 7 * 24 * 3600,) * 2)
        with scripted(whole) as (address, asked):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert [wanted for _, wanted in asked] == ["bytes=300000-"]
        assert left_in(tmp_path) == ["large.bin"]

    @pytest.mark.parametrize("asked_for", ["1", "date"])
    def test_a_host_that_names_its_wait_is_given_it(self, tmp_path: Path, asked_for: str) -> None:
        wanted = asked_for
        if wanted == "date":
            wanted = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)  # whole seconds are said
        with scripted(status(429, Retry_After=wanted), whole) as (address, _):
            started = time.perf_counter()
            fetch(ONE, "all", tmp_path, mirror=address)
        assert 0.9 < time.perf_counter() - started < 5

    @pytest.mark.parametrize("said", ["soon", "-5", "9" * 400, "Wed, 99 Foo 2020", "Sun, 06 Nov 1994 08:49:37 GMT"])
    def test_a_wait_that_is_none_holds_nobody_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
    ) -> None:
        monkeypatch.setattr(transfer, "LONGEST_WAIT_SECONDS", 0.2)
        with scripted(status(503, Retry_After=said), whole) as (address, _):
            fetch(ONE, "all", tmp_path, mirror=address)
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

    def test_a_killed_process_leaves_a_start_and_no_file(
        self, published: Path, tmp_path: Path, shelves: ShelfWriter
    ) -> None:
        """For real: SIGKILL amid the transfer, then the same command again."""
        shelves.add("datasets", "killed_shelf", {"corpus": {"__init__.py": "", "card.toml": card_text()}})
        code = """
            import sys
            from pathlib import Path
            from mer_bench import registry
            from mer_bench.data.download import fetch
            fetch(registry.datasets().find("corpus"), "all", Path(sys.argv[1]), mirror=sys.argv[2])
        """
        environment = {**os.environ, "PYTHONPATH": str(shelves.folder)}
        root = tmp_path / "root"

        def command(address: str) -> list[str]:
            return [sys.executable, "-c", textwrap.dedent(code), str(root), address]

        with ranges(published, seconds=0.2) as (address, _):
            process = subprocess.Popen(command(address), env=environment)
            wait_until(lambda: any(size_of(file) > 100_000 for file in raw_folder(root, "corpus").glob(".large*")))
            process.kill()
            assert process.wait() == -signal.SIGKILL
        assert [name.startswith(".large.bin") for name in left_in(root)] == [True]
        (left,) = raw_folder(root, "corpus").iterdir()
        kept = size_of(left)
        with ranges(published) as (address, asked):
            subprocess.run(command(address), env=environment, check=True, timeout=60)
        assert asked == [("GET", f"bytes={kept}-")]
        assert left_in(root) == ["large.bin"]
        check_whole(root)


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

    @pytest.mark.parametrize("mirror", ["http://x/?key=1", "http://x/#there"])
    def test_an_address_that_cannot_be_gone_on(self, tmp_path: Path, mirror: str) -> None:
        """Paths are set behind it, and would land in the query."""
        with pytest.raises(SettingError, match="--mirror"):
            fetch(ONE, "all", tmp_path, mirror=mirror)

    def test_nothing_of_it_is_published(self, tmp_path: Path) -> None:
        plugin = plugin_of(source_of("large.bin", repository="", commit="", path=""))
        with pytest.raises(MissingDataError, match=r"large\.bin.*mer-bench data import corpus"):
            fetch(plugin, "all", tmp_path, mirror="http://127.0.0.1:9")

    def test_a_source_without_a_pin(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no checksum"):
            fetch(plugin_of(source_of("large.bin", sha256="", git_blob="")), "all", tmp_path)

    def test_a_proxy_that_is_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:9")
        with pytest.raises(SettingError, match="proxy"):
            fetch(ONE, "all", tmp_path, mirror="http://nowhere.invalid")

    def test_an_answer_that_cannot_be_unpacked(self, tmp_path: Path) -> None:
        with (
            scripted(status(200, b"not packed at all", Content_Encoding="gzip")) as (address, asked),
            pytest.raises(DataError, match="does not answer as a file server does"),
        ):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert len(asked) == 1
        assert left_in(tmp_path) == []

    def test_a_disk_that_fills_up_on_the_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The start is given up too: it is what fills the disk."""

        class Full(io.BufferedRandom):
            def write(self, content: Any) -> int:
                if self.tell() > 100_000:
                    raise OSError(28, "No space left on device")
                return super().write(content)

        opened = Path.open

        def limited(path: Path, mode: str = "r", *args: Any, **named: Any) -> Any:
            if path.name.endswith(".partial"):
                return Full(io.FileIO(path, mode.replace("b", "")))
            return opened(path, mode, *args, **named)

        monkeypatch.setattr(Path, "open", limited)
        with scripted(whole) as (address, _), pytest.raises(StorageError, match="disk is full"):
            fetch(ONE, "all", tmp_path, mirror=address)
        assert left_in(tmp_path) == []

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


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where connections are refused, and that no other test's server is given meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


class TestUnreachable:
    def test_nobody_listens(self, tmp_path: Path, nobody: str) -> None:
        started = time.perf_counter()
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:\d+ cannot be reached: Connection refused"):
            fetch(ONE, "all", tmp_path, mirror=nobody)
        assert time.perf_counter() - started < 5
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

    def test_the_proxy_is_not_there(self, tmp_path: Path, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
        proxy = nobody.replace("//", "//user:secret@")
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(UnreachableError, match="through the proxy 127") as caught:
            fetch(ONE, "all", tmp_path, mirror="http://nowhere.invalid")
        assert "secret" not in str(caught.value)

    def test_a_proxy_that_lets_nobody_through(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Closed(QuietFiles):
            def do_CONNECT(self) -> None:  # noqa: N802 (the name that its server asks for)
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

        # Bound and never listening: it refuses, and no other test's server can be given the port meanwhile.
        silent = socket.socket()
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def last(request: Scripted) -> None:
            # Before the answer, or the next request may still be let in; the loop first, which holds the socket.
            request.server.shutdown()
            request.server.server_close()
            silent.bind(request.server.server_address)
            status(200, FILES["small.csv"][1])(request)

        with silent, pytest.raises(RunError), scripted(last) as (address, _):
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
