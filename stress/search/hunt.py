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

#: Names of functions of `stress.search.judging`.
SCREEN: Final = "screen"
EXPLORE: Final = "explore"

#: A function that is called with the work's name, how much of it is done, of how much, and the seconds left or None.
Progress = Callable[[str, int, int, float | None], None]


@dataclass(frozen=True, slots=True)
class Witness:
    """A constraint, and an order that breaks it: one that breaks no other constraint, if there is such an order."""

    constraint: Constraint
    refuted: int  # classes
    steps: Steps
    alone: bool
    verdict: Verdict


@dataclass(slots=True)
class Found:
    """The results of a search, as far as it got."""

    vocabulary: Steps
    limits: Mapping[str, Any]  # values for fields of `stress.verify.scene.Bounds`
    classes: dict[Steps, int]  # programs, and how many orders each stands for
    verdicts: dict[Steps, Verdict] = field(default_factory=dict)
    #: For each program that was refuted unplayed: the program whose refuted beginning it shares.
    beginnings: dict[Steps, Steps] = field(default_factory=dict)
    witnesses: list[Witness] = field(default_factory=list)
    complete: bool = False
    played: int = 0  # schedules behind the verdicts, played in this search or before
    recalled: int = 0  # verdicts that were kept from before
    elapsed_ns: int = 0

    def judged(self, judgement: str) -> list[Steps]:
        """The programs whose verdict is ``judgement``, in order."""
        return [
            steps for steps in self.classes if steps in self.verdicts and self.verdicts[steps].judgement == judgement
        ]


class Hunt:
    """A search under way."""

    def __init__(self, crew: Crew, kept: Verdicts, limit_ns: int | None, progress: Progress) -> None:
        self._crew = crew
        self._kept = kept
        self._limit_ns = limit_ns
        self._progress = progress

    def search(self, vocabulary: Steps, limits: Mapping[str, Any]) -> Found:
        """Judge every order that can be written with some steps; an interrupt ends the search with what it has."""
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
        """Play a schedule of each order, except of those that begin with steps that were refuted already."""
        refuted: dict[Steps, Steps] = {}  # refuted beginnings, and the program that showed each
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
        """Learn the constraints, and find an order for each that shows why it is needed."""
        refuted = found.judged(REFUTED)
        others = [steps for steps in found.verdicts if found.verdicts[steps].judgement != REFUTED]
        constraints = learn(refuted, others)
        chosen = {constraint: _example(constraint, constraints, refuted) for constraint in constraints}
        shown = dict(self._judge(EXPLORE, list(dict.fromkeys(steps for steps, _ in chosen.values())), found))
        for constraint, (steps, alone) in chosen.items():
            # Where the limit was too short, the schedule that was played first stays.
            verdict = shown.get(steps)
            if verdict is None or verdict.judgement != REFUTED:
                verdict = found.verdicts[found.beginnings.get(steps, steps)]
            count = sum(map(constraint.refutes, refuted))
            found.witnesses.append(Witness(constraint, count, steps, alone, verdict))

    def _judge(self, what: str, orders: Sequence[Steps], found: Found) -> Iterator[tuple[Steps, Verdict]]:
        """Yield verdicts on orders: those that were kept, then the others as they come."""
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
    """A refuted order that breaks a constraint, and no other if such is there: the most plainly written of them."""
    broken = [steps for steps in refuted if constraint.refutes(steps)]
    alone = [steps for steps in broken if sum(each.refutes(steps) for each in constraints) == 1]
    best = max(alone or broken, key=lambda steps: (len(steps) - len(written(steps)), len(steps)))
    return best, bool(alone)
