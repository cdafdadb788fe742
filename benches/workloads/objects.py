"""Sessions over many small connected objects."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benches.workloads import Tracked


@dataclass
class Item:
    """A thing on a shelf; its parent is shared by the whole shelf."""

    key: int
    name: str
    tags: list[Any]
    parent: Any = None


def deep(namespace: Tracked, scale: float) -> Iterator[str]:
    """Shops with shelves of items, a million objects at scale 1, all connected; 0.1 % of the items change in a step."""
    source = random.Random(9)
    per_shop = int(125_000 * scale) // 100
    world = {}
    for s in range(100):
        root = Item(-s - 1, f"shop{s}", [])
        shelf = {i: Item(i, f"item-{s}-{i}", [source.randrange(1 << 40), source.random()], root) for i in range(per_shop)}
        world[f"s{s}"] = {"root": root, "shelf": shelf, "stats": {"n": per_shop, "hist": []}}
    namespace["world"] = world
    namespace["index"] = [world[f"s{s}"]["root"] for s in range(100)]
    yield "build"
    for step in range(10):
        world = namespace["world"]
        for _ in range(max(1, per_shop // 10)):
            item = world[f"s{source.randrange(100)}"]["shelf"][source.randrange(per_shop)]
            item.tags[1] = source.random()
            item.name = f"renamed {step}"
        yield "change one in a thousand"
    namespace["index"][0].tags.append("seen")
    yield "change through the shared index"


def graph(namespace: Tracked, scale: float) -> Iterator[str]:
    """A growing networkx graph; at the end an alias of a node's dict, and a change through it."""
    import networkx

    source = random.Random(3)
    first = int(20_000 * scale)
    namespace["G"] = networkx.Graph(name="growing")
    namespace["log"] = []
    for i in range(first):
        namespace["G"].add_node(i, kind=source.choice("abc"), w=source.random())
    for _ in range(3 * first):
        namespace["G"].add_edge(source.randrange(first), source.randrange(first), weight=source.random())
    yield "build"
    for step in range(10):
        growing = namespace["G"]
        base = growing.number_of_nodes()
        for i in range(first // 100):
            growing.add_node(base + i, kind="new", w=0.0)
            growing.add_edge(base + i, source.randrange(base), weight=source.random())
            growing.nodes[source.randrange(base)]["w"] = source.random()
        namespace["log"].append((step, growing.number_of_nodes()))
        yield "grow by one in a hundred"
        namespace["deg"] = dict(namespace["G"].degree())
        yield "degrees"
    degrees = namespace["deg"]
    namespace["hub"] = namespace["G"].nodes[max(degrees, key=degrees.get)]
    yield "alias of an inner dict"
    namespace["hub"]["w"] = -1.0
    yield "change through the alias"
