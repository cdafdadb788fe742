"""Rules by which objects of Spark are saved as references, and how they are found again.

A frame that reads a table or a path is saved as that; one of Spark Connect as its plan. Both are resolved in whatever session the
loading program has, as long as what they read is there. Nothing starts a session.

The kinds (``spark.plan`` …), what their tokens and details are, and the names of the ``make_`` functions are part of format version 1.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
import urllib.parse
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chipmink import _remote
from chipmink._errors import RemoteObjectLost, RemoteReferenceWarning
from chipmink._markers import Context, Stub, place_of
from chipmink._placeholder import Placeholder
from chipmink.spark import _bound, _models, _plans, _settle, _snapshots

__all__ = ["BY_NAME", "RESOLVERS", "make_column", "make_udf", "make_udf_wrapper", "udf_of"]

_SOURCES = "while what it reads can be read"


def _stub(obj: Any, reason: str) -> Stub:
    return Stub("remote", ".".join(place_of(type(obj))), reason)


# --- frames ----------------------------------------------------------------------------------------------------------


def reduce_frame(frame: Any, ctx: Context) -> Any:
    """What it reads, if that says all; else its plan, if it has one."""
    scope = _remote.saving()
    try:
        described = _patience(scope).ask(_describe, frame, scope)
    except Exception as error:
        described = _Described(f"Spark did not say what it is: {_said(error)}", None)
    reference = described.reference
    if scope.mode == "materialize" and described.is_writable:
        answer = _settle.answer(scope, frame, described.source, _settle.FRAME)
        if isinstance(answer, tuple):
            scope.note("spark.frame", answer[1][4], "alive")
            return answer
        if isinstance(answer, str) and isinstance(reference, str):
            reference = f"{answer}; {reference}"
    if isinstance(reference, str):
        return _stub(frame, reference)
    scope.note(reference.kind, reference.lasts, reference.found, "session" in reference.place)
    return _remote.make_reference, reference.stored()


@dataclass(frozen=True)
class _Described:
    """What is known of a frame."""

    reference: _remote.RemoteReference | str
    """As what it is saved by reference, or why it cannot be."""
    source: dict[str, Any] | None
    """What is known of what it reads: as long as it is the same, it need not be written again. ``None`` if that is not known."""
    is_writable: bool = True
    """Whether Spark could write it."""


def _patience(scope: _remote.Saving | _remote.Loading) -> _remote.Patience:
    found: _remote.Patience = scope.facts.setdefault("spark.patience", _remote.Patience(scope.seconds))
    return found


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


_ADVICE = 'save with remote="materialize", or write it somewhere, and save the frame that reads it'


_STREAM = "it is a stream, which begins anew wherever it is read: keep the call that makes it, and save what its query has written"


def _describe(frame: Any, scope: _remote.Saving) -> _Described:
    if place_of(type(frame))[0].startswith("pyspark.sql.connect"):
        return _describe_plan(frame, scope)
    if frame.isStreaming:
        return _Described(_STREAM, None, False)
    return _describe_classic(frame)


def _place(session: Any, is_bound: bool) -> dict[str, Any]:
    version = importlib.import_module("pyspark").__version__
    return {"library": f"pyspark {version}", **({"session": _session_id(session)} if is_bound else {})}


def _session_id(session: Any) -> str:
    if place_of(type(session))[0].startswith("pyspark.sql.connect"):
        return str(session.session_id)
    return f"{session.sparkContext.applicationId}/{session._jsparkSession.sessionUUID()}"


def _describe_plan(frame: Any, scope: _remote.Saving) -> _Described:
    """Its plan, which the program has itself; its session says what of it no other knows, and what it reads."""
    session = frame.sparkSession
    relation = _plans.stored_plan(frame)
    tables, paths = _plans.sources(relation)
    is_stream = _plans.is_stream(relation)
    read = [*tables, *paths]
    views: set[str] = set()
    source: dict[str, Any] | None = None
    found, is_silent = "alive", True
    try:
        views = _views(session, scope)
        is_silent = False
        # A stream reads what is yet to come.
        named = [name for name in tables if name.strip("`") not in views]
        source = {} if is_stream else _remote.within(_SHARE * scope.seconds, _read_now, frame, session, named, paths)
    except Exception as error:
        found = f"not known: its session did not say what it reads ({_said(error)})"
    bound = _plans.bound_to_session(relation, views)
    details = {"type": "pyspark.sql.connect.dataframe.DataFrame", "sources": read, **(source or {})}
    lasts = f"in the session that made it, while {' and '.join(bound)} is there" if bound else _SOURCES
    identity = ", ".join(read) or "plan"
    token = relation.SerializeToString(deterministic=True)
    reference = _remote.RemoteReference("spark.plan", identity, _place(session, bool(bound)), {}, lasts, found, token, details)
    # Of a session that does not answer nobody knows when it would have written.
    return _Described(reference, source, not is_stream and not is_silent)


#: Of the limit of time, for each of two questions about one frame.
_SHARE = 0.4


def _views(session: Any, scope: _remote.Saving) -> set[str]:
    """The names of a session's temporary views."""
    key = ("spark.views", _session_id(session))
    if key not in scope.facts:
        try:
            tables = _remote.within(_SHARE * scope.seconds, session.catalog.listTables)
            scope.facts[key] = {table.name for table in tables if table.isTemporary}
        except Exception as error:
            scope.facts[key] = error
    found = scope.facts[key]
    if isinstance(found, Exception):
        raise found
    return set(found)


