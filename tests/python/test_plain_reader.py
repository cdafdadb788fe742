"""The reader in plain Python agrees with chipmink: another implementation of FORMAT.md, crossed with the real one."""

from __future__ import annotations

import base64
import collections
import copy
import datetime
import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import chipmink
import graph_types as kinds
import numpy as np
import pandas as pd
import pytest
from zstd_frames import FRAMES

HERE = Path(__file__).resolve().parents[2] / "examples" / "plain_reader"
sys.path.insert(0, str(HERE))

import plain_delta  # noqa: E402
import plain_lz4  # noqa: E402
import plain_xxh3  # noqa: E402
import plain_zstd  # noqa: E402
from chipmink_reader import Damaged, Reader, Unsupported, load_stream  # noqa: E402

# Of the reference C library: lengths on both sides of each branch of the algorithm.
XXH3_VECTORS = {
    0: "99aa06d3014798d86001c324468d497f",
    1: "a6cd5e9392000f6ac44bdff4074eecdb",
    3: "20efc49ff02422ea54247382a8d6b94d",
    4: "970d585ac632bf8e2e7d8d6876a39fe9",
    8: "47a7f080d82bb45664c69cab4bb21dc5",
    9: "564ef6078950d457ed7ccbc501eb7501",
    16: "c68c368ecf8a9c05562980258a998629",
    17: "955fa78643ed3669abbc12d11973d7db",
    128: "39992220e045260aebb15e34a7fb5ab1",
    129: "03815fc91f1b30b686c9e3bc8f0a3b5c",
    240: "aa4202daa2769dc85c9aae94c8ebe5a0",
    241: "99a80ecf0ecfc647c5a639ecd2030e5e",
    1024: "0d30d24071c64c57dd85c9b5c1109c5c",
    1025: "fd3ee4fe7f2954c6d870c0fa13211c6a",
    4160: "67140711c1e3e3354f323b15321e94e1",
}


def vector_input(length: int) -> bytes:
    state, out = 2654435761, bytearray()
    for _ in range(length):
        out.append(state >> 56)
        state = state * 11400714785074694797 % 2**64
    return bytes(out)


@pytest.mark.parametrize("length", XXH3_VECTORS)
def test_the_digest_is_that_of_the_reference(length):
    assert plain_xxh3.digest(vector_input(length)).hex() == XXH3_VECTORS[length]


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_the_reference_are_read(name):
    expected, encoded = FRAMES[name]
    frame = base64.b85decode(encoded)
    content = plain_zstd.decompress_plainly(frame, plain_zstd.content_size(frame))
    assert hashlib.sha256(content).hexdigest()[:16] == expected


def test_damaged_frames_give_errors():
    chance = random.Random(3)
    refused = 0
    for _, encoded in FRAMES.values():
        frame = base64.b85decode(encoded)
        size = plain_zstd.content_size(frame)
        for _ in range(60):
            damaged = bytearray(frame)
            damaged[chance.randrange(4, len(damaged))] ^= 1 << chance.randrange(8)
            try:
                assert len(plain_zstd.decompress_plainly(damaged, size)) <= size
            except plain_zstd.ZstdError:
                refused += 1
    assert refused > 100


def builtin_values() -> list[Any]:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    return [
        *(0, 1, -1, 127, 128, -128, -129, 255, 2**15, -(2**31), 2**31, 2**63, -(2**64), 2**70, -(2**2000)),
        *(0.0, -0.0, 1.5, float("inf"), 1e-320, 3 + 4j, True, False, None, ..., NotImplemented),
        *("", "a", "ä", "\u4e00", "\U0001f600", "\ud800", "x" * 300, "é" * 300, b"", b"abc", b"x" * 300),
        *((), (1,), [], {}, set(), frozenset(), bytearray(b"abc"), [[]] * 3, {"a": [1], 2: (3,)}),
        *({1, 2, "x"}, frozenset({(1, 2), None}), range(1, 10, 2), slice(1, None, 2), cycle),
        *(datetime.datetime(2024, 2, 29, 12), datetime.timedelta(1, 2, 3), datetime.date(1, 1, 1)),
        *(collections.OrderedDict(b=1, a=2), collections.deque([1, 2], 5)),
        *("y" * 100_000, "é" * 70_000, "\u4e00" * 40_000, "\U0001f600" * 20_000, b"z" * 200_000, 1 << 600_000),
        *(bytearray(b"q" * 70_000), -(1 << 600_000), list(range(100_000))),
    ]


