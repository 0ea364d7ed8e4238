"""The audit: at a quiescent point every table is reachable once, every reference count adds up, every leaf is bit for
bit what its mapping says, and every free table page is still poisoned.
"""

from __future__ import annotations

from typing import Any

from stress.arch.descriptors import POISON
from stress.arch.geometry import LAST_LEVEL
from stress.kernels.clean import frame_not_at_poc
from stress.kernels.codes import (
    COUNT,
    FOUND_NT,
    LINKED_TWICE,
    LINKED_WHEN_FREE,
    MAPPED,
    NOT_POISONED,
    NOT_REACHABLE,
    NOT_THE_HOSTS,
    WRONG_ATTRIBUTES,
    WRONG_LEVEL,
)
from stress.kernels.descriptor import (
    first_frame,
    has_nt,
    is_table,
    leaf_descriptor,
    make_writable,
    next_page,
    pages_at,
    table_descriptor,
    with_nt,
)
from stress.kernels.memslots import page_in_slot, slot_of
from stress.kernels.oracle import report
from stress.shm.accounts import Kind
from stress.shm.atomics import get, load
from stress.shm.jit import entry, kernel
from stress.shm.layout import (
    Machine,
)
from stress.shm.syscalls import fence
from stress.shm.words import FREE, NOT_AT_POC, POOL_HEAD, POOL_TAIL, SLOT_LOGGING, SLOT_PROTECTED

_REFCOUNT = int(Kind.REFCOUNT)
_LEAK = int(Kind.TABLE_LEAK)
_DOUBLE_FREE = int(Kind.DOUBLE_FREE)
_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)
_STALE = int(Kind.STALE_TRANSLATION)
_AT_POC = int(Kind.NOT_AT_POC)
_NOT_INSTALLED = int(Kind.NOT_INSTALLED)
# What ``seen`` holds of a page, if not the level at which the page was reached.
NOT_SEEN, IN_RING = -1, -2


@kernel
def leaf_is_the_hosts(s: Machine, descriptor: int, level: int, gfn: int) -> bool:
    """Whether a leaf for ``gfn`` lies in one memslot and maps the frame that backs each page of guest memory there."""
    slot = slot_of(s, gfn)
    pages = pages_at(s.geo, level)
    if slot < 0 or slot_of(s, gfn + pages - 1) != slot:
        return False
    page = page_in_slot(s, slot, gfn)
    frame = first_frame(s.geo, descriptor, level)
    wrong = 0
    for i in range(pages):  # no early exit: this vectorises
        wrong |= get(s.host, page + i) ^ (frame + i)
    return bool(wrong == 0)


@kernel
def visit_leaf(s: Machine, descriptor: int, level: int, gfn: int, who: int) -> None:
    """Check a leaf for ``gfn``: where it leads, how (MemAttr, SH, AF, S2AP, XN, ...), and that it is at the PoC.

    Only one difference is allowed: a leaf may lack write permission, which dirty logging takes away and does not give
    back when it ends.
    """
    if not leaf_is_the_hosts(s, descriptor, level, gfn):
        report(s, _STALE, who, gfn, level, descriptor, 0, NOT_THE_HOSTS)
        return
    frame = first_frame(s.geo, descriptor, level)
    expected = leaf_descriptor(s.geo, frame, level)
    slot = slot_of(s, gfn)
    if load(s.memslots, (slot, SLOT_LOGGING)) | load(s.memslots, (slot, SLOT_PROTECTED)) != 0:
        descriptor = make_writable(descriptor)
    if level < LAST_LEVEL and has_nt(descriptor):
        report(s, _NOT_INSTALLED, who, gfn, level, descriptor, expected, FOUND_NT)
        expected = with_nt(expected)
    if descriptor != expected:
        report(s, _STALE, who, gfn, level, descriptor, expected, WRONG_ATTRIBUTES)
    if s.geo.poc_checked != 0:
        unclean = frame_not_at_poc(s, frame, level)
        if unclean >= 0:
            cell = load(s.cells, unclean)
            report(s, _AT_POC, who, gfn + unclean - frame, level, cell, cell & ~NOT_AT_POC, MAPPED)


