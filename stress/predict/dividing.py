"""A split in virtual time: each step of the split order as what it costs, and what others see of it."""

from __future__ import annotations

from stress.orders import Scope, Step, mask_of
from stress.predict import virtual as v
from stress.predict.agenda import schedule, tlbi, tlbi_done
from stress.predict.decorators import kernel
from stress.predict.guest_time import cut_rows
from stress.predict.virtual import World

_BUILD = Step.BUILD.code
_LINKS = mask_of(lambda facts: facts.links)
_TLBIS = mask_of(lambda facts: facts.tlbi)
_BY_IPA = mask_of(lambda facts: facts.tlbi is Scope.IPA)

#: What a split is after the steps done so far.
UNDER_WAY, ALL_DONE, LOST = range(3)


@kernel
def begin_split(w: World, who: int, number: int, entries: int, now: int) -> int:
    """Under mmu_lock, split a block into a table of which ``entries`` entries are written before it is linked."""
    a = w.s.actor[who]
    a[v.A_BLOCK], a[v.A_STEP], a[v.A_BROKEN] = number, 0, 0
    a[v.A_VERSION] = w.block[number, v.B_VERSION]
    a[v.A_ENTRIES] = entries
    return split_steps(w, who, now)


@kernel
def split_steps(w: World, who: int, now: int) -> int:
    """Do the steps that come next, until one takes time, none is left, or another was faster."""
    a = w.s.actor[who]
    while w.s.split[a[v.A_STEP]] >= 0:
        code = w.s.split[a[v.A_STEP]]
        takes = 0
        if code == _BUILD:
            takes = a[v.A_ENTRIES] * w.s.cost[v.K_MAP]
        elif _TLBIS >> code & 1:
            takes = tlbi(w, w.s.cost[v.K_TLBI_IPA if _BY_IPA >> code & 1 else v.K_TLBI], now) - now
        else:
            if a[v.A_BROKEN] == 0 and not unlink(w, who, now):
                return LOST
            if _LINKS >> code & 1:
                takes = w.s.cost[v.K_SPLIT]
        if takes > 0:
            a[v.A_PHASE] = v.SPLIT_STEP
            schedule(w, who, now + takes)
            return UNDER_WAY
        end_split_step(w, who)
    return ALL_DONE


@kernel
def unlink(w: World, who: int, now: int) -> bool:
    """Hide the block from walks, and own its entry until the split ends; False if another actor was faster."""
    a = w.s.actor[who]
    block = w.block[a[v.A_BLOCK]]
    if block[v.B_VERSION] != a[v.A_VERSION]:
        return False
    block[v.B_OWNER] = who + 1
    block[v.B_VERSION] += 1
    a[v.A_BROKEN] = 1
    cut_rows(w, a[v.A_BLOCK], now)
    return True


@kernel
def end_split_step(w: World, who: int) -> None:
    """Do what a step that is over changes."""
    a = w.s.actor[who]
    if _TLBIS >> w.s.split[a[v.A_STEP]] & 1:
        tlbi_done(w)
    a[v.A_STEP] += 1


@kernel
def split_step_done(w: World, who: int, now: int) -> int:
    """End a step that took time, and go on with the next."""
    end_split_step(w, who)
    return split_steps(w, who, now)
