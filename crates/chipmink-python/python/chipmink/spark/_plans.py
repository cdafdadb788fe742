"""Plans of Spark Connect: what they read, and the form in which they are stored.

A plan is a protobuf message that a client sends to the server each time a frame is computed. Stored, it has the numbers of its nodes
counted from zero and no places in the program's source, so equal frames have equal bytes; loaded, it gets fresh numbers.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["bound_to_session", "column_of", "frame_of", "is_stream", "sources", "stored_expression", "stored_plan"]

#: Parts of a plan that lie in the session that has made it, and what they are.
_CACHED = {
    "cached_local_relation": "data that was sent to the server",
    "chunked_cached_local_relation": "data that was sent to the server",
    "cached_remote_relation": "a checkpoint",
}


def stored_plan(frame: Any) -> Any:
    """A frame's plan in the form in which it is stored: a message of its own."""
    plan = frame._plan.to_proto(frame.sparkSession.client)
    relation = type(plan.root)()
    relation.CopyFrom(plan.root)
    numbers: dict[int, int] = {}
    for message in _messages(relation):
        if message.DESCRIPTOR.name in ("RelationCommon", "ExpressionCommon") and "origin" in message.DESCRIPTOR.fields_by_name:
            message.ClearField("origin")
        if message.DESCRIPTOR.name == "RelationCommon" and "source_info" in message.DESCRIPTOR.fields_by_name:
            message.ClearField("source_info")
        if _has_number(message):
            message.plan_id = numbers.setdefault(message.plan_id, len(numbers))
    return relation


def frame_of(data: bytes, session: Any) -> Any:
    """The frame of a stored plan in a session of Spark Connect."""
    plans = importlib.import_module("pyspark.sql.connect.plan")
    frames = importlib.import_module("pyspark.sql.connect.dataframe")
    messages = importlib.import_module("pyspark.sql.connect.proto")
    relation = messages.Relation.FromString(data)
    numbers: dict[int, int] = {}
    for message in _messages(relation):
        if _has_number(message):
            if message.plan_id not in numbers:
                numbers[message.plan_id] = plans.LogicalPlan._fresh_plan_id()
            message.plan_id = numbers[message.plan_id]

    class StoredPlan(plans.LogicalPlan):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(None)
            # Columns name the frame that they are of by this number.
            self._root_plan_id = relation.common.plan_id

        def plan(self, session: Any) -> Any:
            copy = messages.Relation()
            copy.CopyFrom(relation)
            return copy

    return frames.DataFrame(StoredPlan(), session)


def stored_expression(expression: Any, session: Any) -> bytes | None:
    """An expression as a message of its own; ``None`` if it is bound to a frame."""
    message = expression.to_plan(session.client)
    for part in _messages(message):
        if _has_number(part):
            return None
        if part.DESCRIPTOR.name == "ExpressionCommon":
            part.ClearField("origin")
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def column_of(data: bytes) -> Any:
    """The column of a stored expression."""
    expressions = importlib.import_module("pyspark.sql.connect.expressions")
    columns = importlib.import_module("pyspark.sql.connect.column")
    message = importlib.import_module("pyspark.sql.connect.proto").Expression.FromString(data)

    class StoredExpression(expressions.Expression):  # type: ignore[misc, name-defined]
        def to_plan(self, session: Any) -> Any:
            copy = type(message)()
            copy.CopyFrom(message)
            return copy

        def __repr__(self) -> str:
            return str(message).replace("\n", " ")

    return columns.Column(StoredExpression())


def _has_number(message: Any) -> bool:
    found = message.DESCRIPTOR.fields_by_name.get("plan_id")
    return found is not None and (not found.has_presence or message.HasField("plan_id"))


def _messages(message: Any) -> Iterator[Any]:
    """A message and all in it, outer ones first."""
    waiting = [message]
    while waiting:
        found = waiting.pop()
        yield found
        inner: list[Any] = []
        for field, value in found.ListFields():
            if field.message_type is None:
                continue
            if field.message_type.GetOptions().map_entry:
                if field.message_type.fields_by_name["value"].message_type is not None:
                    inner += [value[key] for key in sorted(value)]
            elif isinstance(value, type(message)) or not hasattr(value, "__len__"):
                inner.append(value)
            else:
                inner += list(value)
        waiting += reversed(inner)


def sources(relation: Any) -> tuple[list[str], list[str]]:
    """The tables and the paths that a plan reads, as the program has named them."""
    tables: dict[str, None] = {}
    paths: dict[str, None] = {}
    for message in _messages(relation):
        if message.DESCRIPTOR.name == "NamedTable":
            tables.setdefault(message.unparsed_identifier)
        elif message.DESCRIPTOR.name == "DataSource":
            paths.update(dict.fromkeys(message.paths))
    return list(tables), list(paths)


def is_stream(relation: Any) -> bool:
    """Whether what a plan reads has no end."""
    return any(message.DESCRIPTOR.name == "Read" and message.is_streaming for message in _messages(relation))


def bound_to_session(relation: Any, views: set[str]) -> list[str]:
    """What of a plan only the session knows that has made it; ``views`` are its temporary views."""
    found: dict[str, None] = {}
    for message in _messages(relation):
        kind = message.DESCRIPTOR.name
        if kind == "Relation" and message.WhichOneof("rel_type") in _CACHED:
            found.setdefault(_CACHED[message.WhichOneof("rel_type")])
        elif kind == "NamedTable" and message.unparsed_identifier.strip("`") in views:
            found.setdefault(f"the temporary view {message.unparsed_identifier!r}")
        elif kind == "NamedTable" and message.unparsed_identifier.startswith("global_temp."):
            found.setdefault(f"the temporary view {message.unparsed_identifier!r}")
        elif kind == "SQL":
            words = set(re.findall(r"\w+", message.query))
            found.update(dict.fromkeys(f"the temporary view {view!r}" for view in sorted(views & words)))
    return list(found)
