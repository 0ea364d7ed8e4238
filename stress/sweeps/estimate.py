"""The time that trials take: a guess from their configurations, corrected by the time that the first ones took."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from stress.config import RunConfig, Trial
from stress.executors import LIVE

_SECOND_NS: Final = 1_000_000_000
#: Seconds to start and end a run, once the kernels are compiled.
_AROUND_S: Final = 1.0
#: Seconds assumed for a pass over a selftest's stages: its time is what is measured.
_UNKNOWN_S: Final = 5.0


def expected_s(trials: Iterable[Trial]) -> float:
    """Seconds that the trials take one after the other."""
    return sum(_AROUND_S + (_planned_s(trial.point.config) if trial.point.executor == LIVE else 0) for trial in trials)


def left_s(done: Iterable[Trial], left: Iterable[Trial], elapsed_s: float) -> float:
    """Seconds that the trials ``left`` take, if they deviate from the guess as the trials ``done`` did."""
    expected = expected_s(done)
    return expected_s(left) * (elapsed_s / expected if expected else 1)


def spelled(seconds: float) -> str:
    """A time to the second: ``0:02:10``."""
    return str(timedelta(seconds=round(seconds)))


def _planned_s(config: RunConfig) -> float:
    """Seconds to the nearest limit of a run."""
    limits = []
    if config.duration_ns is not None:
        limits.append(config.duration_ns / _SECOND_NS)
    if config.rebuilds is not None:
        # A cycle is a dwell on pages and one on the block; the rebuild itself is short.
        limits.append(config.rebuilds * len(config.orders) * 2 * config.dwell_ns / _SECOND_NS)
    if config.passes is not None:
        limits.append(config.passes * len(config.orders) * _UNKNOWN_S)
    return min(limits)
