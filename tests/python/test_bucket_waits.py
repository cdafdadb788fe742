"""While a save or a load waits for a bucket, other threads go on: servers of the same process, event loops, programs that
change what is being saved. A version is of one state all the same."""

from __future__ import annotations

import _thread
import asyncio
import signal
import sys
import threading
import time

import chipmink
import numpy
import pytest
from buckets import KEYS, Moto, answering, forward, opening, without_credentials
from oracle import assert_same, canonical


@pytest.fixture(scope="module")
def moto():
    server = Moto()
    server.make_bucket("bucket")
    yield server
    server.stop()


class Here:
    """A server in this process, which cannot answer while another thread holds the interpreter."""

    def __init__(self):
        self.asked: list[str] = []
        # What happens before a part of a pack goes through, or a piece of one comes.
        self.meanwhile = lambda: None

    def is_piece(self, handler):
        return "partNumber=" in handler.path or (handler.command == "GET" and "/packs/" in handler.path)


@pytest.fixture
def here(moto, monkeypatch, tmp_path):
    without_credentials(monkeypatch, tmp_path)
    server = Here()

    def answer(handler):
        server.asked.append(f"{handler.command} {handler.path}")
        if server.is_piece(handler):
            server.meanwhile()
        return forward(moto, handler)

    with answering(answer) as endpoint:
        server.endpoint = endpoint
        yield server


@pytest.fixture
def opened(here, moto, request):
    options = {"endpoint": here.endpoint, "region": "us-east-1", "compression": "none", "timeout": 20, **KEYS}
    with opening(f"s3://bucket/{request.node.name}", **options) as open_it:
        yield open_it


def noise(seed, byte_len):
    return numpy.random.default_rng(seed).integers(0, 255, byte_len, dtype="u1")


def test_a_server_of_the_same_process_answers_a_walk(opened, here):
    """Parts, packs and what a save looks up of others: with the interpreter held, each would wait until its time is over."""
    namespace = {"array": noise(1, 72 << 20), "bytes": noise(2, 9 << 20).tobytes(), "rows": [[i, str(i)] for i in range(5000)]}
    began = time.monotonic()
    repo = opened()
    repo.save(namespace)
    assert sum("partNumber=" in line for line in here.asked) > 8, "several parts wait for each other"
    want = canonical(namespace)
    # Nothing is known here yet: each pod and chunk is looked up.
    reader = opened()
    loaded = reader.load()
    assert_same(want, loaded)
    loaded["array"][5 << 20] ^= 1
    loaded["rows"][17].append("new")
    asked = len(here.asked)
    saved = opened().save(loaded)
    assert any("Range" not in line and "/packs/" in line for line in here.asked[asked:]), "an index was asked"
    assert saved.report.bytes_written < 2 << 20
    assert_same(canonical(loaded), opened().load(saved))
    live = reader.load(1)
    reader.checkout(saved, live, force=True)
    assert_same(canonical(loaded), live)
    assert time.monotonic() - began < 60


def test_what_a_failed_save_has_written_is_removed(opened, here):
    """That asks the server, too, also when nobody says that the save is over."""
    repo = opened()
    repo.save({"x": [1]})
    with pytest.raises(chipmink.UnsupportedError, match="strict"):
        repo.save({"array": noise(3, 30 << 20), "bad": (i for i in "ab")}, strict=True)
    assert any(line.startswith("DELETE") for line in here.asked)
    assert repo.verify().ok and repo.verify().orphan_packs == 0
    assert repo.load() == {"x": [1]}


