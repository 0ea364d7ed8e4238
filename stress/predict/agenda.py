"""Which actor does something next: a binary heap of actors by time, and by turn where times are equal; and two servers.

mmu_lock is handed over first come first served. A reader passes unless an actor waits; readers that stand in a row
behind each other get it together. But each counts itself in the lock's word, and so does every fault in that of
mmap_lock: a word moves between cores one after the other. The broadcast TLBI is a server of its own: TLBIs are served
one after the other, however mmu_lock is held. How long each takes is known beforehand, so the server needs no queue but
the time at which it is free.
"""

from __future__ import annotations

from stress.predict import virtual as v
from stress.predict.decorators import kernel
from stress.predict.virtual import World


@kernel
def is_before(w: World, a: int, b: int) -> bool:
    """Whether actor ``a`` is to act before ``b``."""
    first, second = w.s.actor[a, v.A_TIME], w.s.actor[b, v.A_TIME]
    return first < second or (first == second and w.s.actor[a, v.A_TURN] < w.s.actor[b, v.A_TURN])


@kernel
def put(w: World, at: int, who: int) -> None:
    """Put ``who`` at an index of the heap, and note in its words where it stands."""
    w.s.agenda[at] = who
    w.s.actor[who, v.A_AT] = at


@kernel
def sift(w: World, at: int) -> None:
    """Let the actor at an index of the heap find its place."""
    who = w.s.agenda[at]
    while at > 0 and is_before(w, who, w.s.agenda[(at - 1) // 2]):
        put(w, at, w.s.agenda[(at - 1) // 2])
        at = (at - 1) // 2
    count = w.s.control[v.EVENTS]
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        if child + 1 < count and is_before(w, w.s.agenda[child + 1], w.s.agenda[child]):
            child += 1
        if not is_before(w, w.s.agenda[child], who):
            break
        put(w, at, w.s.agenda[child])
        at = child
    put(w, at, who)


@kernel
def schedule(w: World, who: int, time: int) -> None:
    """Let ``who`` act at a time; if it was on the agenda already, at this time instead."""
    w.s.control[v.TURN] += 1
    w.s.actor[who, v.A_TIME] = time
    w.s.actor[who, v.A_TURN] = w.s.control[v.TURN]
    if w.s.actor[who, v.A_AT] < 0:
        put(w, w.s.control[v.EVENTS], who)
        w.s.control[v.EVENTS] += 1
    sift(w, w.s.actor[who, v.A_AT])


@kernel
def take_off(w: World, who: int) -> None:
    """Take an actor off the agenda, if it is there."""
    at = w.s.actor[who, v.A_AT]
    if at < 0:
        return
    w.s.control[v.EVENTS] -= 1
    last = w.s.agenda[w.s.control[v.EVENTS]]
    w.s.actor[who, v.A_AT] = -1
    if last != who:
        put(w, at, last)
        sift(w, at)


@kernel
def pop(w: World) -> int:
    """Take the actor that acts next off the agenda, which is not empty."""
    first = w.s.agenda[0]
    take_off(w, first)
    return int(first)


# -- mmu_lock ----------------------------------------------------------------------------


@kernel
def grant(w: World, who: int, now: int) -> None:
    """Give mmu_lock to ``who``, from now on."""
    a = w.s.actor[who]
    if a[v.A_ALONE] != 0:
        w.s.control[v.HOLDER] = who
    else:
        w.s.control[v.READERS] += 1
        a[v.A_READS] = 1
    a[v.A_LOCKED] = now
    a[v.A_LOCKS] += 1
    a[v.A_WAIT] += now - a[v.A_ASKED]
    schedule(w, who, now + a[v.A_AFTER])


@kernel
def read_word(w: World, word: int, who: int, now: int) -> int:
    """When ``who``, who wants to now, will have counted itself in a lock's word, which moves from reader to reader.

    ``word`` is the control word that says when it may move; the next one says where it is.
    """
    before = w.s.control[word + 1]
    w.s.control[word + 1] = who
    if before == who or before < 0:
        return now
    w.s.control[word] = max(now, w.s.control[word]) + w.s.cost[v.K_SHARE]
    return int(w.s.control[word])


@kernel
def ask(w: World, who: int, now: int, after: int, alone: int) -> None:
    """Let ``who`` ask for mmu_lock, alone or for reading; it acts ``after`` ps after the moment when it gets it."""
    a = w.s.actor[who]
    a[v.A_ASKED] = now
    a[v.A_AFTER] = after
    a[v.A_ALONE] = alone
    if w.s.control[v.HOLDER] < 0 and w.s.control[v.QUEUED] == 0 and (alone == 0 or w.s.control[v.READERS] == 0):
        grant(w, who, now if alone != 0 else read_word(w, v.MMU_WORD, who, now))
    else:
        w.s.queue[(w.s.control[v.QUEUE_HEAD] + w.s.control[v.QUEUED]) % w.s.queue.size] = who
        w.s.control[v.QUEUED] += 1


@kernel
def visit(w: World, entries: int) -> int:
    """How long a tear-down takes, in ps, to visit so many entries, and free their tables."""
    table, size = w.s.cost[v.K_UNMAP_TABLE], w.s.control[v.TABLE_PAGES]
    return int(entries * (table // size) + entries * (table % size) // size)


@kernel
def tear_down(w: World, who: int) -> int:
    """How long an actor's tear-down goes on, in ps: to its end, or to where it next offers mmu_lock to others."""
    a = w.s.actor[who]
    every, before = w.s.control[v.YIELD_EVERY], a[v.A_VISITED]
    a[v.A_VISITED] = a[v.A_TABLES] * w.s.control[v.TABLE_PAGES]
    if every != 0 and a[v.A_LOCKED] >= 0:
        a[v.A_VISITED] = min(a[v.A_VISITED], before + every)
    return int(visit(w, a[v.A_VISITED]) - visit(w, before))


@kernel
def leave_section(w: World, who: int, now: int) -> None:
    """End the read-side section of ``who``, and let those tear down that waited for nothing else."""
    if w.s.actor[who, v.A_READS] == 0:
        return
    w.s.actor[who, v.A_READS] = 0
    if w.s.control[v.GRACE_WAITERS] == 0:
        return
    for other in range(w.s.control[v.VCPUS] + 1):
        if w.s.grace[other, who] != 0:
            w.s.grace[other, who] = 0
            w.s.actor[other, v.A_GRACE_LEFT] -= 1
            if w.s.actor[other, v.A_GRACE_LEFT] == 0:
                w.s.control[v.GRACE_WAITERS] -= 1
                w.s.actor[other, v.A_PHASE] = v.STEP
                schedule(w, other, now + tear_down(w, other))


@kernel
def grace(w: World, who: int, now: int) -> bool:
    """Whether ``who``, whose own read-side section ends, has to wait for others that are in one."""
    leave_section(w, who, now)
    left = 0
    for other in range(w.s.control[v.VCPUS] + 1):
        if other != who and w.s.actor[other, v.A_READS] != 0:
            w.s.grace[who, other] = 1
            left += 1
    w.s.actor[who, v.A_GRACE_LEFT] = left
    w.s.control[v.GRACE_WAITERS] += int(left > 0)
    return left > 0


@kernel
def give_back(w: World, who: int, now: int) -> None:
    """Take mmu_lock from ``who`` and hand it to the actor that has waited longest, with the readers right behind it."""
    a = w.s.actor[who]
    leave_section(w, who, now)
    a[v.A_HOLD] += now - a[v.A_LOCKED]
    a[v.A_LOCKED] = -1
    if a[v.A_ALONE] != 0:
        w.s.control[v.HOLDER] = -1
    else:
        w.s.control[v.READERS] -= 1
    while w.s.control[v.QUEUED] > 0 and w.s.control[v.HOLDER] < 0:
        first = w.s.queue[w.s.control[v.QUEUE_HEAD]]
        if w.s.actor[first, v.A_ALONE] != 0 and w.s.control[v.READERS] > 0:
            return
        w.s.control[v.QUEUE_HEAD] = (w.s.control[v.QUEUE_HEAD] + 1) % w.s.queue.size
        w.s.control[v.QUEUED] -= 1
        grant(w, first, now + w.s.cost[v.K_HAND_OVER] + w.s.control[v.QUEUED] * w.s.cost[v.K_HAND_OVER_WAITING])


# -- the broadcast TLBI ------------------------------------------------------------------


@kernel
def tlbi(w: World, alone: int, now: int) -> int:
    """When a broadcast TLBI will be complete that is issued now and takes ``alone`` ps if no other core waits."""
    begin = max(now, w.s.control[v.TLBI_FREE])
    w.s.control[v.TLBI_FREE] = begin + alone + w.s.control[v.TLBI_WAITING] * w.s.cost[v.K_TLBI_WAITING]
    w.s.control[v.TLBI_WAITING] += 1
    w.s.sums[v.S_TLBIS] += 1
    return int(w.s.control[v.TLBI_FREE])


@kernel
def tlbi_done(w: World) -> None:
    """Count one core less that waits for its TLBI."""
    w.s.control[v.TLBI_WAITING] -= 1
