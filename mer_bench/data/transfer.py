"""One published file from its address to its name: tried again, taken up where it stopped, checked, then moved.

Nothing here knows datasets or feature sets; `download` does. Proxies are taken from the environment, as
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
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from mer_bench import __version__
from mer_bench.atomic import TEMPORARY_SUFFIX, flush_to_disk, remove_abandoned, storage_errors, temporary_beside
from mer_bench.cards import Source
from mer_bench.data.files import difference_from_pin
from mer_bench.errors import DataError, MerBenchError, RunError, SettingError, StorageError, UnreachableError

try:
    import fcntl
except ImportError:  # Windows: no resume there, since two processes could write one file
    fcntl = None  # type: ignore[assignment]

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

LONGEST_WAIT_SECONDS = 60.0
"""As long as a host may ask to be left alone (`Retry-After`) before the next try."""

MAX_REDIRECTS = 5
MAX_BYTES = 8 << 30
"""Largest file that is fetched where the card states no size."""

Progress = Callable[[str, int, int], None]


def open_client() -> httpx.Client:
    """A client for any number of transfers; to be closed.

    Raises:
        SettingError: If the environment names a proxy that is none.
    """
    timeout = httpx.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS, write=READ_SECONDS, pool=CONNECT_SECONDS)
    # Compressed answers could be neither measured nor resumed.
    headers = {"User-Agent": f"mer-bench/{__version__}", "Accept-Encoding": "identity"}
    try:
        return httpx.Client(timeout=timeout, headers=headers, follow_redirects=True, max_redirects=MAX_REDIRECTS)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise SettingError(f"the proxy that the environment names cannot be used: {error}") from None


class _BrokenOffError(Exception):
    """An answer that stopped before its end, or asks to come again later; worth another try.

    Args:
        wait_seconds: As long as the host wants to be left alone.
    """

    def __init__(self, message: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class Transfer:
    """Files from one host: remembers whether it, or any that it leads to, ever answered.

    Args:
        base: Address before `/<owner>/<repository>/<commit>/<path>`.
        progress: Called with file name, bytes so far and bytes in all (0: unknown).

    Attributes:
        answered: True once a host has sent anything.
    """

    def __init__(self, client: httpx.Client, base: str, progress: Progress) -> None:
        self.client = client
        self.base = base
        self.progress = progress
        self.answered = False

    def size(self, source: Source) -> int | None:
        """Bytes of a file as its host states them, without fetching it; None where it does not.

        Raises:
            UnreachableError, DataError, RunError: As `bring` would.
        """
        url = self.address(source)
        sizes: list[int] = []

        def ask() -> None:
            with self.answers("HEAD", url) as answer:
                status = answer.status_code
                if status == 501 or (400 <= status < 500 and status not in (404, 408, 410, 425, 429)):
                    return  # no HEAD for this file; whether there is a file, GET will tell
                _refuse_failure(answer)
                length = answer.headers.get("Content-Length", "")
                if _is_number(length) and not _is_encoded(answer):
                    sizes.append(int(length))

        self.persist(url, source.name, ask, lambda: 0)
        return sizes[0] if sizes else None

    def address(self, source: Source) -> str:
        """Where a source is published."""
        return f"{self.base}/{source.repository}/{source.commit}/{quote(source.path)}"

    def bring(self, source: Source, file: Path) -> None:
        """Fetch one file, check it, and move it to its name.

        Raises:
            UnreachableError: If no host answered at all: a name or a connection failure.
            DataError: If the host has no such file, or another one; what came is deleted.
            RunError: If a host answered and then broke off, again and again. StorageError: If it cannot be written.
        """
        url = self.address(source)
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
                size = stream.tell()
                if os.name == "nt":  # no open file can be moved there
                    stream.close()
                unfinished.replace(file)
            except (DataError, StorageError, OSError):
                unfinished.unlink(missing_ok=True)
                raise
            flush_to_disk(file.parent)
            self.progress(source.name, size, size)

    def complete(self, url: str, source: Source, stream: IO[bytes]) -> bool:
        """Fetch until the file is whole; True when any of it came from an earlier attempt or another answer."""
        kept = stream.seek(0, os.SEEK_END)
        if source.bytes and kept > source.bytes:
            kept = _emptied(stream)
        resumed = bool(kept)
        if source.bytes and kept == source.bytes:
            return resumed

        def receive() -> None:
            nonlocal resumed
            try:
                self.receive(url, source, stream)
            except (_BrokenOffError, httpx.TransportError):
                stream.flush()
                resumed = resumed or stream.tell() > 0
                raise

        self.persist(url, source.name, receive, stream.tell)
        return resumed

    def persist(self, url: str, name: str, attempt: Callable[[], None], reached: Callable[[], int]) -> None:
        """Try until it works, or until that is hopeless; wait longer from try to try.

        Args:
            reached: Bytes that the attempts have brought; after one that brought more, tries are counted anew.
        """
        fruitless = tries = 0
        while True:
            tries += 1
            before = reached()
            try:
                return attempt()
            except (_BrokenOffError, httpx.TransportError) as error:
                if isinstance(error, httpx.TransportError):
                    self.sort_out(url, error)
                fruitless = 0 if reached() > before else fruitless + 1
                if fruitless >= ATTEMPTS or tries >= MAX_TRIES:
                    reason = str(error) or type(error).__name__
                    kept = "What came is kept; run" if reached() else "Run"
                    raise RunError(
                        f"{name} could not be fetched from {_shown(url)}: {reason}. {kept} the same command again to "
                        "go on."
                    ) from None
                asked = error.wait_seconds if isinstance(error, _BrokenOffError) else 0.0
                time.sleep(min(max(BACK_OFF_SECONDS * 2 ** min(fruitless, 5), asked), LONGEST_WAIT_SECONDS))
            except httpx.DecodingError as error:
                raise DataError(f"{_shown(url)} does not answer as a file server does: {error}.") from None
            except httpx.TooManyRedirects:
                self.answered = True
                raise DataError(f"{_shown(url)} leads from one address to another without end.") from None
            except httpx.InvalidURL as error:
                raise DataError(f"{_shown(url)} leads to an address that is none: {error}.") from None

    def sort_out(self, url: str, error: httpx.TransportError) -> None:
        """Raise for what a second try would not mend: no way to the host, or an answer that cannot be trusted."""
        if isinstance(error, httpx.UnsupportedProtocol):
            raise DataError(f"{_shown(url)} does not answer as a file server does: {error}.") from None
        if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            self.answered = True
            return
        if _is_certificate_failure(error):
            raise RunError(
                f"the certificate of {_host(str(error.request.url))} is not trusted: {error}. Where a proxy brings a "
                "certificate of its own, name the file of its authority in SSL_CERT_FILE."
            ) from None
        # Who sent us on to a host that cannot be reached has answered.
        self.answered = self.answered or _host(str(error.request.url)) != _host(url)
        if not self.answered:
            raise _unreachable(url, str(error) or type(error).__name__) from None

    @contextmanager
    def answers(self, method: str, url: str, headers: dict[str, str] | None = None) -> Iterator[httpx.Response]:
        """The answer to one request, its body yet to come."""
        if not self.answered:
            _check_reachable(url)
        with self.client.stream(method, url, headers=headers) as answer:
            self.answered = True
            yield answer

    def receive(self, url: str, source: Source, stream: IO[bytes]) -> None:
        """One request, from the first missing byte on."""
        start = stream.seek(0, os.SEEK_END)
        with self.answers("GET", url, {"Range": f"bytes={start}-"} if start else {}) as answer:
            self.store(answer, source, stream, start)

    def store(self, answer: httpx.Response, source: Source, stream: IO[bytes], start: int) -> None:
        """Write an answer behind the `start` bytes that are there, or in their place where it begins at the first."""
        status, url = answer.status_code, str(answer.request.url)
        encoded = _is_encoded(answer)
        part = _part(answer)
        if status == 416 and start:
            if part.total == start:  # all of it is there already
                return
            _emptied(stream)
            raise _BrokenOffError("the host would not go on where it stopped")
        _refuse_failure(answer)
        if status == 206 and (part.first != start or encoded):
            # A part of something compressed does not go on what is plain.
            _emptied(stream)
            raise _BrokenOffError("the host sent another part than the one asked for")
        if status == 200 and start:
            start = _emptied(stream)
        length = answer.headers.get("Content-Length", "")
        total = source.bytes or (start + int(length) if _is_number(length) and not encoded else 0)
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
        except (httpx.TransportError, httpx.DecodingError):
            if encoded:  # its parts do not fit together
                _emptied(stream)
            raise
        if status == 206 and done < part.total:
            raise _BrokenOffError(f"the host sent a part that ends after {done} of {part.total} bytes")
        # An answer that states its length is whole by now, and then too short is wrong, not broken off.
        stated = "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers
        if done < source.bytes and not stated:
            raise _BrokenOffError(f"the answer ended after {done} of {source.bytes} bytes")


def _refuse_failure(answer: httpx.Response) -> None:
    """Raise for an answer that brings no file: to be tried again, or not."""
    status, url = answer.status_code, str(answer.request.url)
    if status in (408, 425, 429) or status >= 500:
        raise _BrokenOffError(f"the host answered {status} {answer.reason_phrase}".rstrip(), _wait_asked_for(answer))
    if status == 404:
        raise DataError(f"{_shown(url)} is not there (404). Is the mirror complete?")
    if status not in (200, 206):
        raise DataError(f"{_shown(url)} answered {status} {answer.reason_phrase}, not with the file.")


def _wait_asked_for(answer: httpx.Response) -> float:
    """Seconds that `Retry-After` asks for, as a number or as a date; 0 where it does neither."""
    asked = answer.headers.get("Retry-After", "").strip()
    if _is_number(asked):
        return float(asked)
    try:
        moment = parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    now = datetime.now(UTC if moment.tzinfo else None)
    return max(0.0, (moment - now).total_seconds())


def unfinished_file(source: Source, file: Path) -> Path:
    """Where the beginning of a file is kept until all of it is there."""
    pin = (source.sha256 or source.git_blob)[:16]
    return file.with_name(f".{file.name}.{pin}{TEMPORARY_SUFFIX}")


@contextmanager
def _unfinished(source: Source, file: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """The hidden file that a download grows in, beside its target and locked.

    Its name holds the pin, so that no part of another version is ever gone on with. A second process that fetches
    the same file at the same time gets a file of its own.
    """
    shared = unfinished_file(source, file)
    if shared.exists():
        os.utime(shared)  # it is gone on with, however old it is
    remove_abandoned(file)
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


class _Part(NamedTuple):
    """What `Content-Range` says: first byte, or -1, and size of the whole file, or 0, where it does not say."""

    first: int
    total: int


def _part(answer: httpx.Response) -> _Part:
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    places, _, total = rest.partition("/")
    first = places.partition("-")[0]
    if unit != "bytes":
        return _Part(-1, 0)
    return _Part(int(first) if _is_number(first) else -1, int(total) if _is_number(total) else 0)


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) < 19


def _is_encoded(answer: httpx.Response) -> bool:
    return answer.headers.get("Content-Encoding", "").lower() not in ("", "identity")


def _is_certificate_failure(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


_PORTS = {"https": 443, "socks5": 1080, "socks5h": 1080}


def _check_reachable(url: str) -> None:
    """Find out within `CONNECT_SECONDS` whether there is a way to a host, or to the proxy before it.

    The system's own search for a name knows no time limit, and a name may have many addresses, each of which
    is waited for; so this runs in a thread that is left behind when its time is over.

    Raises:
        UnreachableError: If there is none.
    """
    target = urlsplit(_proxy_for(url) or url)
    host = target.hostname or ""
    port = target.port or _PORTS.get(target.scheme, 80)
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
