"""Chunk deltas (FORMAT.md, §4), in plain Python."""

import plain_xxh3
import plain_zstd


class DeltaError(ValueError):
    """The delta is damaged."""


def xored(frame, base):
    """The chunk whose bytes, XORed with those of the base in its length, are in a frame."""
    change = plain_zstd.decompress(frame, len(base))
    return (int.from_bytes(change, "little") ^ int.from_bytes(base, "little")).to_bytes(len(base), "little")


def patched(stored, base):
    """The chunk of which a sparse delta names the elements that differ from the base in its length."""
    if len(stored) < 10 or plain_xxh3.digest(stored[8:])[:8] != stored[:8]:
        raise DeltaError("the checksum of a sparse delta fails")
    width, body = stored[8] & ~16, stored[9:]
    if width not in (1, 2, 4, 8) or len(base) % width:
        raise DeltaError(f"a sparse delta of elements of {width} bytes, of {len(base)}")
    if stored[8] & 16:
        size = plain_zstd.content_size(body)
        if size is None or size > len(base):
            raise DeltaError("a sparse delta is longer than its chunk")
        body = plain_zstd.decompress(body, size)
    count, at = _varint(body)
    planes = len(body) - width * count
    if len(body) > len(base) or planes < at:
        raise DeltaError("a sparse delta is cut off or too long")
    chunk, element, changed = bytearray(base), 0, 0
    for gap in body[at:planes]:
        element += gap
        if gap == 255:
            continue
        if changed == count or (element + 1) * width > len(chunk):
            raise DeltaError("a sparse delta reaches beyond its chunk")
        for byte in range(width):
            chunk[element * width + byte] ^= body[planes + byte * count + changed]
        changed += 1
        element += 1
    if changed != count or planes > at and body[planes - 1] == 255:
        raise DeltaError("a sparse delta has too few gaps")
    return bytes(chunk)


def _varint(body):
    value = 0
    for at, byte in enumerate(body[:10]):
        value |= (byte & 127) << 7 * at
        if byte < 128:
            return value, at + 1
    raise DeltaError("a sparse delta has no count")
