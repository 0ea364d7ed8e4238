"""Schedules by chance: each step by any actor that can go on."""

from __future__ import annotations

from random import Random

from stress.verify.system import Schedule, System


def play_at_random(system: System, schedule: Schedule, random: Random) -> list[int]:
    """Play one schedule to its end; the actors chosen."""
    system.reset()
    schedule.clear()
    choices = []
    while enabled := system.enabled():
        actor = random.choice(enabled)
        schedule.add(actor, system.step(actor))
        choices.append(actor)
    return choices
