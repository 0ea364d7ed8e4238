"""The command with a worker that misbehaves at a certain point: ``python -c "..." POINT run ...`` (`COMMAND`).

What happens there is real, a signal or a process that does not leave; only the point is arranged.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

_CODE = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import sabotage; sabotage.main()"
COMMAND = (sys.executable, "-c", _CODE)

VICTIM = 1  # the vCPU


def stop() -> None:
    """Stop this process, as SIGSTOP from outside would."""
    os.kill(os.getpid(), signal.SIGSTOP)


class _StopsTheVictimWhenLoaded:
    """vCPUs are told in turn: of two that stopped, chance would decide which is found first."""

    told = 0

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        self.told += 1
        return stop if self.told == 1 + VICTIM else _nothing, ()


def _nothing() -> None:
    pass


def _linger() -> None:
    time.sleep(3600)


def _stopping(function: Callable[..., Any]) -> Callable[..., Any]:
    def stopped(*arguments: Any) -> Any:
        stop()
        return function(*arguments)

    return stopped


def vcpu(point: str, loaded: object, name: str, plan: Any, number: int) -> None:
    """A vCPU's main function; the victim misbehaves at ``point``."""
    worker: Any = import_module("stress.live.worker")
    if number == VICTIM:
        if point == "forked":
            stop()
        elif point == "attached":
            worker.new_cpu = _stopping(worker.new_cpu)
        elif point == "entered":
            worker.run = _stopping(worker.run)
        elif point == "aborts":
            worker._leave = os.abort
        elif point == "lingers":
            worker._leave = _linger
    worker.vcpu_main(name, plan, number)


def hypervisor(name: str, plan: Any) -> None:
    """The hypervisor's main function, stopped before its first step."""
    worker: Any = import_module("stress.live.worker")
    stop()
    worker.hypervisor_main(name, plan)


#: Where a worker can be stopped before the run is under way, and who that is.
STARTING = {
    "loading": f"vcpu {VICTIM}",  # while it reads what it is to do
    "forked": f"vcpu {VICTIM}",  # before it attaches
    "attached": f"vcpu {VICTIM}",
    "entered": f"vcpu {VICTIM}",  # before its first access
    "hypervisor": "hypervisor",
}


def main() -> None:
    """Arrange for what the first argument names, then be the command."""
    supervisor: Any = import_module("stress.live.supervisor")
    workers: Any = import_module("stress.live.workers")
    point = sys.argv.pop(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if point == "hypervisor":
        workers.hypervisor_main = hypervisor
    else:
        workers.vcpu_main = partial(vcpu, point, _StopsTheVictimWhenLoaded() if point == "loading" else None)
    if point == "lingers":
        supervisor.GRACE_S = 1.0
    import_module("stress.__main__").main()
