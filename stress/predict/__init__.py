"""The executor in virtual time: a platform's costs, queues for mmu_lock and the broadcast TLBI, and no waiting."""

from stress.predict.jit import is_compiled
from stress.predict.prediction import Progress, check, predict

__all__ = ["Progress", "check", "is_compiled", "predict"]
