"""Servers on a loopback port: files of a folder, answers of a script, and a slow one that knows ranges."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


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


def status(code: int, body: bytes = b"", **headers: str) -> Callable[[Scripted], None]:
    return lambda request: request.answer(code, body, **headers)


class Ranges(BaseHTTPRequestHandler):
    """Files of a folder, as a good host serves them: HEAD, ranges, and as slowly as wanted.

    Args:
        asked: Method and range of each request.
        seconds: Wait before each 64 KiB.
        sizes: False to keep sizes to itself and to refuse HEAD.
    """

    def __init__(
        self, *args: Any, folder: Path, asked: list[tuple[str, str]], seconds: float = 0, sizes: bool = True
    ) -> None:
        self.folder, self.asked, self.seconds, self.sizes = folder, asked, seconds, sizes
        super().__init__(*args)

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        if not self.sizes:
            self.asked.append(("HEAD", ""))
            self.send_error(405)
            return
        self.do_GET()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.asked.append((self.command, wanted))
        file = self.folder / unquote(self.path).lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.sizes:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        for place in range(start, len(content), 1 << 16):
            time.sleep(self.seconds)
            try:
                self.wfile.write(content[place : place + (1 << 16)])
            except OSError:  # whoever asked is gone
                return


@contextmanager
def ranges(folder: Path, **how: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Serve a folder with `Ranges`: address, and what was asked."""
    asked: list[tuple[str, str]] = []
    with serving(partial(Ranges, folder=folder, asked=asked, **how)) as address:
        yield address, asked
