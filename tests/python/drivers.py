"""Programs that a test tells what to do: each runs what it is given, and answers with JSON.

Run as a script it is such a program: one JSON string of code on each line of its input, one line of JSON for each answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import Any

_MARK = "chipmink-answer "


class Driver:
    """A program of its own, in which names stay from one piece of code to the next."""

    def __init__(self, environment: Mapping[str, str] | None = None, *flags: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *flags, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self._said = b""
        self.pid = self._process.pid

    def run(self, code: str, timeout: float = 120.0) -> Any:
        """Runs code, and returns what it has bound to ``answer``."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(textwrap.dedent(code)).encode() + b"\n")
        self._process.stdin.flush()
        found = self._answer(timeout)
        if "error" in found:
            raise AssertionError(f"the program failed:\n{found['error']}")
        return found["answer"]

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        log: list[str] = []
        while True:
            line, separator, rest = self._said.partition(b"\n")
            if separator:
                self._said = rest
                text = line.decode(errors="replace")
                if text.startswith(_MARK):
                    return json.loads(text.removeprefix(_MARK))
                log.append(text)
                continue
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._process.stdout], [], [], left)[0]
            said = os.read(self._process.stdout.fileno(), 1 << 16) if ready else b""
            if not said:
                self.kill()
                raise AssertionError(f"no answer within {timeout} seconds; it said:\n" + "\n".join(log[-60:]))
            self._said += said

    def end(self, timeout: float = 60.0) -> None:
        """Lets the program come to its end."""
        if self._process.stdin is not None and self._process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def kill(self) -> None:
        """Ends the program at once."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


    def wait(self, timeout: float = 60.0) -> int:
        """Waits until the program has ended by itself."""
        return self._process.wait(timeout)


def _serve() -> None:
    import __main__

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    names = __main__.__dict__
    for line in sys.stdin:
        names["answer"] = None
        try:
            exec(compile(json.loads(line), "<test>", "exec"), names)
            said = json.dumps({"answer": names["answer"]})
        except BaseException:
            import traceback

            said = json.dumps({"error": traceback.format_exc()})
        out.write(f"\n{_MARK}{said}\n")
        out.flush()


if __name__ == "__main__":
    _serve()
