"""Checks and measures the device tier on a CUDA device, and prints one table; README.md beside this says how to run it.

First what is saved is checked, and a failed check ends it; then medians of times that the device itself takes are printed,
with the bars that they are held to. Exit status 1 if a check fails; a missed bar is a figure. A part that takes longer than
``--limit`` seconds ends it with the place where each thread stood.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import chipmink
import torch
from chipmink import _chipmink, _device
from chipmink.torch import Checkpointer

PARTS = ("check", "allocators", "digests", "saves", "repository", "training", "steps")
CHUNK = 64 * 1024
GIB = 1 << 30


# --- tools ------------------------------------------------------------------------------------------------------------


class Table:
    """Rows as they come: what was measured, the figure, what it is compared with, and the bar."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        print(f"{'row':<58}{'figure':>14}{'reference':>14}{'ratio':>8}  bar")

    def add(self, row: str, figure: float, reference: float, unit: str, bar: str, passed: bool) -> None:
        ratio = figure / reference if reference else float("nan")
        self.rows.append({"row": row, "figure": figure, "reference": reference, "unit": unit, "ratio": ratio, "bar": bar, "passed": passed})
        print(f"{row:<58}{figure:>11.4g} {unit:<3}{reference:>11.4g} {unit:<3}{ratio:>7.3f}  {bar} {'pass' if passed else 'FAIL'}", flush=True)


def device_ms(work: Callable[[], Any], repeats: int, after: Callable[[Any], None] = lambda made: None) -> float:
    """Median time that the device spends between two events around what ``work`` enqueues.

    The device is kept busy until all is enqueued, so the host's own time is not in it.
    """
    times = []
    for _ in range(repeats):
        before, behind = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        torch.cuda._sleep(30_000_000)
        before.record()
        made = work()
        behind.record()
        torch.cuda.synchronize()
        times.append(before.elapsed_time(behind))
        after(made)
    return statistics.median(times)


