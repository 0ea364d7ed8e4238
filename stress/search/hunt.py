"""The search: every program of a vocabulary judged, and the constraints that tell the proved from the refuted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from stress import interrupt
from stress.search.classes import Steps, classes_of, written
from stress.search.constraints import Constraint, learn
from stress.search.crew import Crew, Task
from stress.search.verdicts import OPEN, REFUTED, UNDECIDED, Verdict, Verdicts

#: Functions of `stress.search.judging`.
SCREEN: Final = "screen"
EXPLORE: Final = "explore"

#: Told what is being done, how much of it is done, of how much, and the seconds left if they can be told.
Progress = Callable[[str, int, int, float | None], None]


@dataclass(frozen=True, slots=True)
class Witness:
    """A constraint, with the order that shows why: it breaks no other if there is such an order."""

    constraint: Constraint
    refuted: int  # classes
    steps: Steps
    alone: bool
    verdict: Verdict


@dataclass(slots=True)
class Found:
    """What a search found, as far as it came."""

    vocabulary: Steps
    limits: Mapping[str, Any]  # fields of `stress.verify.scene.Bounds`
    classes: dict[Steps, int]  # programs, and how many orders each stands for
    verdicts: dict[Steps, Verdict] = field(default_factory=dict)
    #: What a program begins with that refutes it, for those that were not looked at themselves.
    beginnings: dict[Steps, Steps] = field(default_factory=dict)
    witnesses: list[Witness] = field(default_factory=list)
    complete: bool = False
    played: int = 0  # schedules, this time or when verdicts were kept
    recalled: int = 0  # verdicts that were kept from before
    elapsed_ns: int = 0

    def judged(self, judgement: str) -> list[Steps]:
        """The programs whose verdict is ``judgement``, in order."""
        return [
            steps for steps in self.classes if steps in self.verdicts and self.verdicts[steps].judgement == judgement
        ]


class Hunt:
    """A search while it goes on."""

    def __init__(self, crew: Crew, kept: Verdicts, limit_ns: int | None, progress: Progress) -> None:
        self._crew = crew
        self._kept = kept
        self._limit_ns = limit_ns
        self._progress = progress

    def search(self, vocabulary: Steps, limits: Mapping[str, Any]) -> Found:
        """Judge every order that can be written with some steps. What was found when an interrupt came is kept."""
        began = time.monotonic_ns()
        found = Found(vocabulary, limits, classes_of(vocabulary, limits["fwb"]))
        self._screen(found)
        still_open = found.judged(OPEN)
        for steps, verdict in self._judge(EXPLORE, still_open, found):
            found.verdicts[steps] = verdict
        if not interrupt.requested.is_set():
            self._characterise(found)
        for steps in found.judged(OPEN):
            found.verdicts[steps] = Verdict(UNDECIDED, why="the search was interrupted", schedules=0)
        found.complete = not interrupt.requested.is_set()
        found.played = sum(verdict.schedules for verdict in found.verdicts.values())
        found.elapsed_ns = time.monotonic_ns() - began
        return found

    def _screen(self, found: Found) -> None:
        """Play a schedule of each order, but of those that begin with what was refuted already."""
        refuted: dict[Steps, Steps] = {}  # beginnings, and who showed it
        for _, each in groupby(found.classes, len):
            left = []
            for steps in each:
                known = next((steps[:end] for end in range(1, len(steps)) if steps[:end] in refuted), None)
                if known is None:
                    left.append(steps)
                else:
                    shown_by = refuted[known]
                    found.beginnings[steps] = shown_by
                    found.verdicts[steps] = Verdict(REFUTED, found.verdicts[shown_by].kinds, schedules=0)
            for steps, verdict in self._judge(SCREEN, left, found):
                found.verdicts[steps] = verdict
                if verdict.beginning:
                    refuted.setdefault(steps[: verdict.beginning], steps)

    def _characterise(self, found: Found) -> None:
        """Learn the constraints, and find an order for each that shows why."""
        refuted = found.judged(REFUTED)
        others = [steps for steps in found.verdicts if found.verdicts[steps].judgement != REFUTED]
        constraints = learn(refuted, others)
        chosen = {constraint: _example(constraint, constraints, refuted) for constraint in constraints}
        shown = dict(self._judge(EXPLORE, list(dict.fromkeys(steps for steps, _ in chosen.values())), found))
        for constraint, (steps, alone) in chosen.items():
            # If the limit was too short for it, the schedule that was played first is what is left.
            verdict = shown.get(steps)
            if verdict is None or verdict.judgement != REFUTED:
                verdict = found.verdicts[found.beginnings.get(steps, steps)]
            count = sum(map(constraint.refutes, refuted))
            found.witnesses.append(Witness(constraint, count, steps, alone, verdict))

    def _judge(self, what: str, orders: Sequence[Steps], found: Found) -> Iterator[tuple[Steps, Verdict]]:
        """Verdicts on orders: those kept, then the others as they come."""
        limits, new = found.limits, []
        for steps in orders:
            known = self._kept.get(what, steps, limits)
            if known is None:
                new.append(steps)
            else:
                found.recalled += 1
                yield steps, known
        began = time.monotonic()
        self._progress(what, 0, len(new), None)
        tasks: list[Task] = [(what, steps, limits, *([self._limit_ns] if what == EXPLORE else [])) for steps in new]
        for done, (task, verdict) in enumerate(self._crew.results(tasks), start=1):
            left = (time.monotonic() - began) / done * (len(new) - done)
            self._progress(what, done, len(new), left)
            self._kept.put(what, task[1], limits, verdict)
            yield task[1], verdict


def _example(constraint: Constraint, constraints: Sequence[Constraint], refuted: Sequence[Steps]) -> tuple[Steps, bool]:
    """A refuted order that breaks a constraint and, if there is one, no other: the plainest of the fullest."""
    broken = [steps for steps in refuted if constraint.refutes(steps)]
    alone = [steps for steps in broken if sum(each.refutes(steps) for each in constraints) == 1]
    best = max(alone or broken, key=lambda steps: (len(steps) - len(written(steps)), len(steps)))
    return best, bool(alone)
