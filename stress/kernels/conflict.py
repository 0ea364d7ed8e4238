"""A block comes into a TLB that may still hold pages of it: what FEAT_BBM makes of that (DDI 0487 D8.14.2).

======  ===================================================================================================
level   what happens
======  ===================================================================================================
0       software must not let it happen: it is reported as tlb-conflict
1       the same; but the TLB does not keep a block with nT, so that each access walks
2       the access may abort with a TLB conflict: the hypervisor invalidates what this core's TLB holds
3       nothing: no access aborts
======  ===================================================================================================
"""

from __future__ import annotations

from stress.arch.bbm import ANY_SIZE, MAY_ABORT
from stress.kernels.codes import CONFLICT
from stress.kernels.cost import spend
from stress.kernels.descriptor import has_nt, pages_at
from stress.kernels.fault import phase_now, slot_charged, tell
from stress.kernels.oracle import report
from stress.kernels.tlb import Cpu, fill, flush_all, flush_range, overlapping
from stress.shm.accounts import STATE, Kind, State
from stress.shm.atomics import store
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.placement import out_of_line
from stress.shm.syscalls import clock_ns

_CONFLICT = int(Kind.TLB_CONFLICT)
_FAULT = int(State.FAULT)
_GUEST = int(State.GUEST)


@kernel
def conflict_abort(s: Machine, vcpu: int, gfn: int, level: int, write: bool) -> None:
    """Exit with a TLB conflict abort: the hypervisor invalidates all that this core's TLB holds, and nobody else's.

    The handler takes no mmu_lock. Such an abort reports no level (FSC 0b110000); ``level`` is that of the entry whose
    fill conflicts.
    """
    out_of_line()
    start = clock_ns()
    store(s.states, (vcpu, STATE), _FAULT)
    phase = phase_now(s)
    spend(s, vcpu, s.geo.conflict_ns)
    store(s.states, (vcpu, STATE), _GUEST)
    tell(s, vcpu, CONFLICT, slot_charged(s, phase), phase, start, clock_ns() - start, 0, gfn, level, write, 0)


@kernel
def fill_block(
    s: Machine, cpu: Cpu, vcpu: int, level: int, gfn: int, translation: int, descriptor: int, write: int, checked: bool
) -> None:
    """Enter a block, unless the TLB may not keep it; from FEAT_BBM level 2 on pages of it may still be there.

    At level 2 the architecture allows an abort, and this TLB always aborts; the access goes on as if it had been tried
    again. A walk by the hardware alone (``write`` negative) never aborts.
    """
    out_of_line()
    bits = s.geo.index_bits
    if has_nt(descriptor) and s.geo.bbm_level >= 1:
        return
    smaller = overlapping(cpu, level, bits, gfn) if checked else -1
    if smaller >= 0:
        if s.geo.bbm_level < ANY_SIZE:
            report(s, _CONFLICT, vcpu, gfn, level, smaller, level, 0)
        elif s.geo.bbm_level == MAY_ABORT and write >= 0:
            conflict_abort(s, vcpu, gfn, level, write != 0)
            flush_all(cpu)
        else:  # the TLB may drop the older entries (DDI 0487 D8.14.2)
            pages = pages_at(s.geo, level)
            start = gfn & ~(pages - 1)
            flush_range(cpu, bits, start, start + pages)
    fill(cpu, level, bits, gfn, translation)
