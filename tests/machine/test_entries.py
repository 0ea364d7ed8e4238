"""Writing an entry: judged stores, and who owns an invalid one under a shared mmu_lock (``stage2_try_break_pte``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from machines import ALL, assert_sound, block_gfn, evidence, fault, naive_tree, small_machine, split_block, violations

from stress.arch import bbm
from stress.arch.descriptors import CLOCK, KIND, KIND_BROKEN_LEAF, KIND_BROKEN_TABLE, POISON, REBUILD
from stress.kernels import entries
from stress.kernels.codes import POPULATION, RETRY
from stress.kernels.descriptor import LOCKED, broken, leaf_descriptor, table_descriptor, write_protected
from stress.kernels.entries import break_entry, find, lock_entry, owned, set_entry, swap_entry, tlbi_entry
from stress.kernels.split import DONE
from stress.kernels.tlbi import publish, tlbi_vmid
from stress.shm.accounts import Kind
from stress.shm.layout import Machine, Rings
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import SEQUENCE, TLBI_END, TLBI_START

RECORD_ROWS = Rings().record_rows


def with_block(shared: bool = True) -> tuple[Machine, int, int]:
    """A machine with block 0 mapped; its entry's index and value."""
    s = small_machine(shared=shared)
    assert fault(s, s.geo.base_gfn) == POPULATION
    index, level = find(s, s.geo.base_gfn, 3)
    assert level == 2
    return s, int(index), int(s.tables[index])


# Judged stores.


def test_a_store_is_judged_and_made() -> None:
    s, index, old = with_block()
    other = int(leaf_descriptor(s.geo, 512, 2))
    set_entry(s, index, other, 2, s.geo.base_gfn, 1)
    assert s.tables[index] == other, "the bug goes on: what comes of it must show, too"
    assert violations(s) == {"bbm": 1}
    piece = evidence(s, Kind.BBM)
    assert (piece["found"], piece["expected"], piece["detail"]) == (old, other, bbm.NO_BREAK_ADDRESS)
    assert (piece["who"], piece["gfn"], piece["level"]) == (1, s.geo.base_gfn, 2)


def test_an_exchange_is_judged_if_it_happens() -> None:
    s, index, old = with_block()
    other = int(leaf_descriptor(s.geo, 512, 2))
    assert not swap_entry(s, index, other, old, 2, s.geo.base_gfn, 1), "it holds something else"
    assert s.tables[index] == old
    assert violations(s) == {}
    assert swap_entry(s, index, old, int(write_protected(old)), 2, s.geo.base_gfn, 1)
    assert violations(s) == {}, "permissions need no break"
    assert swap_entry(s, index, int(write_protected(old)), other, 2, s.geo.base_gfn, 1)
    assert s.tables[index] == other
    assert violations(s) == {"bbm": 1}


def test_a_make_needs_a_vmid_wide_tlbi_after_the_break_of_a_table() -> None:
    for invalidate in (False, True):
        s = small_machine()
        assert split_block(s, 0, ALL) == DONE
        index, _ = find(s, s.geo.base_gfn, 2)
        assert break_entry(s, index, int(s.tables[index]), 2, s.geo.base_gfn, 1, 0)
        if invalidate:
            tlbi_vmid(s, 0)
        set_entry(s, index, int(leaf_descriptor(s.geo, 0, 2)), 2, s.geo.base_gfn, 1)
        assert violations(s) == ({} if invalidate else {"bbm": 1})


# Breaking.


@pytest.mark.parametrize("rebuild", [0, 7, (1 << 24) + 7])
@pytest.mark.parametrize("kind", [KIND_BROKEN_LEAF, KIND_BROKEN_TABLE])
def test_a_break_leaves_the_rebuild_and_the_clock(kind: int, rebuild: int) -> None:
    s, index, old = with_block()
    if kind == KIND_BROKEN_TABLE:
        assert split_block(s, 0, ALL) == DONE
        old = int(s.tables[index])
    for _ in range(5):
        publish(s, 1, 2)
    before = int(s.control[SEQUENCE])
    assert break_entry(s, index, old, 2, s.geo.base_gfn, rebuild, 0)
    word = int(s.tables[index])
    assert (KIND.take(word), REBUILD.take(word), CLOCK.take(word)) == (kind, rebuild % (1 << 24), before)
    assert violations(s) == {}


