"""The event loop: the actor whose turn is next acts, until every vCPU's program is done."""

from __future__ import annotations

from stress.predict import virtual as v
from stress.predict.aborts import act_after_clean, leave, look, map_entry, relaxed, split, went_on_splitting
from stress.predict.accounting import conflict_over
from stress.predict.agenda import pop
from stress.predict.decorators import entry
from stress.predict.dividing import ALL_DONE, split_step_done
from stress.predict.guest_time import end_row, go_on
from stress.predict.preemption import end_quantum, resume
from stress.predict.rebuilding import begin_rebuild, go_through_steps, regained, step_done
from stress.predict.repeats import look_back
from stress.predict.tasks import begin_task, go_on_with_task, linked
from stress.predict.virtual import World


@entry
def play(w: World, events: int, begins: int) -> int:
    """Play at most so many events, once whoever begins (NOBODY, PROGRAMS, TASKS + task) has begun.

    DONE when every program, or the task, is done; MORE if there are events left; STUCK if vCPUs wait for what will not
    come, because an order leaves an entry invalid; TOO_LONG behind `LONGEST_PS`.
    """
    control = w.s.control
    if begins == v.PROGRAMS:
        control[v.RUNNING] = control[v.VCPUS]
        control[v.REFERENCE] = 0
        w.s.watch[:] = 0
        for who in range(control[v.VCPUS]):
            w.s.actor[who, v.A_GROUP] = w.s.actor[who, v.A_PART] = w.s.actor[who, v.A_LEFT] = 0
    if begins != v.NOBODY:
        for who in range(control[v.VCPUS]):
            if w.s.actor[who, v.A_PHASE] == v.IDLE:
                go_on(w, who, control[v.NOW])
    if begins >= v.TASKS:
        begin_task(w, begins - v.TASKS, control[v.NOW])
    for _ in range(events):
        if control[v.RUNNING] == 0:
            return v.DONE
        if control[v.EVENTS] == 0:
            return v.STUCK
        now = w.s.actor[w.s.agenda[0], v.A_TIME]
        if now > v.LONGEST_PS:
            return v.TOO_LONG
        who = pop(w)
        control[v.NOW] = now
        control[v.PLAYED] += 1
        phase = w.s.actor[who, v.A_PHASE]
        if who > control[v.VCPUS]:
            end_quantum(w, now)
        elif phase == v.READY and who == control[v.VCPUS]:
            begin_task(w, control[v.TASK], now)
        elif phase == v.READY:
            resume(w, who, now)
        elif phase == v.GUEST:
            end_row(w, who, now)
        elif phase == v.EXIT:
            leave(w, who, now)
        elif phase == v.LOOK:
            look(w, who, now)
        elif phase == v.CLEAN:
            act_after_clean(w, who, now)
        elif phase == v.MAP:
            map_entry(w, who, now)
        elif phase == v.RELAX:
            relaxed(w, who, now)
        elif phase == v.SPLIT_STEP:
            state = split_step_done(w, who, now)
            if who < control[v.VCPUS]:
                went_on_splitting(w, who, state, now)
            elif state == ALL_DONE:
                linked(w, now)
        elif phase == v.SPLIT:
            split(w, who, now)
        elif phase == v.CONFLICT:
            conflict_over(w, who, now)
        elif phase == v.GATHER:
            go_through_steps(w, who, now)
        elif phase == v.BEFORE:
            begin_rebuild(w, who, now)
        elif phase == v.STEP:
            step_done(w, who, now)
        elif phase == v.YIELD:
            regained(w, who, now)
        elif phase >= v.DWELL:
            go_on_with_task(w, phase, now)
        if control[v.REPEATABLE] != 0 and who == control[v.REFERENCE]:
            reached = w.s.actor[who, v.A_PHASE]
            if reached == v.EXIT and phase != v.EXIT:
                look_back(w, now)
            elif reached == v.IDLE:
                for other in range(control[v.VCPUS]):
                    if w.s.actor[other, v.A_PHASE] != v.IDLE:
                        control[v.REFERENCE] = other
                        w.s.watch[:] = 0
                        break
    return v.MORE
