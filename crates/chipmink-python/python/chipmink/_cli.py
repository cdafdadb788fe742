"""The command ``chipmink`` as the wheel installs it: the same program as the Rust binary."""

from __future__ import annotations

import os
import signal
import sys

from chipmink import _chipmink

__all__ = ["main"]


def main() -> int:
    """Runs the command with the arguments of this process and returns its exit status."""
    # It runs in native code alone, where a handler of Python's would never get its turn.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # What makes Python objects is run by this Python.
    os.environ.setdefault("CHIPMINK_PYTHON", sys.executable)
    return _chipmink.run_command(["chipmink", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