@kernel
def gfn_of(s: Machine, index: int, level: int, start: int) -> int:
    """Guest frame of entry ``index``, whose table page begins at guest frame ``start``."""
    return start + (index & ((1 << s.geo.index_bits) - 1)) * pages_at(s.geo, level)


@kernel
def visit(s: Machine, page: int, level: int, seen: Any, starts: Any, who: int) -> None:
    """Check a reachable table; marks those it points to with their level in ``seen``, first frame in ``starts``."""
    if get(s.page_level, page) == FREE:
        report(s, _AFTER_FREE, who, 0, level, page, 0, LINKED_WHEN_FREE)
        return
    if get(s.page_level, page) != level:
        report(s, _REFCOUNT, who, starts[page], level, get(s.page_level, page), level, WRONG_LEVEL)
    bits = s.geo.index_bits
    counted = 0
    for index in range(page << bits, (page + 1) << bits):
        descriptor = load(s.tables, index)
        if descriptor & 1:
            counted += 1
            if is_table(descriptor, level):
                child = next_page(s.geo, descriptor)
                if child < 0 or child >= s.geo.table_pages or seen[child] != NOT_SEEN:
                    report(s, _REFCOUNT, who, gfn_of(s, index, level, starts[page]), level, child, page, LINKED_TWICE)
                else:
                    seen[child] = level + 1
                    starts[child] = gfn_of(s, index, level, starts[page])
                    expected = table_descriptor(s.geo, child)
                    if descriptor != expected:
                        report(s, _STALE, who, starts[child], level, descriptor, expected, WRONG_ATTRIBUTES)
            else:
                visit_leaf(s, descriptor, level, gfn_of(s, index, level, starts[page]), who)
    if get(s.page_count, page) != counted + 1:
        report(s, _REFCOUNT, who, starts[page], level, get(s.page_count, page), counted + 1, COUNT)


@entry
def audit(s: Machine, who: int, seen: Any, starts: Any) -> int:
    """Audit the whole table while nothing runs; ``seen`` and ``starts`` are scratch, int64 (table_pages,) each.

    Returns the tables in use.

    The caller has parked the vCPUs and holds no lock.
    """
    fence()  # the caller saw the vCPUs parked; see all they did before
    geo = s.geo
    for page in range(geo.table_pages):
        seen[page] = geo.start_level if page < geo.root_pages else NOT_SEEN
        starts[page] = page * pages_at(geo, geo.start_level) << geo.index_bits
    for level in range(geo.start_level, LAST_LEVEL + 1):
        for page in range(geo.table_pages):
            if seen[page] == level:
                visit(s, page, level, seen, starts, who)
    used = 0
    for page in range(geo.table_pages):
        if get(s.page_level, page) != FREE:
            used += 1
            if seen[page] == NOT_SEEN:
                report(s, _LEAK, who, 0, get(s.page_level, page), page, get(s.page_count, page), NOT_REACHABLE)
    # Every free page stands in the ring once.
    head, tail = get(s.control, POOL_HEAD), get(s.control, POOL_TAIL)
    if tail - head != geo.table_pages - used:
        report(s, _DOUBLE_FREE, who, 0, FREE, tail - head, geo.table_pages - used, 0)
    for at in range(head, tail):
        page = get(s.free_ring, at % geo.table_pages)
        if get(s.page_level, page) != FREE or seen[page] == IN_RING:
            report(s, _DOUBLE_FREE, who, 0, FREE, page, 0, 0)
            continue
        seen[page] = IN_RING
        for index in range(page << geo.index_bits, (page + 1) << geo.index_bits):
            if get(s.tables, index) != POISON:
                report(s, _AFTER_FREE, who, 0, FREE, get(s.tables, index), POISON, NOT_POISONED)
    return used
