"""``chipmink.register_reducer``: rules of a program's own, also for types that were saved before it gave one."""

from __future__ import annotations

import pickle
from typing import Any

import chipmink
import pytest
from chipmink import _reducers

np = pytest.importorskip("numpy")


class Account:
    """A plain instance, of which the walker needs no rule."""

    def __init__(self, name: str, secret: Any = None):
        self.name = name
        self.secret = secret


class Shifted(np.ndarray):
    """A subclass of a type that has a rule of its own."""


def open_account(name: str) -> Account:
    return Account(name, "asked again")


@pytest.fixture
def register():
    """Registers for one test."""
    before = dict(_reducers.DISPATCH)
    yield chipmink.register_reducer
    _reducers.DISPATCH.clear()
    _reducers.DISPATCH.update(before)


def test_a_rule_that_comes_late(repo, register):
    names = {"account": Account("a", "hidden"), "others": [Account("b", "hidden")]}
    first = repo.save(names)
    repo.save(names)
    assert repo.save(names).report.pods_dirty == 0
    register(Account, lambda account: (open_account, (account.name,)))
    second = repo.save(names)
    third = repo.save(names, accessed=[])
    for version in (second, third):
        loaded = repo.load(version)
        assert loaded["account"].secret == loaded["others"][0].secret == "asked again"
    assert repo.load(first)["account"].secret == "hidden"


def test_a_rule_that_is_replaced(repo, register):
    names = {"account": Account("a")}
    register(Account, lambda account: (open_account, ("first " + account.name,)))
    repo.save(names)
    register(Account, lambda account: (open_account, ("second " + account.name,)))
    assert repo.load(repo.save(names))["account"].name == "second a"


def test_a_rule_comes_before_our_own(repo, register):
    array = np.arange(9.0).view(Shifted)
    register(Shifted, lambda array: (_shift, (np.asarray(array),)))
    assert repo.load(repo.save({"array": array}))["array"].tolist() == [value + 1 for value in range(9)]
    assert chipmink.loads(chipmink.dumps(array))[0] == 1


def _shift(plain: Any) -> Any:
    return (plain + 1).view(Shifted)


def test_state_cycles_and_sharing_go_through_a_rule(repo, register):
    register(Account, lambda account: (Account, (account.name,), {"secret": account.secret}))
    account = Account("a")
    account.secret = [account]
    loaded = repo.load(repo.save({"account": account, "also": [account, account.secret]}))
    assert loaded["also"][0] is loaded["account"]
    assert loaded["also"][1] is loaded["account"].secret
    assert loaded["account"].secret[0] is loaded["account"]


def test_memory_without_numpy(repo, register):
    memory = bytearray(200_000)
    register(Account, lambda account: (Account, (account.name, pickle.PickleBuffer(account.secret))))
    names = {"account": Account("a", memory)}
    repo.save(names)
    memory[100_000] = 1
    assert repo.save(names).report.bytes_written < 70_000
    assert repo.load()["account"].secret == memory


def test_memory_that_a_rule_fills_anew_for_each_object(repo, register):
    """It was digested once for all of them, so each came back as the first."""
    memory = bytearray(200_000)

    def rule(account):
        memory[:] = account.secret
        return Account, (account.name, pickle.PickleBuffer(memory))

    register(Account, rule)
    names = {"accounts": [Account("a", bytes([i]) * 200_000) for i in range(4)], "last": Account("b", b"z" * 200_000)}
    for _ in range(3):
        loaded = repo.load(repo.save(names))
        assert [account.secret for account in loaded["accounts"]] == [account.secret for account in names["accounts"]]
        assert loaded["last"].secret == b"z" * 200_000


def test_a_rule_that_answers_wrongly_spoils_one_variable(repo, register):
    register(Account, lambda account: (open_account,))
    with pytest.warns(chipmink.SkippedVariableWarning, match="Account"):
        version = repo.save({"account": Account("a"), "good": [1]})
    assert repo.load(version)["good"] == [1]


@pytest.mark.parametrize("arguments", [("Account", len), (Account, 3), (Account("a"), len)])
def test_what_is_not_a_type_or_a_rule(arguments):
    with pytest.raises(TypeError, match="reducer"):
        chipmink.register_reducer(*arguments)
