"""Checkpoints of models that are spread over several processes, through ``torch.distributed.checkpoint``.

``dcp.save``, ``async_save`` and ``load`` work as they do with files, resharding included: 4 ranks save, 2 or 1 load.
"""

from chipmink.torch._dcp_reader import ChipminkReader
from chipmink.torch._dcp_writer import ChipminkWriter

__all__ = ["ChipminkReader", "ChipminkWriter"]
