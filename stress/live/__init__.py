"""The live executor: processes that hammer, rebuild, watch and collect."""

from stress.live.supervisor import Progress, execute

__all__ = ["Progress", "execute"]
