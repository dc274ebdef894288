"""Fetch published files, each pinned by its content, from their host or from a mirror of it.

A mirror is any server whose paths are `<owner>/<repository>/<commit>/<path>`, as those of the usual host of raw
files are: a static file server over a folder in that layout will do. Proxies are taken from the environment, as
`HTTPS_PROXY` and `NO_PROXY` say.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from mer_bench import __version__
from mer_bench.atomic import TEMPORARY_SUFFIX, flush_to_disk, remove_abandoned, storage_errors, temporary_beside
from mer_bench.cards import DatasetCard, Source
from mer_bench.data.files import difference_from_pin
from mer_bench.errors import (
    DataError,
    MerBenchError,
    MissingDataError,
    RunError,
    SettingError,
    StorageError,
    UnreachableError,
)
from mer_bench.locations import raw_folder
from mer_bench.registry import Plugin

try:
    import fcntl
except ImportError:  # Windows: no resume there, since two processes could write one file
    fcntl = None  # type: ignore[assignment]

HOST = "https://raw.githubusercontent.com"
MIRROR_VARIABLE = "MER_BENCH_MIRROR"

CONNECT_SECONDS = 4.0
"""Longest wait for a name and a connection: a machine without a network knows it after that."""

READ_SECONDS = 20.0
"""Longest wait for the next bytes of an answer."""

ATTEMPTS = 4
"""Tries in a row that bring not one new byte before a file is given up."""

MAX_TRIES = 60
"""Tries for one file altogether, however much each of them brings."""

BACK_OFF_SECONDS = 0.5
"""Wait before the second try; doubled before each further one."""

MAX_REDIRECTS = 5
MAX_BYTES = 8 << 30
"""Largest file that is fetched where the card states no size."""

Progress = Callable[[str, int, int], None]


def fetch(
    plugin: Plugin[DatasetCard],
    features: str,
    root: Path,
    *,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Bring the sources of a feature set into the raw folder; what is there and right stays.

    An interrupted file is taken up where it stopped. A file appears under its name only once its size and
    checksums are those of the card.

    Args:
        mirror: Address that takes the host's place; else `MER_BENCH_MIRROR`, else the host itself.
        progress: Called with file name, bytes so far and bytes in all (0: unknown).

    Returns:
        Every source of the feature set, in the card's order.

    Raises:
        UnreachableError: If no host answered at all: a name or a connection failure.
        DataError: If the host has no such file, or another one; what came is deleted.
        RunError: If a host answered and then broke off, again and again. StorageError: If a file cannot be written.
        MissingDataError: If a source is not published. SettingError: For an address or a proxy that is none.
    """
    base = _base_address(mirror)
    sources = [plugin.card.source(name) for name in plugin.card.feature_sets[features].sources]
    for source in sources:
        if not (source.repository and source.commit and source.path):
            raise MissingDataError(
                f"{source.name} of {plugin.name}/{features} is not published; bring it with: "
                f"mer-bench data import {plugin.name} --from FOLDER"
            )
        if not (source.sha256 or source.git_blob):
            raise DataError(f"the card of {plugin.name} has no checksum for {source.name}, so that it is not fetched.")
    folder = raw_folder(root, plugin.name)
    files = [folder / source.name for source in sources]
    wanted = [
        (source, file)
        for source, file in zip(sources, files, strict=True)
        if not file.is_file() or difference_from_pin(file, source)
    ]
    if not wanted:
        return files
    with storage_errors(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    with _client() as client:
        transfer = _Transfer(client, base, progress or (lambda name, done, total: None))
        for source, file in wanted:
            transfer.bring(source, file)
    return files


def _base_address(mirror: str | None) -> str:
    given = mirror or os.environ.get(MIRROR_VARIABLE, "").strip() or HOST
    try:
        parts = urlsplit(given)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        origin = "--mirror" if mirror else MIRROR_VARIABLE
        raise SettingError(f"a mirror is an address like http://localhost:8000, but {origin} is '{given}'.")
    return given.rstrip("/")


def _client() -> httpx.Client:
    timeout = httpx.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS, write=READ_SECONDS, pool=CONNECT_SECONDS)
    # Compressed answers could be neither measured nor resumed.
    headers = {"User-Agent": f"mer-bench/{__version__}", "Accept-Encoding": "identity"}
    try:
        return httpx.Client(timeout=timeout, headers=headers, follow_redirects=True, max_redirects=MAX_REDIRECTS)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise SettingError(f"the proxy that the environment names cannot be used: {error}") from None


