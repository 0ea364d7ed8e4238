"""Where every entry of a live table is written, judged by the break-before-make rule, and the way to an entry.

Whoever holds mmu_lock alone owns every entry. Under a shared mmu_lock (Linux 6.2) an entry is owned by whoever turned
it invalid by compare-and-swap (``stage2_try_break_pte``); everybody else goes back to the guest and tries again.
"""

from __future__ import annotations

from stress.arch import bbm
from stress.kernels.descriptor import (
    LOCKED,
    REBUILD_MASK,
    broken,
    entry_index,
    is_broken,
    is_table,
    next_page,
    pages_at,
    window_of,
)
from stress.kernels.oracle import report
from stress.kernels.tlbi import tlbi_ipas
from stress.shm.atomics import compare_exchange, load, store
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.syscalls import fence
from stress.shm.trace_log import trace
from stress.shm.traced import Traced
from stress.shm.words import R_ENDED, RECORD_RING, SEQUENCE, TLBI_DONE, Kind

_BBM = int(Kind.BBM)
_SET = int(Traced.SET)
_SWAP = int(Traced.SWAP)
_BREAK = int(Traced.BREAK)
_TLBI_ENTRY = int(Traced.TLBI_ENTRY)
_verdict = kernel(bbm.verdict)


@kernel
def set_entry(s: Machine, index: int, new: int, level: int, gfn: int, who: int) -> None:
    """Store-release ``new`` into entry ``index``, which ``who`` owns."""
    old = load(s.tables, index)
    verdict = _verdict(old, new, level, load(s.control, TLBI_DONE), s.geo.bbm_level)
    store(s.tables, index, new)
    trace(s, _SET, who, index, new)
    if verdict != bbm.OK:
        report(s, _BBM, who, gfn, level, old, new, verdict)


@kernel
def swap_entry(s: Machine, index: int, old: int, new: int, level: int, gfn: int, who: int) -> bool:
    """Replace ``old`` by ``new`` unless somebody else was faster; returns whether it did."""
    verdict = _verdict(old, new, level, load(s.control, TLBI_DONE), s.geo.bbm_level)
    if not compare_exchange(s.tables, index, old, new):
        return False
    trace(s, _SWAP, who, index, new)
    if verdict != bbm.OK:
        report(s, _BBM, who, gfn, level, old, new, verdict)
    return True


@kernel
def break_entry(s: Machine, index: int, old: int, level: int, rebuild: int, who: int) -> bool:
    """Invalidate the valid entry ``old``, and own it; False if it is not there any more.

    Leaves the rebuild's number and the TLBI clock of the break. The clock is read again once the entry is invalid: a
    TLBI published before that may not cover the break.
    """
    if not compare_exchange(s.tables, index, old, broken(old, level, rebuild, load(s.control, SEQUENCE))):
        return False
    trace(s, _BREAK, who, index, 0)
    fence()
    store(s.tables, index, broken(old, level, rebuild, load(s.control, SEQUENCE)))
    return True


@kernel
def lock_entry(s: Machine, index: int) -> bool:
    """Own an empty entry; False if it is not empty any more."""
    return compare_exchange(s.tables, index, 0, LOCKED)


@kernel
def tlbi_entry(s: Machine, index: int, level: int, gfn: int, left: int, who: int) -> None:
    """Invalidate by IPA all that a broken entry may have left in a TLB or walk cache; then ``left`` stands there.

    0 gives the entry away: whoever shares mmu_lock and goes on to fill it leaves LOCKED.
    """
    pages = pages_at(s.geo, level)
    start = gfn & ~(pages - 1)
    tlbi_ipas(s, start, start + pages, who, _TLBI_ENTRY)
    if is_broken(load(s.tables, index)):
        store(s.tables, index, left)


@kernel
def owned(s: Machine, descriptor: int) -> bool:
    """Whether somebody who shares mmu_lock owns the entry: one that a rebuild left broken belongs to nobody."""
    if s.geo.shared == 0 or descriptor & 1 != 0 or descriptor == 0:
        return False
    window = window_of(descriptor)
    if window == 0:
        return True
    ended = load(s.records, (window & (RECORD_RING - 1), R_ENDED))
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