def same(a: Any, b: Any, seen: set[tuple[int, int]] | None = None) -> bool:
    """Equality that ends on cycles and minds types."""
    seen = set() if seen is None else seen
    if (id(a), id(b)) in seen:
        return True
    seen.add((id(a), id(b)))
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y, seen) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key], seen) for key in a)
    return repr(a) == repr(b) if isinstance(a, (float, complex)) else a == b


@pytest.mark.parametrize("index", range(len(builtin_values())))
def test_streams_of_builtin_values_are_read(index):
    value = builtin_values()[index]
    assert same(load_stream(chipmink.dumps(value)), value)


def test_a_stream_keeps_sharing_and_cycles():
    shared: list[Any] = [1]
    tuple_cycle: tuple[Any, ...] = ([], shared, {"x": shared})
    tuple_cycle[0].append(tuple_cycle)
    found = load_stream(chipmink.dumps(tuple_cycle))
    assert found[0][0] is found
    assert found[2]["x"] is found[1]


def test_buffers_out_of_band_are_taken_in_order():
    buffers: list[Any] = []
    arrays = [np.arange(20_000.0), np.arange(10, dtype="i4"), np.ones(30_000, dtype="u1")]
    stream = chipmink.dumps(arrays, buffer_callback=buffers.append)
    found = load_stream(stream, [memoryview(buffer) for buffer in buffers])
    assert [array.tolist() for array in found] == [array.tolist() for array in arrays]


def test_other_objects_are_records():
    value = kinds.Plain()
    value.x, value.y = 1, [value]
    found = load_stream(chipmink.dumps(value))
    assert found.kind == "graph_types.Plain"
    assert found["x"] == 1
    assert found["y"][0] is found
    assert "Plain" in repr(found)
    frame = load_stream(chipmink.dumps(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})))
    assert "pandas" in repr(frame)


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "i1", "<u2", "?", "<i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_numbers_come_back_as_lists(dtype, order):
    array = np.asarray(np.arange(24).reshape(2, 3, 4) % 2, dtype=dtype, order=order)
    assert load_stream(chipmink.dumps(array)).tolist() == array.tolist()


def test_arrays_over_one_memory_are_so_again():
    numbers = np.arange(24.0).reshape(4, 6).copy()
    objects = np.array([1, "x", None, 2.5], dtype=object)
    content = bytearray(range(16))
    value = [numbers[1:3, ::-2], numbers, numbers.T[2:], np.frombuffer(content, "<u2")[3:], content, objects[::-1], objects]
    apart = [np.arange(10.0)[2:6:3], *(lambda base: (base[:5], base[3:]))(np.arange(8)), objects[1:3], objects[2:]]
    found = load_stream(chipmink.dumps([value, apart]))
    lists = [[item.tolist() if hasattr(item, "tolist") else item for item in part] for part in found]
    assert lists[0][:-1] == [item if item is content else item.tolist() for item in value[:-1]]
    assert found[0][5]["buffer"] is found[0][6]["elements"]
    assert lists[1] == [item.tolist() for item in apart]
    assert found[0][0]["buffer"] is found[0][1]["data"] is found[0][2]["buffer"]
    assert found[0][3]["buffer"] is found[0][4]
    assert found[1][1]["buffer"] is found[1][2]["buffer"]


