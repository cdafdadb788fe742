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

__all__ = ["KEYS", "Moto", "answering", "ask", "forward", "free_port", "started", "without_credentials"]

KEYS = {"access_key_id": "AKIATEST", "secret_access_key": "very-secret-key-of-tests"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def started(command: list[str], port: int, **environment: str) -> subprocess.Popen[bytes]:
    """A server, once it listens at a port."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