def test_a_break_of_what_is_not_there_any_more_changes_nothing() -> None:
    s, index, old = with_block()
    now = int(write_protected(old))
    s.tables[index] = now
    assert not break_entry(s, index, old, 2, s.geo.base_gfn, 7, 0)
    assert s.tables[index] == now
    assert break_entry(s, index, now, 2, s.geo.base_gfn, 7, 0)
    assert not break_entry(s, index, now, 2, s.geo.base_gfn, 8, 0), "one of two is too late"
    assert REBUILD.take(int(s.tables[index])) == 7


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two accesses")
@pytest.mark.parametrize("published", [1, 2, 3])
def test_a_tlbi_published_before_the_entry_was_invalid_does_not_count(
    monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    """Another's TLBI between our look at the clock and our break: a walk in between may still have met the table.

    The clock is read again once the entry is invalid, so that this TLBI is too old to make it clean.
    """
    s = small_machine()
    assert split_block(s, 0, ALL) == DONE
    index, _ = find(s, s.geo.base_gfn, 2)

    def late(tables: Any, at: int, expected: int, value: int) -> bool:
        for _ in range(published if tables[at] & 1 else 0):
            tlbi_vmid(s, 0)
        return bool(swap(tables, at, expected, value))

    swap: Any = vars(entries)["compare_exchange"]
    with monkeypatch.context() as patch:
        patch.setattr(entries, "compare_exchange", late)
        before = int(s.control[SEQUENCE])
        assert break_entry(s, index, int(s.tables[index]), 2, s.geo.base_gfn, 1, 0)
    assert CLOCK.take(int(s.tables[index])) == before + published == s.control[SEQUENCE]
    set_entry(s, index, int(leaf_descriptor(s.geo, 0, 2)), 2, s.geo.base_gfn, 1)
    assert violations(s) == {"bbm": 1}, "none has completed since the break"
    assert evidence(s, Kind.BBM)["detail"] == bbm.NO_TLBI


# Owning.


def test_an_empty_entry_is_locked_once() -> None:
    s, index, _ = with_block()
    s.tables[index] = 0
    assert lock_entry(s, index, 2, s.geo.base_gfn, 0)
    assert s.tables[index] == LOCKED
    assert not lock_entry(s, index, 2, s.geo.base_gfn, 0), "it has an owner"
    set_entry(s, index, int(leaf_descriptor(s.geo, 0, 2)), 2, s.geo.base_gfn, 0)
    assert not lock_entry(s, index, 2, s.geo.base_gfn, 0), "it is mapped"
    assert violations(s) == {}


def rebuild_under_way(s: Machine, number: int) -> None:
    s.ended[number % RECORD_ROWS] = max(0, number - RECORD_ROWS)


def rebuild_over(s: Machine, number: int) -> None:
    s.ended[number % RECORD_ROWS] = number


NUMBERS = [1, 4711, RECORD_ROWS + 1, (1 << 24) + 1]


def test_what_belongs_to_somebody() -> None:
    s, _, leaf = with_block()
    table = int(table_descriptor(s.geo, 5))
    free: list[int] = [0, leaf, int(write_protected(leaf)), table]
    for word in free:
        assert not owned(s, word)
    assert owned(s, LOCKED)
    assert owned(s, int(broken(leaf, 2, 0, 9))), "a break outside of rebuilds: its TLBI will come"


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_rebuild_broke_is_its_own_until_it_is_over(number: int) -> None:
    """A wrong order may leave the entry broken: then it belongs to nobody, and the next fault may map it."""
    s, _, leaf = with_block()
    word = int(broken(leaf, 2, number, 9))
    rebuild_under_way(s, number)
    assert owned(s, word)
    rebuild_over(s, number)
    assert not owned(s, word)


@pytest.mark.parametrize("word", [LOCKED, "broken"])
def test_who_holds_mmu_lock_alone_owns_everything(word: int | str) -> None:
    s, _, leaf = with_block(shared=False)
    assert not owned(s, int(broken(leaf, 2, 1, 9)) if word == "broken" else LOCKED)


def locked_page(s: Machine, index: int) -> None:
    s.tables[index] = LOCKED


def broken_page(s: Machine, index: int) -> None:
    s.tables[index] = broken(int(leaf_descriptor(s.geo, 3, 3)), 3, 0, 0)


def window(s: Machine, index: int) -> None:
    s.tables[index] = broken(int(leaf_descriptor(s.geo, 3, 3)), 3, 5, 0)
    rebuild_under_way(s, 5)


@pytest.mark.parametrize("own", [locked_page, broken_page, window])
@pytest.mark.parametrize("write", [0, 1])
def test_a_handler_leaves_alone_what_another_owns(own: Callable[[Machine, int], None], write: int) -> None:
    s = small_machine(shared=True)
    assert split_block(s, 0, 0) == DONE
    index, level = find(s, s.geo.base_gfn + 3, 3)
    assert level == 3
    own(s, int(index))
    word = int(s.tables[index])
    counts = s.page_count.copy()
    assert fault(s, s.geo.base_gfn + 3, write) == RETRY
    assert s.tables[index] == word
    assert (s.page_count == counts).all()
    assert fault(s, s.geo.base_gfn + 4, write) == POPULATION, "its neighbour is free"
    s.tables[index] = 0
    assert fault(s, s.geo.base_gfn + 3, write) == POPULATION
    assert [leaf.frame for leaf in assert_sound(s).leaves] == [3, 4]


def test_what_a_wrong_order_left_broken_can_be_mapped_again() -> None:
    """Under a shared mmu_lock, too; whether a TLBI has completed since, the rule judges."""
    s = small_machine(shared=True)
    assert split_block(s, 0, 0) == DONE
    index, _ = find(s, s.geo.base_gfn + 3, 3)
    window(s, int(index))
    rebuild_over(s, 5)
    tlbi_vmid(s, 0)
    assert fault(s, s.geo.base_gfn + 3) == POPULATION
    assert [leaf.frame for leaf in assert_sound(s).leaves] == [3]


def test_a_handler_that_walks_into_a_freed_table_says_so() -> None:
    s = small_machine()
    assert split_block(s, 0, 0) == DONE
    index, _ = find(s, s.geo.base_gfn + 3, 3)
    s.tables[index] = POISON
    assert fault(s, s.geo.base_gfn + 3) == RETRY
    assert violations(s) == {"table-use-after-free": 1}


# What a TLBI by IPA makes of a broken entry.


@pytest.mark.parametrize("kind", ["leaf", "table"])
def test_a_tlbi_of_all_that_an_entry_maps_leaves_it_empty(kind: str) -> None:
    s = small_machine(blocks=3)
    assert fault(s, block_gfn(s.geo, 1)) == POPULATION
    if kind == "table":
        assert split_block(s, 1, 0) == DONE
    index, _ = find(s, block_gfn(s.geo, 1), 2)
    assert break_entry(s, index, int(s.tables[index]), 2, s.geo.base_gfn, 0, 0)
    before = int(s.control[SEQUENCE])
    tlbi_entry(s, index, 2, block_gfn(s.geo, 1) + 77, 0, 0)
    assert s.tables[index] == 0
    assert s.control[SEQUENCE] == before + 1
    row = s.tlbi[before + 1]
    end = block_gfn(s.geo, 2) if kind == "leaf" else block_gfn(s.geo, 1) + 1
    assert (row[TLBI_START], row[TLBI_END]) == (block_gfn(s.geo, 1), end), "a leaf's whole range, a table's first page"


def test_what_was_filled_meanwhile_stays() -> None:
    s, index, old = with_block()
    tlbi_entry(s, index, 2, s.geo.base_gfn, 0, 0)
    assert s.tables[index] == old
    assert naive_tree(s).leaves[0].level == 2
