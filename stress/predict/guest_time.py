"""What a vCPU does between its faults, in closed form: accesses in a row, as many as will not fault.

A row is planned when it begins. A page that is mapped meanwhile changes nothing: the row ends before it and is then
planned on. An entry that is broken cuts the rows short that go through it.

Long rows share memory, which serves a part of each miss for one core at a time: with n of them an access takes
max(miss, n x that part), the asymptotic bound of a closed network (Denning and Buzen, Computing Surveys 10, 1978), met
where nothing is random. Whenever there is one row more or less, the others' times are worked out anew.

A vCPU that reads behind another finds in a cache what that one has fetched, and catches up: readers of one block end
together, and all fault on the next one before it is rebuilt. None of them reads while that block is torn down under an
exclusive mmu_lock. How far behind a vCPU may be, which a cache's size decides, is not modelled.
"""

from __future__ import annotations

from stress.arch.geometry import LAST_LEVEL
from stress.predict import virtual as v
from stress.predict.agenda import read_word, schedule
from stress.predict.cores import has_core, leave_core
from stress.predict.decorators import kernel
from stress.predict.roaming import after_change, arrives, before_change, conflicts, follow, plan, returns
from stress.predict.virtual import World
from stress.results.data import COUNTERS

C_ACCESSES = COUNTERS.index("accesses")
C_WRITES = COUNTERS.index("writes")
C_WALKS = COUNTERS.index("walks")

#: Shorter rows do not count as sharing memory: the faults between them take longer.
LONG = 64


@kernel
def find_row(w: World, who: int) -> bool:
    """Move on in the program until there are pages to access; False at its end."""
    a = w.s.actor[who]
    while a[v.A_LEFT] == 0:
        if a[v.A_GROUP] == a[v.P_GROUPS]:
            return False
        start = a[v.P_FIRST] + a[v.A_GROUP] * a[v.P_GROUP]
        if a[v.A_PART] == 0:
            a[v.A_PART] = 1
            a[v.A_PAGE], a[v.A_LEFT], a[v.A_WRITES] = start, a[v.P_HEAD], a[v.P_HEAD_WRITES]
        else:
            a[v.A_PART] = 0
            a[v.A_GROUP] += 1
            a[v.A_PAGE], a[v.A_LEFT], a[v.A_WRITES] = start + a[v.P_SKIP], a[v.P_RUN], a[v.P_RUN_WRITES]
    return True


