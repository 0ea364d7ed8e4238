"""Clearing the dirty log by parts, as a VMM does with manual protection."""

from __future__ import annotations

import pytest
from machines import block_gfn, naive_tree, small_machine, violations
from naive_vm import dirty_pages, log_of
from programs import execute, program

from stress.kernels.dirty import clear_log, mark_dirty, set_logging
from stress.kernels.tlb import new_cpu
from stress.shm.layout import Machine
from stress.shm.words import SEQUENCE


def clear(s: Machine, pages: set[int], first: int, end: int, slot: int = 0) -> int:
    """Clear what a log with these pages has of [first, end)."""
    number: int = clear_log(s, s.geo.hypervisor, log_of(s, pages), slot, first, end)
    return number


@pytest.mark.parametrize(("first", "end"), [(64, 128), (1, 2), (0, 512), (500, 512)])
def test_a_chunk_smaller_than_a_block_protects_the_block(first: int, end: int) -> None:
    """A block that could still be written, with the log of a part of it cleared: its next write must fault."""
    s = small_machine()
    cpu = new_cpu()
    execute(s, cpu, 0, program(first, write=True), 1)
    [leaf] = naive_tree(s).leaves
    assert (leaf.level, leaf.writable) == (2, True)
    mark_dirty(s, first)
    sequence = s.control[SEQUENCE]
    assert clear(s, {first}, first, end) == 1
    assert naive_tree(s).leaves == [leaf._replace(writable=False)]
    assert s.control[SEQUENCE] == sequence + 1, "one TLBI, for the whole chunk"
    assert not s.dirty.any()


def test_a_write_to_a_chunk_cleared_is_logged_again() -> None:
    s = small_machine()
    cpu = new_cpu()
    set_logging(s, s.geo.hypervisor, 1)
    for page in (3, 70):
        execute(s, cpu, 0, program(page, write=True), 1)
    assert clear(s, {3, 70}, 64, 128) == 1
    assert dirty_pages(s) == {3}
    execute(s, cpu, 0, program(70, write=True), 1)
    assert dirty_pages(s) == {3, 70}
    writable = {leaf.gfn - block_gfn(s.geo, 0) for leaf in naive_tree(s).leaves if leaf.writable}
    assert writable == {3, 70}
    assert violations(s) == {}


@pytest.mark.parametrize(("first", "end"), [(0, 1), (31, 32), (31, 33), (5, 64), (32, 64), (7, 9), (0, 512)])
def test_only_bits_of_the_chunk_that_were_got_are_cleared(first: int, end: int) -> None:
    s = small_machine()
    dirty = {0, 1, 5, 8, 31, 32, 33, 63, 64, 511}
    for page in dirty:
        mark_dirty(s, page)
    got = dirty - {8, 33} | {2}  # 8 and 33 have become dirty since; 2 is clean by now
    assert clear(s, got, first, end) == len(got & dirty & {*range(first, end)})
    assert dirty_pages(s) == dirty - (got & {*range(first, end)})


def test_a_word_that_memslots_share_is_cleared_by_each_for_itself() -> None:
    s = small_machine(blocks=1, pages=100, memslots=3)  # 33, 33 and 34 pages
    dirty = {30, 32, 33, 40, 65, 66, 99}
    for page in dirty:
        mark_dirty(s, page)
    for slot, (first, end) in enumerate(((0, 33), (33, 66), (66, 100))):
        assert clear(s, dirty, first, end, slot) == len(dirty & {*range(first, end)})
        assert dirty_pages(s) == dirty & {*range(end, 100)}
