"""Servers of this machine that speak S3's language: a whole one, and ones that fail in one way each."""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import chipmink

__all__ = [
    "KEYS",
    "Moto",
    "PlainServer",
    "answering",
    "ask",
    "forward",
    "free_port",
    "opening",
    "save_from_several_threads",
    "started",
    "without_credentials",
]

KEYS = {"access_key_id": "AKIATEST", "secret_access_key": "very-secret-key-of-tests"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def started(command: list[str], port: int) -> subprocess.Popen[bytes]:
    """A server, once it listens at a port."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return process
        assert process.poll() is None and time.monotonic() < deadline, f"{command[0]} does not start"
        time.sleep(0.05)


class Moto:
    """A server that imitates S3, moto: its buckets are gone when it ends."""

    def __init__(self, *arguments: str, scheme: str = "http") -> None:
        pytest.importorskip("moto.server", reason="needs moto[server], to imitate S3", exc_type=ImportError)
        port = free_port()
        self.endpoint = f"{scheme}://127.0.0.1:{port}"
        self._process = started([sys.executable, str(Path(__file__).with_name("moto_server.py")), str(port), *arguments], port)

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        _opener.open(request, timeout=60).close()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class PlainServer:
    """A server whose buckets are files in a folder: as fast as the disk's cache, so that it takes much data."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        folder.mkdir()
        self.endpoint = f"http://127.0.0.1:{port}"
        self._process = started([sys.executable, str(Path(__file__).with_name("plain_server.py")), str(port), str(folder)], port)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


# No proxy stands between this machine and itself.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(
    moto: Moto, handler: http.server.BaseHTTPRequestHandler, more: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, Mapping[str, str], bytes]:
    """What the server answers when it is asked what a handler of `answering` was asked, with more headers."""
    # Without a type urllib would call the body a form.
    headers = {"Content-Type": "application/octet-stream"}
    headers |= {name.title(): value for name, value in handler.headers.items() if name.lower() != "host"}
    body = handler.body or None  # type: ignore[attr-defined]
    request = urllib.request.Request(moto.endpoint + handler.path, headers={**headers, **more}, method=handler.command, data=body)
    try:
        found = _opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        found = error
    with found:
        return found.status, found.headers, found.read()


def forward(moto: Moto, handler: http.server.BaseHTTPRequestHandler, more: Mapping[str, str] = MappingProxyType({})) -> None:
    """Lets the server answer as `ask` does."""
    status, headers, content = ask(moto, handler, more)
    handler.send_response(status)
    for name in ("Content-Range", "ETag", "Last-Modified", "Content-Length"):
        if name in headers:
            handler.send_header(name, headers[name])
    handler.end_headers()
    handler.wfile.write(content)


@contextlib.contextmanager
def answering(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The endpoint of a server that answers every request as a function does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer(self)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def without_credentials(monkeypatch: pytest.MonkeyPatch, home: os.PathLike[str]) -> None:
    """An environment in which no key is found, and no proxy."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(("AWS_", "AZURE_", "GOOGLE_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", os.fspath(home))


@contextlib.contextmanager
def opening(place: str, **fixed: object) -> Iterator[Callable[..., chipmink.Repository]]:
    """Opens a repository as often as it is asked to, with other options each time; all are closed in the end."""
    made: list[chipmink.Repository] = []

    def open_it(**options: object) -> chipmink.Repository:
        made.append(chipmink.open(place, **{**fixed, **options}))
        return made[-1]

    try:
        yield open_it
    finally:
        for repository in made:
            repository.close()


def save_from_several_threads(opened: Callable[..., chipmink.Repository], steps: int) -> None:
    """Three threads save to a line of their own and to a common one, in turn: nobody replaces what another has published."""
    opened().save({"start": [0]})
    numbers: list[int] = []

    def write(which: int) -> None:
        own = opened(ref=f"line-{which}")
        common = opened(on_conflict="retry", timeout=60)
        for step in range(steps):
            numbers.append(int(own.save({"own": [which, step]})))
            numbers.append(int(common.save({"common": [which, step]})))

    threads = [threading.Thread(target=write, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert sorted(numbers) == list(range(2, 2 + 6 * steps))
    assert opened().verify().ok
