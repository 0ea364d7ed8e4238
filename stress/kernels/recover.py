"""Recovery of blocks in place, by the thread that stopped dirty logging, while vCPUs go on.

As x86 KVM does since Linux 6.13 (``kvm_mmu_recover_huge_pages``, ``kvm_tdp_mmu_recover_huge_pages``). On arm64 nobody
does: a table stays one until a vCPU faults on it.
"""

from __future__ import annotations

from stress.kernels.batch import first_of_batch
from stress.kernels.codes import STOPPED
from stress.kernels.descriptor import pages_at
from stress.kernels.memslots import mapping_level, page_in_slot, slot_of
from stress.kernels.rebuild import DONE, rebuild_tables
from stress.shm.accounts import HEARTBEAT, State
from stress.shm.jit import entry
from stress.shm.layout import Machine
from stress.shm.mmu_lock import release
from stress.shm.words import BATCH_KEEPS, BATCH_KEPT_NS

_DWELL = int(State.DWELL)


@entry
def recover(s: Machine, who: int, first: int, end: int) -> int:
    """Rebuild each table of guest frames [first, end) whose block may be mapped, and keep mmu_lock throughout.

    DONE or STOPPED. Steps that the order has outside of mmu_lock are done under it, unless the range is one batch. Only
    the hypervisor process, which calls this, changes what ``mapping_level`` depends on.
    """
    batch = s.batches[who]
    pages = pages_at(s.geo, s.geo.block_level)
    status = DONE
    gfn = first
    while gfn < end and status != STOPPED:
        s.states[who, HEARTBEAT] += 1
        slot = slot_of(s, gfn)
        if mapping_level(s, slot, page_in_slot(s, slot, gfn)) == s.geo.block_level:
            behind = first_of_batch(s, gfn, s.geo.block_level) + s.geo.batch * pages
            batch[BATCH_KEEPS] = int(behind < end)
            status = rebuild_tables(s, who, gfn)
            gfn = behind
        else:
            gfn += pages
    batch[BATCH_KEEPS] = 0
    if batch[BATCH_KEPT_NS] != 0:
        batch[BATCH_KEPT_NS] = 0
        release(s, who, _DWELL)
    return STOPPED if status == STOPPED else DONE
