"""The live executor: processes that hammer, rebuild, watch and collect.

`execute` and `Progress` are loaded when they are asked for: they load Numba, and what starts the forkserver must not
wait for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stress.live.supervisor import Progress, execute

__all__ = ["Progress", "execute"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stress.live import supervisor

    return getattr(supervisor, name)
