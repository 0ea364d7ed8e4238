"""vCPUs that access memory by a pattern without end: in closed form from one event to the next that may fault.

Laps (sequential is a stride of one) are followed block by block. Where pages are drawn the number of accesses until one
meets what may fault is geometric, and has no memory: whenever the table changes it is drawn anew. An access that was
planned to fault looks again when it comes, for another vCPU may have mapped its page by then.

An access hits the TLB where a block maps its page, and walks where a table does, or a block with nT.
"""

from __future__ import annotations

import math

from stress.predict import virtual as v
from stress.predict.agenda import schedule, take_off
from stress.predict.decorators import kernel
from stress.predict.virtual import World
from stress.programs import ALWAYS
from stress.results.data import COUNTERS

C_ACCESSES = COUNTERS.index("accesses")
C_WRITES = COUNTERS.index("writes")
C_HITS = COUNTERS.index("tlb_hits")
C_WALKS = COUNTERS.index("walks")

#: Blocks that a lap is planned for at once; behind them the rest is planned.
AHEAD = 64
#: Accesses between two in which a vCPU loses the table pointers of where it is, as a live one does at FEAT_BBM level 2
#: (``stress.kernels.tlb.CHUNK``).
POINTERS_LAST = 128
#: Accesses planned at once, where hardly any would fault.
FAR = 1 << 40


@kernel
def drawn(w: World, who: int) -> float:
    """A random number above 0 and at most 1 (xorshift; Marsaglia, J. Stat. Software 8, 2003)."""
    x = w.s.actor[who, v.A_RANDOM]
    x ^= (x & ((1 << 50) - 1)) << 13
    x ^= (x >> 7) & ((1 << 56) - 1)
    x ^= (x & ((1 << 46) - 1)) << 17
    w.s.actor[who, v.A_RANDOM] = x
    return (((x >> 11) & ((1 << 52) - 1)) + 1) / (1 << 52)


@kernel
def until(w: World, who: int, share: float) -> int:
    """How many accesses pass until one that has a property which a fraction ``share`` of all have; at most FAR."""
    if share >= 1:
        return 0
    if share <= 0:
        return FAR
    return int(min(float(FAR), math.log(drawn(w, who)) / math.log1p(-share)))


@kernel
def writes(w: World, who: int) -> int:
    """Whether the next access writes."""
    return int(drawn(w, who) * ALWAYS <= w.s.control[v.WRITE_BELOW])


@kernel
def meets(w: World, who: int, number: int) -> bool:
    """Whether an actor's walk meets a block that has just taken a table's place, before the TLBI reaches its core.

    Its TLB holds pages of the block as long as its walk cache leads to the old table, past the new entry. It loses that
    pointer behind a fault, or by chance, and then must do so between the store and the issue of the TLBI, from which on
    no core has an old translation: half of what it takes to write an entry.
    """
    a, here = w.s.actor[who], w.s.actor[who, v.A_PAGE] // w.s.control[v.BLOCK_PAGES] == number
    if a[v.A_PHASE] != v.GUEST:
        return bool(here)
    share = 1.0 if here else 0.0
    if a[v.P_PATTERN] == v.UNIFORM or a[v.P_PATTERN] == v.ZIPF:
        share = w.block[number, v.B_WEIGHT] / (1 << v.WEIGHT_BITS)
    return until(w, who, share / POINTERS_LAST) < w.s.cost[v.K_MAP] // (2 * max(w.s.cost[v.K_WALK], 1))


@kernel
def conflicts(w: World, who: int, number: int) -> bool:
    """Whether an actor's access to a block aborts: its TLB holds a page of it that no TLBI has taken yet."""
    block = w.block[number]
    if block[v.B_MIXED] == 0 or block[v.B_KIND] != v.LEAF or block[v.B_OWNER] != 0:
        return False
    return bool(w.s.actor[who, v.A_MEETS] == number + 1)


@kernel
def kept(w: World, number: int) -> bool:
    """Whether TLBs keep the block that maps a page: a table's pages hardly ever, nor a block with nT."""
    return bool(w.block[number, v.B_KIND] == v.LEAF and w.block[number, v.B_NT] == 0)


