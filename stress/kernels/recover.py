"""Recovery of blocks in place, by the thread that stopped dirty logging, while vCPUs go on.

As x86 KVM does since Linux 6.13 (``kvm_mmu_recover_huge_pages``, ``kvm_tdp_mmu_recover_huge_pages``). On arm64 nobody
does: a table stays one until a vCPU faults on it.
"""

from __future__ import annotations

from stress.kernels.codes import STOPPED
from stress.kernels.descriptor import pages_at
from stress.kernels.memslots import mapping_level, page_in_slot, slot_of
from stress.kernels.rebuild import DONE, rebuild_table
from stress.shm.accounts import HEARTBEAT, State
from stress.shm.jit import entry
from stress.shm.layout import Machine
from stress.shm.mmu_lock import release
from stress.shm.words import B_KEEPS, B_KEPT_NS

_DWELL = int(State.DWELL)


@entry
def recover(s: Machine, who: int, first: int, end: int) -> int:
    """Rebuild each table of guest frames [first, end) whose block may be mapped, and keep mmu_lock throughout.

    DONE or STOPPED. An order with steps outside of mmu_lock does those under it, but in a range of one block. Only the
    hypervisor process, which this is, changes what ``mapping_level`` asks for.
    """
    b = s.building[who]
    pages = pages_at(s.geo, s.geo.block_level)
    status = DONE
    for gfn in range(first, end, pages):
        s.states[who, HEARTBEAT] += 1
        b[B_KEEPS] = int(gfn + pages < end)
        slot = slot_of(s, gfn)
        if mapping_level(s, slot, page_in_slot(s, slot, gfn)) == s.geo.block_level:
            status = rebuild_table(s, who, gfn)
            if status == STOPPED:
                break
    b[B_KEEPS] = 0
    if b[B_KEPT_NS] != 0:
        b[B_KEPT_NS] = 0
        release(s, who, _DWELL)
    return STOPPED if status == STOPPED else DONE