def _read_now(frame: Any, session: Any, tables: list[str], paths: list[str]) -> dict[str, Any]:
    """The files that a frame reads, and the snapshots that its sources are at."""
    return {**_files(frame), **_snapshots_of(session, tables, paths)}


def _describe_classic(frame: Any) -> _Described:
    session = frame.sparkSession
    execution = frame._jdf.queryExecution()
    logical = execution.logical()
    kind = logical.getClass().getSimpleName()
    details: dict[str, Any] = {"type": "pyspark.sql.classic.dataframe.DataFrame"}
    if kind == "UnresolvedRelation":
        name = logical.multipartIdentifier().mkString(".")
        details["sources"] = [name]
        if any(table.name == name and table.isTemporary for table in session.catalog.listTables()) or name.startswith("global_temp."):
            lasts = f"in the session that made it, while the temporary view {name!r} is there"
            bound = _remote.RemoteReference("spark.table", name, _place(session, True), {}, lasts, details=details)
            return _Described(bound, _files(frame))
        options = _as_dict(logical.options().asCaseSensitiveMap())
        if options:
            # Such as the snapshot of an Iceberg table.
            details["options"] = options
        source = _read_now(frame, session, [name], [])
        table = _remote.RemoteReference("spark.table", name, _place(session, False), {}, _SOURCES, details={**details, **source})
        return _Described(table, source)
    if kind == "UnresolvedDataSource":
        relation = execution.analyzed().relation()
        if relation.getClass().getSimpleName() == "HadoopFsRelation":
            paths = list(filter(None, relation.location().rootPaths().mkString("\n").split("\n")))
            converters = session.sparkContext._jvm.scala.jdk.javaapi.CollectionConverters
            options = _as_dict(converters.asJava(relation.options()))
            read = {"format": relation.fileFormat().toString().lower(), "schema": frame.schema.json(), "options": options}
            source = _read_now(frame, session, [], paths)
            details = {**details, **read, "sources": paths, **source}
            path = _remote.RemoteReference("spark.path", ", ".join(paths), _place(session, False), {}, _SOURCES, details=details)
            return _Described(path, source)
    if kind == "Range":
        bounds = {"start": logical.start(), "end": logical.end(), "step": logical.step()}
        reference = _remote.RemoteReference("spark.range", "range", _place(session, False), {}, "always", details={**details, **bounds})
        return _Described(reference, {})
    if kind in ("LogicalRDD", "LocalRelation", "ExternalRDD"):
        return _Described(f"it holds data of this program's session, which no other can read: {_ADVICE}", _files(frame))
    reason = f"it is computed, and a frame of a classic session has no form that another session can read: {_ADVICE}"
    return _Described(reason, _files(frame))


