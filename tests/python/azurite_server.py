"""Imitates Azure Blob Storage on a port of this machine, for tests: ``python azurite_server.py PORT``.

It is Azurite (``npm install -g azurite``, or say where it is by ``AZURITE=/path/to/azurite-blob``), which keeps everything in
memory. Says ``ready`` once the container ``container`` is there, and ``absent`` if there is no Azurite.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import shutil
import socket
import sys
import time
import urllib.request
from email.utils import formatdate

ACCOUNT, KEY = "tests", base64.b64encode(b"a key of tests, and of nothing else").decode()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.05)
    raise SystemExit("azurite does not start")


def make_container(port: int, name: str) -> None:
    """Asks for it with the account's key, as the service's "Shared Key" authorization has it."""
    about = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "".join(f"{header}:{value}\n" for header, value in sorted(about.items()))
    text = "PUT" + "\n" * 12 + signed + f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
    about["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
    url = f"http://127.0.0.1:{port}/{ACCOUNT}/{name}?restype=container"
    request = urllib.request.Request(url, method="PUT", headers=about)
    # No proxy stands between this machine and itself.
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()


def main(port: int) -> None:
    program = os.environ.get("AZURITE") or shutil.which("azurite-blob")
    if program is None:
        print("absent", flush=True)
        return
    # This process becomes Azurite, so that who started it can end it.
    if os.fork() == 0:
        wait_for(port)
        make_container(port, "container")
        print("ready", flush=True)
        return
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    environment = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    arguments = ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--blobPort", str(port)]
    os.execve(program, [program, *arguments], environment)


if __name__ == "__main__":
    main(int(sys.argv[1]))