def seconds(work: Callable[[], Any]) -> float:
    """Time of the host until the device has nothing left to do."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def stream() -> int:
    return torch.cuda.current_stream().cuda_stream


def allocation_count() -> int:
    """How often memory of the device was asked for, of PyTorch."""
    return int(torch.cuda.memory_stats().get("allocation.all.allocated", 0))


def spans(tensors: Iterable[torch.Tensor]) -> list[tuple[int, int]]:
    return [(tensor.data_ptr(), tensor.nbytes) for tensor in tensors]


def dirty_some(tensors: list[torch.Tensor], share: float, seed: int) -> int:
    """Changes a byte in so many of all chunks. Returns how many."""
    generator = torch.Generator().manual_seed(seed)
    changed = 0
    for tensor in tensors:
        flat = tensor.view(-1).view(torch.uint8)
        count = max(1, round(share * flat.numel() / CHUNK))
        chunks = torch.randperm(flat.numel() // CHUNK, generator=generator)[:count]
        flat[(chunks * CHUNK + seed % CHUNK).cuda()] += 1
        changed += len(chunks)
    return changed


def close(capture: Any) -> None:
    capture.take()
    capture.adopt()


# --- checks -----------------------------------------------------------------------------------------------------------


def check_saves(folder: Path) -> None:
    """What the device digests is what the processor finds when it verifies, and what comes back is what was saved."""
    torch.manual_seed(1)
    state = {f"t{i}": torch.randn(70_000 + 12_345 * i, device="cuda").to(dtype) for i, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16))}
    state["odd"] = torch.randint(0, 256, (1 << 20,), dtype=torch.uint8, device="cuda")[3:]
    state["tied"] = state["t0"][5:]
    with chipmink.open(folder / "check", durable=False) as repo:
        for step in range(3):
            state["t0"][step] += 1
            number = repo.save(state)
            assert not repo.verify(full=True), "the processor finds other digests than the device"
            loaded = repo.load(number)
            for name, tensor in state.items():
                assert loaded[name].device == tensor.device, name
                assert torch.equal(loaded[name], tensor), name
            assert loaded["tied"].untyped_storage().data_ptr() == loaded["t0"].untyped_storage().data_ptr()
        assert all(torch.equal(value.cpu(), state[name].cpu()) for name, value in repo.load(map_location="cpu").items())
        # The same bytes of the host are the same chunks.
        written = repo.save({**state, "host": state["t2"].cpu()}).report.bytes_written
        assert written < state["t2"].nbytes / 2, f"{written} bytes were written of what is stored already"


def check_lengths() -> None:
    """Every alignment and many lengths, against the first capture of a copy that begins elsewhere."""
    content = torch.randint(0, 256, (1 << 22,), dtype=torch.uint8, device="cuda")
    pipeline = _chipmink.DevicePipeline(0, scratch_len=16 << 20)
    for shift in range(17):
        lengths = [0, 1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 1023, 1024, 1025, 8191, 8193, 65535, 65536, 65537, 1 << 20]
        moved = torch.empty(content.numel() + 32, dtype=torch.uint8, device="cuda")
        moved[shift : shift + content.numel()] = content
        capture = pipeline.begin([(moved.data_ptr() + shift, length) for length in lengths], [stream()], moved)
        found: dict[tuple[int, int], bytes] = {}
        capture.take(lambda region, ordinal, digest, data, found=found: found.__setitem__((region, ordinal), data))
        digests = [capture.digests(region) for region in range(len(lengths))]
        capture.close()
        expected = content.cpu().numpy().tobytes()
        for region, length in enumerate(lengths):
            assert b"".join(found[region, ordinal] for ordinal in range(-(-length // CHUNK))) == expected[:length]
        if shift == 0:
            first = digests
        assert digests == first, f"digests depend on the address, {shift} bytes from a multiple of 16"


def check_race(steps: int) -> None:
    """A program that goes on training while each of its saves is copied: with the fence exact, without it not."""

    def wrong(fence: bool, steps: int, scratch_len: int) -> int:
        torch.manual_seed(7)
        parameters = [torch.randn(50_000 + 7_000 * i, device="cuda", requires_grad=True) for i in range(8)]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        pipeline = _chipmink.DevicePipeline(0, scratch_len=scratch_len, block_len=1 << 18)
        stored: dict[bytes, bytes] = {}
        failed = 0

        def step() -> None:
            for parameter in parameters:
                # In place: nothing is allocated while streams wait for a thread that needs the interpreter.
                parameter.grad.normal_()
            optimizer.step()

        # What the optimizer allocates it does now.
        for _ in range(3):
            step()
        for number in range(steps):
            step()
            expected = [parameter.detach().clone() for parameter in parameters]
            capture = pipeline.begin(spans(parameters), [stream()], parameters, fence=fence)
            saver = threading.Thread(target=capture.take, args=(lambda region, ordinal, digest, data: stored.__setitem__(digest, data),))
            saver.start()
            step()
            step()
            saver.join()
            for region, tensor in enumerate(expected):
                joined = b"".join(stored[digest] for digest in capture.digests(region))
                failed += joined != tensor.cpu().numpy().tobytes()
            capture.adopt()
            if number % 100 == 99:
                stored.clear()
                pipeline.forget()
        return failed

    # All fits in the scratch memory of 16 MiB, and half in that of 1 MiB.
    for scratch_len in (16 << 20, 1 << 20):
        assert wrong(True, steps // 2, scratch_len) == 0, "a save is not the state at its step"
    assert wrong(False, min(steps, 50), 1 << 20) > 0, "the control, without the fence, does not fail: the check shows nothing"


def trained_model(layers: int, width: int, is_compiled: bool = False) -> tuple[torch.nn.Module, torch.optim.Optimizer, Callable[[], None]]:
    """A model with parameters of many lengths, its optimizer, and a function that makes a step."""
    parts: list[torch.nn.Module] = []
    for _ in range(layers):
        parts += [torch.nn.Linear(width, width), torch.nn.BatchNorm1d(width), torch.nn.ReLU()]
    model: Any = torch.nn.Sequential(*parts).cuda()
    if is_compiled:
        model = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.randn(32, width, device="cuda")).square().mean().backward()
        optimizer.step()

    step()
    return model, optimizer, step


def check_checkpoints(folder: Path, steps: int, is_compiled: bool = False) -> None:
    """Checkpoints of a run that goes on at once are the states of their steps, with either fence and in a stream of its own."""
    for fence in ("stream", "optimizer"):
        for own_stream in (False, True):
            torch.manual_seed(3)
            with torch.cuda.stream(torch.cuda.Stream() if own_stream else torch.cuda.current_stream()):
                model, optimizer, step = trained_model(4, 700, is_compiled)
                expected = {}
                # Of the run's 40 MB half fit in the scratch memory.
                options = {"device_scratch": "20MiB", "compression": "none"}
                place = folder / f"checkpoints-{fence}-{own_stream}-{is_compiled}"
                with Checkpointer(place, fence=fence, durable=False, model=model, optimizer=optimizer, open_options=options) as checkpointer:
                    for number in range(steps):
                        step()
                        if number % 3 == 2:
                            # So that the next save is one that is not too much, too.
                            with torch.no_grad():
                                next(model.parameters()).add_(1)
                        expected[number] = [value.detach().cpu() for value in model.state_dict().values()]
                        checkpointer.save(number)
                        step()
                        if number % 3 == 1:
                            checkpointer.wait()
                            checkpointer.save(steps + number)
                    checkpointer.wait()
                    for number, values in expected.items():
                        checkpointer.restore(number)
                        for value, (name, live) in zip(values, model.state_dict().items(), strict=True):
                            assert torch.equal(value, live.cpu()), f"step {number}, {name}, fence {fence}: not the state of its step"
                    step()
            torch.cuda.synchronize()


def check_compiled(folder: Path, steps: int) -> str:
    """The same with a compiled model. Returns why that cannot be, where Triton or a C compiler is missing."""
    try:
        trained_model(1, 64, is_compiled=True)
    except Exception as error:  # Whatever the compiler finds missing has an error of its own.
        lines = str(error).strip().splitlines()
        return f"; not with torch.compile: {type(error).__name__}: {lines[0] if lines else ''}"
    check_checkpoints(folder, steps, is_compiled=True)
    return ", also of a compiled model"


def check_graphs(folder: Path) -> None:
    """A save while a graph is being captured is refused, and the graph is whole."""
    value = torch.zeros(1 << 20, device="cuda")
    with chipmink.open(folder / "graphs", durable=False) as repo:
        repo.save({"value": value})
        graph = torch.cuda.CUDAGraph()
        refused = False
        with torch.cuda.graph(graph):
            value += 1
            try:
                repo.save({"value": value})
            except chipmink.ChipminkError as error:
                refused = "captured into a CUDA graph" in str(error)
        assert refused, "a save was not refused while a graph was captured"
        for replay in range(1, 4):
            graph.replay()
            number = repo.save({"value": value})
            assert torch.all(repo.load(number)["value"] == replay)


def check_allocators(limit: int) -> None:
    """The checks again, with the other allocators of PyTorch, each in a process of its own."""
    for setting in ("expandable_segments:True", "backend:cudaMallocAsync"):
        environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": setting}
        command = [sys.executable, str(Path(__file__).parent), "--only", "check", "--race-steps", "100", "--limit", str(limit)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit + 60)
        assert done.returncode == 0, f"with {setting}:\n{done.stdout}\n{done.stderr}"
        print(f"checked with {setting}", flush=True)


# --- measurements -----------------------------------------------------------------------------------------------------


def digest_row(table: Table, name: str, tensors: list[torch.Tensor], shift: int, bar: float, repeats: int) -> None:
    """Bandwidth of the digests alone, against a sum over as much memory."""
    byte_len = sum(tensor.nbytes - shift for tensor in tensors)
    joined = tensors[0] if len(tensors) == 1 else torch.zeros(byte_len // 4 * 4, dtype=torch.uint8, device="cuda")
    numbers = joined.view(torch.float32)
    reference = device_ms(numbers.sum, repeats)
    pipeline = _chipmink.DevicePipeline(0, chunk_capacity=1 << 20)
    regions = [(address + shift, length - shift) for address, length in spans(tensors)]
    close(pipeline.begin(regions, [stream()], tensors))
    taken = device_ms(lambda: pipeline.digest_alone(stream()), repeats)
    figure, base = byte_len / taken / 1e6, byte_len / reference / 1e6
    table.add(name, figure, base, "GB/s", f">= {bar} x sum", figure >= bar * base)
    held = device_ms(lambda: pipeline.begin(regions, [stream()], tensors), repeats, close)
    table.add("  the same: a save that finds nothing, stream held", held, taken, "ms", "no bar", True)


def measure_digests(table: Table, gib: int, repeats: int) -> None:
    large = torch.zeros(min(gib, 8) * GIB, dtype=torch.uint8, device="cuda")
    digest_row(table, f"digest of {large.numel() // GIB} GiB in 64 KiB chunks", [large], 0, 0.8, repeats)
    digest_row(table, f"digest of {large.numel() // GIB} GiB at odd alignment", [large], 1, 0.4, repeats)
    del large
    generator = torch.Generator().manual_seed(2)
    lengths = (4096 * torch.randint(1, 65, (1000,), generator=generator)).tolist()
    small = [torch.zeros(length, dtype=torch.uint8, device="cuda") for length in lengths]
    digest_row(table, "digest of 1,000 tensors of 4-256 KiB in one launch", small, 0, 0.6, repeats)


def measure_saves(table: Table, gib: int, repeats: int) -> None:
    tensors = [torch.zeros(gib * GIB // 1000 // CHUNK * CHUNK, dtype=torch.uint8, device="cuda") for _ in range(1000)]
    total = sum(tensor.nbytes for tensor in tensors)
    pipeline = _chipmink.DevicePipeline(0, scratch_len=1 << 30, chunk_capacity=1 << 20)
    close(pipeline.begin(spans(tensors), [stream()], tensors))
    digest = device_ms(lambda: pipeline.digest_alone(stream()), repeats)
    idle, host, moved = [], [], []
    allocations: list[int] = []
    for seed in range(repeats):
        dirty = dirty_some(tensors, 0.01, seed + 1) * CHUNK
        regions = spans(tensors)
        torch.cuda.synchronize()

        def begin(regions: list[tuple[int, int]] = regions) -> Any:
            # The device is busy meanwhile: a call that waited for it would take longer than the bar.
            before = allocation_count()
            started = time.perf_counter()
            made = pipeline.begin(regions, [stream()], tensors)
            host.append(time.perf_counter() - started)
            allocations.append(allocation_count() - before)
            return made

        counts: list[int] = []

        def taken(capture: Any, counts: list[int] = counts) -> None:
            counts.append(capture.take()[1])
            capture.adopt()

        idle.append(device_ms(begin, 1, taken))
        moved.append(counts[0] / dirty)
    state = f"{total / GIB:.0f} GiB in 1,000 tensors, 1 % dirty"
    table.add(f"{state}: training stream held", statistics.median(idle), digest, "ms", "<= 2 x digest", statistics.median(idle) <= 2 * digest)
    table.add(f"{state}: host time", 1e3 * statistics.median(host), 10, "ms", "<= 10 ms", statistics.median(host) <= 0.01)
    table.add(f"{state}: allocations on the device", sum(allocations), 0, "", "none", not any(allocations))
    table.add(f"{state}: bytes moved, of the dirty ones", max(moved), 1, "x", "<= 1.02 x", max(moved) <= 1.02)

    # All dirty: against plain copies into pinned memory.
    pinned = torch.empty(256 << 20, dtype=torch.uint8, pin_memory=True)
    source = torch.zeros_like(pinned, device="cuda")
    link = pinned.numel() / device_ms(lambda: pinned.copy_(source, non_blocking=True), repeats) / 1e6
    times = []
    for _ in range(max(2, repeats // 2)):
        pipeline.forget()
        started = time.perf_counter()
        capture = pipeline.begin(spans(tensors), [stream()], tensors)
        capture.take()
        times.append(time.perf_counter() - started)
        capture.close()
    rate = total / statistics.median(times) / 1e9
    table.add(f"{total / GIB:.0f} GiB, all dirty: to the host", rate, link, "GB/s", ">= 0.9 x pinned", rate >= 0.9 * link)


def measure_repository(table: Table, gib: int, folder: Path) -> None:
    """Whole saves and loads of a few GiB against ``torch.save`` and ``torch.load`` at the same place."""
    state = {f"layer{i}": torch.randn(GIB // 4 // 4, device="cuda") for i in range(4 * min(gib, 4))}
    size = f"{sum(tensor.nbytes for tensor in state.values()) / GIB:.0f} GiB"
    file = folder / "torch.pt"
    theirs = min(seconds(lambda: torch.save(state, file)) for _ in range(2))
    loaded = min(seconds(lambda: torch.load(file, map_location="cuda")) for _ in range(2))
    file.unlink()
    with chipmink.open(folder / "repo", durable=False, compression="none") as repo:
        # Pinned memory and kernels are made once in a process.
        repo.save({"warm": torch.zeros(1 << 20, device="cuda")})
        first = seconds(lambda: repo.save({"state": state}))
        table.add(f"save of {size}, all new", first, theirs, "s", "<= 1/5 x torch.save", first <= theirs / 5)
        second = seconds(lambda: repo.save({"state": state}))
        table.add(f"save of {size}, nothing new", second, theirs, "s", "no bar", True)
        dirty_some(list(state.values()), 0.01, 3)
        third = seconds(lambda: repo.save({"state": state}))
        table.add(f"save of {size}, 1 % dirty", third, theirs, "s", "no bar", True)
        repo.load(names=["state"])
        back = min(seconds(lambda: repo.load(names=["state"])) for _ in range(2))
        table.add(f"load of {size} to the device", back, loaded, "s", "no bar", True)


def measure_training(table: Table, folder: Path, repeats: int) -> None:
    """What a ``Checkpointer`` costs a training loop: stall of the host, and time of a step and a save together."""
    model, optimizer, step = trained_model(24, 2048)
    rounds = min(repeats, 5)
    byte_len = 3 * sum(each.nbytes for each in model.parameters())
    alone = statistics.median(seconds(step) for _ in range(repeats))
    print(f"a run of {byte_len / GIB:.2f} GiB in {3 * len(list(model.parameters()))} tensors, {1e3 * alone:.1f} ms a step", flush=True)
    for name, share in (("all trained", 1.0), ("5 % trained", 0.05)):
        parameters = list(model.parameters())
        for number, parameter in enumerate(parameters):
            parameter.requires_grad_(number >= (1 - share) * len(parameters))
        for fence in ("host", "stream", "optimizer"):
            place = folder / f"run-{fence}-{share}"
            options = {"device_scratch": "1GiB", "compression": "none"}
            with Checkpointer(place, fence=fence, durable=False, model=model, optimizer=optimizer, open_options=options) as checkpointer:
                for number in range(2):
                    step()
                    checkpointer.save(number)
                checkpointer.wait()
                stalls, whole = [], []
                for number in range(2, 2 + rounds):
                    step()
                    torch.cuda.synchronize()
                    started = time.perf_counter()
                    saved = checkpointer.save(number)
                    step()
                    torch.cuda.synchronize()
                    whole.append(time.perf_counter() - started)
                    stalls.append(saved.stall)
                    checkpointer.wait()
            table.add(f"{name}, fence {fence}: stall of the host", 1e3 * statistics.median(stalls), 1e3 * alone, "ms", "no bar", True)
            table.add(f"{name}, fence {fence}: save and step", 1e3 * statistics.median(whole), 1e3 * alone, "ms", "no bar", True)
            shutil.rmtree(place)


def measure_steps(table: Table, gib: int, repeats: int) -> None:
    """Steps of at least 100 ms while saves are under way."""
    state = [torch.randn(GIB // 4, device="cuda") for _ in range(min(gib, 8))]
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)

    def step() -> float:
        before, behind = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        product = matrix
        for _ in range(count):
            product = (product @ matrix).mul_(1e-2)
        behind.record()
        torch.cuda.synchronize()
        return before.elapsed_time(behind)

    count = 10
    step()
    count = max(10, round(count * 130 / step()))
    alone = statistics.median(step() for _ in range(repeats))
    pipeline = _chipmink.DevicePipeline(0, scratch_len=1 << 30, chunk_capacity=1 << 20)
    close(pipeline.begin(spans(state), [stream()], state))
    for share, bar in ((0.01, 1.03), (1.0, 1.05)):
        with_save = []
        for seed in range(repeats):
            dirty_some(state, share, seed + 11)
            capture = pipeline.begin(spans(state), [stream()], state)
            # It must run before anybody waits for the fence, which may need the host.
            saver = threading.Thread(target=close, args=(capture,))
            saver.start()
            # From behind the fence on, so that what the save is known to hold is not counted twice.
            torch.cuda.current_stream().record_event().synchronize()
            with_save.append(step())
            saver.join()
        figure = statistics.median(with_save)
        table.add(f"step of {alone:.0f} ms while {100 * share:.0f} % is copied", figure, alone, "ms", f"<= {bar} x", figure <= bar * alone)


def working_folder(byte_len: int) -> Path:
    """Memory that is a file system, if it has room for so many bytes; else the usual place for temporary files."""
    for place in (Path("/dev/shm"), Path(tempfile.gettempdir())):
        if place.is_dir() and shutil.disk_usage(place).free >= byte_len:
            return place
    raise SystemExit(f"neither /dev/shm nor {tempfile.gettempdir()} has {byte_len / GIB:.0f} GiB free; make --gib smaller, or set TMPDIR")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=int, default=16, help="size of the state; some 1.5 times as much memory of the device is needed")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--race-steps", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--limit", type=int, default=300, help="seconds that a part may take")
    parser.add_argument("--out", type=Path, help="write the rows there as JSON, after each part")
    arguments = parser.parse_args()
    print(chipmink.doctor(), flush=True)
    if not torch.cuda.is_available():
        print("There is no CUDA device that PyTorch can use; nothing was checked or measured.")
        return 1
    torch.cuda.init()
    if (reason := _device.unusable(0)) is not None:
        print(f"The device cannot digest its memory: {reason}")
        return 1
    name, gib, repeats = torch.cuda.get_device_name(), arguments.gib, arguments.repeats
    table: Table | None = None
    with tempfile.TemporaryDirectory(dir=working_folder(3 * min(gib, 4) * GIB)) as place:
        folder = Path(place)
        print(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, {platform.platform()}, files in {folder}", flush=True)

        def check() -> None:
            check_saves(folder)
            check_lengths()
            check_race(arguments.race_steps)
            check_graphs(folder)
            check_checkpoints(folder, 12)
            compiled = check_compiled(folder, 6)
            print(f"checked: saves, lengths and alignments, {arguments.race_steps} steps during saves, graphs, checkpoints{compiled}", flush=True)

        measured: dict[str, Callable[[Table], None]] = {
            "digests": lambda table: measure_digests(table, gib, repeats),
            "saves": lambda table: measure_saves(table, gib, repeats),
            "repository": lambda table: measure_repository(table, gib, folder),
            "training": lambda table: measure_training(table, folder, repeats),
            "steps": lambda table: measure_steps(table, gib, repeats),
        }
        for part in (part for part in PARTS if part in arguments.only):
            faulthandler.dump_traceback_later(arguments.limit * (3 if part == "allocators" else 1), exit=True)
            if part == "check":
                check()
            elif part == "allocators":
                check_allocators(arguments.limit)
            else:
                table = table or Table()
                measured[part](table)
                if arguments.out:
                    facts = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "gib": gib, "rows": table.rows}
                    arguments.out.write_text(json.dumps(facts, indent=1) + "\n")
            faulthandler.cancel_dump_traceback_later()
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
