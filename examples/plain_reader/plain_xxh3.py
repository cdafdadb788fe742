"""XXH3-128 with seed 0 and the default secret, in plain Python (about 10 MB/s).

The algorithm is described in `doc/xxhash_spec.md` of xxHash.
"""

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_M64 = (1 << 64) - 1
_P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
_P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
_MX1 = 0x165667919E3779F9
_MX2 = 0x9FB21C651E98DF25


def _u32(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data, at):
    return int.from_bytes(data[at : at + 8], "little")


def _swap32(value):
    return int.from_bytes(value.to_bytes(4, "little"), "big")


def _swap64(value):
    return int.from_bytes(value.to_bytes(8, "little"), "big")


def _fold(a, b):
    product = a * b
    return (product ^ product >> 64) & _M64


def _avalanche(value):
    value ^= value >> 37
    value = value * _MX1 & _M64
    return value ^ value >> 32


def _avalanche_xxh64(value):
    value ^= value >> 33
    value = value * _P64[1] & _M64
    value ^= value >> 29
    value = value * _P64[2] & _M64
    return value ^ value >> 32


def digest(data):
    """The sixteen canonical bytes of the digest of `data`."""
    data = bytes(data)
    size = len(data)
    if size > 240:
        low, high = _long(data)
    elif size > 128:
        low, high = _to_240(data)
    elif size > 16:
        low, high = _to_128(data)
    elif size > 8:
        low, high = _to_16(data)
    elif size >= 4:
        low, high = _to_8(data)
    elif size:
        low, high = _to_3(data)
    else:
        low = _avalanche_xxh64(_u64(_SECRET, 64) ^ _u64(_SECRET, 72))
        high = _avalanche_xxh64(_u64(_SECRET, 80) ^ _u64(_SECRET, 88))
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


def _to_3(data):
    size = len(data)
    combined = data[-1] | size << 8 | data[0] << 16 | data[size >> 1] << 24
    swapped = _swap32(combined)
    rotated = (swapped << 13 | swapped >> 19) & 0xFFFFFFFF
    low = combined ^ _u32(_SECRET, 0) ^ _u32(_SECRET, 4)
    high = rotated ^ _u32(_SECRET, 8) ^ _u32(_SECRET, 12)
    return _avalanche_xxh64(low), _avalanche_xxh64(high)


def _to_8(data):
    size = len(data)
    combined = _u32(data, 0) | _u32(data, size - 4) << 32
    value = combined ^ _u64(_SECRET, 16) ^ _u64(_SECRET, 24)
    product = value * (_P64[0] + (size << 2) & _M64)
    low, high = product & _M64, product >> 64
    high = high + (low << 1) & _M64
    low ^= high >> 3
    low ^= low >> 35
    low = low * _MX2 & _M64
    low ^= low >> 28
    return low, _avalanche(high)


def _to_16(data):
    size = len(data)
    first = _u64(_SECRET, 32) ^ _u64(_SECRET, 40)
    second = _u64(_SECRET, 48) ^ _u64(_SECRET, 56)
    start, end = _u64(data, 0), _u64(data, size - 8)
    product = (start ^ end ^ first) * _P64[0]
    low, high = product & _M64, product >> 64
    low = low + (size - 1 << 54) & _M64
    end ^= second
    high = high + end + (end & 0xFFFFFFFF) * (_P32[1] - 1) & _M64
    low ^= _swap64(high)
    product = low * _P64[1]
    low, carry = product & _M64, product >> 64
    high = carry + high * _P64[1] & _M64
    return _avalanche(low), _avalanche(high)


def _mix16(data, at, secret_at):
    return _fold(_u64(data, at) ^ _u64(_SECRET, secret_at), _u64(data, at + 8) ^ _u64(_SECRET, secret_at + 8))


def _mix32(sums, data, a, b, secret_at):
    low = sums[0] + _mix16(data, a, secret_at) & _M64
    high = sums[1] + _mix16(data, b, secret_at + 16) & _M64
    low ^= _u64(data, b) + _u64(data, b + 8) & _M64
    high ^= _u64(data, a) + _u64(data, a + 8) & _M64
    return low, high


def _finish(sums, size):
    low = sums[0] + sums[1] & _M64
    high = sums[0] * _P64[0] + sums[1] * _P64[3] + size * _P64[1] & _M64
    return _avalanche(low), -_avalanche(high) & _M64


def _to_128(data):
    size = len(data)
    sums = (size * _P64[0] & _M64, 0)
    for i in range((size - 1) // 32, -1, -1):
        sums = _mix32(sums, data, 16 * i, size - 16 * (i + 1), 32 * i)
    return _finish(sums, size)


def _to_240(data):
    size = len(data)
    sums = (size * _P64[0] & _M64, 0)
    for i in range(4):
        sums = _mix32(sums, data, 32 * i, 32 * i + 16, 32 * i)
    sums = (_avalanche(sums[0]), _avalanche(sums[1]))
    for i in range(4, size // 32):
        sums = _mix32(sums, data, 32 * i, 32 * i + 16, 3 + 32 * (i - 4))
    sums = _mix32(sums, data, size - 16, size - 32, 136 - 17 - 16)
    return _finish(sums, size)


_STRIPE_KEYS = [[_u64(_SECRET, 8 * stripe + 8 * lane) for lane in range(8)] for stripe in range(17)]
_LAST_KEYS = [_u64(_SECRET, 192 - 64 - 7 + 8 * lane) for lane in range(8)]
_SCRAMBLE_KEYS = [_u64(_SECRET, 192 - 64 + 8 * lane) for lane in range(8)]


def _stripe(sums, words, keys):
    for lane in range(8):
        word = words[lane]
        key = word ^ keys[lane]
        sums[lane ^ 1] += word
        sums[lane] = sums[lane] + (key & 0xFFFFFFFF) * (key >> 32) & _M64


def _long(data):
    size = len(data)
    sums = [_P32[2], _P64[0], _P64[1], _P64[2], _P64[3], _P32[1], _P64[4], _P32[0]]
    words = memoryview(data[: size - size % 64]).cast("Q") if _IS_LITTLE else None
    stripes = (size - 1) // 64
    for stripe in range(stripes):
        if words is not None:
            stripe_words = words[8 * stripe : 8 * stripe + 8]
        else:
            stripe_words = [_u64(data, 64 * stripe + 8 * lane) for lane in range(8)]
        _stripe(sums, stripe_words, _STRIPE_KEYS[stripe % 16])
        if stripe % 16 == 15:
            for lane in range(8):
                value = sums[lane] & _M64
                value ^= value >> 47
                sums[lane] = (value ^ _SCRAMBLE_KEYS[lane]) * _P32[0] & _M64
    _stripe(sums, [_u64(data, size - 64 + 8 * lane) for lane in range(8)], _LAST_KEYS)
    sums = [value & _M64 for value in sums]
    low = _merge(sums, 11, size * _P64[0] & _M64)
    high = _merge(sums, 192 - 64 - 11, ~(size * _P64[1]) & _M64)
    return low, high


def _merge(sums, secret_at, start):
    for pair in range(4):
        a = sums[2 * pair] ^ _u64(_SECRET, secret_at + 16 * pair)
        b = sums[2 * pair + 1] ^ _u64(_SECRET, secret_at + 16 * pair + 8)
        start += _fold(a, b)
    return _avalanche(start & _M64)


_IS_LITTLE = memoryview(b"\1" + bytes(7)).cast("Q")[0] == 1
