"""Saving and loading in a thread beside an event loop, which the walk of a save holds up where it need not wait for a bucket.

1. Work is done in a thread of the loop's own executor; whoever awaits it goes on only when it is known what became of it.
2. A save that is cancelled before its version is visible publishes nothing; one that is visible stands. Either way
   ``CancelledError`` is raised, when one of the two is certain.
3. A load that is cancelled has no effect on anything, so ``CancelledError`` is raised at once, and its thread ends when what
   it is reading has come.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TypeVar

from chipmink import _chipmink

__all__ = ["load_in_thread", "save_in_thread"]

T = TypeVar("T")


class _GivenUp(Exception):
    """The save or load found that it was cancelled."""


async def save_in_thread(save: Callable[[_chipmink.Cancel], T]) -> T:
    """What ``save`` returns, which is given what cancels it."""
    # Imported when it is used: few programs have an event loop.
    import asyncio

    cancel = _chipmink.Cancel()
    told = False

    def work() -> T:
        try:
            return save(cancel)
        except BaseException as error:
            # The native side cannot know whether it was a key or a task that interrupted it.
            if told and isinstance(error, KeyboardInterrupt):
                raise _GivenUp from error
            raise

    context = contextvars.copy_context()
    running = asyncio.get_running_loop().run_in_executor(None, context.run, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        told = True
        cancel.cancel()
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                # Told again; it is on its way.
                continue
        if not running.cancelled():
            running.exception()
        raise


async def load_in_thread(load: Callable[[_chipmink.Cancel], T]) -> T:
    """What ``load`` returns, which is given what cancels it."""
    import asyncio

    cancel = _chipmink.Cancel()

    def work() -> T:
        try:
            return load(cancel)
        except KeyboardInterrupt as error:
            # A thread is interrupted by nobody else.
            raise _GivenUp from error

    context = contextvars.copy_context()
    running = asyncio.get_running_loop().run_in_executor(None, context.run, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancel.cancel()
        # Nobody asks any more what became of it.
        running.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