@kernel
def reach(w: World, who: int, page: int, left: int, writes: int) -> int:
    """How many accesses in a row from ``page`` on, at most ``left``, do not fault as things are."""
    size = w.s.control[v.BLOCK_PAGES]
    block = w.block[page // size]
    if block[v.B_OWNER] != 0 or conflicts(w, who, page // size):
        return 0
    left = min(left, size - page % size)
    if block[v.B_KIND] == v.LEAF:
        return left if writes == 0 or block[v.B_WRITABLE] != 0 else 0
    if block[v.B_KIND] != v.TABLE:
        return 0
    for i in range(left):
        state = w.page[page + i] & v.STATE
        if state == v.UNMAPPED or state == v.LOCKED or (writes != 0 and state == v.READ_ONLY):
            return i
    return left


@kernel
def count(w: World, who: int, done: int) -> None:
    """Count the first ``done`` accesses of a row, but for those that were counted before."""
    a = w.s.actor[who]
    more = done - a[v.A_COUNTED]
    counters = w.s.counters[who, int(w.s.control[v.INSIDE] > 0)]
    counters[C_ACCESSES] += more
    counters[C_WALKS] += more
    if a[v.A_WRITES] != 0:
        counters[C_WRITES] += more
    a[v.A_COUNTED] = done


@kernel
def done_by(w: World, who: int, now: int, begun: int) -> int:
    """Accesses of a row that have ended at a time; with ``begun`` 1 those that have begun."""
    a = w.s.actor[who]
    if a[v.A_PRICE] == 0:
        return int(a[v.A_PLANNED])
    since = now - a[v.A_SINCE]
    whole = (since + begun * (a[v.A_PRICE] - 1)) // a[v.A_PRICE]
    return int(min(a[v.A_PLANNED], whole))


@kernel
def lead(w: World, who: int, now: int) -> int:
    """By how many pages the foremost long row in the same block is ahead of the actor."""
    page, size = w.s.actor[who, v.A_PAGE], w.s.control[v.BLOCK_PAGES]
    ahead = 0
    for other in range(w.s.control[v.VCPUS]):
        a = w.s.actor[other]
        if a[v.A_LONG] != 0 and a[v.A_PAGE] // size == page // size:
            ahead = max(ahead, a[v.A_PAGE] + done_by(w, other, now, 0) - page)
    return int(ahead)


@kernel
def share_memory(w: World, now: int) -> None:
    """Work out long rows anew: their number has changed, and so has the time of an access."""
    price = w.s.access[w.s.control[v.LONG_ROWS]]
    for who in range(w.s.control[v.VCPUS]):
        a = w.s.actor[who]
        if a[v.A_LONG] == 0 or a[v.A_PRICE] == price:
            continue
        done = done_by(w, who, now, 0)
        count(w, who, done)
        begun = now - a[v.A_SINCE] - done * a[v.A_PRICE]  # time that the access under way has taken so far
        a[v.A_PAGE] += done
        a[v.A_LEFT] -= done
        a[v.A_PLANNED] -= done
        a[v.A_COUNTED] = 0
        a[v.A_SINCE] = now - begun * price // max(1, a[v.A_PRICE])
        a[v.A_PRICE] = price
        schedule(w, who, max(now, a[v.A_SINCE] + a[v.A_PLANNED] * price))


@kernel
def enter_rebuild(w: World, now: int, change: int) -> None:
    """Begin a rebuild (``change`` 1) or end one (-1), and count accesses and their time until now as what they were."""
    if (w.s.control[v.INSIDE] > 0) != (w.s.control[v.INSIDE] + change > 0):
        for who in range(w.s.control[v.VCPUS]):
            if w.s.actor[who, v.A_PHASE] == v.GUEST:
                if w.s.actor[who, v.P_PATTERN] != v.ONCE:
                    follow(w, who, now)
                else:
                    count(w, who, done_by(w, who, now, 0))
        if w.s.control[v.INSIDE] > 0:
            w.s.sums[v.S_INSIDE_PS] += now - w.s.control[v.INSIDE_SINCE]
        w.s.control[v.INSIDE_SINCE] = now
    w.s.control[v.INSIDE] += change


@kernel
def cut_rows(w: World, number: int, now: int) -> None:
    """Let every vCPU that accesses a block fault at its next access: the block's entry was broken."""
    cut_programs(w, number, now)
    before_change(w, now)
    after_change(w, now)


@kernel
def cut_programs(w: World, number: int, now: int) -> None:
    """Let every vCPU that accesses a block by a program fault at its next access."""
    for who in range(w.s.control[v.VCPUS]):
        a = w.s.actor[who]
        if a[v.P_PATTERN] != v.ONCE:
            continue
        if a[v.A_PHASE] == v.GUEST and a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES] == number:
            cut_row(w, who, now)


@kernel
def cut_row(w: World, who: int, now: int) -> None:
    """Let the accesses planned in a row end with the one under way."""
    a = w.s.actor[who]
    done = done_by(w, who, now, 1)
    if done < a[v.A_PLANNED]:
        a[v.A_PLANNED] = done
        schedule(w, who, a[v.A_SINCE] + done * a[v.A_PRICE])


@kernel
def level_met(w: World, page: int) -> int:
    """The level at which a walk for ``page`` of a block that is a table ends."""
    filled = w.block[page // w.s.control[v.BLOCK_PAGES], v.B_FILLED] != 0
    if filled or w.s.control[v.BLOCK_LEVEL] == LAST_LEVEL - 1:
        return LAST_LEVEL
    first = page - page % w.s.control[v.TABLE_PAGES]
    for other in range(first, min(first + w.s.control[v.TABLE_PAGES], w.page.size)):
        if w.page[other] & v.STATE != v.UNMAPPED:
            return LAST_LEVEL
    return LAST_LEVEL - 1


@kernel
def fault(w: World, who: int, now: int) -> None:
    """Let the access to the actor's page fault: the vCPU exits, and the host provides memory if there is none."""
    a = w.s.actor[who]
    page = a[v.A_PAGE]
    number = page // w.s.control[v.BLOCK_PAGES]
    block = w.block[number]
    a[v.A_START] = now
    a[v.A_MET] = block[v.B_WINDOW]
    a[v.A_INSIDE] = int(w.s.control[v.INSIDE] > 0)
    if conflicts(w, who, number):
        a[v.A_PHASE] = v.CONFLICT
        schedule(w, who, now + w.s.cost[v.K_CONFLICT])
        return
    a[v.A_PHASE] = v.EXIT
    a[v.A_LEVEL] = w.s.control[v.BLOCK_LEVEL]
    a[v.A_LEAF] = 0
    if a[v.A_MET] != 0:
        w.draft[a[v.A_MET] - 1, v.R_FAULTS] += 1
    elif block[v.B_KIND] == v.TABLE and block[v.B_OWNER] == 0:
        a[v.A_LEVEL] = level_met(w, page)
        a[v.A_LEAF] = int(w.page[page] & v.STATE == v.READ_ONLY)
    elif block[v.B_KIND] == v.LEAF and block[v.B_OWNER] == 0:
        a[v.A_LEAF] = 1
    ready = read_word(w, v.MMAP_WORD, who, now + w.s.cost[v.K_EXIT])
    if w.s.control[v.PAGE_BACKED] != 0:
        if w.page[page] & v.HAS_HOST == 0:
            ready += w.s.cost[v.K_ZERO_PAGE]
    elif block[v.B_HOST] < 0:
        block[v.B_HOST] = ready = ready + w.s.cost[v.K_ZERO_BLOCK]
    else:
        ready = max(ready, block[v.B_HOST])
    schedule(w, who, ready)


@kernel
def go_on(w: World, who: int, now: int) -> None:
    """Plan the accesses that come next. The first may fault, or the program may be at its end."""
    a = w.s.actor[who]
    if not has_core(w, who, now):
        return
    if a[v.P_PATTERN] != v.ONCE:
        if returns(w, who, now):
            fault(w, who, now)
        return
    if not find_row(w, who):
        a[v.A_PHASE] = v.IDLE
        a[v.A_ENDED] = now
        w.s.control[v.RUNNING] -= 1
        leave_core(w, who, now)
        return
    planned = reach(w, who, a[v.A_PAGE], a[v.A_LEFT], a[v.A_WRITES])
    if planned == 0:
        fault(w, who, now)
        return
    long, price = planned >= LONG, w.s.access[w.s.control[v.LONG_ROWS] + 1]
    if long and w.s.control[v.LONG_ROWS] > 0 and 0 < w.s.cost[v.K_WALK] < price:
        ahead = lead(w, who, now)
        if ahead >= LONG:  # plan to where that row is now; by then it is less far ahead
            long, price, planned = False, w.s.cost[v.K_WALK], min(planned, ahead)
    a[v.A_PHASE] = v.GUEST
    a[v.A_SINCE], a[v.A_PLANNED], a[v.A_COUNTED] = now, planned, 0
    a[v.A_PRICE] = price
    schedule(w, who, now + planned * price)
    if long:
        a[v.A_LONG] = 1
        w.s.control[v.LONG_ROWS] += 1
        share_memory(w, now)


@kernel
def end_row(w: World, who: int, now: int) -> None:
    """End a row whose planned accesses are done."""
    a = w.s.actor[who]
    if a[v.P_PATTERN] != v.ONCE:
        if arrives(w, who, now):
            fault(w, who, now)
        else:
            plan(w, who, now)
        return
    if a[v.A_LONG] != 0:
        a[v.A_LONG] = 0
        w.s.control[v.LONG_ROWS] -= 1
        share_memory(w, now)
    count(w, who, a[v.A_PLANNED])
    a[v.A_PAGE] += a[v.A_PLANNED]
    a[v.A_LEFT] -= a[v.A_PLANNED]
    a[v.A_PLANNED] = 0
    go_on(w, who, now)


@kernel
def begin_to_spin(w: World, who: int, key: int, now: int) -> None:
    """Let an actor that lost a race, and is back in the guest, fault until the entry's owner is done: one event."""
    a = w.s.actor[who]
    a[v.A_PHASE] = v.SPIN
    a[v.A_SINCE] = now
    a[v.A_KEY] = key
    w.block[a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES], v.B_SPINNERS] += 1


@kernel
def turns(w: World, who: int, now: int) -> int:
    """How often a spinning actor faults until ``now``. Its last fault is the first that may find the entry changed."""
    each = w.s.cost[v.K_EXIT] + w.s.cost[v.K_FAULT]
    if each == 0:
        return 0
    return int(-((w.s.actor[who, v.A_SINCE] - now) // each))
