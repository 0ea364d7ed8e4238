"""The one function through which every entry of a live table is written, and the way to an entry.

Callers hold mmu_lock.
"""

from __future__ import annotations

from stress.arch import bbm
from stress.arch.geometry import LAST_LEVEL
from stress.kernels.descriptor import broken, is_broken_leaf, is_table, next_page
from stress.kernels.oracle import report
from stress.shm.atomics import load, store
from stress.shm.jit import kernel
from stress.shm.layout import SEQUENCE, TLBI_DONE, Kind, Machine

_BBM = int(Kind.BBM)
_verdict = kernel(bbm.verdict)


@kernel
def set_entry(s: Machine, index: int, new: int, level: int, gfn: int, who: int) -> None:
    """Store-release ``new`` into entry ``index``, judged by the break-before-make rule first."""
    old = load(s.tables, index)
    verdict = _verdict(old, new, level, load(s.control, TLBI_DONE), s.geo.bbm_level)
    if verdict != bbm.OK:
        report(s, _BBM, who, gfn, level, old, new, verdict)
    store(s.tables, index, new)


@kernel
def break_entry(s: Machine, index: int, level: int, gfn: int, who: int, rebuild: int) -> None:
    """Invalidate entry ``index``, leaving the rebuild's number and the TLBI clock of the break."""
    old = load(s.tables, index)
    if old & 1:
        set_entry(s, index, broken(old, level, rebuild, load(s.control, SEQUENCE)), level, gfn, who)


@kernel
def settle_leaf(s: Machine, index: int, level: int, gfn: int, who: int) -> None:
    """Note that the TLBI by IPA of a broken leaf completed: no TLB can hold its translation now."""
    if is_broken_leaf(load(s.tables, index)):
        set_entry(s, index, 0, level, gfn, who)


@kernel
def entry_index(s: Machine, page: int, level: int, gfn: int) -> int:
    """Index into ``tables`` of the entry for ``gfn`` in table ``page`` at ``level``."""
    bits = s.geo.index_bits
    slot = gfn >> ((LAST_LEVEL - level) * bits)
    if level > s.geo.start_level:  # root tables are concatenated: there the index just goes on
        slot &= (1 << bits) - 1
    return (page << bits) + slot


@kernel
def find(s: Machine, gfn: int, deepest: int) -> tuple[int, int]:
    """(index, level) of the entry for ``gfn`` where a walk down to ``deepest`` ends."""
    level = s.geo.start_level
    index = entry_index(s, 0, level, gfn)
    while level < deepest:
        descriptor = load(s.tables, index)
        if not is_table(descriptor, level):
            break
        level += 1
        index = entry_index(s, next_page(s.geo, descriptor), level, gfn)
    return index, level


@kernel
def page_of(s: Machine, index: int) -> int:
    """Pool index of the table page that holds entry ``index``."""
    return index >> s.geo.index_bits
