"""Objects that are bound to this process or to the outside world: they load as placeholders.

A copy of any of them would lie (a thread that does not run, a process id of somebody else) or do harm (a file opened
for writing is truncated). Each reason names what is known of the object, so that the reader can make it anew. A
reducer that the program registered with ``copyreg`` for such a type is preferred.
"""

from __future__ import annotations

import copyreg
import io
import types
from collections.abc import Callable
from typing import Any

from chipmink._markers import Context, Stub, place_of
from chipmink._reduce_objects import standard_stream

__all__ = ["BY_NAME", "REDUCERS"]

Describe = Callable[[Any], str]


def type_name(obj: Any) -> str:
    """Module and name of an object's type."""
    return ".".join(place_of(type(obj)))


def _stub(kind: str, describe: Describe | str) -> Callable[[Any, Context], Any]:
    def reduce(obj: Any, ctx: Context) -> Any:
        registered = copyreg.dispatch_table.get(type(obj))
        if registered is not None:
            return registered(obj)
        if isinstance(describe, str):
            reason = describe
        else:
            try:
                reason = describe(obj)
            except Exception:
                # A half-made or closed object may refuse to tell anything about itself.
                reason = f"it is a {kind} of the process that saved it"
        return Stub(kind, type_name(obj), reason)

    return reduce


def _file(obj: Any) -> str:
    name = getattr(obj, "name", None)
    if obj.closed:
        return f"it was a closed file ({name!r})"
    mode = getattr(obj, "mode", "?")
    position = ""
    # Only files opened for reading: telling the position of a text file that is written to flushes it.
    if obj.readable() and not obj.writable() and obj.seekable():
        try:
            position = f" at position {obj.tell()}"
        except (OSError, ValueError):
            position = ""
    return f"it was the file {name!r} opened with mode {mode!r}{position}; files are not opened again"


def reduce_file(obj: Any, ctx: Context) -> Any:
    """The process's own streams by name; any other file is not opened again."""
    return standard_stream(obj) or _describe_file(obj, ctx)


_describe_file = _stub("file", _file)