@kernel
def faults(w: World, who: int, page: int, write: int) -> bool:
    """Whether an actor's access would fault as things are."""
    number = page // w.s.control[v.BLOCK_PAGES]
    block = w.block[number]
    if block[v.B_OWNER] != 0 or block[v.B_KIND] == v.EMPTY or conflicts(w, who, number):
        return True
    if block[v.B_KIND] == v.LEAF:
        return write != 0 and block[v.B_WRITABLE] == 0
    state = w.page[page] & v.STATE
    return state == v.UNMAPPED or state == v.LOCKED or (write != 0 and state == v.READ_ONLY)


@kernel
def share_that_faults(w: World, who: int, number: int) -> float:
    """The fraction of an actor's accesses to a block, drawn at random, that fault; 1 if that depends on the page."""
    block = w.block[number]
    if block[v.B_OWNER] != 0 or block[v.B_KIND] == v.EMPTY or conflicts(w, who, number):
        return 1.0
    writes_of_all = w.s.control[v.WRITE_BELOW] / ALWAYS
    if block[v.B_KIND] == v.LEAF:
        return 0.0 if block[v.B_WRITABLE] != 0 else writes_of_all
    mapped, read_only = block[v.B_MAPPED] / pages_of(w, number), block[v.B_READ_ONLY] / pages_of(w, number)
    if w.s.actor[0, v.P_PATTERN] == v.ZIPF:  # popular pages are the first to be mapped, and written
        return 1.0 if mapped < 1 else writes_of_all if read_only > 0 else 0.0
    return 1 - mapped + read_only * writes_of_all


@kernel
def pages_of(w: World, number: int) -> int:
    """Pages of a block that guest memory has."""
    size = w.s.control[v.BLOCK_PAGES]
    return int(min(size, w.s.control[v.PAGES] - number * size))


# -- laps --------------------------------------------------------------------------------