def test_damaged_streams_give_errors():
    chance = random.Random(1)
    stream = chipmink.dumps(builtin_values()[:60] + [kinds.Plain(), np.arange(5)])
    refused = 0
    for _ in range(1500):
        damaged = bytearray(stream)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            damaged[chance.randrange(min(len(damaged), 2500))] ^= 1 << chance.randrange(8)
        try:
            load_stream(damaged)
        except (Damaged, Unsupported):
            refused += 1
    assert refused > 300


@pytest.fixture
def saved(tmp_path):
    """A repository of many versions, and what each should hold."""
    chance = random.Random(5)
    path = tmp_path / "repo"
    namespace: dict[str, Any] = {f"v{i}": [i, str(i) * chance.randint(1, 40), {"k": chance.random()}] for i in range(60)}
    namespace |= {"text": "lorem ipsum " * 9000, "noise": chance.randbytes(300_000), "numbers": list(range(20_000))}
    namespace |= {"n": 5, "name": "short", "module": os, "shared": namespace["v3"], "array": np.arange(50_000.0)}
    expected = {}
    with chipmink.open(path, durable=False) as repo:
        for turn in range(70):
            namespace[f"v{turn % 60}"].append(turn)
            namespace["n"] = turn
            if turn == 40:
                del namespace["name"]
            time = repo.save(namespace, message=f"turn {turn}")
            expected[int(time)] = {k: list(v) if isinstance(v, list) else v for k, v in namespace.items()}
    return path, expected


def test_every_version_of_a_repository_is_read(saved):
    path, expected = saved
    reader = Reader(path, verify=None)
    versions = reader.versions()
    assert [number for number, _ in versions] == sorted(expected, reverse=True)
    assert [reader.repository.text(commit.message) for _, commit in versions[:2]] == ["turn 69", "turn 68"]
    assert reader.repository.refs["main"][1] == versions[0][0]
    for number in [*list(expected)[::23], max(expected)]:
        found = reader.load(number)
        assert list(found) == list(expected[number])
        assert found["shared"] is found["v3"]
        assert repr(found["module"]) == "<module os>"
        assert found["array"].tolist() == expected[number]["array"].tolist()
        for name in expected[number].keys() - {"module", "array"}:
            assert same(found[name], expected[number][name]), name
    last = max(expected)
    assert reader.load(last, ["text"]) == {"text": expected[last]["text"]}
    with pytest.raises(KeyError):
        reader.load(last, ["nothing"])


@pytest.mark.parametrize("compression", ["auto", "lz4", "zstd", "none"])
def test_every_codec_is_read(tmp_path, compression, monkeypatch):
    # Whatever libraries are installed here, the decoders in plain Python are what is tested.
    monkeypatch.setitem(sys.modules, "lz4", None)
    chance = np.random.default_rng(3)
    namespace = {"words": ["lorem ipsum dolor"] * 3 + [f"word {i % 90}" for i in range(3000)], "weights": chance.integers(0, 1 << 16, 100_001, dtype="u2")}
    namespace |= {"ramp": np.arange(40_000, dtype="i8"), "zeros": np.zeros(50_000), "text": "lorem ipsum " * 500}
    expected = {}
    with chipmink.open(tmp_path / "repo", durable=False, compression=compression) as repo:
        for turn in range(12):
            time = repo.save(namespace)
            expected[int(time)] = {name: copy.copy(value) for name, value in namespace.items()}
            namespace["weights"][chance.choice(100_001, 700, replace=False)] ^= 1 << turn
            namespace["ramp"] += 1 << turn
            namespace["zeros"][turn * 3000 : turn * 3000 + 500] = turn
            namespace["words"][turn] += "!"
    reader = Reader(tmp_path / "repo", verify=None)
    for number in [*list(expected)[::5], max(expected)]:
        found = reader.load(number)
        for name, value in expected[number].items():
            assert found[name].tolist() == value.tolist() if isinstance(value, np.ndarray) else found[name] == value, (name, number)
    codecs = {row[3] for segment in reader.repository.segments for rows in _rows(segment) for row in rows}
    assert codecs == {"auto": {0, 1, 2, 3, 4}, "lz4": {0, 2, 3, 4}, "zstd": {0, 1, 3, 4}, "none": {0}}[compression]


