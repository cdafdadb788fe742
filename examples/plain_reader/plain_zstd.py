"""Decompresses one Zstandard frame (RFC 8878), in plain Python. No dictionaries.

It is made to be read, not to be fast: about a megabyte a second. `decompress` uses a compiled library if there is one.
"""

import importlib


class ZstdError(ValueError):
    """The bytes are not a Zstandard frame, or not one of the expected length."""


def decompress(frame, length):
    """The content of `frame`, which must have exactly `length` bytes."""
    if content_size(frame) != length:
        raise ZstdError(f"the frame does not say that it has {length} bytes")
    for name, function in (("compression.zstd", "decompress"), ("pyzstd", "decompress"), ("zstandard", None)):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        try:
            if function is None:
                content = module.ZstdDecompressor().decompress(frame, max_output_size=length)
            else:
                content = getattr(module, function)(frame)
        except Exception as error:
            raise ZstdError(str(error)) from None
        break
    else:
        content = decompress_plainly(frame, length)
    if len(content) != length:
        raise ZstdError(f"{len(content)} bytes came out of the frame, not {length}")
    return content


def decompress_plainly(frame, length):
    """As `decompress`, without any library."""
    try:
        return _decompress(bytes(frame), length)
    except (IndexError, KeyError) as error:
        raise ZstdError("the frame is cut off or damaged") from error


def content_size(frame):
    """The content size that a frame states, or None."""
    return _header(bytes(frame))[0]


def _header(frame):
    """(content size or None, where the first block begins, whether a checksum ends the frame)"""
    if frame[:4] != b"\x28\xb5\x2f\xfd" or len(frame) < 6:
        raise ZstdError("this is no Zstandard frame")
    flags = frame[4]
    at = 5
    is_single_segment = flags >> 5 & 1
    if not is_single_segment:
        at += 1
    if flags & 0x08:
        raise ZstdError("a reserved bit is set")
    if flags & 3:
        raise ZstdError("the frame needs a dictionary")
    size_len = (is_single_segment, 2, 4, 8)[flags >> 6]
    size = int.from_bytes(frame[at : at + size_len], "little") + (256 if size_len == 2 else 0) if size_len else None
    return size, at + size_len, bool(flags & 4)


def _decompress(frame, length):
    _, at, _ = _header(frame)
    out = bytearray()
    state = _State()
    is_last = False
    while not is_last:
        head = int.from_bytes(frame[at : at + 3], "little")
        if at + 3 > len(frame):
            raise ZstdError("the frame is cut off")
        is_last, kind, size = head & 1, head >> 1 & 3, head >> 3
        at += 3
        if kind == 1:
            if len(out) + size > length:
                raise ZstdError("more comes out than was announced")
            out += frame[at : at + 1] * size
            at += 1
            continue
        block = frame[at : at + size]
        at += size
        if len(block) != size or kind == 3:
            raise ZstdError("a block is cut off or of an unknown kind")
        if kind == 0:
            out += block
        else:
            _block(block, out, state, length)
        if len(out) > length:
            raise ZstdError("more comes out than was announced")
    return bytes(out)


class _State:
    """What one block leaves to the next."""

    def __init__(self):
        self.huffman = None
        self.tables = [None, None, None]  # literal lengths, offsets, match lengths
        self.offsets = [1, 4, 8]


class _BackwardBits:
    """Bits that are read from the end of `data` to its start; beyond the start there are zeros."""

    def __init__(self, data):
        if not data or not data[-1]:
            raise ZstdError("a bit stream has no end mark")
        self.data = b"\0" * 8 + data
        self.at = 64 + 8 * (len(data) - 1) + data[-1].bit_length() - 1

    def read(self, count):
        self.at -= count
        if self.at < 0:
            raise ZstdError("a bit stream is too short")
        start = self.at >> 3
        return int.from_bytes(self.data[start : start + 8], "little") >> (self.at & 7) & ((1 << count) - 1)

    def left(self):
        return self.at - 64


def _block(block, out, state, limit):
    literals, at = _literals(block, state)
    count = block[at]
    at += 1
    if count >= 128:
        if count == 255:
            count = int.from_bytes(block[at : at + 2], "little") + 0x7F00
            at += 2
        else:
            count = (count - 128 << 8) + block[at]
            at += 1
    if count == 0:
        out += literals
        return
    modes = block[at]
    at += 1
    for which, (symbols, accuracy, default, name) in enumerate(_FIELDS):
        mode = modes >> (6 - 2 * which) & 3
        if mode == 0:
            state.tables[which] = _fse_table(default[1], default[0])
        elif mode == 1:
            state.tables[which] = ([block[at]], [0], [0], 0)
            at += 1
        elif mode == 2:
            counts, used, log = _fse_counts(block[at:], accuracy)
            if len(counts) > symbols:
                raise ZstdError(f"a table of {name} has too many symbols")
            state.tables[which] = _fse_table(counts, log)
            at += used
        elif state.tables[which] is None:
            raise ZstdError(f"a table of {name} is repeated that was never there")
    _sequences(block[at:], count, literals, out, state, limit)


