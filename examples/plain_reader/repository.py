"""From a folder to blobs and versions: root log, packs, index segments, commits (FORMAT.md, §2-9)."""

import bisect

import plain_delta
import plain_lz4
import plain_xxh3
import plain_zstd
from wire import Damaged, Folder, Input, Unsupported, table_rows

_ALL_BITS = 3  # feature bits for reading that are known here: chunk deltas, LZ4


def _requirements(input):
    min_reader, _, for_reading = input.varint(), input.varint(), input.varint()
    input.varint(), input.varint()
    if min_reader > 1 or for_reading & ~_ALL_BITS:
        raise Unsupported(f"the repository needs version {min_reader}, features {for_reading:#x}")


def _target(input):
    """(commit digest, number, manifest digest)"""
    return input.digest(), input.varint(), input.digest()


def _pack(input):
    name, length, place = input.take(16), input.varint(), (input.varint(), input.varint(), input.varint())
    input.varint(), input.u8()
    return name, (length, place)


def _segment(input):
    pack, place = input.take(16), (input.varint(), input.varint(), input.varint())
    input.u8()
    return pack, place, input.list(lambda: input.take(16))


class Void(Exception):
    """A root entry that was never finished or is damaged; it is stepped over."""


class Entry:
    """One root entry."""

    def __init__(self, data, number):
        body, checksum = data[:-8], data[-8:]
        if not body.startswith(b"chmkroot") or plain_xxh3.digest(body)[:8] != checksum:
            raise Void(f"root entry {number}")
        input = Input(f"root entry {number}", body, 8)
        _requirements(input)
        self.number = input.varint()
        if self.number != number:
            raise input.damaged("it stands under another number")
        self.digest = b"\1" + plain_xxh3.digest(data)
        input.take(32)  # repository id, write id
        self.published_at = input.fixed(8, signed=True)
        input.varint()  # floor
        flags = input.u8()
        if flags > 15:
            raise Unsupported(f"root entry {number}: flags {flags:#x}")
        self.previous = (input.varint(), input.digest()) if flags & 1 else None
        self.state = None
        if flags & 2:
            covers, pack = input.varint(), input.take(16)
            offset, stored, decoded = input.varint(), input.varint(), input.varint()
            self.state = covers, pack, offset, stored, decoded, input.u8(), input.digest()
        if flags & 4:
            input.varint()
        self.commits = input.list(lambda: self._commit(input))
        self.refs = input.list(lambda: self._ref(input))
        self.packs = dict(input.list(lambda: _pack(input)))
        self.segments = input.list(lambda: _segment(input))
        self.condemned = input.list(lambda: input.take(16))
        input.list(lambda: input.take(16) if input.u8() == 0 else (input.take(16), input.varint(), input.take(8)))
        self.dropped = self._dropped(input.extensions().get(4, b"\0"))
        input.finish()

    @staticmethod
    def _dropped(data):
        input, before = Input("dropped versions", data), 0
        ranges = []
        for _ in range(input.count()):
            first = before + input.varint()
            before = first + input.varint()
            ranges.append(range(first, before + 1))
        input.finish()
        return ranges

    @staticmethod
    def _commit(input):
        commit = input.bytes()
        input.list(lambda: (input.take(16), input.varint()))
        return commit

    def _ref(self, input):
        name, kind = input.str(), input.u8()
        if kind == 0:
            return name, None
        if kind == 2:
            return name, _target(input)
        if kind != 1:
            raise Unsupported(f"{input.what}: move {kind} of a ref")
        commit = self.commits[input.varint()]
        return name, (b"\1" + plain_xxh3.digest(commit), self.number, Commit(commit).manifest)


class Commit:
    """One save. Texts are str, or (digest, length) of a blob."""

    def __init__(self, data):
        input = Input.of_structure("commit", b"C", data)
        self.parents = input.list(input.digest)
        self.manifest = input.digest()
        self.saved_at = input.fixed(8, signed=True)
        self.message = self._text(input)
        self.author = input.str()
        self.code = self._text(input) if input.u8() else None
        self.statistics = dict(input.list(lambda: (input.str(), input.str())))
        input.extensions()
        input.finish()

    @staticmethod
    def _text(input):
        number = input.varint()
        return (input.digest(), number >> 1) if number & 1 else input.take(number >> 1).decode()


