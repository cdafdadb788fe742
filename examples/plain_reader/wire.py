"""Bytes to numbers, strings, digests and places: what every structure of the format is made of (FORMAT.md, §1-2, §10-11)."""

import os


class Damaged(Exception):
    """The bytes are not what was written."""


class Unsupported(Exception):
    """The bytes were written by a later version."""


class Input:
    """A cursor over untrusted bytes."""

    def __init__(self, what, data, start=0, end=None):
        self.what, self.data, self.at = what, data, start
        self.end = len(data) if end is None else end

    @classmethod
    def of_structure(cls, what, letter, data):
        """Starts behind the letter and the version."""
        self = cls(what, data)
        if self.take(1) != letter:
            raise self.damaged("it is another structure")
        version = self.u8()
        if version != 1:
            raise Unsupported(f"{what}: version {version}")
        return self

    def damaged(self, reason):
        return Damaged(f"{self.what} is damaged at byte {self.at}: {reason}")

    def left(self):
        return self.end - self.at

    def take(self, count):
        if count > self.end - self.at:
            raise self.damaged(f"{count} bytes are missing")
        self.at += count
        return self.data[self.at - count : self.at]

    def u8(self):
        if self.at >= self.end:
            raise self.damaged("a byte is missing")
        self.at += 1
        return self.data[self.at - 1]

    def fixed(self, count, signed=False):
        return int.from_bytes(self.take(count), "little", signed=signed)

    def zigzag(self):
        value = self.varint()
        return value >> 1 if value % 2 == 0 else -(value >> 1) - 1

    def varint(self):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if value >= 1 << 64 or (byte == 0 and shift):
            raise self.damaged("a varint is too large or not in its shortest form")
        return value

    def count(self):
        """How many items follow; each takes a byte at least."""
        count = self.varint()
        if count > self.left():
            raise self.damaged(f"{count} items cannot stand in {self.left()} bytes")
        return count

    def list(self, item):
        return [item() for _ in range(self.count())]

    def bytes(self):
        return self.take(self.count())

    def str(self):
        try:
            return self.bytes().decode()
        except UnicodeDecodeError:
            raise self.damaged("a string is not UTF-8") from None

    def digest(self):
        return self.take(17)

    def name(self):
        """(module, qualname)"""
        return self.str(), self.str()

    def order(self):
        zeros = self.u8()
        return self.varint() << zeros

    def extensions(self):
        """Tag to bytes."""
        found = {}
        for _ in range(self.count()):
            tag = self.varint()
            found[tag] = self.bytes()
            if tag % 2:
                raise Unsupported(f"{self.what}: extension {tag}")
        return found

    def finish(self):
        if self.left():
            raise self.damaged(f"{self.left()} bytes too many")

    def until_end(self, item):
        items = []
        while self.left():
            items.append(item())
        return items


class Folder:
    """A place: objects by name."""

    def __init__(self, path):
        self.path = os.fspath(path)

    def names(self, under):
        try:
            return sorted(os.listdir(os.path.join(self.path, under)))
        except FileNotFoundError:
            return []

    def read(self, name, start=0, count=None):
        """The object's bytes, or `count` of them from `start` on."""
        with open(os.path.join(self.path, *name.split("/")), "rb") as file:
            file.seek(start)
            data = file.read() if count is None else file.read(count)
        if count is not None and len(data) != count:
            raise Damaged(f"{name} is cut off: {count} bytes from {start} on are not there")
        return data


def table_node(data):
    """(level, keys, values): values of a leaf are bytes, of an inner node digests."""
    input = Input.of_structure("table node", b"T", data)
    level = input.u8()
    keys, values, key = [], [], b""
    for _ in range(input.count()):
        shared = input.varint()
        if shared > len(key):
            raise input.damaged("a key shares more than there is")
        key = key[:shared] + input.bytes()
        if keys and key <= keys[-1] or len(key) > 65536:
            raise input.damaged("keys do not ascend, or one is too long")
        keys.append(key)
        if level:
            values.append(input.digest())
            input.varint()
        else:
            values.append(input.bytes())
    input.finish()
    return level, keys, values


def table_rows(data, blob):
    """Every (key, value) of the table whose root node is `data`, by ascending key."""
    nodes, last = [table_node(data)], None
    while nodes:
        node = nodes.pop()
        if callable(node):
            node = node()
        level, keys, values = node
        if level > 24:
            raise Damaged("a table is too deep")
        if level:
            for key, digest in reversed(list(zip(keys, values))):
                nodes.append(lambda level=level, key=key, digest=digest: _child(level, key, digest, blob))
            continue
        for key, value in zip(keys, values):
            if last is not None and key <= last:
                raise Damaged("keys do not ascend through a table")
            last = key
            yield key, value


def _child(level, key, digest, blob):
    node = table_node(blob(digest))
    if node[0] != level - 1 or node[1][:1] != [key]:
        raise Damaged(f"table node {digest.hex()} is not what its parent says")
    return node


def table_get(data, wanted, blob):
    """The value of a key in the table whose root node is `data`, or None."""
    level, keys, values = table_node(data)
    while True:
        below = [i for i, key in enumerate(keys) if key <= wanted]
        if not below:
            return None
        if not level:
            return values[below[-1]] if keys[below[-1]] == wanted else None
        level, keys, values = _child(level, keys[below[-1]], values[below[-1]], blob)


def read_list(digest, blob, limit=1 << 28):
    """The bytes of a list."""
    out = bytearray()

    def read(digest, level):
        input = Input.of_structure("list node", b"L", blob(digest))
        found = input.u8()
        if found != level and level is not None or found > 16:
            raise input.damaged("it is of another level than its parent says")
        if not found:
            out.extend(input.take(input.left()))
            return
        while input.left():
            child, count, before = input.digest(), input.varint(), len(out)
            if not count or before + count > limit:
                raise input.damaged("a list is too long, or has an empty child")
            read(child, found - 1)
            if len(out) - before != count:
                raise input.damaged("a child has another length than its parent says")

    read(digest, None)
    return bytes(out)
