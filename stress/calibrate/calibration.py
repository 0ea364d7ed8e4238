"""From logs to a platform: which costs they tell, with intervals, and which run would tell another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np

from stress.backings import SELFTEST_NAMES
from stress.calibrate.fit import KNOWN_FACTOR, Fit, derivatives, fit, information, t_quantile
from stress.calibrate.logs import Log
from stress.calibrate.predicted_stages import FITTED, NEVER_SEEN, Stages, Vector, stage_ns, with_costs
from stress.config import Backing, RunConfig, Scenario, from_sources
from stress.errors import UsageError
from stress.platforms import Platform, profile_key

_TESTS: Final = {
    Scenario.PAGE_TABLE_TEST: "kvm_page_table_test",
    Scenario.DIRTY_LOG_PERF: "dirty_log_perf_test",
}
#: A guess is good to this factor, as one standard deviation; the costs below differ by more on published machines.
_FACTOR: Final = 3.0
_DIFFERENT: Final = {"tlbi_waiting_ns": 10.0, "hand_over_waiting_ns": 10.0}

#: Runs that may be proposed: scenario, vCPUs, backing. Each cost's share of a time hardly depends on memory, so little
#: memory is predicted, and more is proposed: what is not modelled must be a small part of the time.
_PROPOSED: Final = (
    *((Scenario.PAGE_TABLE_TEST, vcpus, Backing.ANONYMOUS) for vcpus in (1, 8)),
    *((Scenario.PAGE_TABLE_TEST, vcpus, Backing.HUGETLB_1G) for vcpus in (1, 8)),
    *((Scenario.DIRTY_LOG_PERF, vcpus, Backing.THP) for vcpus in (1, 8)),
    (Scenario.DIRTY_LOG_PERF, 8, Backing.ANONYMOUS),
)
_PREDICTED_BYTES: Final = {Backing.ANONYMOUS: 16 << 20, Backing.THP: 32 << 20, Backing.HUGETLB_1G: 2 << 30}


@dataclass(frozen=True, slots=True)
class Cost:
    """What is known of one cost. ``field`` is the platform's; ``factor`` bounds the 95% interval."""

    field: str
    value: float
    factor: float
    known: bool
    #: Why it is not known, and which runs would tell it; "" if it is known.
    why: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval: (from, to)."""
        return self.value / self.factor, self.value * self.factor


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of a calibration: a platform, what is known of each cost, and the stages they explain."""

    platform: Platform
    costs: tuple[Cost, ...]
    #: Log, stage, measured and fitted time in ns, of each stage that was used.
    stages: tuple[tuple[str, str, float, float], ...]
    #: What times scatter by around the fitted ones, as a fraction.
    scatter: float


def calibrate(logs: Sequence[Log], start: Platform) -> Calibration:
    """Fit a platform that begins as ``start`` to what ``logs`` measured; `UsageError` if they hold nothing to fit."""
    stages = Stages(logs, start)
    if not stages.all:
        raise UsageError("no stage of these logs takes any time in a prediction", "give logs of a larger run")
    names = tuple(name for name in FITTED if getattr(start, name))

    def model(costs: Vector) -> Vector:
        return stages.predicted(with_costs(start, dict(zip(names, costs.tolist(), strict=True))))

    prior = np.array([getattr(start, name) for name in names])
    factors = np.array([_DIFFERENT.get(name, _FACTOR) for name in names])
    found = fit(model, stages.measured, stages.logs, stages.uncertain, names, prior, factors)
    advice = _advice(found, logs[0].config, start)
    costs = [
        Cost(
            name,
            float(found.costs[at]),
            float(found.factors[at]),
            bool(found.known[at]),
            "" if found.known[at] else _why(found, name, advice.get(name, "")),
        )
        for at, name in enumerate(names)
    ]
    costs += [Cost(name, getattr(start, name), np.inf, False, why) for name, why in NEVER_SEEN.items()]
    platform = _platform(start, costs, logs)
    table = zip(stages.titles, stages.measured.tolist(), found.times.tolist(), strict=True)
    return Calibration(
        platform, tuple(costs), tuple((*title, ns, fitted) for title, ns, fitted in table), found.scatter
    )


