"""A walker that takes no lock, as KVM's lockless walkers do: it looks at a table in a read-side section only.

Linux 6.1 ``kvm_pgtable_get_leaf``, 6.2 ``kvm_pgtable_walk`` with ``KVM_PGTABLE_WALK_SHARED``. mmu_lock does not keep
it out, so nothing but a grace period does: whoever frees a table outside of mmu_lock must wait for it. Each vCPU is
such a walker now and then, between two accesses, while an order is under test that tears down there.
"""

from __future__ import annotations

from stress.arch.descriptors import POISON
from stress.arch.geometry import LAST_LEVEL
from stress.kernels.codes import WALKED_WITHOUT_LOCK
from stress.kernels.descriptor import pages_at
from stress.kernels.entries import find
from stress.kernels.grace import begin_walk, end_walk
from stress.kernels.oracle import report
from stress.orders import Step, mask_of
from stress.shm.accounts import LOOKED_NS, PHASE, PHASE_SLOT_MASK, Kind
from stress.shm.atomics import load, pause
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.placement import cold
from stress.shm.syscalls import clock_ns
from stress.shm.words import ORDER_WORDS

_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)
_UNLOCK = Step.UNLOCK.code
_TEAR_DOWNS = mask_of(lambda facts: facts.tears_down)
_DEFERRED = mask_of(lambda facts: facts.deferred)
# A walk every 5 ms that stays in a table for 0.15 ms, as if its visitor worked or was preempted: 3% of the guest's time
# at most, and a table freed too soon is met many times a second.
_EVERY_NS = 5_000_000
_STAYS_NS = 150_000
# So many blocks are looked at until one is a table.
_BLOCKS = 64


@kernel
def tears_down_late(s: Machine) -> bool:
    """Whether the order under test frees tables outside of mmu_lock."""
    order = (load(s.tally, PHASE) & PHASE_SLOT_MASK) >> 1
    if order >= s.orders.shape[0]:
        return False  # no order is under test at this moment
    unlocked = False
    for i in range(ORDER_WORDS):
        step = s.orders[order, i]
        if step < 0:
            break
        if step == _UNLOCK:
            unlocked = True
        elif _TEAR_DOWNS >> step & 1:
            return unlocked or _DEFERRED >> step & 1 != 0
    return False


@kernel
def visit(s: Machine, vcpu: int, gfn: int, index: int, level: int, until_ns: int) -> None:
    """Read the table that holds entry ``index`` until ``until_ns``; report a read that shows that it was freed."""
    first = index & ~((1 << s.geo.index_bits) - 1)
    while True:
        for i in range(first, first + (1 << s.geo.index_bits)):
            descriptor = load(s.tables, i)
            if descriptor == POISON:
                report(s, _AFTER_FREE, vcpu, gfn, level, descriptor, 0, WALKED_WITHOUT_LOCK)
                return
            if i & 7 == 0:
                pause()  # a visitor has something to do
        if clock_ns() >= until_ns:
            return


@kernel
def look_around(s: Machine, vcpu: int, gfn: int) -> None:
    """Walk to the first table found from ``gfn``'s block on, if it is time and the order under test calls for it."""
    cold()
    now = clock_ns()
    if now - s.states[vcpu, LOOKED_NS] < _EVERY_NS or not tears_down_late(s):
        return
    s.states[vcpu, LOOKED_NS] = now
    pages = pages_at(s.geo, s.geo.block_level)
    begin_walk(s, vcpu)
    for _ in range(min(_BLOCKS, s.geo.blocks)):
        index, level = find(s, gfn, LAST_LEVEL)
        if level > s.geo.block_level:
            visit(s, vcpu, gfn, index, level, now + _STAYS_NS)
            break
        gfn += pages
        if gfn >= s.geo.base_gfn + s.geo.pages:
            gfn = s.geo.base_gfn
    end_walk(s, vcpu)