def _as_dict(found: Any) -> dict[str, str]:
    """A map of Java."""
    return {str(name): str(value) for name, value in dict(found).items()}


def _snapshots_of(session: Any, tables: list[str], paths: list[str]) -> dict[str, Any]:
    found = _snapshots.snapshots(session, tables, paths, not _is_connect(session))
    return {"snapshots": found} if found else {}


def _files(frame: Any) -> dict[str, Any]:
    """How many files a frame reads, and a digest of their names, and of their sizes and times as far as they lie here."""
    known = sorted(frame.inputFiles())
    if not known:
        return {}
    digest = hashlib.blake2b(digest_size=16)
    for name in known:
        digest.update(name.encode() + b"\0")
        parsed = urllib.parse.urlparse(name)
        if parsed.scheme == "file":
            try:
                found = os.stat(urllib.parse.unquote(parsed.path))
                digest.update(f"{found.st_size} {found.st_mtime_ns}\0".encode())
            except OSError:
                digest.update(b"gone\0")
    return {"files": len(known), "version": digest.hexdigest()}


def resolve_frame(reference: _remote.RemoteReference) -> Any:
    """The frame, in the session that the program has."""
    session = _session()
    patience = _patience(_remote.current_load())
    bound = reference.place.get("session")

    def make() -> Any:
        if bound is not None and bound != _session_id(session):
            raise RemoteObjectLost(f"it can be resolved only {reference.lasts}, and that session is another: make it anew")
        return _FRAMES[reference.kind](reference, session)

    made = patience.ask(make)
    _notice_changes(reference, made, session, patience)
    return made


def _session() -> Any:
    if "pyspark" not in sys.modules:
        if importlib.util.find_spec("pyspark") is None:
            raise RemoteObjectLost("PySpark is not installed here: install it, start a session, and load again")
    else:
        found = _active_session()
        if found is not None:
            return found
    raise RemoteObjectLost("this program has no active Spark session: start one with SparkSession.builder, and load again")


def _active_session() -> Any:
    connect = sys.modules.get("pyspark.sql.connect.session")
    if connect is not None:
        # The active one is that of a thread; other threads have the one that was made first.
        found = connect.SparkSession.getActiveSession() or connect.SparkSession._get_default_session()
        if found is not None:
            return found
    classic = sys.modules.get("pyspark.sql.session")
    context = sys.modules.get("pyspark.core.context") or sys.modules.get("pyspark.context")
    if classic is None or context is None or context.SparkContext._active_spark_context is None:
        return None
    return classic.SparkSession._instantiatedSession


def _is_connect(session: Any) -> bool:
    return place_of(type(session))[0].startswith("pyspark.sql.connect")


def _frame_of_plan(reference: _remote.RemoteReference, session: Any) -> Any:
    if not _is_connect(session):
        raise RemoteObjectLost("its plan is one of Spark Connect, and the active session is a classic one: load with a session of Connect")
    if reference.token is None:
        raise ValueError("the reference of a plan has no token; the version is damaged")
    made = _plans.frame_of(reference.token, session)
    # Asks the server whether it can be computed.
    made.schema  # noqa: B018
    return made


def _frame_of_table(reference: _remote.RemoteReference, session: Any) -> Any:
    made = session.read.options(**reference.details.get("options", {})).table(reference.identity)
    made.schema  # noqa: B018
    return made


def _frame_of_path(reference: _remote.RemoteReference, session: Any) -> Any:
    facts = reference.details
    types = importlib.import_module("pyspark.sql.types")
    schema = types.StructType.fromJson(json.loads(facts["schema"]))
    options = {name: value for name, value in facts["options"].items() if name not in ("path", "paths")}
    made = session.read.format(facts["format"]).schema(schema).options(**options).load(list(facts["sources"]))
    made.schema  # noqa: B018
    return made


def _frame_of_range(reference: _remote.RemoteReference, session: Any) -> Any:
    return session.range(reference.details["start"], reference.details["end"], reference.details["step"])


