"""Other processes of the tests: what a spawned one imports and runs, and a forked one that answers."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from typing import Any

import chipmink


def add_one(tensor: Any) -> None:
    """Changes a tensor where it lies."""
    tensor += 1


def load_first(arguments: tuple[str, int]) -> Any:
    """Opens a repository and loads the first item of ``x`` of a version."""
    path, number = arguments
    with chipmink.open(path, durable=False) as repo:
        return repo.load(number)["x"][0]


def in_child(action: Callable[[], Any], seconds: int = 30) -> str:
    """Forks; runs the action in the child; its outcome as text. A child that hangs is killed by its own alarm."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks in processes with threads
        child = os.fork()
    if child == 0:
        text = "nothing"
        try:
            os.close(reader)
            signal.alarm(seconds)
            text = repr(action())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, text.encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the child hung or crashed"
    return text
