"""Where every entry of a live table is written, judged by the break-before-make rule, and the way to an entry.

Whoever holds mmu_lock alone owns every entry. Under a shared mmu_lock (Linux 6.2) an entry is owned by whoever turned
it invalid by compare-and-swap (``stage2_try_break_pte``); everybody else goes back to the guest and tries again.
"""

from __future__ import annotations

from stress.arch import bbm
from stress.kernels.clean import frame_not_at_poc
from stress.kernels.codes import BECAME_VALID
from stress.kernels.descriptor import (
    LOCKED,
    REBUILD_MASK,
    broken,
    entry_index,
    first_frame,
    is_broken,
    is_broken_leaf,
    is_leaf,
    is_table,
    next_page,
    pages_at,
    window_of,
)
from stress.kernels.oracle import broke_rule
from stress.kernels.tlbi import tlbi_ipas
from stress.shm.accounts import Kind
from stress.shm.atomics import compare_exchange, load
from stress.shm.jit import inline, kernel
from stress.shm.layout import Machine
from stress.shm.placement import out_of_line
from stress.shm.syscalls import fence
from stress.shm.trace_log import trace
from stress.shm.traced import Traced
from stress.shm.words import NOT_AT_POC, SEQUENCE, TLBI_DONE

_BBM = int(Kind.BBM)
_AT_POC = int(Kind.NOT_AT_POC)
_UNTRACED = 0
_SET = int(Traced.SET)
_SWAP = int(Traced.SWAP)
_BREAK = int(Traced.BREAK)
_TLBI_ENTRY = int(Traced.TLBI_ENTRY)
_verdict = kernel(bbm.verdict)


@kernel
def tell_of(s: Machine, old: int, new: int, level: int, gfn: int, who: int, verdict: int) -> None:
    """Report a store that broke a rule: break-before-make, or that what becomes mapped is at the PoC."""
    out_of_line()
    if verdict != bbm.OK:
        broke_rule(s, _BBM, who, gfn, level, old, new, verdict)
    if s.geo.poc_checked != 0 and is_leaf(new, level) and not is_leaf(old, level):
        first = first_frame(s.geo, new, level)
        frame = frame_not_at_poc(s, first, level)
        if frame >= 0:
            page = (gfn & ~(pages_at(s.geo, level) - 1)) + frame - first
            cell = load(s.cells, frame)
            broke_rule(s, _AT_POC, who, page, level, cell, cell & ~NOT_AT_POC, BECAME_VALID)


@inline
def write_entry(s: Machine, index: int, old: int, new: int, level: int, gfn: int, who: int, traced: int) -> bool:
    """Replace ``old`` by ``new`` in entry ``index``; False if something else is there.

    The only place where an entry that a walker may reach is stored to. Two rules are asked: break-before-make, and,
    where the guest sees what is at the Point of Coherency, that all of what becomes mapped is there.
    """
    verdict = _verdict(old, new, level, load(s.control, TLBI_DONE), s.geo.bbm_level)
    if not compare_exchange(s.tables, index, old, new):
        return False
    if traced != _UNTRACED:
        trace(s, traced, who, index, new)
    if verdict != bbm.OK or s.geo.poc_checked != 0:
        tell_of(s, old, new, level, gfn, who, verdict)
    return True


@inline
def set_entry(s: Machine, index: int, new: int, level: int, gfn: int, who: int) -> None:
    """Put ``new`` into entry ``index``, which ``who`` owns: nobody else stores to it."""
    while not write_entry(s, index, load(s.tables, index), new, level, gfn, who, _SET):
        pass


@kernel
def swap_entry(s: Machine, index: int, old: int, new: int, level: int, gfn: int, who: int) -> bool:
    """Replace ``old`` by ``new`` unless somebody else was faster; returns whether it did."""
    return write_entry(s, index, old, new, level, gfn, who, _SWAP)


