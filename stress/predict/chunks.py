"""The hypervisor's tasks over a chunk of blocks, batch by batch while mmu_lock is kept, in virtual time."""

from __future__ import annotations

from stress.predict import virtual as v
from stress.predict.agenda import give_back, leave_section, schedule
from stress.predict.cores import leave_core
from stress.predict.decorators import kernel
from stress.predict.virtual import World


@kernel
def following(w: World, phase: int) -> int:
    """The block that the hypervisor's task goes on with: in a phase that rebuilds, the one behind the batch."""
    number, size = w.s.control[v.TASK_BLOCK], w.s.control[v.BATCH]
    return int(number - number % size + size if phase == v.APPROACH else number + 1)


@kernel
def keeps_lock(w: World, who: int, phase: int) -> bool:
    """Whether an actor that is done with a phase's blocks goes on with others, and keeps mmu_lock until then."""
    return bool(who == w.s.control[v.VCPUS] and following(w, phase) < w.s.control[v.TASK_END])


@kernel
def next_block(w: World, phase: int, now: int) -> None:
    """Let the hypervisor go on with the next block of its task, in a phase, if there is one."""
    control = w.s.control
    who = control[v.VCPUS]
    if not keeps_lock(w, who, phase):
        end_task(w, now)
        return
    a = w.s.actor[who]
    control[v.TASK_BLOCK] = following(w, phase)
    a[v.A_ASKED] = now
    if a[v.A_ALONE] == 0:
        leave_section(w, who, now)
        a[v.A_READS] = 1
    a[v.A_PHASE] = phase
    schedule(w, who, now)


@kernel
def end_task(w: World, now: int) -> None:
    """End the hypervisor's task."""
    who = w.s.control[v.VCPUS]
    if w.s.actor[who, v.A_LOCKED] >= 0:
        give_back(w, who, now)
    w.s.actor[who, v.A_PHASE] = v.IDLE
    w.s.control[v.RUNNING] = 0
    leave_core(w, who, now)