class Segment:
    """An index segment: from digest to place."""

    def __init__(self, place, pack, read):
        self.offset, self.length, head_len = place
        self.pack, self.read = pack, read
        head = read(pack, self.offset, head_len)
        if plain_xxh3.digest(head[:-8])[:8] != head[-8:]:
            raise Damaged(f"the index of pack {pack.hex()} is damaged")
        input = Input.of_structure("index segment", b"I", head[:-8])
        if input.fixed(4) != head_len:
            raise input.damaged("its head has another length")
        input.u8()
        self.packs = input.list(lambda: input.take(16))
        input.varint()
        self.fences, self.blocks, at, first = [], [], self.offset + head_len, b""
        for _ in range(input.count()):
            first = self._shared(input, first)
            length = input.varint()
            self.fences.append(first)
            self.blocks.append((at, length))
            at += length
        input.bytes()  # the filter; without it a lookup reads a block too many now and then
        input.finish()
        if at != self.offset + self.length:
            raise input.damaged("its blocks do not fill it")
        self.rows = {}

    @staticmethod
    def _shared(input, before):
        shared = input.u8()
        if shared > len(before):
            raise input.damaged("a digest shares more than there is")
        return before[:shared] + input.take(17 - shared)

    def find(self, digest):
        """[(pack, offset, stored length, codec, decoded length, base), …]"""
        block = bisect.bisect_right(self.fences, digest) - 1
        if block < 0:
            return []
        if block not in self.rows:
            self.rows[block] = self._block(*self.blocks[block])
        return self.rows[block].get(digest, [])

    def _block(self, offset, length):
        data = self.read(self.pack, offset, length)
        if plain_xxh3.digest(data[:-8])[:8] != data[-8:]:
            raise Damaged(f"a block of the index of pack {self.pack.hex()} is damaged")
        input, rows, digest = Input("index block", data, 0, length - 8), {}, b""
        while input.left():
            digest = self._shared(input, digest)
            pack = self.packs[input.varint()] if self.packs else self.pack
            offset, stored, codec = input.varint(), input.varint(), input.u8() & 15
            decoded = input.varint() if codec else stored
            base = input.digest() if codec in (3, 4) else None
            rows.setdefault(digest, []).append((pack, offset, stored, codec, decoded, base))
        return rows


