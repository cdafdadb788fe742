"""Checkpoints of PyTorch training runs.

::

    from chipmink.torch import Checkpointer

    checkpointer = Checkpointer("runs", model=model, optimizer=optimizer)
    found = checkpointer.restore()
    ...
    checkpointer.save(step, metrics={"loss": loss})

Importing it imports torch; ``import chipmink`` does not.
"""

from chipmink.torch._checkpointer import PREEMPTION_SIGNALS, Checkpointer
from chipmink.torch._checkpoints import Best, Checkpoint, SavedCheckpoint

__all__ = ["PREEMPTION_SIGNALS", "Best", "Checkpoint", "Checkpointer", "SavedCheckpoint"]