def _rows(segment):
    for block in segment.blocks:
        yield from segment._block(*block).values()


#: Of the block format's description: a literal run of each length class, matches that overlap themselves, long lengths.
LZ4_BLOCKS = [
    ("00", b""),
    ("30616263", b"abc"),
    ("f00161" + "62" * 15, b"a" + b"b" * 15),
    ("1f610100" + "0a" + "10" + "62", b"a" * 30 + b"b"),
    ("3f616263" + "0300" + "ff00" + "30" + "78797a", (b"abc" * 100)[:277] + b"xyz"),
]


@pytest.mark.parametrize(("block", "content"), LZ4_BLOCKS)
def test_lz4_blocks_are_read(block, content):
    assert plain_lz4.decompress_plainly(bytes.fromhex(block), len(content)) == content


def test_damaged_lz4_blocks_and_deltas_give_errors():
    chance = random.Random(4)
    base = chance.randbytes(4000)
    changed = bytearray(base)
    for at in range(0, 4000, 130):
        changed[at] ^= 9
    body = b"\x1f" + b"".join(b"\x81" if at else b"\0" for at in range(31)) + b"\x09" * 31
    rest = b"\x01" + body
    delta = plain_xxh3.digest(rest)[:8] + rest
    assert plain_delta.patched(delta, base) == bytes(changed)
    for _ in range(500):
        damaged = bytearray(delta)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        with pytest.raises(plain_delta.DeltaError):
            plain_delta.patched(bytes(damaged), base)
        forged = bytearray(rest)
        forged[chance.randrange(len(forged))] ^= 1 << chance.randrange(8)
        try:
            assert len(plain_delta.patched(plain_xxh3.digest(bytes(forged))[:8] + forged, base)) == 4000
        except (plain_delta.DeltaError, plain_zstd.ZstdError):
            pass
        block, content = LZ4_BLOCKS[chance.randrange(1, 5)]
        torn = bytearray(bytes.fromhex(block))
        torn[chance.randrange(len(torn))] ^= 1 << chance.randrange(8)
        try:
            assert len(plain_lz4.decompress_plainly(bytes(torn), len(content))) == len(content)
        except plain_lz4.Lz4Error:
            pass


def test_one_changed_byte_of_the_last_pack_is_noticed(saved):
    path, expected = saved
    newest = max((path / "packs").iterdir(), key=lambda pack: pack.stat().st_size)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.chmod(0o644)
    newest.write_bytes(data)
    with pytest.raises(Damaged):
        Reader(path, verify=None).load(min(expected))


def test_what_could_not_be_saved_is_told(repo, tmp_path):
    with pytest.warns(chipmink.SkippedVariableWarning):
        time = repo.save({"good": 1, "bad": Refuses()})
    found = Reader(tmp_path / "repo").load(int(time))
    assert found["good"] == 1
    assert found["bad"].kind == "not saved"
    assert found["bad"]["reason"]


def test_small_values_stand_in_the_manifest(repo, tmp_path):
    values = [0, -(2**40), 1.5, 2j, None, True, ..., NotImplemented, (), "short", "é", b"raw"]
    time = repo.save({f"v{i}": value for i, value in enumerate(values)})
    reader = Reader(tmp_path / "repo")
    assert {kind for kind, _ in reader.manifest(int(time)).values()} == {0}
    assert all(same(a, b) for a, b in zip(reader.load(int(time)).values(), values, strict=True))


class Refuses:
    def __reduce_ex__(self, protocol):
        raise TypeError("never")


def test_the_command_line_lists_and_shows(saved):
    path, expected = saved

    def run(*arguments: str) -> str:
        command = [sys.executable, "-S", str(HERE / "chipmink_reader.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "turn 69" in run(str(path))
    last = max(expected)
    assert "v0  (stored)" in run(str(path), str(last))
    assert run(str(path), str(last), "n").strip() == "69"
