"""Reads a chipmink repository with nothing but Python's standard library.

    python chipmink_reader.py FOLDER                 versions and refs
    python chipmink_reader.py FOLDER NUMBER          names of a version
    python chipmink_reader.py FOLDER NUMBER NAME     a variable
    python chipmink_reader.py --stream FILE          what `chipmink.dumps` wrote

It follows `crates/chipmink-format/FORMAT.md` and shares no code with chipmink. Builtin values come back as they were;
everything else is shown as a record of what was saved. Nothing that was saved is imported or run.
"""

import datetime
import pprint
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pods import Named, Pod, Program, Record, atom  # noqa: E402
from repository import Repository  # noqa: E402
from wire import Damaged, Input, Unsupported, read_list, table_get, table_rows  # noqa: E402

__all__ = ["Damaged", "Reader", "Unsupported", "load_stream"]

CHUNK = 65536


def _exports(input):
    def item():
        number = input.varint()
        return ("vacant", 0) if number == 0 else (("root", "memo")[(number - 1) % 2], (number - 1) // 2)

    return item


def _class(input):
    number = input.varint()
    return ("dependency", number >> 1, input.varint()) if number & 1 else ("global", number >> 1)


class Covariable:
    """A co-variable or definition group (§13)."""

    def __init__(self, data):
        input = Input.of_structure("co-variable", b"V", data)
        self.names = {name: (slot, export) for name, slot, export in input.list(lambda: self._name(input))}
        self.groups = input.list(input.digest)
        input.varint()
        self.root = {0: lambda: None, 1: input.digest, 2: input.bytes}[kind := input.u8()]()
        self.is_inline = kind == 2
        input.extensions()
        input.finish()

    @staticmethod
    def _name(input):
        return input.str(), input.varint(), input.varint()

    def node(self, blob):
        """The root node of the pod table."""
        return self.root if self.is_inline else blob(self.root) if self.root else b"T\1\0\0"


class Row:
    """The row of a pod (§14)."""

    def __init__(self, data, blob):
        input = Input("pod row", data)
        flags = input.varint()
        if flags >> 14:
            raise Unsupported(f"pod row: flags {flags:#x}")
        self.rank, self.digest, self.byte_len = input.order(), input.digest(), input.varint()

        def items(number, item):
            if not flags >> number & 1:
                return None
            data = read_list(input.digest(), blob) if flags >> 7 + number & 1 else input.bytes()
            inner = Input("list of a pod row", data)
            return inner.until_end(item(inner))

        exports = items(0, _exports)
        self.exports = [("root", 0)] if exports is None else exports
        self.dependencies = items(1, self._dependencies) or []
        self.globals = items(2, lambda inner: inner.digest) or []
        self.shapes = items(3, lambda inner: lambda: (_class(inner), inner.digest())) or []
        self.regions = items(4, lambda inner: lambda: self._region(inner)) or []
        self.names = items(5, lambda inner: inner.str) or []
        self.side = input.digest() if flags & 64 else None
        if flags >> 13:
            input.extensions()
        input.finish()

    @staticmethod
    def _dependencies(input):
        """None or the ordinal of a definition group, and the slot."""
        before = 0

        def item():
            nonlocal before
            number = input.varint()
            if number & 1:
                return number >> 1, input.varint()
            step = number >> 1
            before += step >> 1 if step % 2 == 0 else -(step + 1 >> 1)
            return None, before

        return item

    @staticmethod
    def _region(input):
        """(row length, length of the first chunk, length, digest, views)"""
        flags = input.u8()
        if flags & 3 == 3 or flags > 15:
            raise Unsupported(f"{input.what}: region flags {flags:#x}")
        rows = input.varint() if flags & 3 == 1 else 0
        first = input.varint() if flags & 3 == 2 else 0
        length = input.varint()
        if flags & 4:
            input.varint()
        return rows, first, length, input.digest(), input.list(input.varint) if flags & 8 else [0]


def chunk_lens(rows, first, length):
    """Lengths of the chunks of a region (§16)."""
    left = length
    if first and left:
        yield min(first, left)
        left -= min(first, left)
    while left > 0:
        row = min(rows or left, left)
        left -= row
        while row > 0:
            yield min(CHUNK, row)
            row -= min(CHUNK, row)


class Reader:
    """The versions of a repository and their variables."""

    def __init__(self, folder, verify=CHUNK):
        self.repository = Repository(folder, verify)

    def versions(self):
        """(number, commit), newest first."""
        return list(self.repository.versions())

    def manifest(self, number):
        """Name to what it refers to, in the order of the namespace: (kind, …) as in §12."""
        root = self.repository.blob(self.repository.commit(number).manifest)
        rows = []
        for name, value in table_rows(root, self.repository.blob):
            rows.append((Input("manifest row", value).order(), name.decode(), self._row(value)))
        return {name: row for _, name, row in sorted(rows, key=lambda row: row[0])}

    @staticmethod
    def _row(value):
        input = Input("manifest row", value)
        input.order()
        kind = input.u8()
        if kind in (0, 3):
            return kind, input.take(input.left())
        if kind == 1:
            return kind, input.name()
        if kind == 2:
            return kind, input.digest()
        if kind == 4:
            return kind, (input.str(), input.str(), input.str())
        raise Unsupported(f"manifest row: kind {kind}")

    def load(self, number, names=None):
        """The variables of a version, or those named."""
        rows = self.manifest(number)
        for name in names or ():
            if name not in rows:
                raise KeyError(f"version {number} has no variable {name!r}")
        return self._load({name: row for name, row in rows.items() if names is None or name in names})

    def _load(self, rows):
        blob = self.repository.blob
        self.pods, self.found = {}, {}
        owners, roots = {}, {}
        for name, (kind, value) in rows.items():
            if kind in (2, 3):
                # A co-variable in several rows is one, and so its bytes are its identity.
                data = blob(value) if kind == 2 else value
                owners.setdefault(data, Covariable(data))
                roots[name] = (data, *owners[data].names[name])
        order = []
        for data in owners:
            self._order(data, order, ())
        for data, slot, _ in roots.values():
            self._find(data, slot)
        program = Program(self.pods)
        turns = {data: turn for turn, data in enumerate(order)}
        for key in sorted(self.pods, key=lambda key: (turns[key[0]], self.found[key].rank)):
            program.run(key)
        result = {}
        for name, (kind, value) in rows.items():
            if kind == 0:
                input = Input(f"variable {name}", value)
                result[name] = atom(input, input.u8())
            elif kind == 1:
                result[name] = Named(*value)
            elif kind == 4:
                result[name] = Record("not saved", path=value[0], type=value[1], reason=value[2])
            else:
                data, slot, export = roots[name]
                result[name] = program.export((data, slot), export)
        return result

    def _order(self, data, order, above):
        """Definition groups before what names them."""
        if len(above) > 64:
            raise Damaged("definition groups are nested too deeply")
        for group in Covariable(data).groups:
            self._order(self.repository.blob(group), order, (*above, data))
        if data not in order:
            order.append(data)

    def _find(self, data, slot):
        """Finds the closure of a pod."""
        blob, wanted = self.repository.blob, [(data, slot)]
        owners = {}
        while wanted:
            key = wanted.pop()
            if key in self.pods:
                continue
            data, slot = key
            owner = owners.setdefault(data, Covariable(data))
            value = table_get(owner.node(blob), slot.to_bytes(4, "big"), blob)
            if value is None:
                raise Damaged(f"a table has no pod {slot}")
            row = self.found[key] = Row(value, blob)
            dependencies = [
                (data, slot) if group is None else (blob(owner.groups[group]), slot) for group, slot in row.dependencies
            ]
            self.pods[key] = self._pod(row, dependencies)
            wanted += dependencies

    def _pod(self, row, dependencies):
        blob = self.repository.blob
        data = blob(row.digest)
        if len(data) != row.byte_len:
            raise Damaged(f"pod {row.digest.hex()} has another length than its row says")
        names = [Input.of_structure("global descriptor", b"G", blob(digest)).name() for digest in row.globals]
        shapes = []
        for place, digest in row.shapes:
            input = Input.of_structure("shape descriptor", b"S", blob(digest))
            shapes.append((place, input.list(input.str), input.list(input.str)))
        side = blob(row.side) if row.side else None
        views = [region[4] for region in row.regions]
        region = lambda ordinal: self._region(*row.regions[ordinal][:4])  # noqa: E731
        names = [Named(*name) for name in names]
        return Pod(f"pod {row.digest.hex()}", data, row.exports, dependencies, names, shapes, side, region, views)

    def _region(self, rows, first, length, root):
        lens = chunk_lens(rows, first, length)
        count = length // CHUNK + (length % CHUNK > 0)
        if rows:
            per_row = -(-rows // CHUNK)
            count = length // rows * per_row + -(-(length % rows) // CHUNK)
        elif first:
            count = (length > 0) + -(-max(length - first, 0) // CHUNK)
        level = 0
        while count > 256 ** (level + 1):
            level += 1
        out = bytearray()
        for digest in self._digests(root, level, count):
            chunk = self.repository.blob(digest)
            if len(chunk) != next(lens):
                raise Damaged(f"chunk {digest.hex()} has another length than its region says")
            out += chunk
        return bytes(out)

    def _digests(self, root, level, count):
        """The list under a node of a digest tree, which must have this level and count."""
        input = Input(f"digest node {root.hex()}", self.repository.blob(root))
        if input.take(4) != bytes((1, 1, level, 0)) or input.fixed(8) != count:
            raise input.damaged("it is not of the level and count that are expected")
        below = 256**level
        while count > 0:
            digest = input.digest()
            if level:
                yield from self._digests(digest, level - 1, min(below, count))
            else:
                yield digest
            count -= below
        input.finish()


def load_stream(data, buffers=()):
    """The object of a stream (§19)."""
    input = Input("stream", bytes(data))
    if input.take(4) != b"\xc1chm":
        raise Damaged("this is no chipmink stream")
    if input.take(2) != b"\1\0":
        raise Unsupported("the stream is of a later version")
    head = Input("head of the stream", input.bytes())
    root = head.varint(), head.varint()
    described = head.list(lambda: _stream_pod(head))
    head.extensions()
    head.finish()
    if root[0] >= len(described) or any(other >= len(described) for pod in described for other in pod["dependencies"]):
        raise head.damaged("a pod is named that is not there")
    buffers = iter(buffers)
    for pod in described:
        pod["content"] = []
        for is_outside, length, _ in pod["regions"]:
            buffer = next(buffers, None) if is_outside else input.take(length)
            if buffer is None:
                raise Damaged("the stream was written with more buffers than were given")
            pod["content"].append(bytes(buffer))
    pods = {}
    for number, pod in enumerate(described):
        pods[number] = Pod(
            f"pod {number} of the stream",
            input.take(pod["length"]),
            pod["exports"],
            pod["dependencies"],
            [Named(*name) for name in pod["globals"]],
            pod["shapes"],
            pod["side"],
            pod["content"].__getitem__,
            [views for _, _, views in pod["regions"]],
        )
    input.finish()
    program = Program(pods)
    for number in pods:
        program.run(number)
    return program.export(*root)


def _stream_pod(input):
    return {
        "length": input.varint(),
        "exports": input.list(_exports(input)),
        "dependencies": input.list(input.varint),
        "globals": input.list(input.name),
        "shapes": input.list(lambda: (_class(input), input.list(input.str), input.list(input.str))),
        "side": input.bytes() if input.u8() else None,
        "regions": input.list(lambda: (input.u8(), input.varint(), input.list(input.varint))),
    }


def main(arguments):
    """The command line."""
    if len(arguments) == 2 and arguments[0] == "--stream":
        pprint.pprint(load_stream(Path(arguments[1]).read_bytes()))
        return 0
    if not 1 <= len(arguments) <= 3:
        print(__doc__, file=sys.stderr)
        return 2
    reader = Reader(arguments[0])
    if len(arguments) == 1:
        for name, (_, number, _) in sorted(reader.repository.refs.items()):
            print(f"{name} -> {number}")
        for number, commit in reader.versions():
            at = datetime.datetime.fromtimestamp(commit.saved_at / 1e6, datetime.timezone.utc)
            message = reader.repository.text(commit.message).partition("\n")[0][:72]
            print(f"{number:>8}  {at:%Y-%m-%d %H:%M:%S}  {message}".rstrip())
    elif len(arguments) == 2:
        kinds = ("value", "by name", "stored", "stored", "not saved")
        for name, (kind, _) in reader.manifest(int(arguments[1])).items():
            print(f"{name}  ({kinds[kind]})")
    else:
        pprint.pprint(reader.load(int(arguments[1]), [arguments[2]])[arguments[2]])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