@kernel
def break_entry(s: Machine, index: int, old: int, level: int, gfn: int, rebuild: int, who: int) -> bool:
    """Invalidate the valid entry ``old``, and own it; False if it is not there any more.

    Leaves the rebuild's number and the TLBI clock of the break. The clock is read again once the entry is invalid: a
    TLBI published before that may not cover the break.
    """
    word = broken(old, level, rebuild, load(s.control, SEQUENCE))
    if not write_entry(s, index, old, word, level, gfn, who, _BREAK):
        return False
    fence()
    return write_entry(
        s, index, word, broken(old, level, rebuild, load(s.control, SEQUENCE)), level, gfn, who, _UNTRACED
    )


@kernel
def lock_entry(s: Machine, index: int, level: int, gfn: int, who: int) -> bool:
    """Own an empty entry; False if it is not empty any more."""
    return write_entry(s, index, 0, LOCKED, level, gfn, who, _UNTRACED)


@kernel
def settle_entry(s: Machine, index: int, level: int, gfn: int, left: int, who: int) -> None:
    """After the TLBI that covers it: an entry that is still broken becomes ``left``; no TLB holds anything of it."""
    word = load(s.tables, index)
    if is_broken(word):
        write_entry(s, index, word, left, level, gfn, who, _UNTRACED)


@kernel
def may_settle(s: Machine, covered: bool, left: int) -> bool:
    """Whether a broken entry may become ``left``: a completed TLBI covers it. Injected bugs leave that out.

    Without one the entry stays as it was broken, and the break-before-make rule sees who makes it. An entry
    given away under a shared mmu_lock becomes ``left`` in any case: nobody could own and make a broken one.
    """
    return covered or (left == 0 and s.geo.shared != 0)


@kernel
def tlbi_entry(s: Machine, index: int, level: int, gfn: int, left: int, who: int) -> bool:
    """Invalidate by IPA all that a broken entry may have left in a TLB or walk cache; then ``left`` stands there.

    0 gives the entry away: whoever shares mmu_lock and goes on to fill it leaves LOCKED. Of a table nothing is left but
    the pointer to it, under which no leaf is mapped any more, and each walk that uses it: one IPA's is enough.
    Returns whether a TLBI that covers it is complete, as ``tlbi_ipas``.
    """
    pages = pages_at(s.geo, level)
    start = gfn & ~(pages - 1)
    if not is_broken_leaf(load(s.tables, index)):
        pages = 1
    covered = tlbi_ipas(s, start, start + pages, who, _TLBI_ENTRY)
    if may_settle(s, covered, left):
        settle_entry(s, index, level, gfn, left, who)
    return covered


@kernel
def owned(s: Machine, descriptor: int) -> bool:
    """Whether somebody owns the entry who shares mmu_lock, or gave it up in the midst of a rebuild.

    One that a rebuild left broken belongs to nobody.
    """
    if descriptor & 1 != 0 or descriptor == 0 or (s.geo.shared == 0 and s.geo.yield_every == 0):
        return False
    window = window_of(descriptor)
    if window == 0:
        return s.geo.shared != 0
    ended = load(s.ended, window & (s.geo.record_rows - 1))
    return ended & REBUILD_MASK != window


@kernel
def find(s: Machine, gfn: int, deepest: int) -> tuple[int, int]:
    """(index, level) of the entry for ``gfn`` where a walk down to ``deepest`` ends."""
    level = s.geo.start_level
    index = entry_index(s.geo, 0, level, gfn)
    while level < deepest:
        descriptor = load(s.tables, index)
        if not is_table(descriptor, level):
            break
        page = next_page(s.geo, descriptor)
        if page < 0 or page >= s.geo.table_pages:
            break
        level += 1
        index = entry_index(s.geo, page, level, gfn)
    return index, level


@kernel
def page_of(s: Machine, index: int) -> int:
    """Pool index of the table page that holds entry ``index``."""
    return index >> s.geo.index_bits
