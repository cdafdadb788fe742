"""Random object graphs, and an account of a graph by which two are compared."""

import collections
import random


class Plain:
    """Attributes alone."""


class Slotted:
    __slots__ = ("left", "right")


class Both(Slotted):
    """Slots and a dict."""


class Keyed:
    """Its hash needs state that pickle restores after the object exists."""

    def __init__(self, key):
        self.key = key
        self.to = None

    def __hash__(self):
        return hash(("keyed", self.key))

    def __eq__(self, other):
        return type(other) is Keyed and self.key == other.key


class Restored:
    """State through methods of its own."""

    def __init__(self):
        self.state = None

    def __getstate__(self):
        return [self.state]

    def __setstate__(self, state):
        (self.state,) = state


class ByArguments:
    """Made of arguments that may lead back to it."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return ByArguments, self.arguments


class Bag(list):
    """A list with attributes."""


class Table(dict):
    """A dict with attributes."""


class Number(int):
    """An int with attributes."""


MAKERS = [
    lambda uid: [],
    lambda uid: [],
    lambda uid: {},
    lambda uid: {},
    lambda uid: set(),
    lambda uid: Plain(),
    lambda uid: Plain(),
    lambda uid: Slotted(),
    lambda uid: Both(),
    lambda uid: Keyed(uid),
    lambda uid: Keyed(uid),
    lambda uid: Restored(),
    lambda uid: Bag(),
    lambda uid: Table(),
    lambda uid: Number(uid),
    lambda uid: collections.OrderedDict(),
    lambda uid: collections.deque(),
    lambda uid: bytearray(b"x" * (uid % 5)),
]


def build(seed, size):
    """A graph of about `size` objects with cycles of every kind."""
    r = random.Random(seed)
    made = [make(uid) for uid, make in enumerate(r.choices(MAKERS, k=size))]
    hashable = [x for x in made if isinstance(x, Keyed)]

    def immutable(uid):
        kind = r.randrange(4)
        if kind == 0:
            return (uid, *r.choices(made, k=r.randrange(3)))
        if kind == 1 and hashable:
            return frozenset(r.choices(hashable, k=r.randrange(1, 4)))
        if kind == 2:
            return ByArguments(*r.choices(made, k=r.randrange(3)))
        return atom(uid)

    def atom(uid):
        texts = ["", "é", "name", "ключ", "😀", "x" * 40, "a longer text that is not kept short at all"]
        return r.choice([None, True, uid, -uid, uid << 20, -(uid << 40), 1 << 80, uid / 7, 1j, b"bytes", b"", ...]
                        + texts)

    extra = [immutable(size + i) for i in range(size)]
    everything = made + extra

    def key(uid):
        if hashable and r.random() < 0.6:
            return r.choice(hashable)
        if hashable and r.random() < 0.4:
            return (uid, r.choice(hashable))
        return r.choice([f"key{uid}", uid])

    for uid, x in enumerate(made):
        count = r.randrange(4)
        if isinstance(x, list):
            x.extend(r.choices(everything, k=count))
        elif isinstance(x, collections.deque):
            x.extend(r.choices(everything, k=count))
        elif isinstance(x, dict):
            for i in range(count):
                x[key(uid * 10 + i)] = r.choice(everything)
        elif isinstance(x, set):
            x.update(key(uid * 10 + i) for i in range(count))
        if isinstance(x, (Bag, Table, Number, Plain, Both)):
            for name in r.sample(["alpha", "beta", "gamma"], k=r.randrange(3)):
                setattr(x, name, r.choice(everything))
        if isinstance(x, Slotted):
            for name in r.sample(["left", "right"], k=r.randrange(3)):
                setattr(x, name, r.choice(everything))
        if isinstance(x, Keyed):
            x.to = r.choice(everything)
        if isinstance(x, Restored):
            x.state = r.choice(everything)
    return {f"v{i}": x for i, x in enumerate(r.choices(everything, k=4))}


ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...))


def parts(x):
    """The children of an object, in an order that does not depend on hashes."""
    found = []
    if isinstance(x, (list, tuple, collections.deque)):
        found.extend(x)
    elif isinstance(x, dict):
        for key, value in dict.items(x):
            found.extend((key, value))
    elif isinstance(x, (set, frozenset)):
        found.extend(sorted(x, key=order))
    if isinstance(x, ByArguments):
        found.append(x.arguments)
    elif hasattr(x, "__dict__"):
        for name, value in x.__dict__.items():
            found.extend((name, value))
    for name in ("left", "right"):
        if isinstance(x, Slotted) and hasattr(x, name):
            found.extend((name, getattr(x, name)))
    return found


def order(member):
    if isinstance(member, Keyed):
        return (0, member.key, "")
    if isinstance(member, tuple):
        return (1, member[0], "")
    return (2, 0, repr(member))


def canon(root):
    """A list of nodes, each its type, its value if it has one, and its children by number."""
    numbers = {id(root): 0}
    nodes = [root]
    account = []
    for x in nodes:
        row = [type(x).__qualname__]
        if isinstance(x, (bytearray, Number)):
            row.append(bytes(x) if isinstance(x, bytearray) else int(x))
        for child in parts(x):
            if type(child) in ATOMS:
                row.append((type(child).__name__, repr(child)))
                continue
            if id(child) not in numbers:
                numbers[id(child)] = len(nodes)
                nodes.append(child)
            row.append(numbers[id(child)])
        if isinstance(x, (set, frozenset, dict)):
            for member in x:
                assert member in x, "a hash was taken too early"
        account.append(row)
    return account
