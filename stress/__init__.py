"""A test bench for stage-2 page-table rebuild orders.

``from stress import run, compare, sweep, load`` gives the Python API (`stress.api`), loaded when it is first
used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stress.api import Result, RunInterrupted, SweepResult, compare, load, run, sweep

__version__ = "0.1.0"

__all__ = ["Result", "RunInterrupted", "SweepResult", "compare", "load", "run", "sweep"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("stress.api"), name)
    raise AttributeError(f"module 'stress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