def _socket(obj: Any) -> str:
    def address(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except OSError:
            return None

    ends = f"{address(obj.getsockname)!r} to {address(obj.getpeername)!r}"
    return f"it was a socket from {ends}; connections are not made again"


def _thread(obj: Any) -> str:
    state = "running" if obj.is_alive() else "not running"
    return f"it was the thread {obj.name!r}, {state}; threads are not started again"


def _process(obj: Any) -> str:
    return f"it was the process with pid {obj.pid}; processes are not started again"


def _popen(obj: Any) -> str:
    return f"it was the process with pid {obj.pid}, running {obj.args!r}; processes are not started again"


def _executor(obj: Any) -> str:
    return f"it was an executor with {getattr(obj, '_max_workers', '?')} workers"


def _coroutine(obj: Any) -> str:
    return f"it was a running {obj.__qualname__}; a suspended call cannot be copied"


def _frame(obj: types.FrameType) -> str:
    return f"it was the frame of a call of {obj.f_code.co_qualname}"


def _traceback(obj: types.TracebackType) -> str:
    code = obj.tb_frame.f_code
    return f"it led to {code.co_qualname} in {code.co_filename}, line {obj.tb_lineno}"


def reduce_future(obj: Any, ctx: Context) -> Any:
    """A future that is done is data; a pending one waits for somebody of this process."""
    if obj.done():
        return obj.__reduce_ex__(5)
    return Stub("future", type_name(obj), "it was not done; what it waits for belongs to the process that saved it")


_PROCESS = "it belongs to the process that saved it"
_PROCESS_ADDRESS = "it is an address in the process that saved it"
_RUNNING = "the state of its computation cannot be read"

REDUCERS: dict[type, Any] = {
    types.GeneratorType: _stub("generator", _coroutine),
    types.CoroutineType: _stub("coroutine", _coroutine),
    types.AsyncGeneratorType: _stub("async-generator", _coroutine),
    types.FrameType: _stub("frame", _frame),
    types.TracebackType: _stub("traceback", _traceback),
    io.FileIO: reduce_file,
    io.BufferedReader: reduce_file,
    io.BufferedWriter: reduce_file,
    io.BufferedRandom: reduce_file,
    io.BufferedRWPair: _stub("file", "it was a pair of files; files are not opened again"),
    io.TextIOWrapper: reduce_file,
}

BY_NAME: dict[tuple[str, str], Any] = {
    ("tempfile", "_TemporaryFileWrapper"): reduce_file,
    ("gzip", "GzipFile"): _stub("file", "it was an open gzip file; files are not opened again"),
    ("bz2", "BZ2File"): _stub("file", "it was an open bz2 file; files are not opened again"),
    ("lzma", "LZMAFile"): _stub("file", "it was an open xz file; files are not opened again"),
    ("zipfile", "ZipFile"): _stub("file", lambda obj: f"it was the archive {obj.filename!r}; files are not opened again"),
    ("tarfile", "TarFile"): _stub("file", lambda obj: f"it was the archive {obj.name!r}; files are not opened again"),
    ("ipykernel.iostream", "OutStream"): reduce_file,
    ("posix", "ScandirIterator"): _stub("directory", "it was an open directory; directories are not opened again"),
    ("_socket", "socket"): _stub("socket", _socket),
    ("socket", "socket"): _stub("socket", _socket),
    ("_ssl", "_SSLContext"): _stub("ssl-context", "it holds keys and settings that cannot be read back"),
    ("select", "epoll"): _stub("poll", _PROCESS),
    ("select", "poll"): _stub("poll", _PROCESS),
    ("selectors", "BaseSelector"): _stub("poll", _PROCESS),
    ("threading", "Thread"): _stub("thread", _thread),
    ("multiprocessing.process", "BaseProcess"): _stub("process", _process),
    ("multiprocessing.pool", "Pool"): _stub("executor", _PROCESS),
    ("multiprocessing.managers", "BaseManager"): _stub("process", _PROCESS),
    ("_multiprocessing", "SemLock"): _stub("lock", _PROCESS),
    ("multiprocessing.synchronize", "SemLock"): _stub("lock", _PROCESS),
    ("multiprocessing.queues", "Queue"): _stub("queue", _PROCESS),
    ("multiprocessing.queues", "SimpleQueue"): _stub("queue", _PROCESS),
    ("multiprocessing.connection", "_ConnectionBase"): _stub("connection", _PROCESS),
    ("subprocess", "Popen"): _stub("process", _popen),
    ("concurrent.futures._base", "Executor"): _stub("executor", _executor),
    ("concurrent.futures._base", "Future"): reduce_future,
    ("asyncio.events", "AbstractEventLoop"): _stub("event-loop", _PROCESS),
    ("_asyncio", "Future"): reduce_future,
    ("_asyncio", "Task"): _stub("task", "it was a task of a running event loop"),
    ("asyncio.events", "Handle"): _stub("task", "it was scheduled on a running event loop"),
    ("_contextvars", "Context"): _stub("context", _PROCESS),
    ("_contextvars", "ContextVar"): _stub("context-variable", _PROCESS),
    ("_contextvars", "Token"): _stub("context", _PROCESS),
    ("ctypes", "CDLL"): _stub("library", lambda obj: f"it was the loaded library {obj._name!r}; libraries are not loaded again"),
    ("_ctypes", "_Pointer"): _stub("pointer", _PROCESS_ADDRESS),
    **{("ctypes", name): _stub("pointer", _PROCESS_ADDRESS) for name in ("c_char_p", "c_void_p", "c_wchar_p", "py_object")},
    ("_ctypes", "CFuncPtr"): _stub("pointer", "it is a function of the process that saved it, or of a library loaded there"),
    ("sqlite3", "Connection"): _stub("database-connection", "databases are not opened again"),
    ("sqlite3", "Cursor"): _stub("database-cursor", "databases are not opened again"),
    ("sqlite3", "Blob"): _stub("database-blob", "databases are not opened again"),
    ("sqlite3", "Row"): _stub("database-row", "it belongs to a cursor; convert it with tuple() or dict() to keep it"),
    ("_queue", "SimpleQueue"): _stub("queue", "its contents cannot be read without taking them; queue.Queue is saved"),
    ("_csv", "reader"): _stub("csv-reader", _RUNNING),
    ("_csv", "writer"): _stub("csv-writer", _RUNNING),
    ("_hashlib", "HASH"): _stub("hash", _RUNNING),
    ("_hashlib", "HMAC"): _stub("hash", _RUNNING),
    ("_blake2", "blake2b"): _stub("hash", _RUNNING),
    ("_blake2", "blake2s"): _stub("hash", _RUNNING),
    ("zlib", "Compress"): _stub("compressor", _RUNNING),
    ("zlib", "Decompress"): _stub("compressor", _RUNNING),
    ("distributed.client", "Future"): _stub("remote", "it is a result in a Dask cluster, which no other program can reach; save future.result()"),
    ("distributed.client", "Client"): _stub("remote", "it is a connection to a Dask cluster; connections are not made again"),
    ("re", "Match"): _stub("match", "match objects hold the state of the engine; keep match.groups() instead"),
    ("weakref", "finalize"): _stub("finalizer", "it would run code when the program that saved it ends"),
    ("builtins", "PyCapsule"): _stub("capsule", _PROCESS_ADDRESS),
    ("builtins", "coroutine_wrapper"): _stub("coroutine", "a suspended call cannot be copied"),
    ("builtins", "async_generator_asend"): _stub("async-generator", "a suspended call cannot be copied"),
    ("builtins", "async_generator_athrow"): _stub("async-generator", "a suspended call cannot be copied"),
    ("IPython.core.interactiveshell", "InteractiveShell"): _stub("shell", "the notebook's shell is not part of a version"),
    ("IPython.core.autocall", "IPyAutocall"): _stub("shell", "the notebook's shell is not part of a version"),
}