_FRAMES = {
    "spark.plan": _frame_of_plan,
    "spark.table": _frame_of_table,
    "spark.path": _frame_of_path,
    "spark.range": _frame_of_range,
}


def _notice_changes(reference: _remote.RemoteReference, made: Any, session: Any, patience: _remote.Patience) -> None:
    try:
        changes = patience.ask(_changes, reference.details, made, session)
    except Exception as error:
        text = f"whether {reference.identity!r} has changed since it was saved is not known: {_said(error)}"
        warnings.warn(text, RemoteReferenceWarning, stacklevel=2)
        return
    if changes:
        text = f"what {reference.identity!r} is has changed since it was saved: {'; '.join(changes)}"
        warnings.warn(f"{text}; the frame that was loaded reads what is there now", RemoteReferenceWarning, stacklevel=2)


def _changes(before: Mapping[str, Any], made: Any, session: Any) -> list[str]:
    found: list[str] = []
    if before.get("version") is not None:
        now = _files(made)
        if now.get("version") != before["version"]:
            found.append(f"{before.get('files')} files then, {now.get('files', 0)} now")
    then = before.get("snapshots") or {}
    # Paths are those that begin as none of a table can.
    paths = [name for name in then if "/" in name]
    kept = _snapshots.snapshots(session, [name for name in then if name not in paths], paths, not _is_connect(session)) if then else {}
    return found + [f"{name} was at {snapshot} and is at {kept.get(name, 'none')}" for name, snapshot in then.items() if kept.get(name) != snapshot]


# --- sessions, columns, functions ------------------------------------------------------------------------------------


def reduce_session(session: Any, ctx: Context) -> Any:
    """Whatever session the loading program has."""
    scope = _remote.saving()
    lasts = "as the session that the loading program has"
    scope.note("spark.session", lasts, "alive")
    details = {"type": ".".join(place_of(type(session)))}
    return _remote.make_reference, _remote.RemoteReference("spark.session", "session", {}, {}, lasts, details=details).stored()


def resolve_session(reference: _remote.RemoteReference) -> Any:
    """The active session."""
    return _session()


def reduce_context(context: Any, ctx: Context) -> Any:
    """That of whatever session the loading program has."""
    scope = _remote.saving()
    lasts = "as the context of the session that the loading program has"
    scope.note("spark.context", lasts, "alive")
    details = {"type": "pyspark.SparkContext"}
    return _remote.make_reference, _remote.RemoteReference("spark.context", "context", {}, {}, lasts, details=details).stored()


def resolve_context(reference: _remote.RemoteReference) -> Any:
    """The active session's context."""
    session = _session()
    if _is_connect(session):
        raise RemoteObjectLost("the active session is one of Spark Connect, which has no context: load with a classic session")
    return session.sparkContext


def reduce_connect_column(column: Any, ctx: Context) -> Any:
    """The message that is sent to a server."""
    session = _active_session()
    if session is None or not _is_connect(session):
        return _stub(column, "what it says is asked of an active session of Spark Connect, and there is none")
    token = _plans.stored_expression(column._expr, session)
    if token is None:
        return _stub(column, "it is a column of one frame; keep its name, as for pyspark.sql.functions.col")
    return make_column, (token,)


def make_column(token: bytes) -> Any:
    """Makes a column of Spark Connect."""
    try:
        return _plans.column_of(token)
    except ImportError as error:
        return Placeholder("remote", "pyspark.sql.Column", f"PySpark cannot be imported here ({error}): install it, and load again")


def reduce_classic_column(column: Any, ctx: Context) -> Any:
    """Its SQL, if that says all of it."""
    session = _active_session()
    if session is None or _is_connect(session):
        return _stub(column, "what it says is asked of an active classic session, and there is none")
    scope = _remote.saving()
    text = _patience(scope).ask(_text_of_expression, column, session)
    if text is None:
        return _stub(
            column, "it is of one frame, or has no SQL that says the same: keep its name or text, as for pyspark.sql.functions.col and expr"
        )
    lasts = "in any session"
    scope.note("spark.column", lasts, "alive")
    details = {"type": "pyspark.sql.classic.column.Column"}
    reference = _remote.RemoteReference("spark.column", text[:80], _place(session, False), {}, lasts, "alive", text.encode(), details)
    return _remote.make_reference, reference.stored()


