"""The ``kvm-page-table-test`` scenario: the stages of the KVM selftest of that name (Linux 6.1)."""

from __future__ import annotations

from stress.live.scenarios.stages import READ_HEAD, WRITE_HEAD, Program, StagedScenario


class PageTableTest(StagedScenario):
    """Create the mappings, update them under dirty logging, adjust them after it."""

    def cycle(self, order: int, turn: int) -> None:
        """One pass over the three stages."""
        pages = self.plan.geo.pages
        large = 1 if self.plan.one_page_blocks else self.block_pages
        self.begin_pass(order, turn)
        # Even vCPUs write, odd ones read, the first page of every large page.
        self.stage(
            "KVM_CREATE_MAPPINGS",
            lambda vcpu: Program(-(-pages // large), large, head=READ_HEAD if vcpu % 2 else WRITE_HEAD),
        )
        self.enable_logging()
        # Write the first page of each large page, which splits it, then read its upper half.
        self.stage(
            "KVM_UPDATE_MAPPINGS",
            lambda vcpu: Program(pages // large, large, head=WRITE_HEAD, skip=large - large // 2, run=large // 2),
        )
        self.disable_logging()
        # Read every page from the start: the second one faults, and the block is rebuilt.
        self.stage("KVM_ADJUST_MAPPINGS", lambda vcpu: Program(pages, run=1))
