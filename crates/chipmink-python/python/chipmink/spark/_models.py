"""Estimators, models and pipelines of ``pyspark.ml``, which write and read themselves.

1. Only Spark can write them, so by reference they are placeholders; with ``remote="materialize"`` their own writer is called.
2. One is written again only if a parameter of it, or of a stage, is another one.
3. Who reads it is the class that has written it, as long as it can be imported and says that it reads.
"""

from __future__ import annotations

import importlib
from typing import Any

from chipmink import _remote
from chipmink._errors import RemoteObjectLost
from chipmink._markers import Context, Stub, place_of
from chipmink.spark import _settle

__all__ = ["reduce_model"]

_ADVICE = 'it lives in Spark: save with remote="materialize", which calls its own writer'


def reduce_model(model: Any, ctx: Context) -> Any:
    """What its writer has written, if that is wanted."""
    scope = _remote.saving()
    kind = type(model)
    name = ".".join(place_of(kind))
    if scope.mode != "materialize":
        return Stub("remote", name, _ADVICE)
    module, qualname = place_of(kind)
    if module == "__main__" or "<locals>" in qualname:
        return Stub("remote", name, "its class cannot be imported by others, so nobody could read what it writes: put it into a module")
    answer = _settle.answer(scope, model, _state(model), _settle.MODEL)
    if isinstance(answer, tuple):
        scope.note("spark.model", answer[1][4], "alive")
        return answer
    return Stub("remote", name, answer or _ADVICE)


def _state(value: Any, depth: int = 8) -> Any:
    """What can be changed of it: parameters, also those of stages."""
    if depth and isinstance(value, (list, tuple)):
        return [_state(each, depth - 1) for each in value]
    if depth and hasattr(value, "extractParamMap"):
        given = sorted((param.name, _state(found, depth - 1)) for param, found in value.extractParamMap().items())
        return [value.uid, given, _state(getattr(value, "stages", None), depth - 1)]
    return repr(value)


def read_model(reference: _remote.RemoteReference, path: str) -> Any:
    """The model that its class has written to a folder."""
    util = importlib.import_module("pyspark.ml.util")
    module, _, qualname = str(reference.details.get("class")).partition(":")
    kind = getattr(importlib.import_module(module), qualname, None)
    if not (isinstance(kind, type) and issubclass(kind, util.MLReadable)):
        raise RemoteObjectLost(f"{module}.{qualname} is no class that reads models: install what had it when this was saved")
    return kind.load(path)  # type: ignore[attr-defined]
