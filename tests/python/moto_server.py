"""Imitates S3 on a port of this machine: ``python moto_server.py PORT [CERTIFICATE KEY]``.

It is moto, one request at a time: moto looks whether an object is there and then writes it, which only a lock makes
one step, as a conditional write has to be.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


def main(port: int, *certificate: str) -> None:
    server = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def one_by_one(environment: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        with lock:
            return list(server(environment, start_response))

    run_simple("127.0.0.1", port, one_by_one, threaded=True, ssl_context=certificate or None)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