class Repository:
    """An open repository, read-only.

    `verify`: blobs of at most so many bytes are checked against their digests; None: all are.
    """

    def __init__(self, path, verify=1 << 16):
        self.folder = Folder(path)
        self.verify = verify
        self.cache = {}
        self.void = []
        numbers = []
        for name in self.folder.names("root"):
            if len(name) == 20 and name.isdigit():
                numbers.append((1 << 64) - 1 - int(name))
        self.head = None
        for number in sorted(numbers, reverse=True):
            try:
                self.head = self.entry(number)
                break
            except Void:
                self.void.append(number)
        if self.head is None:
            raise Damaged(f"there is no repository in {path}")
        self._sum_up()

    def entry(self, number):
        """The root entry with this number."""
        try:
            return Entry(self.folder.read(f"root/{(1 << 64) - 1 - number:020}"), number)
        except FileNotFoundError:
            raise KeyError(f"there is no version {number}") from None

    def entries(self):
        """The chain of entries, newest first."""
        entry = self.head
        while True:
            yield entry
            if entry.previous is None:
                return
            number, digest = entry.previous
            entry = self.entry(number)
            if entry.digest != digest:
                raise Damaged(f"root entry {number} is not the one that the next one names")

    def versions(self):
        """(number, commit) of every version that no sweep has dropped, newest first."""
        dropped = []
        for entry in self.entries():
            dropped += entry.dropped
            if not any(entry.number in numbers for numbers in dropped):
                for commit in entry.commits:
                    yield entry.number, Commit(commit)

    def commit(self, number):
        """The commit of a version."""
        commits = self.entry(number).commits
        if not commits:
            raise KeyError(f"root entry {number} saved nothing")
        return Commit(commits[0])

    def text(self, text):
        """A text of a commit, as str."""
        return text if isinstance(text, str) else self.blob(text[0]).decode()

    def _sum_up(self):
        self.refs, self.packs, segments, tables = {}, {}, [], None
        above = []
        for entry in self.entries():
            if self.head.state and entry.number <= self.head.state[0]:
                break
            above.append(entry)
        if self.head.state:
            _, pack, offset, stored, decoded, codec, digest = self.head.state
            tables = self._state(self._decode(digest, [(pack, offset, stored, codec, decoded, None)]), segments)
        for entry in reversed(above):
            for name, target in entry.refs:
                if target is None:
                    self.refs.pop(name, None)
                else:
                    self.refs[name] = target
            self.packs.update(entry.packs)
            segments += entry.segments
            for pack in entry.condemned:
                self.packs.pop(pack, None)
        covered = {name for pack, _, names in segments if pack in self.packs for name in names}
        places = [(pack, place) for pack, place, _ in segments if pack in self.packs]
        places += [(pack, place) for pack, (_, place) in self.packs.items() if pack not in covered]
        self.segments = [Segment(place, pack, self._read) for pack, place in reversed(places)]
        if tables:
            tables()

    def _state(self, data, segments):
        input = Input.of_structure("root state", b"R", data)
        input.varint(), input.take(16), input.varint(), input.u8()
        self.refs.update(input.list(lambda: (input.str(), _target(input))))
        refs_table = input.digest() if input.u8() else None
        self.packs.update(input.list(lambda: _pack(input)))
        packs_table = input.digest() if input.u8() else None
        segments += input.list(lambda: _segment(input))
        condemned = {name for name, _ in input.list(lambda: (input.take(16), input.varint()))}
        input.list(lambda: (input.take(16), input.varint(), input.take(8)))
        input.extensions()
        input.finish()

        def read_tables():
            if refs_table:
                for name, target in table_rows(self.blob(refs_table), self.blob):
                    self.refs.setdefault(name.decode(), _target(Input("target of a ref", target)))
            if packs_table:
                for name, rest in table_rows(self.blob(packs_table), self.blob):
                    name, pack = _pack(Input("pack of a table", name + rest))
                    if name not in self.packs and name not in condemned:
                        self.packs[name] = pack
                        self.segments.append(Segment(pack[1], name, self._read))

        return read_tables

    def _read(self, pack, offset, length):
        return self.folder.read(f"packs/{pack.hex()}", offset, length)

    def blob(self, digest):
        """The decoded bytes of a blob."""
        if digest in self.cache:
            return self.cache[digest]
        rows = [row for segment in self.segments for row in segment.find(digest) if row[0] in self.packs]
        if not rows:
            raise Damaged(f"no pack holds blob {digest.hex()}")
        data = self._decode(digest, rows)
        if len(data) <= 1 << 14 and len(self.cache) < 4096:
            self.cache[digest] = data
        return data

    def _decode(self, digest, rows, ancestors=()):
        pack, offset, stored, codec, decoded, base = rows[0]
        data = self._read(pack, offset, stored)
        try:
            if codec in (3, 4):
                before = self._base(digest, base, ancestors)[:decoded].ljust(decoded, b"\0")
                data = plain_delta.xored(data, before) if codec == 3 else plain_delta.patched(data, before)
            elif codec == 2:
                data = plain_lz4.decompress(data, decoded)
            elif codec == 1:
                data = plain_zstd.decompress(data, decoded)
            elif codec:
                raise Unsupported(f"blob {digest.hex()} is stored under codec {codec}")
        except (plain_zstd.ZstdError, plain_lz4.Lz4Error, plain_delta.DeltaError) as error:
            raise Damaged(f"blob {digest.hex()} in pack {pack.hex()}: {error}") from None
        if len(data) != decoded:
            raise Damaged(f"blob {digest.hex()} has {len(data)} bytes, not {decoded}")
        if self.verify is None or decoded <= self.verify:
            if b"\1" + plain_xxh3.digest(data) != digest:
                raise Damaged(f"blob {digest.hex()} in pack {pack.hex()} does not have that digest")
        return data

    def _base(self, digest, base, ancestors):
        if digest in ancestors or len(ancestors) >= 16:
            raise Damaged(f"blob {digest.hex()} is a delta against itself, or of too many")
        below = [row for segment in self.segments for row in segment.find(base)]
        if not below:
            raise Damaged(f"no pack holds blob {base.hex()}")
        return self._decode(base, below, (*ancestors, digest))
