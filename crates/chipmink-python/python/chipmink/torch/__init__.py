"""Checkpoints of PyTorch training runs.

::

    from chipmink.torch import Checkpointer

    checkpointer = Checkpointer("runs", model=model, optimizer=optimizer)
    found = checkpointer.restore()
    ...
    checkpointer.save(step, metrics={"loss": loss})

``chipmink.torch.dcp`` is for models that are spread over several processes; ``save`` and ``load`` stand in for torch's, and
``export_file`` and ``import_file`` read and write what others read. Importing this imports torch; ``import chipmink`` does not.
"""

from chipmink.torch._background import PendingCheckpoint
from chipmink.torch._checkpointer import PREEMPTION_SIGNALS, Checkpointer
from chipmink.torch._checkpoints import Best, Checkpoint, SavedCheckpoint
from chipmink.torch._files import export_file, import_file, load, save

__all__ = [
    "PREEMPTION_SIGNALS",
    "Best",
    "Checkpoint",
    "Checkpointer",
    "PendingCheckpoint",
    "SavedCheckpoint",
    "export_file",
    "import_file",
    "load",
    "save",
]