def _why(found: Fit, name: str, advice: str) -> str:
    together = found.together(name)
    with_others = f"only with {' and '.join(profile_key(each) for each in together[:2])}; " if together else ""
    return with_others + (f"run {advice}" if advice else "no run of the selftests tells it apart")


def _platform(start: Platform, costs: Sequence[Cost], logs: Sequence[Log]) -> Platform:
    """``start`` with the costs found, and where each is from."""
    digits = {cost.field: float(f"{cost.value:.4g}") for cost in costs if cost.known or cost.factor < np.inf}
    several = f"{len(logs)} logs" if len(logs) > 1 else "a log"
    config = logs[0].config
    guessed = {
        profile_key(cost.field): f"{cost.why[:150]}; from {start.name}"[:200]
        for cost in costs
        if not cost.known and getattr(start, cost.field)
    }
    fitted = {
        profile_key(cost.field): f"{several}: {' to '.join(map(spelled, cost.interval))} (95%)"
        for cost in costs
        if cost.known
    }
    return start.model_copy(
        update={
            **digits,
            "description": f"fitted to {several} of the selftests",
            "source": ", ".join(dict.fromkeys(log.name for log in logs))[:200],
            "fwb": config.fwb,
            "bbm_level": config.bbm_level,
            "published": {},
            "fitted": fitted,
            "guessed": guessed,
        }
    )


def spelled(value: float) -> str:
    """A cost in three digits, without an exponent that people would have to read."""
    return f"{value:.3g}" if value < 1000 else f"{float(f'{value:.3g}'):,.0f}".replace(",", "_")


def _advice(found: Fit, config: RunConfig, start: Platform) -> dict[str, str]:
    """For each cost that is not known, the run or the two runs that would tell it, if any would."""
    unknown = [name for name, known in zip(found.names, found.known, strict=True) if not known]
    if not unknown:
        return {}
    tell = []
    for scenario, vcpus, backing in _PROPOSED:
        try:
            proposed = _proposed(config, scenario, vcpus, backing)
        except UsageError:  # the granule has no such blocks
            continue
        command = f"{_TESTS[scenario]} -v {vcpus} -s {SELFTEST_NAMES[backing]} -b 4G"
        tell.append((command, _told(found, proposed, start)))
    known_already = np.linalg.inv(found.covariance)
    limit = np.log(KNOWN_FACTOR) / t_quantile(found.freedom)
    advice: dict[str, str] = {}
    for count in (1, 2):
        best: dict[str, tuple[float, str]] = {}
        for runs in combinations(tell, count):
            covariance = np.linalg.inv(known_already + sum(more for _, more in runs))
            spreads = np.sqrt(np.diag(covariance))
            words = " and ".join(command for command, _ in runs)
            for name in unknown:
                spread = float(spreads[found.names.index(name)])
                if spread <= limit and name not in advice and spread < best.get(name, (np.inf, ""))[0]:
                    best[name] = spread, words
        advice |= {name: words for name, (_, words) in best.items()}
    return advice


def _proposed(config: RunConfig, scenario: Scenario, vcpus: int, backing: Backing) -> RunConfig:
    """A run that might be proposed, in which whatever else decides is as in ``config``."""
    options: dict[str, Any] = {
        "scenario": scenario,
        "vcpus": vcpus,
        "backing": backing,
        "memory": _PREDICTED_BYTES[backing],
        "orders": config.orders,
        "granule": config.granule,
        "locking": config.locking,
        "cmo": config.cmo,
        "fwb": config.fwb,
        "bbm_level": config.bbm_level,
    }
    return from_sources(None, options)


def _told(found: Fit, config: RunConfig, start: Platform) -> Any:
    """The information that such a run would add about the costs, a matrix (costs, costs)."""

    def logarithms(x: Vector) -> Vector:
        costs = dict(zip(found.names, np.exp(x).tolist(), strict=True))
        times = stage_ns(config, with_costs(start, costs))
        return np.log([max(times[stage], 1) for stage in stages])

    x = np.log(found.costs)
    stages = list(stage_ns(config, with_costs(start, dict(zip(found.names, found.costs.tolist(), strict=True)))))
    here = logarithms(x)
    one_run = np.zeros(here.size, int)
    return information(derivatives(logarithms, x, here), one_run, np.zeros(here.size), found.scatter)