@kernel
def in_block(w: World, page: int) -> int:
    """Accesses of a lap from ``page`` on that are to its block."""
    size = w.s.control[v.BLOCK_PAGES]
    end = min((page // size + 1) * size, w.s.control[v.PAGES])
    return int(-((page - end) // w.s.control[v.STRIDE]))


@kernel
def further(w: World, page: int, accesses: int) -> int:
    """The page that a lap reaches after ``accesses`` more, of which the last may leave the block.

    Each lap begins one page further on than the last.
    """
    stride = w.s.control[v.STRIDE]
    page += accesses * stride
    return int((page % stride + 1) % stride if page >= w.s.control[v.PAGES] else page)


@kernel
def count_some(w: World, who: int, accesses: int, hits: int) -> None:
    """Count accesses, of which ``hits`` hit the TLB."""
    counters = w.s.counters[who, int(w.s.control[v.INSIDE] > 0)]
    counters[C_ACCESSES] += accesses
    counters[C_HITS] += hits
    counters[C_WALKS] += accesses - hits


@kernel
def price_at(w: World, number: int) -> int:
    """ps of an access to a block."""
    return int(w.s.cost[v.K_HIT if kept(w, number) else v.K_WALK])


@kernel
def follow_laps(w: World, who: int, now: int) -> None:
    """Count the accesses that have ended by now, and move on behind them."""
    a = w.s.actor[who]
    size = w.s.control[v.BLOCK_PAGES]
    left = now - a[v.A_SINCE]
    hits = takes = 0
    for number in range(w.block.shape[0]):
        pages = pages_of(w, number)
        hits += pages if kept(w, number) else 0
        takes += pages * price_at(w, number)
    # After as many laps as the stride has pages, each page was accessed once, and the first lap comes again.
    rounds = left // takes
    count_some(w, who, rounds * w.s.control[v.PAGES], rounds * hits)
    left -= rounds * takes
    while True:
        number = a[v.A_PAGE] // size
        price = price_at(w, number)
        there = in_block(w, a[v.A_PAGE])
        done = min(there, left // price)
        count_some(w, who, done, done if kept(w, number) else 0)
        a[v.A_PAGE] = further(w, a[v.A_PAGE], done)
        left -= done * price
        if done < there:
            break
    a[v.A_SINCE] = now - left


@kernel
def plan_laps(w: World, who: int, now: int) -> None:
    """Find the access in a lap that may fault."""
    a = w.s.actor[who]
    page, takes = a[v.A_PAGE], 0
    to_write = until(w, who, w.s.control[v.WRITE_BELOW] / ALWAYS)  # for the case that only writes fault
    for _ in range(AHEAD):
        number = page // w.s.control[v.BLOCK_PAGES]
        block = w.block[number]
        there = in_block(w, page)
        aborts = conflicts(w, who, number)
        fine, write = there, writes(w, who) if block[v.B_OWNER] != 0 or aborts else 0
        if block[v.B_OWNER] != 0 or block[v.B_KIND] == v.EMPTY or aborts:
            fine = 0
        elif block[v.B_KIND] == v.TABLE and block[v.B_MAPPED] - block[v.B_READ_ONLY] < pages_of(w, number):
            fine = 0
            while fine < there and not faults(w, who, page + fine * w.s.control[v.STRIDE], 0):
                if faults(w, who, page + fine * w.s.control[v.STRIDE], 1):
                    if to_write == 0:
                        write = 1
                        break
                    to_write -= 1
                fine += 1
        elif block[v.B_KIND] == v.LEAF and block[v.B_WRITABLE] == 0:
            write = int(to_write < fine)
            fine = min(fine, to_write)
            to_write -= fine
        takes += fine * price_at(w, number)
        if fine < there:
            page += fine * w.s.control[v.STRIDE]
            a[v.A_NEXT_WRITES] = write
            break
        page = further(w, page, there)
        a[v.A_NEXT_WRITES] = 0
    a[v.A_NEXT] = page
    schedule(w, who, max(now, a[v.A_SINCE] + takes))


# -- pages drawn -------------------------------------------------------------------------


@kernel
def follow_draws(w: World, who: int, now: int) -> None:
    """Count the accesses that have ended by now."""
    a = w.s.actor[who]
    done = (now - a[v.A_SINCE]) // a[v.A_PRICE]
    count_some(w, who, done, round(done * (a[v.A_LEAVES] / (1 << v.WEIGHT_BITS))))
    a[v.A_SINCE] += done * a[v.A_PRICE]


@kernel
def zipf_page(w: World, who: int) -> int:
    """A page as `stress.kernels.pattern` draws it."""
    pages, exponent = w.s.control[v.PAGES], w.s.zipf[0]
    u = 1 - drawn(w, who)
    if abs(exponent - 1.0) < 1e-9:
        x = math.exp(u * math.log(pages + 1.0))
    else:
        x = (1.0 + u * ((pages + 1.0) ** (1.0 - exponent) - 1.0)) ** (1.0 / (1.0 - exponent))
    return int(min(int(x) - 1, pages - 1) * w.s.control[v.SCATTER] % pages)


@kernel
def page_that_faults(w: World, who: int, number: int) -> int:
    """A page of a block that may fault, drawn as accesses are."""
    block = w.block[number]
    first, size = number * w.s.control[v.BLOCK_PAGES], pages_of(w, number)
    whole = block[v.B_OWNER] != 0 or block[v.B_KIND] == v.EMPTY or conflicts(w, who, number)
    if not whole and w.s.actor[who, v.P_PATTERN] == v.ZIPF:
        page = zipf_page(w, who)
        while page < first or page >= first + size:
            page = zipf_page(w, who)
        return page
    at = int((1 - drawn(w, who)) * size)
    if whole or block[v.B_KIND] == v.LEAF:
        return int(first + at)
    unmapped = 1 - block[v.B_MAPPED] / size
    write = int(drawn(w, who) * share_that_faults(w, who, number) > unmapped)
    for i in range(size):  # pages that may fault lie evenly, so the next one is as good as any
        page = first + (at + i) % size
        if faults(w, who, page, write) and (write == 0 or not faults(w, who, page, 0)):
            return int(page)
    return int(first + at)


@kernel
def price_draws(w: World, who: int) -> None:
    """What an access drawn costs on average, and how many are to blocks."""
    price, leaves = 0.0, 0
    for number in range(w.block.shape[0]):
        weight = w.block[number, v.B_WEIGHT]
        price += weight * price_at(w, number)
        leaves += weight if kept(w, number) else 0
    w.s.actor[who, v.A_PRICE] = max(1, int(price / (1 << v.WEIGHT_BITS)))
    w.s.actor[who, v.A_LEAVES] = leaves


@kernel
def plan_draws(w: World, who: int, now: int) -> None:
    """Draw the next access that may fault."""
    a = w.s.actor[who]
    likely = 0.0
    for number in range(w.block.shape[0]):
        likely += w.block[number, v.B_WEIGHT] * share_that_faults(w, who, number)
    pick, last = drawn(w, who) * likely, 0
    for number in range(w.block.shape[0]):
        there = w.block[number, v.B_WEIGHT] * share_that_faults(w, who, number)
        if there > 0:
            last = number
            pick -= there
            if pick <= 0:
                break
    page = page_that_faults(w, who, last)
    a[v.A_NEXT] = page
    # A page that only writes fault at was drawn among writes; but a block's pages, by Zipf, among all that may fault.
    among_all = a[v.P_PATTERN] == v.ZIPF and w.block[last, v.B_KIND] == v.TABLE
    only_writes = (
        not faults(w, who, page, 0)
        and faults(w, who, page, 1)
        and not (among_all and w.block[last, v.B_MAPPED] < pages_of(w, last))
    )
    a[v.A_NEXT_WRITES] = 1 if only_writes else writes(w, who)
    takes = float(until(w, who, likely / (1 << v.WEIGHT_BITS))) * a[v.A_PRICE]
    schedule(w, who, max(now, a[v.A_SINCE] + int(min(takes, float(v.LONGEST_PS)))))


# -- both --------------------------------------------------------------------------------


@kernel
def follow(w: World, who: int, now: int) -> None:
    """Count what a roaming vCPU in the guest has done by now."""
    if now <= w.s.actor[who, v.A_SINCE]:
        return
    if w.s.actor[who, v.P_PATTERN] == v.LAPS:
        follow_laps(w, who, now)
    else:
        follow_draws(w, who, now)


@kernel
def plan(w: World, who: int, now: int) -> None:
    """Let a roaming vCPU go on to the next access that may fault; without end, if no access would."""
    a = w.s.actor[who]
    a[v.A_PHASE] = v.GUEST
    if a[v.P_PATTERN] != v.LAPS:
        price_draws(w, who)
    for number in range(w.block.shape[0]):
        if share_that_faults(w, who, number) > 0:
            if a[v.P_PATTERN] == v.LAPS:
                plan_laps(w, who, now)
            else:
                plan_draws(w, who, now)
            return
    take_off(w, who)


@kernel
def roams(w: World, who: int) -> bool:
    """Whether an actor is a vCPU in the guest that accesses memory by a pattern."""
    return bool(w.s.actor[who, v.P_PATTERN] != v.ONCE and w.s.actor[who, v.A_PHASE] == v.GUEST)


@kernel
def before_change(w: World, now: int) -> None:
    """Before the table changes: count what vCPUs have done, at the old prices. An access under way ends as it began."""
    for who in range(w.s.control[v.VCPUS]):
        if roams(w, who):
            follow(w, who, now)
            a = w.s.actor[who]
            if a[v.A_SINCE] < now:
                laps = a[v.P_PATTERN] == v.LAPS
                number = a[v.A_PAGE] // w.s.control[v.BLOCK_PAGES]
                leaf = kept(w, number) if laps else a[v.A_LEAVES] >> (v.WEIGHT_BITS - 1) != 0
                a[v.A_SINCE] += price_at(w, number) if laps else a[v.A_PRICE]
                count_some(w, who, 1, int(leaf))
                if laps:
                    a[v.A_PAGE] = further(w, a[v.A_PAGE], 1)


@kernel
def after_change(w: World, now: int) -> None:
    """After the table has changed: plan anew for every vCPU that would fault now, or would no longer."""
    for who in range(w.s.control[v.VCPUS]):
        if roams(w, who):
            plan(w, who, now)


@kernel
def arrives(w: World, who: int, now: int) -> bool:
    """Let a roaming vCPU make the access planned; returns whether it faults."""
    a = w.s.actor[who]
    follow(w, who, now)
    a[v.A_PAGE], a[v.A_WRITES] = a[v.A_NEXT], a[v.A_NEXT_WRITES]
    a[v.A_SINCE] = now
    return faults(w, who, a[v.A_PAGE], a[v.A_WRITES])


@kernel
def returns(w: World, who: int, now: int) -> bool:
    """Let a roaming vCPU repeat the access that faulted; returns whether it faults again. If not, the vCPU goes on."""
    a = w.s.actor[who]
    if faults(w, who, a[v.A_PAGE], a[v.A_WRITES]):
        return True
    a[v.A_SINCE] = now
    plan(w, who, now)
    return False
