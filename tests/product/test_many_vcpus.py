"""vCPUs start together: who is ready sleeps until all are, and whoever looks is told how far the start is."""

from __future__ import annotations

import os
import signal

import pytest
from live import PATIENCE_S, live_run, wait_until
from sabotage import COMMAND as SABOTAGED
from sabotage import VICTIM

from stress.shm import accounts
from stress.shm.accounts import State

pytestmark = pytest.mark.alone

SMALL = ("--blocks", "1", "--block-size", "2M", "--dwell", "1ms", "--watchdog", "1m")
RUN = ("run", "--vcpus", "3", *SMALL, "--rebuilds", "2")


def test_nobody_runs_before_all_are_ready() -> None:
    with live_run("attached", *RUN, command=SABOTAGED) as run:
        machine = wait_until(run.machine, PATIENCE_S, "creation of the segment")
        states = machine.states[:, accounts.STATE]
        others = [who for who in range(3) if who != VICTIM]
        wait_until(lambda: bool((states[others] == State.READY).all()), PATIENCE_S, "two vCPUs to be ready")
        assert run.process.stderr is not None
        while "starting vCPUs: 2 of 3" not in (line := run.process.stderr.readline()):
            assert line, "the run is over already"
        assert states.tolist() == [State.READY, State.STARTING, State.READY, State.STARTING]
        assert not machine.states[:, accounts.FIRST_ACCESS_NS].any()
        workers = run.workers()
        os.kill(workers[VICTIM].pid, signal.SIGCONT)
        run.wait_for_guest()
        code, out, err, _ = run.finish()
    assert code == 0, out + err


@pytest.mark.parametrize(
    "options",
    [("--rebuilds", "1"), ("--rebuilds", "1", "--rebuilder", "vcpu"), ("kvm-page-table-test", "--passes", "1")],
    ids=["hypervisor", "vcpu", "staged"],
)
def test_many_more_vcpus_than_cores(options: tuple[str, ...]) -> None:
    scenario = () if options[0].startswith("--") else ("--scenario",)
    with live_run("run", "--vcpus", "32", *SMALL, *scenario, *options) as run:
        code, out, err, _ = run.finish(timeout_s=150)
    # A single rebuild need not meet every vCPU: that is nothing-tested, in order.
    assert code in (0, 4), out + err
    assert "no violation" in out
    assert "What broke" not in out
