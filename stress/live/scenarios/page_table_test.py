"""The ``kvm-page-table-test`` scenario: the stages of the KVM selftest of that name (Linux 6.1)."""

from __future__ import annotations

from stress.live.scenarios.stages import StagedScenario
from stress.programs import page_table_test


class PageTableTest(StagedScenario):
    """Create the mappings, update them under dirty logging, adjust them after it."""

    def cycle(self, order: int, turn: int) -> None:
        """One pass over the three stages."""
        self.begin_pass(order, turn)
        logged = False
        for stage in page_table_test(self.plan.geo.pages, 1 if self.plan.one_page_blocks else self.block_pages):
            if stage.logged != logged:
                logged = stage.logged
                if logged:
                    self.enable_logging()
                else:
                    self.disable_logging()
            self.stage(stage.name, stage.program)