def test_an_event_loop_goes_on_while_a_walk_waits(opened, here):
    array = noise(4, 72 << 20)
    ticks, during_parts = 0, []

    def take_long():
        before = ticks
        time.sleep(0.5)
        during_parts.append(ticks - before)

    async def main():
        nonlocal ticks
        saving = asyncio.create_task(opened().asave({"array": array}))
        while not saving.done():
            await asyncio.sleep(0.005)
            ticks += 1
        return await saving

    here.meanwhile = take_long
    version = asyncio.run(main())
    here.meanwhile = lambda: None
    assert len(during_parts) > 8 and sorted(during_parts)[len(during_parts) // 2] >= 5, during_parts
    assert (opened().load(version)["array"] == array).all()


def test_what_changes_meanwhile_is_saved_in_one_state(opened, here):
    """The first list is walked before the walk waits, the second one after that."""
    first, second = [0], [0]
    turns = iter(range(1, 4))

    def change():
        # Several threads do this. In one call: none of them, nor the walk, comes between the two lists.
        if (turn := next(turns, None)) is not None:
            any(map(list.append, (first, second), (turn, turn)))

    here.meanwhile = change
    saved = opened().save({"a_first": first, "array": noise(5, 72 << 20), "z_second": second})
    assert saved.report.unsteady == ()
    assert len(first) == 4
    found = opened().load(saved, names=["a_first", "z_second"])
    assert found["a_first"] == found["z_second"] and found["a_first"] == first[: len(found["a_first"])]


def test_what_never_stops_changing_is_saved_in_one_state(opened, here):
    """The last attempt keeps the interpreter. What it must send has been sent by those before it."""
    first, second = [0], [0]
    over = threading.Event()

    def change():
        while not over.wait(0.001):
            first.append(len(first))
            second.append(len(second))

    changing = threading.Thread(target=change)
    changing.start()
    try:
        saved = opened().save({"a_first": first, "array": noise(6, 72 << 20), "z_second": second})
    finally:
        over.set()
        changing.join()
    assert saved.report.unsteady == ()
    found = opened().load(saved, names=["a_first", "z_second"])
    # The thread may be between the two lists whenever it is stopped.
    assert 0 <= len(found["a_first"]) - len(found["z_second"]) <= 1


def test_an_array_that_is_written_while_its_save_waits(opened, here):
    array = noise(8, 72 << 20)
    array[1::4096] = 0
    turns = iter((b"\x01", b"\x02"))
    written = memoryview(array)[1::4096]

    def write():
        # Not by numpy, which lets other threads run within one statement: what they read then is a moment of its own.
        if (turn := next(turns, None)) is not None:
            written[:] = turn * len(written)

    here.meanwhile = write
    saved = opened().save({"array": array})
    assert saved.report.unsteady == ()
    loaded = opened().load(saved)["array"]
    moments = set(loaded[1::4096].tolist())
    assert moments in ({1}, {2}), f"it is of the moments {moments}"
    loaded[1::4096] = array[1::4096]
    assert (loaded == array).all()


def test_a_load_that_waits_can_be_interrupted(opened, here):
    """Not only between two variables."""
    opened().save({"array": noise(7, 80 << 20)})
    reader = opened()
    here.asked.clear()
    reader.load()
    whole = len(here.asked)

    once = iter([_thread.interrupt_main])

    def interrupt():
        if len(here.asked) >= 3 and (interrupt_main := next(once, None)) is not None:
            interrupt_main()
        time.sleep(0.2)

    reader = opened()
    here.asked.clear()
    here.meanwhile = interrupt
    # A shell has what it starts in the background ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            reader.load()
    finally:
        signal.signal(signal.SIGINT, before)
    assert 3 <= len(here.asked) < whole, (len(here.asked), whole)
    here.meanwhile = lambda: None
    assert len(reader.load()["array"]) == 80 << 20


def test_a_load_of_what_is_at_hand_waits_for_nobody(opened):
    """
    Whoever asks for the interpreter beside a thread that computes waits a switch interval for it. Of 0.1 s here: to ask
    for it once for each of the 3,000 pods would take five minutes.
    """
    repo = opened()
    repo.save({f"row{i}": [i, [str(i)] * 40, {"k": [i] * 30}] for i in range(3000)})
    over = threading.Event()
    loaded = []

    def compute():
        while not over.is_set():
            sum(range(1000))

    computing = threading.Thread(target=compute)
    loading = threading.Thread(target=lambda: loaded.append(opened().load()), daemon=True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.1)
    try:
        computing.start()
        loading.start()
        loading.join(100)
    finally:
        over.set()
        sys.setswitchinterval(before)
        computing.join()
    assert [len(variables) for variables in loaded] == [3000]
