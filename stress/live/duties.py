"""The functions that the forkserver runs: the supervisor can name them without loading the kernels they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stress.live.plan import Plan


def vcpu_main(name: str, plan: Plan, vcpu: int) -> None:
    """Be vCPU number ``vcpu`` of the run that owns segment ``name``."""
    from stress.live import worker

    worker.vcpu_main(name, plan, vcpu)


def hypervisor_main(name: str, plan: Plan) -> None:
    """Be the hypervisor of the run that owns segment ``name``."""
    from stress.live import worker

    worker.hypervisor_main(name, plan)
