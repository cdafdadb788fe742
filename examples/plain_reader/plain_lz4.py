"""One LZ4 block (FORMAT.md, §4), in plain Python; with the ``lz4`` package where that is installed."""


class Lz4Error(ValueError):
    """The block is damaged."""


def decompress(block, length):
    """The ``length`` bytes that a block holds."""
    try:
        import lz4.block
    except ImportError:
        return decompress_plainly(block, length)
    try:
        content = lz4.block.decompress(block, uncompressed_size=length)
    except lz4.block.LZ4BlockError as error:
        raise Lz4Error(str(error)) from None
    if len(content) != length:
        raise Lz4Error(f"{len(content)} bytes came out of the block, not {length}")
    return content


def decompress_plainly(block, length):
    """As ``decompress``, without any help."""
    out, at, end = bytearray(), 0, len(block)

    def more(count, at):
        """A count that begins with the four bits ``count``."""
        while count >= 15:
            if at >= end:
                raise Lz4Error("a length is cut off")
            byte, at = block[at], at + 1
            count += byte
            if byte != 255:
                break
        return count, at

    while at < end:
        token, at = block[at], at + 1
        literals, at = more(token >> 4, at)
        if at + literals > end:
            raise Lz4Error("literals are cut off")
        out += block[at : at + literals]
        at += literals
        if at == end:
            break  # the last sequence has no match
        if at + 2 > end:
            raise Lz4Error("an offset is cut off")
        offset, at = block[at] | block[at + 1] << 8, at + 2
        matched, at = more(token & 15, at)
        matched += 4
        if not 0 < offset <= len(out):
            raise Lz4Error("a match begins before the block")
        if len(out) + matched > length:
            raise Lz4Error("more comes out than was announced")
        # What is copied may begin to repeat before it ends.
        piece = out[-offset:] if offset >= matched else out[-offset:] * (matched // offset + 1)
        out += piece[:matched]
    if len(out) != length:
        raise Lz4Error(f"{len(out)} bytes came out of the block, not {length}")
    return bytes(out)
