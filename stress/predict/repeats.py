"""What repeats itself is not played again: the state of the machine, seen from the first vCPU, is the same as before.

Times are integers and nothing is drawn in a program's row of pages, so the machine is where it was, some pages further
on, and will go through the same again as long as it meets the same: the rest of a table, or of a block. Then whole
periods are added at once. Two moments are kept, by R. P. Brent's method (BIT 20, 1980): one looks for what repeats
itself page by page, the other for what does so table by table, because the first page of a table costs more.
"""

from __future__ import annotations

from stress.predict import virtual as v
from stress.predict.decorators import kernel
from stress.predict.roaming import conflicts
from stress.predict.virtual import World

#: Rows shorter than this are played.
SHORT = 8

#: Words of ``watch``.
W_TIME, W_LEFT, W_POWER, W_ARMED = range(4)


@kernel
def sign(w: World, now: int) -> int:
    """Write down the state, times from now on, pages from the reference's on; how many words it has."""
    seen = w.s.seen[v.UNITS]
    page = w.s.actor[w.s.control[v.REFERENCE], v.A_PAGE]
    n = 0
    for who in range(w.s.control[v.VCPUS]):
        a = w.s.actor[who]
        seen[n] = a[v.A_PHASE] + (a[v.A_STEP] << 8 if a[v.A_PHASE] == v.SPLIT_STEP else 0)
        n += 1
        if a[v.A_PHASE] == v.IDLE:
            continue
        for word in (
            v.A_WRITES,
            v.A_GROUP,
            v.A_PART,
            v.A_PLANNED,
            v.A_COUNTED,
            v.A_PRICE,
            v.A_LONG,
            v.A_READS,
            v.A_MET,
            v.A_LEVEL,
            v.A_LEAF,
            v.A_INSIDE,
        ):
            seen[n] = a[word]
            n += 1
        for word in (v.A_ACTION, v.A_WAIT, v.A_HOLD, v.A_LOCKS, v.A_ALONE, v.A_AFTER):
            seen[n] = a[word]
            n += 1
        seen[n] = a[v.A_PAGE] - page
        seen[n + 1] = a[v.A_KEY] - page if a[v.A_PHASE] == v.SPIN and a[v.A_KEY] >= 0 else 0
        seen[n + 2] = a[v.A_TIME] - now if a[v.A_AT] >= 0 else -1
        seen[n + 3] = a[v.A_TURN] - w.s.control[v.TURN] if a[v.A_AT] >= 0 else 1
        seen[n + 4] = a[v.A_SINCE] - now if a[v.A_PHASE] == v.GUEST or a[v.A_PHASE] == v.SPIN else 0
        seen[n + 5] = a[v.A_START] - now if a[v.A_PHASE] != v.GUEST and a[v.A_PHASE] != v.SPIN else 0
        seen[n + 6] = a[v.A_ASKED] - now if a[v.A_PHASE] == v.LOOK else 0
        seen[n + 7] = a[v.A_LOCKED] - now if a[v.A_LOCKED] >= 0 else 1
        seen[n + 8] = a[v.A_VISITED] if a[v.A_PHASE] == v.STEP or a[v.A_PHASE] == v.YIELD else 0
        seen[n + 9] = int(conflicts(w, who, a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES]))
        n += 10
        block = w.block[a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES]]
        for word in (v.B_KIND, v.B_WRITABLE, v.B_OWNER, v.B_WINDOW, v.B_SPINNERS):
            seen[n] = block[word]
            n += 1
    for i in range(w.s.control[v.QUEUED]):
        seen[n] = w.s.queue[(w.s.control[v.QUEUE_HEAD] + i) % w.s.queue.size]
        n += 1
    for word in (v.HOLDER, v.READERS, v.QUEUED, v.TLBI_WAITING, v.INSIDE, v.GRACE_WAITERS, v.RUNNING, v.LONG_ROWS):
        seen[n] = w.s.control[word]
        n += 1
    seen[n] = max(0, w.s.control[v.TLBI_FREE] - now)
    seen[n + 1] = max(0, w.s.control[v.MMU_WORD] - now)
    seen[n + 2] = w.s.control[v.MMU_WORD_AT]
    seen[n + 3] = max(0, w.s.control[v.MMAP_WORD] - now)
    seen[n + 4] = w.s.control[v.MMAP_WORD_AT]
    seen[n + 5] = w.page[page]
    return n + 6


@kernel
def keep(w: World, unit: int, words: int, now: int) -> None:
    """Keep the state, which has ``words`` words, as the one to compare with."""
    for i in range(words):
        w.s.seen[unit, i] = w.s.seen[v.UNITS, i]
    for who in range(w.s.control[v.VCPUS]):
        for word in range(v.ACTOR_WORDS):
            w.s.then_actor[unit, who, word] = w.s.actor[who, word]
        for inside in range(2):
            for i in range(w.s.counters.shape[2]):
                w.s.then_counters[unit, who, inside, i] = w.s.counters[who, inside, i]
    for i in range(v.SUM_WORDS):
        w.s.then_sums[unit, i] = w.s.sums[i]
    for kind in range(w.s.stalls.shape[0]):
        for i in range(w.s.stalls.shape[1]):
            w.s.then_stalls[unit, kind, i] = w.s.stalls[kind, i]
    w.s.watch[unit, W_TIME] = now


@kernel
def front(w: World, who: int) -> int:
    """The page that the actor will fault on, or faults on."""
    return int(w.s.actor[who, v.A_PAGE] + w.s.actor[who, v.A_PLANNED])


