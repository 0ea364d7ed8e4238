"""Scenarios: scripts for the hypervisor process, one per file. A scenario is a class with a `cycle` method."""

from stress.run.hypervisor import Hypervisor
from stress.run.scenarios.base import Scenario, play
from stress.run.scenarios.dirty_log_perf import DirtyLogPerf
from stress.run.scenarios.migration import Migration
from stress.run.scenarios.page_table_test import PageTableTest
from stress.run.scenarios.rebuild import Rebuild
from stress.run.scenarios.thp import Thp

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
