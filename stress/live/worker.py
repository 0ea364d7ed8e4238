"""The worker processes: what each does first, and the main functions of a vCPU and of the hypervisor."""

from __future__ import annotations

import os
import time

from stress.errors import RunBroken
from stress.kernels.codes import POOL_EXHAUSTED, STOPPED
from stress.kernels.tlb import CPU_LEFT, CPU_PAGE, CPU_RANDOM, Cpu, new_cpu
from stress.kernels.vcpu import FINISHED, await_beginning, await_stage, run
from stress.kernels.workload import Pattern, Workload, pattern_over
from stress.live.hypervisor import Hypervisor, Stopped
from stress.live.plan import Plan
from stress.live.scenarios import run_scenario
from stress.shm.accounts import FIRST_ACCESS_NS, HEARTBEAT, STAGE_END_NS, STATE, State
from stress.shm.layout import Machine
from stress.shm.membarrier import membarrier_register
from stress.shm.mode import JIT_DISABLED
from stress.shm.publish import publish
from stress.shm.segment import Segment
from stress.shm.words import FENCED, FINISH, FINISH_EXHAUSTED, P_PATTERN, STAGE_DONE, STAGE_READY, STOP, STOP_DONE

# Chunks of accesses per call into compiled code, which looks at the control words itself.
_CHUNKS = 4 if JIT_DISABLED else 20_000
# How long a vCPU spins for its next stage, in tries, before it sleeps in between.
_STAGE_TRIES = 20 if JIT_DISABLED else 1000
_STAGE_POLL_S = 0.0002
# A vCPU that is ready sleeps this long between two looks, times the number of vCPUs, up to a bound.
_READY_POLL_S = 0.0005
_LONGEST_POLL_S = 0.05


def _enter(name: str, plan: Plan, who: int) -> Segment:
    """Set this process up as number ``who`` of the run that owns segment ``name``."""
    segment = Segment.attach(name, plan.geo, len(plan.orders))
    if not membarrier_register() and segment.machine.control[FENCED] == 0:
        raise RunBroken("the kernel refuses membarrier to a worker", "run outside of the sandbox that does")
    if plan.cpus:
        # The hypervisor gets the first processor, the vCPUs the others in turn.
        first, *others = plan.cpus
        hypervisor = who == plan.geo.hypervisor or not others
        os.sched_setaffinity(0, {first if hypervisor else others[who % len(others)]})
    return segment


def _await_start(machine: Machine, vcpu: int) -> None:
    """Sleep until the hypervisor lets every vCPU into the guest, or the run stops.

    A vCPU that ran while others are forked would keep the processors from them: of 64 on two cores the last one would
    start after a minute.
    """
    publish(machine.states, (vcpu, STATE), State.READY)
    vcpus = machine.geo.hypervisor
    while machine.states[vcpus, STATE] == State.STARTING and not machine.control[STOP]:
        machine.states[vcpu, HEARTBEAT] += 1
        time.sleep(min(_READY_POLL_S * vcpus, _LONGEST_POLL_S))
    publish(machine.states, (vcpu, STATE), State.GUEST)


def _leave() -> None:
    """End the process at once: its mappings go with it, and nothing of the interpreter needs tidying."""
    os._exit(0)


def vcpu_main(name: str, plan: Plan, vcpu: int) -> None:
    """Run guest accesses until the run stops."""
    machine = _enter(name, plan, vcpu).machine
    cpu = new_cpu()
    cpu.registers[CPU_PAGE] = plan.first_page(vcpu)
    cpu.registers[CPU_RANDOM] = plan.random_state(vcpu)
    _await_start(machine, vcpu)
    if plan.staged:
        _run_stages(machine, cpu, plan, vcpu)
    else:
        _run_guest(machine, cpu, plan.workload, vcpu)
    publish(machine.states, (vcpu, STATE), State.DONE)
    _leave()


def _run_guest(machine: Machine, cpu: Cpu, workload: Workload, vcpu: int) -> bool:
    """Run the workload to its end; False if the run stops before."""
    while (status := run(machine, cpu, workload, vcpu, _CHUNKS)) != STOPPED:
        if status == FINISHED:
            return True
        if status == POOL_EXHAUSTED:
            publish(machine.control, FINISH, FINISH_EXHAUSTED)  # a leak, which the hypervisor's last audit will name
    return False


def _run_stages(machine: Machine, cpu: Cpu, plan: Plan, vcpu: int) -> None:
    """Run one program after the other, each when the hypervisor starts its stage, until the run stops."""
    publish(machine.states, (vcpu, FIRST_ACCESS_NS), time.monotonic_ns())  # ready
    stage = 0
    while (now := await_stage(machine, vcpu, stage, _STAGE_TRIES)) != STOPPED:
        if now == stage:
            time.sleep(_STAGE_POLL_S)
            continue
        stage = now
        workload, accesses = _of_stage(machine, plan, vcpu)
        cpu.registers[CPU_PAGE], cpu.registers[CPU_LEFT] = 0, accesses
        publish(machine.procs, (vcpu, STAGE_READY), stage)
        if await_beginning(machine, vcpu) == STOPPED:
            return
        if not _run_guest(machine, cpu, workload, vcpu):
            return
        machine.states[vcpu, STAGE_END_NS] = time.monotonic_ns()
        publish(machine.procs, (vcpu, STAGE_DONE), stage)


def _of_stage(machine: Machine, plan: Plan, vcpu: int) -> tuple[Workload, int]:
    """The workload of a vCPU in the stage that begins, and its number of accesses."""
    program = machine.programs[vcpu]
    first, group, head, skip, length, write_below, accesses, pattern = map(int, program[: P_PATTERN + 1])
    if pattern == Pattern.PROGRAM:
        pages = machine.geo.pages
        return Workload(pattern, pages, 1, 1.0, 1, write_below, first, group, head, skip, length), accesses
    work = plan.workload
    return pattern_over(pattern, first, accesses, work.stride, work.exponent, write_below), accesses


def hypervisor_main(name: str, plan: Plan) -> None:
    """Play the scenario, audit once more, stop the run."""
    machine = _enter(name, plan, plan.geo.hypervisor).machine
    hypervisor = Hypervisor(machine, plan)
    try:
        hypervisor.start_guests()
        run_scenario(hypervisor)
        if not plan.staged:  # in a staged run each vCPU has run its programs to their end
            hypervisor.let_guests_see()
        hypervisor.audit()
        publish(machine.control, STOP, STOP_DONE)
    except Stopped:
        pass
    hypervisor.state(State.DONE)
    _leave()
