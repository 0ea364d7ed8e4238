"""The executor in virtual time: a platform's costs, queues for mmu_lock and the broadcast TLBI, and no waiting."""

from stress.predict.brief import Brief, briefly
from stress.predict.native import is_compiled
from stress.predict.prediction import Progress, check, predict

__all__ = ["Brief", "Progress", "briefly", "check", "is_compiled", "predict"]
