"""The live executor: processes that hammer, rebuild, watch and collect."""

from stress.run.supervisor import Progress, execute

__all__ = ["Progress", "execute"]