def _sequences(data, count, literals, out, state, limit):
    bits = _BackwardBits(data)
    (ll_symbol, ll_bits, ll_base, ll_log), (of_symbol, of_bits, of_base, of_log), match_table = state.tables
    ml_symbol, ml_bits, ml_base, ml_log = match_table
    ll, of, ml = bits.read(ll_log), bits.read(of_log), bits.read(ml_log)
    offsets = state.offsets
    literal_at = 0
    for i in range(count):
        code = of_symbol[of]
        if code > 31:
            raise ZstdError("an offset is too large")
        offset_value = (1 << code) + bits.read(code)
        base, extra = _MATCH_LENGTHS[ml_symbol[ml]]
        match_len = base + bits.read(extra)
        base, extra = _LITERAL_LENGTHS[ll_symbol[ll]]
        literal_len = base + bits.read(extra)
        if i + 1 < count:
            ll = ll_base[ll] + bits.read(ll_bits[ll])
            ml = ml_base[ml] + bits.read(ml_bits[ml])
            of = of_base[of] + bits.read(of_bits[of])
        if offset_value > 3:
            offset = offset_value - 3
            offsets[:] = [offset, offsets[0], offsets[1]]
        else:
            which = offset_value - 1 + (literal_len == 0)
            offset = offsets[which] if which < 3 else offsets[0] - 1
            if which:
                offsets[:] = [offset, offsets[0], offsets[1] if which > 1 else offsets[2]]
        if literal_at + literal_len > len(literals) or bits.at < 64:
            raise ZstdError("a sequence reaches beyond its block")
        out += literals[literal_at : literal_at + literal_len]
        literal_at += literal_len
        start = len(out) - offset
        if start < 0 or offset == 0 or len(out) + match_len > limit:
            raise ZstdError("a match reaches beyond the content")
        if offset >= match_len:
            out += out[start : start + match_len]
        else:
            piece = bytes(out[start:])
            out += (piece * (match_len // offset + 1))[:match_len]
    if bits.left():
        raise ZstdError("bits are left over")
    out += literals[literal_at:]


def _literals(block, state):
    """(the literals, where the sequences begin)"""
    kind, form = block[0] & 3, block[0] >> 2 & 3
    if kind < 2:
        head_len, shift = ((1, 3), (2, 4), (1, 3), (3, 4))[form]
        size = int.from_bytes(block[:head_len], "little") >> shift
        if kind == 0:
            return block[head_len : head_len + size], head_len + size
        return block[head_len : head_len + 1] * size, head_len + 1
    head_len, bits = ((3, 10), (3, 10), (4, 14), (5, 18))[form]
    head = int.from_bytes(block[:head_len], "little") >> 4
    size, stored = head & ((1 << bits) - 1), head >> bits
    data = block[head_len : head_len + stored]
    if len(data) != stored or size > 1 << 17:
        raise ZstdError("literals are cut off or too long")
    if kind == 2:
        state.huffman, used = _huffman_table(data)
        data = data[used:]
    elif state.huffman is None:
        raise ZstdError("a Huffman table is repeated that was never there")
    if form == 0:
        return _huffman(data, size, state.huffman), head_len + stored
    jumps = [int.from_bytes(data[i : i + 2], "little") for i in (0, 2, 4)]
    each = (size + 3) // 4
    sizes = [each, each, each, size - 3 * each]
    if sizes[3] < 0:
        raise ZstdError("too few literals for four streams")
    at, out = 6, bytearray()
    for i, piece in enumerate(sizes):
        end = at + jumps[i] if i < 3 else len(data)
        out += _huffman(data[at:end], piece, state.huffman)
        at = end
    return bytes(out), head_len + stored


def _huffman(data, size, table):
    symbols, lengths, longest = table
    bits = _BackwardBits(data)
    at, padded, mask = bits.at, bits.data, (1 << longest) - 1
    out = bytearray(size)
    for i in range(size):
        start = at - longest
        if start < 0:
            raise ZstdError("literals are too short")
        byte = start >> 3
        code = int.from_bytes(padded[byte : byte + 3], "little") >> (start & 7) & mask
        out[i] = symbols[code]
        at -= lengths[code]
    if at != 64:
        raise ZstdError("literals do not end where they should")
    return out


def _huffman_table(data):
    """((symbol and bit length by code, longest length), bytes used)"""
    head = data[0]
    if head >= 128:
        count = head - 127
        used = 1 + (count + 1) // 2
        weights = [byte >> shift & 15 for byte in data[1:used] for shift in (4, 0)][:count]
        if len(weights) != count:
            raise ZstdError("a Huffman table is cut off")
    else:
        used = 1 + head
        weights = _fse_weights(data[1:used])
    total = sum(1 << weight - 1 for weight in weights if weight)
    if not total or max(weights) > 11:
        raise ZstdError("a Huffman table is empty or too deep")
    longest = total.bit_length()
    rest = (1 << longest) - total
    if rest & (rest - 1) or longest > 11:
        raise ZstdError("a Huffman table is not complete")
    weights.append(rest.bit_length())
    symbols, lengths = [], []
    for weight in range(1, longest + 1):
        for symbol, other in enumerate(weights):
            if other == weight:
                symbols += [symbol] * (1 << weight - 1)
                lengths += [longest + 1 - weight] * (1 << weight - 1)
    return (symbols, lengths, longest), used


def _fse_weights(data):
    counts, used, log = _fse_counts(data, 6)
    symbol, nbits, base, _ = _fse_table(counts, log)
    bits = _BackwardBits(data[used:])
    first, second = bits.read(log), bits.read(log)
    weights = []
    while len(weights) < 255:
        weights.append(symbol[first])
        first, second, before = second, base[first], nbits[first]
        if bits.left() < before:
            weights.append(symbol[first])
            return weights
        second += bits.read(before)
    raise ZstdError("a Huffman table has too many weights")


def _fse_counts(data, most):
    """(counts by symbol, bytes used, accuracy log)"""
    value = int.from_bytes(data[:512], "little")
    log = (value & 15) + 5
    if log > most:
        raise ZstdError("an FSE table is too large")
    at, left, counts = 4, 1 << log, []
    while left > 0 and len(counts) < 256:
        width = (left + 1).bit_length()
        count = value >> at & ((1 << width) - 1)
        lower = (1 << width - 1) - 1
        threshold = (1 << width) - 1 - (left + 1)
        if count & lower < threshold:
            at += width - 1
            count &= lower
        else:
            at += width
            if count > lower:
                count -= threshold
        counts.append(count - 1)
        left -= abs(count - 1)
        if count == 1:
            repeat = 3
            while repeat == 3:
                repeat = value >> at & 3
                at += 2
                counts += [0] * repeat
    used = (at + 7) // 8
    if left or used > len(data):
        raise ZstdError("an FSE table is damaged")
    return counts, used, log


def _fse_table(counts, log):
    """(symbol, bits to read, base of the next state) by state, and the accuracy log"""
    size = 1 << log
    symbols = [0] * size
    high = size - 1
    for symbol, count in enumerate(counts):
        if count == -1:
            symbols[high] = symbol
            high -= 1
    step, at = (size >> 1) + (size >> 3) + 3, 0
    for symbol, count in enumerate(counts):
        for _ in range(count):
            symbols[at] = symbol
            at = at + step & size - 1
            while at > high:
                at = at + step & size - 1
    following = [abs(count) for count in counts]
    nbits, bases = [0] * size, [0] * size
    for state, symbol in enumerate(symbols):
        number = following[symbol]
        following[symbol] += 1
        nbits[state] = log - number.bit_length() + 1
        bases[state] = (number << nbits[state]) - size
    return symbols, nbits, bases, log


def _lengths(first, plain, more):
    table = [(first + i, 0) for i in range(plain)]
    base = first + plain
    for bits in more:
        table.append((base, bits))
        base += 1 << bits
    return table


_LITERAL_LENGTHS = _lengths(0, 16, [1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
_MATCH_LENGTHS = _lengths(3, 32, [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
# Most symbols, largest accuracy log, (accuracy log and counts of the predefined table), name.
_FIELDS = [
    (36, 9, (6, [4, 3] + [2] * 11 + [1] * 3 + [2] * 9 + [3, 2] + [1] * 5 + [-1] * 4), "literal lengths"),
    (32, 8, (5, [1] * 6 + [2] * 3 + [1] * 15 + [-1] * 5), "offsets"),
    (53, 9, (6, [1, 4, 3] + [2] * 6 + [1] * 37 + [-1] * 7), "match lengths"),
]