def _text_of_expression(column: Any, session: Any) -> str | None:
    functions = importlib.import_module("pyspark.sql.functions")

    def said(made: Any) -> tuple[str, str]:
        # Some differ in nothing that the SQL says; the numbers of names are those of the session.
        expression = session._jsparkSession.expression(made._jc)
        return str(expression.sql()), re.sub(r"#\d+L?", "", str(expression.toString()))

    try:
        found = said(column)
        return found[0] if said(functions.expr(found[0])) == found else None
    except Exception:
        # The parser does not take it.
        return None


def resolve_column(reference: _remote.RemoteReference) -> Any:
    """The expression, as one of the active session's kind."""
    _session()
    functions = importlib.import_module("pyspark.sql.functions")
    return _patience(_remote.current_load()).ask(functions.expr, (reference.token or b"").decode())


def reduce_udf(function: Any, ctx: Context) -> tuple[Any, ...]:
    """The Python function, and what it returns."""
    connect = place_of(type(function))[0].startswith("pyspark.sql.connect")
    # As text, so that loading it needs no PySpark; the type itself is known once the function was asked for it.
    kind = function._returnType_placeholder or function._returnType
    return_type = kind if isinstance(kind, str) else _JSON + kind.json()
    return make_udf, (function.func, return_type, function._name, function.evalType, function.deterministic, connect)


_JSON = "json:"


def udf_of(function: Any) -> Any:
    """The user-defined function for which a function stands that ``pyspark.sql.functions.udf`` has returned; else ``None``."""
    found = function.__dict__.get("_unwrapped")
    return found if found is not None and place_of(type(found)) in _UDFS else None


_UDFS = (("pyspark.sql.udf", "UserDefinedFunction"), ("pyspark.sql.connect.udf", "UserDefinedFunction"))


def make_udf_wrapper(udf: Any) -> Any:
    """Makes the function that stands for a user-defined one."""
    return udf if isinstance(udf, Placeholder) else udf._wrapped()


def make_udf(func: Any, return_type: str, name: str | None, eval_type: int, deterministic: bool, connect: bool) -> Any:
    """Makes a user-defined function. Nothing is sent to a session before it is used."""
    if isinstance(func, Placeholder):
        return func
    try:
        module = importlib.import_module("pyspark.sql.connect.udf" if connect else "pyspark.sql.udf")
    except ImportError as error:
        return Placeholder("remote", "pyspark.sql.udf.UserDefinedFunction", f"PySpark cannot be imported here ({error}): install it, and load again")
    kind: Any = return_type
    if return_type.startswith(_JSON):
        kind = importlib.import_module("pyspark.sql.types")._parse_datatype_json_string(return_type.removeprefix(_JSON))
    return module.UserDefinedFunction(func, kind, name=name, evalType=eval_type, deterministic=deterministic)


RESOLVERS = {
    **dict.fromkeys(_FRAMES, resolve_frame),
    "spark.session": resolve_session,
    "spark.context": resolve_context,
    "spark.column": resolve_column,
}

# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("pyspark.sql.dataframe", "DataFrame"): reduce_frame,
    ("pyspark.sql.session", "SparkSession"): reduce_session,
    ("pyspark.sql.connect.session", "SparkSession"): reduce_session,
    ("pyspark.core.context", "SparkContext"): reduce_context,
    ("pyspark.sql.classic.column", "Column"): reduce_classic_column,
    ("pyspark.sql.connect.column", "Column"): reduce_connect_column,
    ("pyspark.sql.udf", "UserDefinedFunction"): reduce_udf,
    ("pyspark.sql.connect.udf", "UserDefinedFunction"): reduce_udf,
    ("pyspark.ml.util", "MLWritable"): _models.reduce_model,
    **_bound.BY_NAME,
}
