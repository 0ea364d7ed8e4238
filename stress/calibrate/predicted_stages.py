"""What `stress predict` says of the stages that logs hold, as a function of a platform's costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from stress import interrupt
from stress.calibrate.logs import Log, Play
from stress.config import RunConfig
from stress.errors import Interrupted
from stress.platforms import COSTS, Platform
from stress.predict.passes import PASSES

Vector = npt.NDArray[np.float64]

#: Costs that cannot be fitted -> why: no stage of a selftest depends on them, or none tells them from another cost.
NEVER_SEEN: Final[Mapping[str, str]] = {
    "icache_ns": "a part of the clean before it, and fitted with that",
    "free_ns": "a part of the tear-down per entry, and fitted with that",
    "hit_ns": "stages touch each page once, and no TLB holds it",
    "walk_ns": "stages touch each page once, and no cache holds it",
}

#: Costs that can be fitted.
FITTED: Final = tuple(cost for cost in COSTS if cost not in NEVER_SEEN)

#: What the VMM does between stages takes system calls and a grace period besides what is modelled, in ns.
_VMM_STAGES: Final = ("enable", "clear-dirty-log")
_SYSTEM_CALLS_NS: Final = 2e6
#: vCPUs do not begin and end a stage in the same moment, in ns.
_START_NS: Final = 20e3


def with_costs(platform: Platform, costs: Mapping[str, float]) -> Platform:
    """The platform with other costs, and nothing said of where its figures are from."""
    return platform.model_copy(update={**costs, "published": {}, "fitted": {}, "guessed": {}})


def stage_ns(config: RunConfig, platform: Platform, play: Play | None = None) -> dict[tuple[str, int], int]:
    """What all stages of a configuration with one order would take, in ns, by name and iteration. Ctrl-C raises.

    ``play`` plays them if the configuration's scenario does not.
    """
    config = config.on(platform)
    played = (play or PASSES[config.scenario])(
        config, config.parsed_orders[0], lambda _: not interrupt.requested.is_set()
    )
    if played.interrupted:
        raise Interrupted("interrupted while costs were fitted", "nothing was written")
    return {(stage.name, stage.iteration): stage.duration_ns for stage in played.stages}


class Stages:
    """The stages of several logs that a prediction can say anything about, in one row."""

    def __init__(self, logs: Sequence[Log], platform: Platform) -> None:
        self._logs = logs
        modelled = [stage_ns(log.config, platform, log.played_by) for log in logs]
        #: (log, stage) of each, and the log's index.
        self.all = [
            (index, stage)
            for index, log in enumerate(logs)
            for stage in log.stages
            if modelled[index].get((stage.name, stage.iteration), 0) > 0 and stage.ns > 0
        ]
        self.measured: Vector = np.array([stage.ns for _, stage in self.all], float)
        self.logs = np.array([index for index, _ in self.all], int)

    @property
    def titles(self) -> list[tuple[str, str]]:
        """For each stage the name of its log and its own."""
        return [(self._logs[index].name, stage.title) for index, stage in self.all]

    @property
    def uncertain(self) -> Vector:
        """For each stage the fraction of its time that is not modelled."""
        return np.array(
            [
                (_SYSTEM_CALLS_NS if stage.name in _VMM_STAGES else _START_NS) / stage.ns
                if stage.uncertain is None
                else stage.uncertain
                for _, stage in self.all
            ]
        )

    def predicted(self, platform: Platform) -> Vector:
        """The times of the stages on a platform, in ns."""
        found = [stage_ns(log.config, platform, log.played_by) for log in self._logs]
        return np.array([found[index][stage.name, stage.iteration] for index, stage in self.all], float)