@kernel
def leads(w: World, who: int) -> bool:
    """Whether the actor is the furthest in its block; of actors at the same page the first one is."""
    size = w.s.control[v.BLOCK_PAGES]
    mine = front(w, who)
    for other in range(w.s.control[v.VCPUS]):
        its = front(w, other)
        beside = w.s.actor[other, v.A_PHASE] != v.IDLE and its // size == mine // size
        if beside and (its > mine or (its == mine and other < who)):
            return False
    return True


@kernel
def alike(w: World, who: int, last: int, most: int) -> int:
    """How many pages ahead of ``last``, at most ``most``, are as the leader's was: unmapped, or mapped read-only."""
    state = w.page[last + 1]
    if state & v.STATE != (v.READ_ONLY if w.s.actor[who, v.A_LEAF] != 0 else v.UNMAPPED):
        return 0
    ahead = 0
    while ahead < most and w.page[last + 1 + ahead] == state:
        ahead += 1
    return ahead


@kernel
def periods(w: World, unit: int, step: int) -> int:
    """How many periods of ``step`` pages all actors can go on as in the last period, and meet the same."""
    span = w.s.control[v.TABLE_PAGES] if unit == 0 else w.s.control[v.BLOCK_PAGES]
    times = w.page.size
    for who in range(w.s.control[v.VCPUS]):
        a = w.s.actor[who]
        if a[v.A_PHASE] == v.IDLE:
            continue
        last = front(w, who)
        then = w.s.then_actor[unit, who, v.A_PAGE]
        if then // span != last // span:
            return 0
        times = min(times, (span - 1 - last % span) // step, (a[v.A_LEFT] - a[v.A_PLANNED] - 1) // step)
        if times > 0 and leads(w, who):
            times = alike(w, who, last, times * step) // step
        if times <= 0:
            return 0
    return int(times)


@kernel
def move_pages(w: World, who: int, step: int, further: int) -> None:
    """Set the pages of the block that ``who`` leads in to what they are once all actors are ``further`` pages on."""
    size = w.s.control[v.BLOCK_PAGES]
    last = front(w, who)
    first = last
    for other in range(w.s.control[v.VCPUS]):
        if w.s.actor[other, v.A_PHASE] != v.IDLE and w.s.actor[other, v.A_PAGE] // size == last // size:
            first = min(first, w.s.actor[other, v.A_PAGE])
    for page in range(last, first - 1, -1):
        w.page[page + further] = w.page[page]
    for page in range(first, first + further):
        w.page[page] = w.page[page - step]


@kernel
def skip(w: World, unit: int, step: int, times: int, now: int) -> None:
    """Let ``times`` periods of ``step`` pages pass, as the last one did."""
    passed = times * (now - w.s.watch[unit, W_TIME])
    for who in range(w.s.control[v.VCPUS]):
        if w.s.actor[who, v.A_PHASE] != v.IDLE and leads(w, who):
            move_pages(w, who, step, times * step)
    for who in range(w.s.control[v.VCPUS]):
        a = w.s.actor[who]
        if a[v.A_PHASE] == v.IDLE:
            continue
        a[v.A_PAGE] += times * step
        a[v.A_LEFT] -= times * step
        if a[v.A_KEY] >= 0:
            a[v.A_KEY] += times * step
        for word in (v.A_TIME, v.A_SINCE, v.A_START, v.A_ASKED):
            a[word] += passed
        if a[v.A_LOCKED] >= 0:
            a[v.A_LOCKED] += passed
    w.s.control[v.TLBI_FREE] += passed
    w.s.control[v.MMU_WORD] += passed
    w.s.control[v.MMAP_WORD] += passed
    w.s.control[v.NOW] = now + passed
    for who in range(w.s.control[v.VCPUS]):
        for inside in range(2):
            for i in range(w.s.counters.shape[2]):
                w.s.counters[who, inside, i] += times * (
                    w.s.counters[who, inside, i] - w.s.then_counters[unit, who, inside, i]
                )
    for i in range(v.SUM_WORDS):
        w.s.sums[i] += times * (w.s.sums[i] - w.s.then_sums[unit, i])
    for kind in range(w.s.stalls.shape[0]):
        for i in range(w.s.stalls.shape[1]):
            w.s.stalls[kind, i] += times * (w.s.stalls[kind, i] - w.s.then_stalls[unit, kind, i])


@kernel
def look_back(w: World, now: int) -> None:
    """After a fault of the reference: if the machine is where it was, let it go on by all periods that it can."""
    a = w.s.actor[w.s.control[v.REFERENCE]]
    if w.s.control[v.REPEATABLE] == 0 or a[v.A_LEFT] < SHORT:
        return
    words = sign(w, now)
    size = w.s.control[v.TABLE_PAGES]
    for unit in range(v.UNITS):
        watch = w.s.watch[unit]
        then = w.s.then_actor[unit, w.s.control[v.REFERENCE]]
        armed = watch[W_ARMED] != 0 and then[v.A_GROUP] == a[v.A_GROUP] and then[v.A_PART] == a[v.A_PART]
        if (
            unit == 1
            and armed
            and (then[v.A_PAGE] // size == a[v.A_PAGE] // size or then[v.A_PAGE] % size != a[v.A_PAGE] % size)
        ):
            continue
        step = a[v.A_PAGE] - then[v.A_PAGE]
        same = armed and step > 0
        i = 0
        while same and i < words:
            same = w.s.seen[unit, i] == w.s.seen[v.UNITS, i]
            i += 1
        if same:
            times = periods(w, unit, step)
            if times > 0:
                skip(w, unit, step, times, now)
                for finer in range(unit + 1):
                    w.s.watch[finer, W_ARMED] = 0
                return
        watch[W_LEFT] -= 1
        if not armed or watch[W_LEFT] <= 0:
            watch[W_POWER] = 2 * watch[W_POWER] if armed else 1
            watch[W_LEFT] = watch[W_POWER]
            watch[W_ARMED] = 1
            keep(w, unit, words, now)