class _BrokenOffError(Exception):
    """An answer that stopped before its end, or asks to come again later; worth another try."""


class _Transfer:
    """One call of `fetch`: remembers whether any host ever answered.

    Attributes:
        answered: True once a host has sent anything.
    """

    def __init__(self, client: httpx.Client, base: str, progress: Progress) -> None:
        self.client = client
        self.base = base
        self.progress = progress
        self.answered = False

    def bring(self, source: Source, file: Path) -> None:
        """Fetch one file, check it, and move it to its name."""
        url = f"{self.base}/{source.repository}/{source.commit}/{quote(source.path)}"
        with storage_errors(f"write {file}"), _unfinished(source, file) as (stream, unfinished):
            try:
                resumed = self.complete(url, source, stream)
                stream.flush()
                difference = difference_from_pin(unfinished, source)
                if difference and resumed:
                    # What an earlier attempt left may itself have been wrong; once more from the first byte.
                    _emptied(stream)
                    self.complete(url, source, stream)
                    stream.flush()
                    difference = difference_from_pin(unfinished, source)
                if difference:
                    raise DataError(
                        f"what {_shown(url)} sent is not the published {source.name}: {difference}. It was deleted."
                    )
                os.fsync(stream.fileno())
                if os.name == "nt":  # no open file can be moved there
                    stream.close()
                unfinished.replace(file)
            except (DataError, StorageError, OSError):
                unfinished.unlink(missing_ok=True)
                raise
            flush_to_disk(file.parent)

    def complete(self, url: str, source: Source, stream: IO[bytes]) -> bool:
        """Fetch until the file is whole; True when any of it came from an earlier attempt or another answer."""
        kept = stream.seek(0, os.SEEK_END)
        if source.bytes and kept > source.bytes:
            kept = _emptied(stream)
        resumed = bool(kept)
        if source.bytes and kept == source.bytes:
            return resumed
        fruitless = tries = 0
        while True:
            tries += 1
            before = stream.tell()
            try:
                self.receive(url, source, stream)
                return resumed
            except (_BrokenOffError, httpx.TransportError) as error:
                stream.flush()
                if isinstance(error, httpx.TransportError):
                    self.sort_out(url, error)
                resumed = resumed or stream.tell() > 0
                fruitless = 0 if stream.tell() > before else fruitless + 1
                if fruitless >= ATTEMPTS or tries >= MAX_TRIES:
                    reason = str(error) or type(error).__name__
                    raise RunError(
                        f"{source.name} could not be fetched from {_shown(url)}: {reason}. "
                        "What came is kept; run the same command again to go on."
                    ) from None
                time.sleep(BACK_OFF_SECONDS * 2 ** min(fruitless, 5))

    def sort_out(self, url: str, error: httpx.TransportError) -> None:
        """Raise for what a second try would not mend: no way to the host, or an answer that cannot be trusted."""
        if isinstance(error, httpx.UnsupportedProtocol | httpx.DecodingError):
            raise DataError(f"{_shown(url)} does not answer as a file server does: {error}.") from None
        if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            self.answered = True
            return
        if _is_certificate_failure(error):
            raise RunError(f"the certificate of {_host(url)} is not trusted: {error}.") from None
        # Who sent us on to a host that cannot be reached has answered.
        self.answered = self.answered or _host(str(error.request.url)) != _host(url)
        if not self.answered:
            raise _unreachable(url, str(error) or type(error).__name__) from None

    def receive(self, url: str, source: Source, stream: IO[bytes]) -> None:
        """One request, from the first missing byte on."""
        if not self.answered:
            _check_reachable(url)
        start = stream.seek(0, os.SEEK_END)
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            with self.client.stream("GET", url, headers=headers) as answer:
                self.answered = True
                self.store(answer, source, stream, start)
        except httpx.TooManyRedirects:
            self.answered = True
            raise DataError(f"{_shown(url)} leads from one address to another without end.") from None
        except httpx.InvalidURL as error:
            raise DataError(f"{_shown(url)} leads to an address that is none: {error}.") from None

    def store(self, answer: httpx.Response, source: Source, stream: IO[bytes], start: int) -> None:
        status, url = answer.status_code, str(answer.request.url)
        if status == 416 and start:
            _emptied(stream)
            raise _BrokenOffError("the host would not go on where it stopped")
        if status in (408, 425, 429) or status >= 500:
            raise _BrokenOffError(f"the host answered {status} {answer.reason_phrase}".rstrip())
        if status == 404:
            raise DataError(f"{_shown(url)} is not there (404). Is the mirror complete?")
        if status not in (200, 206):
            raise DataError(f"{_shown(url)} answered {status} {answer.reason_phrase}, not with the file.")
        if status == 206 and _range_start(answer) != start:
            _emptied(stream)
            raise _BrokenOffError("the host sent another part than the one asked for")
        if status == 200 and start:
            start = _emptied(stream)
        encoded = answer.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")
        length = answer.headers.get("Content-Length", "")
        total = source.bytes or (start + int(length) if length.isdecimal() and not encoded else 0)
        limit = source.bytes or MAX_BYTES
        done = start
        self.progress(source.name, done, total)
        try:
            for chunk in answer.iter_bytes() if encoded else answer.iter_raw():
                done += len(chunk)
                if done > limit:
                    raise DataError(
                        f"{_shown(url)} sends more than the {limit} bytes of {source.name}. It was deleted."
                    )
                stream.write(chunk)
                self.progress(source.name, done, total)
        except httpx.TransportError:
            if encoded:  # its parts do not fit together
                _emptied(stream)
            raise
        # An answer that states its length is whole by now, and then too short is wrong, not broken off.
        stated = "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers
        if done < source.bytes and not stated:
            raise _BrokenOffError(f"the answer ended after {done} of {source.bytes} bytes")


