"""The verdict on an order, by `stress verify`: one schedule at first, which refutes most; all of them if it does not.

Runs where kernels are plain Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stress.orders import Step
from stress.results.counterexamples import FOUND
from stress.search.classes import Steps, order_of
from stress.search.verdicts import OPEN, PROVED, REFUTED, UNDECIDED, Verdict
from stress.verify.hooks import Hooks
from stress.verify.replay import as_kept, follow, simplify
from stress.verify.scene import Bounds, Scene
from stress.verify.stops import Shared
from stress.verify.verification import Counterexample, Judgement, verify


def machines_of(steps: Steps, bounds: Bounds) -> list[Bounds]:
    """The machines that an order is proved on.

    The first has one vCPU with several accesses, the second two vCPUs with one access each, which shows all that vCPUs
    do to each other. If the order looks again after ``lock``, each comes also with vCPUs that rebuild, so that what the
    rebuilder looked at moves.
    """
    machines = [bounds, replace(bounds, vcpus=2, accesses=1)] if bounds.vcpus == 1 else [bounds]
    if order_of(steps).looks_again:
        machines += [replace(each, vcpu_rebuilds=True) for each in machines]
    return machines


def screen(steps: Steps, limits: Mapping[str, Any]) -> Verdict:
    """Play one schedule, in which the rebuild is over before a vCPU begins; OPEN if that does not refute the order.

    ``limits`` are fields of `Bounds`.
    """
    order = order_of(steps)
    bounds = replace(Bounds(**limits), vcpus=1, speculating=0)
    with Hooks() as hooks:
        scene = Scene(hooks, order, bounds, None)
        begun: list[str] = []  # the steps begun up to the first violation
        notes: list[str] = []

        def listen(_: int, text: str) -> None:
            notes.append(text)

        scene.world.listener = listen
        while True:
            notes.clear()
            try:
                kinds = follow(scene, ()).kinds
                break
            except Shared:  # the word is shared: actors stop before its accesses from here on
                continue
        if not kinds:
            return Verdict(OPEN)
        stops = tuple(sorted(scene.world.visible))
    for text in notes:
        if text.startswith(FOUND):
            break
        if text.startswith("["):
            begun.append(text)
    beginning = len(begun) if any(text.startswith(FOUND) for text in notes) else 0
    # A lock taken at once is no step of the interpreter; and unlock looks at the steps after it.
    beginning = 0 if f"[{Step.UNLOCK}]" in begun else beginning + int(beginning > 0 and steps[0] is Step.LOCK)
    example = Counterexample(order.name, bounds, None, stops, (), tuple(sorted(kinds)))
    return Verdict(REFUTED, tuple(sorted(kinds)), counterexample=as_kept(example), beginning=beginning)


def explore(steps: Steps, limits: Mapping[str, Any], limit_ns: int | None) -> Verdict:
    """Explore all schedules on an order's machines, up to the first violation, whose schedule is then made simpler."""
    order = order_of(steps)
    schedules, elapsed_ns = 0, 0
    with Hooks() as hooks:
        for bounds in machines_of(steps, Bounds(**limits)):
            verified = verify(hooks, order, bounds, limit_ns)
            schedules += verified.schedules
            elapsed_ns += verified.elapsed_ns
            if verified.judgement is Judgement.PROVED:
                continue
            kinds = tuple(sorted(verified.kinds))
            if verified.counterexample is None:
                return Verdict(UNDECIDED, kinds, verified.why, schedules, elapsed_ns)
            example = simplify(hooks, order, verified.counterexample)
            return Verdict(REFUTED, kinds, "", schedules, elapsed_ns, as_kept(example))
    return Verdict(PROVED, (), "", schedules, elapsed_ns)
