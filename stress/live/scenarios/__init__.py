"""Scenarios: scripts for the hypervisor process, one per file. A scenario is a class with a `cycle` method."""

from stress.live.hypervisor import Hypervisor
from stress.live.scenarios.base import Scenario, play
from stress.live.scenarios.dirty_log_perf import DirtyLogPerf
from stress.live.scenarios.migration import Migration
from stress.live.scenarios.page_table_test import PageTableTest
from stress.live.scenarios.rebuild import Rebuild
from stress.live.scenarios.thp import Thp

SCENARIOS: dict[str, type[Scenario]] = {
    "rebuild": Rebuild,
    "migration": Migration,
    "thp": Thp,
    "kvm-page-table-test": PageTableTest,
    "dirty-log-perf": DirtyLogPerf,
}


def run_scenario(hypervisor: Hypervisor) -> None:
    """Play the plan's scenario to its end."""
    play(SCENARIOS[hypervisor.plan.scenario](hypervisor))