@contextmanager
def _unfinished(source: Source, file: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """The hidden file that a download grows in, beside its target and locked.

    Its name holds the pin, so that no part of another version is ever gone on with. A second process that fetches
    the same file at the same time gets a file of its own.
    """
    remove_abandoned(file)
    pin = (source.sha256 or source.git_blob)[:16]
    shared = file.with_name(f".{file.name}.{pin}{TEMPORARY_SUFFIX}")
    stream = shared.open("ab+")
    if not _is_ours(stream, shared):
        stream.close()
        own = temporary_beside(file)
        try:
            with own.open("wb+") as stream:
                yield stream, own
        finally:
            own.unlink(missing_ok=True)
        return
    try:
        with stream:
            yield stream, shared
    finally:
        # What nothing was written to is no start to go on from.
        if shared.is_file() and shared.stat().st_size == 0:
            shared.unlink(missing_ok=True)


def _is_ours(stream: IO[bytes], path: Path) -> bool:
    """Lock an open file; False if another process has it, or has meanwhile moved it away."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except OSError:
        return False


def _emptied(stream: IO[bytes]) -> int:
    stream.seek(0)
    stream.truncate()
    return 0


def _range_start(answer: httpx.Response) -> int:
    """First byte that a partial answer says it holds; -1 where it does not say."""
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdecimal() else -1


def _is_certificate_failure(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_reachable(url: str) -> None:
    """Find out within `CONNECT_SECONDS` whether there is a way to a host, or to the proxy before it.

    The system's own search for a name knows no time limit, and a name may have many addresses, each of which
    is waited for; so this runs in a thread that is left behind when its time is over.

    Raises:
        UnreachableError: If there is none.
    """
    target = urlsplit(_proxy_for(url) or url)
    host = target.hostname or ""
    port = target.port or (443 if target.scheme == "https" else 80)
    failure: list[OSError] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        except (OSError, UnicodeError) as error:  # a name too long for DNS is a UnicodeError
            failure.append(error if isinstance(error, OSError) else OSError(str(error)))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if thread.is_alive():
        raise _unreachable(url, f"no connection to {host} within {CONNECT_SECONDS:g} seconds")
    if failure:
        raise _unreachable(url, failure[0].strerror or str(failure[0]))


def _proxy_for(url: str) -> str:
    """Address of the proxy that the environment names for an address, or ""."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


def _unreachable(url: str, reason: str) -> MerBenchError:
    proxy = _proxy_for(url)
    through = f" through the proxy {_host(proxy)}" if proxy else ""
    return UnreachableError(
        f"{_host(url)} cannot be reached{through}: {reason}. Check the network, "
        f"or name a mirror (--mirror or {MIRROR_VARIABLE})."
    )


def _host(url: str) -> str:
    """Host and port, without a password that may stand before them."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _shown(url: str) -> str:
    """An address as it may be printed."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, _host(url), parts.path, "", ""))
