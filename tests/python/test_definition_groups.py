"""Definitions that belong together stay one, whichever of their users a save looks at."""

from __future__ import annotations

import chipmink

SOURCE = """
def make():
    box = [0]
    def push(value):
        box.append(value)
        return box
    def read():
        return box
    return push, read
push, read = make()
both = [push, read]
only_read = [read]
"""


def test_part_of_a_group_is_walked(tmp_path):
    namespace: dict = {"__name__": "__main__"}
    exec(SOURCE, namespace)  # noqa: S102
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        repo.save(namespace)
        namespace["only_read"].append(1)
        version = repo.save(namespace, accessed=["only_read"])
        loaded = repo.load(version)
    loaded["both"][0]("new")
    assert loaded["only_read"][0]() == [0, "new"]
    assert loaded["only_read"][0] is loaded["both"][1] is loaded["read"]


def test_what_is_changed_through_one_user_is_changed_for_all(tmp_path):
    namespace: dict = {"__name__": "__main__"}
    exec(SOURCE, namespace)  # noqa: S102
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        repo.save(namespace)
        namespace["both"][0]("seen")
        version = repo.save(namespace, accessed=["both"])
        loaded = repo.load(version)
    assert loaded["only_read"][0]() == [0, "seen"]
    assert loaded["read"]() is loaded["both"][1]()


SINGLETON = """
class Node:
    pass
Node.default = Node()
first = [Node.default]
again = Node()
again.self = Node.default
"""


def test_an_instance_that_its_class_holds_stays_one(tmp_path):
    for order in (["first", "Node", "again"], ["Node", "again", "first"], ["again", "first", "Node"]):
        made: dict = {"__name__": "__main__"}
        exec(SINGLETON, made)  # noqa: S102
        namespace = {"__name__": "__main__"} | {name: made[name] for name in order}
        for policy in ("lga-siblings", "split-all", "bundle-all"):
            with chipmink.open(tmp_path / f"{order[0]}-{policy}", durable=False, policy=policy) as repo:
                for accessed in (None, None, ["first"], ["again"]):
                    version = repo.save(namespace, accessed=accessed)
                    loaded = repo.load(version)
                    node = loaded["Node"]
                    assert loaded["first"][0] is node.default is loaded["again"].self
                    assert type(node.default) is node is type(loaded["again"])
                    alone = repo.load(version, names=["first"])["first"][0]
                    assert type(alone).default is alone
    copied = chipmink.loads(chipmink.dumps(made["first"]))
    assert type(copied[0]).default is copied[0]


def test_a_definition_that_begins_to_use_another_shares_it(tmp_path):
    """The used one's other users are saved again, though they were not accessed and it has not changed."""
    for policy in ("lga", "lga-siblings", "bundle-all"):
        namespace: dict = {"__name__": "__main__"}
        exec("def used(): return 7\ndef keep(box): return lambda: box\n", namespace)  # noqa: S102
        namespace["other"] = namespace["keep"](box := [])
        namespace["inner"] = box
        with chipmink.open(tmp_path / policy, durable=False, policy=policy) as repo:
            repo.save(namespace)
            box.append(namespace["used"])
            loaded = repo.load(repo.save(namespace, accessed=["other", "inner"]))
            assert loaded["used"] is loaded["other"]()[0] is loaded["inner"][0]
            box.clear()
            loaded = repo.load(repo.save(namespace, accessed=["other", "inner"]))
            assert loaded["used"]() == 7
            assert loaded["other"]() is loaded["inner"] == []


def test_a_definition_changed_through_a_name_that_is_gone(tmp_path):
    """Its other users are saved again, though the accessed name does not lead to it any more."""
    for policy in ("lga", "lga-siblings", "bundle-all"):
        for held in ("Kept", "[Kept]", "Kept()", "[Kept()]"):
            for gone in (True, False):
                namespace: dict = {"__name__": "__main__"}
                exec(f"class Kept:\n    tag = 1\nuser = {held}\nmade = Kept()\nkept = Kept\ndel Kept", namespace)  # noqa: S102
                kind = namespace.pop("kept")
                with chipmink.open(tmp_path / f"{policy}{held}{gone}", durable=False, policy=policy) as repo:
                    repo.save(namespace)
                    kind.tag = 2
                    if gone:
                        del namespace["user"]
                    else:
                        namespace["user"] = "something else"
                    loaded = repo.load(repo.save(namespace, accessed=["user"]))
                    assert type(loaded["made"]).tag == 2, (policy, held, gone)


def test_a_definition_that_is_tied_to_a_variable_later(tmp_path):
    """Its other names are saved again, though they were not accessed."""
    for policy in ("lga", "lga-siblings", "bundle-all"):
        namespace: dict = {"__name__": "__main__"}
        exec("def keep(box): return lambda: box\nf = g = keep((1.5, [2]))\ninside = f()\ndel keep", namespace)  # noqa: S102
        with chipmink.open(tmp_path / policy, durable=False, policy=policy) as repo:
            repo.save(namespace)
            namespace["user"] = [namespace["inside"], namespace["f"]]
            loaded = repo.load(repo.save(namespace, accessed=["f"]))
            assert loaded["f"] is loaded["g"] is loaded["user"][1]
            assert loaded["inside"] is loaded["user"][0] is loaded["g"]()


def test_a_definition_whose_objects_are_variables_gets_a_new_user(tmp_path):
    """Those variables are saved again, though they were not accessed."""
    for policy in ("lga", "lga-siblings", "bundle-all"):
        namespace: dict = {"__name__": "__main__"}
        exec("class Kind: pass\nimport functools\nKind.held, Kind.pair = functools.partial(max, 1), (1, [2])\nheld, pair = Kind.held, Kind.pair\ndel functools", namespace)  # noqa: S102
        with chipmink.open(tmp_path / policy, durable=False, policy=policy) as repo:
            repo.save(namespace)
            namespace["user"] = {"made": namespace["Kind"]()}
            loaded = repo.load(repo.save(namespace, accessed=["Kind"]))
            assert loaded["Kind"].held is loaded["held"]
            assert loaded["Kind"].pair is loaded["pair"]
            assert type(loaded["user"]["made"]) is loaded["Kind"]
