"""Bugs that stage-2 code really had, as data: what each breaks, how the oracle must name it, and how to see it.

A bug is injected in one of two ways. Some are wrong steps: `Bug.rewrite` turns a correct order into the wrong one.
The others are wrong code, and have a flag (one bit) that compiled code tests at the place that went wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from stress.orders import CLEANS, TEAR_DOWNS, Order, Scope, Step

#: An update of a valid leaf takes a reference on its table and never gives one back.
LEAK_ON_UPDATE: Final = 1
#: A permission fault relaxes an entry also when its size is not that of the mapping wanted (Linux before 7d894834a305).
WRONG_FAULT_LEVEL: Final = 2
#: The tear-down of a detached subtree keeps the last reference on the subtree's root table.
ROOT_TABLE_KEPT: Final = 4
#: A TLBI is taken for complete when it was issued: nobody waits.
MISSING_DSB: Final = 8
#: The tear-down looks for the old tables through the entry as it is now, not as it was read before (``data->follow``).
ENTRY_READ_AGAIN: Final = 32
#: A harvest of the dirty bitmap write-protects again and leaves the writable translations in the TLBs.
HARVEST_WITHOUT_TLBI: Final = 16

#: No operation that changes a table invalidates any TLB.
MISSING_TLBI: Final = 64
#: The unmap of a range (the MMU notifier's) keeps the references of the entries it removes.
REFERENCE_KEPT: Final = 128
#: The root of a detached subtree is freed by the walk and by its caller.
FREED_TWICE: Final = 256
#: A fault is counted as logged, and its event neither put into the ring nor counted as dropped.
EVENT_LOST: Final = 512
#: A detached table is freed without waiting for those who still walk it.
NO_GRACE: Final = 1024
#: After mmu_lock was taken, or taken again, nobody looks whether what was done before still holds.
NO_RECHECK: Final = 2048
#: A block that holds what is not at the PoC is installed without cleaning it.
NO_CMO: Final = 4096

#: The TLBI of an unmapped range, one for all of it, comes after the walk that frees the tables it emptied.
FREED_IN_WALK: Final = 8192
#: The TLBI for a table's entry carries the hint of a leaf's level: cached table pointers survive.
TABLE_LEVEL_HINT: Final = 16384
#: The TLBI of a range carries the hint of another level than its leaves have: they survive.
RANGE_LEVEL_HINT: Final = 32768
#: The one TLBI of a batch is of the range of its first entry.
FIRST_OF_BATCH: Final = 65536
#: A TLBI by range is one instruction, whatever its scale leaves out.
RANGE_SCALE: Final = 131072
#: The TLBI by range for a table's entry begins at the page that faulted, not at the first one that the table maps.
RANGE_UNALIGNED: Final = 262144
#: Who finds a permission relaxed by another leaves its own TLB as it is, although the other's TLBI was local.
NO_LOCAL_TLBI: Final = 524288

#: Small blocks and short cycles: many chances in a few seconds.
_QUICK: Final = {"block-size": "2M", "dwell": "1ms", "duration": "3s"}


class Need(StrEnum):
    """What a run must do for a bug to act at all; the value says what is missing where it cannot."""

    REBUILD = "no block is rebuilt there"
    PROTECTED = "nothing is write-protected there"
    WRITE_AFTER_LOGGING = "nothing that is still write-protected is written to there once logging is off"
    HARVEST = "the dirty bitmap is never harvested there"
    UNMAP = "nothing is unmapped there"
    CLEAN = "no block is cleaned there"
    MOVES = "no frame moves there"
    LOOKS = "no rebuild has to look again there"
    BATCH = "one block is rebuilt at a time there"
    UNEVEN = "one TLBI covers each range that is unmapped there"
    FAULTS_REBUILD = "no fault rebuilds a block there"
    EVERY_FAULT = "a live run has no rule for a fault that comes back"


def _same(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return steps


def _always(order: Order) -> bool:
    return True


def _tears_down(order: Order) -> bool:
    return order.tears_down


def _cleans(order: Order) -> bool:
    return any(step in CLEANS for step in order.steps)


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug: ``kinds`` are labels of violations, the first of which must be reported.

    ``settings`` maps keys of a configuration to values that make the bug show in seconds. ``flag`` is the bit for
    compiled code, 0 if the bug is in the order's steps.
    """

    name: str
    source: str
    effect: str
    kinds: tuple[str, ...]
    settings: Mapping[str, object]
    flag: int = 0
    change: Callable[[tuple[Step, ...]], tuple[Step, ...]] = field(default=_same, repr=False)
    needs: tuple[Need, ...] = ()
    acts: Callable[[Order], bool] = field(default=_always, repr=False)  # under which orders a flag can act

    def rewrite(self, order: Order) -> Order:
        """``order`` with the bug in its steps, under the same name; ``order`` itself if it has none there."""
        steps = self.change(order.steps)
        return order if steps == order.steps else replace(order, steps=steps)

    def affects(self, order: Order) -> bool:
        """Whether the bug can show under ``order`` at all: an order without a break cannot forget it."""
        if not self.flag:
            return self.rewrite(order) is not order
        return self.acts(order)


def _one_ipa(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(Step.TLBI_IPA if step.facts.tlbi is Scope.VMID else step for step in steps)


def _without(*dropped: Step) -> Callable[[tuple[Step, ...]], tuple[Step, ...]]:
    return lambda steps: tuple(step for step in steps if step not in dropped)


def _free_before_tlbi(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Frees the tables at once, right before the TLBI, wherever and however the order freed them."""
    if Step.TLBI not in steps or not any(step in TEAR_DOWNS for step in steps):
        return steps
    rest: list[Step] = [step for step in steps if step not in TEAR_DOWNS]
    rest.insert(rest.index(Step.TLBI), Step.UNMAP)
    return tuple(rest)


def _bug(
    name: str,
    source: str,
    effect: str,
    kinds: tuple[str, ...],
    *,
    flag: int = 0,
    change: Callable[[tuple[Step, ...]], tuple[Step, ...]] = _same,
    needs: tuple[Need, ...] = (),
    acts: Callable[[Order], bool] = _always,
    **settings: object,
) -> Bug:
    spelled = {key.replace("_", "-"): value for key, value in settings.items()}
    return Bug(name, source, effect, kinds, MappingProxyType(_QUICK | spelled), flag, change, needs, acts)


_CATALOGUE: Final = (
    _bug(
        "tlbi-one-ipa",
        "fixed by 3a0b870e3448 (Linux 5.10)",
        "only one IPA is invalidated when a table becomes a block: page and block translations coexist",
        ("tlb-conflict", "bbm"),
        change=_one_ipa,
        needs=(Need.REBUILD,),
    ),
    _bug(
        "leak-on-update",
        "fixed by 5c646b7e1d8b (Linux 5.10)",
        "updating a valid entry takes a reference and gives none back: the table page is never freed",
        ("table-leak", "refcount"),
        flag=LEAK_ON_UPDATE,
        needs=(Need.PROTECTED,),
        scenario="migration",
    ),
    _bug(
        "wrong-fault-level",
        "fixed by 7d894834a305 (Linux 5.10)",
        "permissions are relaxed on an entry of another size: the guest faults for ever",
        ("endless-fault",),
        flag=WRONG_FAULT_LEVEL,
        needs=(Need.WRITE_AFTER_LOGGING,),
        scenario="migration",
    ),
    _bug(
        "root-table-kept",
        "fixed by f6a27d6dc51b (Linux 6.4)",
        "the last reference on the removed root table is kept: one table page leaks per rebuild",
        ("table-leak",),
        flag=ROOT_TABLE_KEPT,
        needs=(Need.REBUILD,),
        acts=_tears_down,
        order="block-first-deferred",
    ),
    _bug(
        "entry-read-again",
        "what data->follow prevents; RFC of 2021, 3/4",
        "the walk goes on from the entry as it is now, a block: the old tables are never found, nor freed",
        ("table-leak",),
        flag=ENTRY_READ_AGAIN,
        needs=(Need.REBUILD,),
        acts=_tears_down,
    ),
    _bug(
        "no-cmo",
        "review of the RFC, 2021",
        "the block is installed without cleaning what was never mapped: a guest with caches off reads stale memory",
        ("not-at-poc",),
        flag=NO_CMO,
        needs=(Need.REBUILD, Need.CLEAN),
        acts=_cleans,
        fwb=False,
        guest_caches=False,
        populated=0.5,
        dwell="0ms",  # the guest would map the rest
    ),
    _bug(
        "freed-in-walk",
        "fixed by f62d4c3eb687 (Linux 6.9)",
        "the TLBI of an unmapped range comes after the walk, which freed tables: a walker reads a freed table",
        ("table-use-after-free",),
        flag=FREED_IN_WALK,
        needs=(Need.UNMAP,),
        scenario="thp",
    ),
    _bug(
        "table-level-hint",
        "fixed by 36e008323926 (Linux 6.9)",
        "the TLBI for a table's entry has the hint of its level, which is about leaves: pages and walk caches survive",
        ("table-use-after-free", "tlb-conflict", "bbm"),
        flag=TABLE_LEVEL_HINT,
        needs=(Need.REBUILD,),
        acts=lambda order: Step.TLBI in order.steps,
    ),
    _bug(
        "range-level-hint",
        "fixed by 0f0ff097bf77 (Linux 6.9)",
        "the TLBI of an unmapped range has the hint of a level that its leaves do not have: they survive",
        ("stale-translation", "bbm", "tlb-conflict"),
        flag=RANGE_LEVEL_HINT,
        needs=(Need.UNMAP,),
        scenario="thp",
    ),
    _bug(
        "batch-first-tlbi-only",
        "class of bug: a TLBI by range that was given one entry's size",
        "the one TLBI of a batch covers its first entry only: the others' tables are still walked",
        ("bbm", "table-use-after-free", "tlb-conflict"),
        flag=FIRST_OF_BATCH,
        needs=(Need.REBUILD, Need.BATCH),
        acts=lambda order: Step.TLBI in order.steps,
        batch=4,
    ),
    _bug(
        "range-scale",
        "class of bug (FEAT_TLBIRANGE); what the loop in __flush_tlb_range_op prevents",
        "one TLBI by range for what is no multiple of its scale: the last pages survive",
        ("stale-translation", "tlb-conflict"),
        flag=RANGE_SCALE,
        needs=(Need.UNMAP, Need.UNEVEN),
        scenario="thp",
        blocks=5,
    ),
    _bug(
        "range-unaligned",
        "fixed by 4c36a1567388 (Linux 6.9)",
        "the TLBI by range for a table begins at the page that faulted: what the table maps before it survives",
        ("tlb-conflict", "bbm", "table-use-after-free", "stale-translation"),
        flag=RANGE_UNALIGNED,
        needs=(Need.REBUILD, Need.FAULTS_REBUILD),
        acts=lambda order: Step.TLBI in order.steps,
        rebuilder="vcpu",
    ),
    _bug(
        "no-local-tlbi",
        "fixed by be097997a273 (Linux 6.7)",
        "relaxing a permission invalidates locally; who finds it relaxed does not: it faults on its own entry for ever",
        ("endless-fault",),
        flag=NO_LOCAL_TLBI,
        needs=(Need.EVERY_FAULT,),
    ),
    _bug(
        "free-before-tlbi",
        "class of bug, also seen in other stage-2 code (x86: 706a1ea65e6f)",
        "the tables are freed before the TLBI: a walker reads a freed table",
        ("table-use-after-free",),
        change=_free_before_tlbi,
        needs=(Need.REBUILD,),
    ),
    _bug(
        "no-break",
        "class of bug (DDI 0487 D8.14.1)",
        "the block is written over the valid table: both translations are live",
        ("bbm", "tlb-conflict"),
        change=_without(Step.INVALIDATE),
        needs=(Need.REBUILD,),
    ),
    _bug(
        "nt-kept",
        "class of bug (DDI 0487 D8.14.1, FEAT_BBM level 1)",
        "nobody clears nT after the TLBI: no TLB ever keeps the block",
        ("not-installed",),
        change=_without(Step.CLEAR_NT),
        needs=(Need.REBUILD,),
        order="nt",
        bbm_level=1,
    ),
    _bug(
        "missing-dsb",
        "class of bug (DDI 0487 D8.14)",
        "nobody waits for the TLBI: a stale translation is used after its completion",
        ("stale-translation", "bbm", "table-use-after-free", "lost-dirty"),
        flag=MISSING_DSB,
        scenario="thp",
    ),
    _bug(
        "harvest-without-tlbi",
        "class of bug",
        "a harvest write-protects without a TLBI: the guest writes on through its TLB, unlogged",
        ("lost-dirty",),
        flag=HARVEST_WITHOUT_TLBI,
        needs=(Need.HARVEST,),
        scenario="migration",
        pattern="uniform",  # a sweep would push every translation out of the TLB before it comes back
    ),
    _bug(
        "missing-tlbi",
        "class of bug",
        "no change of a table invalidates a TLB: unmap, split, write protection, relaxation, rebuild",
        ("stale-translation", "lost-dirty", "bbm", "table-use-after-free"),
        flag=MISSING_TLBI,
        scenario="thp",
    ),
    _bug(
        "reference-kept",
        "class of bug",
        "the MMU notifier's unmap drops no reference: the tables never become empty",
        ("refcount",),
        flag=REFERENCE_KEPT,
        needs=(Need.UNMAP,),
        scenario="thp",
    ),
    _bug(
        "freed-twice",
        "class of bug; what f6a27d6dc51b (Linux 6.4) had to avoid",
        "the removed root table is freed by the walk and by its caller",
        ("double-free",),
        flag=FREED_TWICE,
        needs=(Need.REBUILD,),
        acts=_tears_down,
    ),
    _bug(
        "event-lost",
        "class of bug, in our own accounts",
        "a fault is counted, but its event gets lost on its way to the collector",
        ("lost-event",),
        flag=EVENT_LOST,
        populated=0.5,  # else one vCPU that shares its core with the hypervisor meets no fault at all
    ),
    _bug(
        "no-grace",
        "what call_rcu in 5c359cca1faf (Linux 6.2) prevents",
        "tables detached under mmu_lock are freed outside of it at once: a walker without a lock still reads them",
        ("table-use-after-free",),
        flag=NO_GRACE,
        needs=(Need.REBUILD,),
        acts=lambda order: order.tears_down_late,
        order="clean-first-unlocked",
    ),
    _bug(
        "no-recheck",
        "what mmu_invalidate_retry prevents (Linux 6.1)",
        "what was found before mmu_lock was taken is used although it moved since: the block maps the old frames",
        ("stale-translation", "not-at-poc"),
        flag=NO_RECHECK,
        needs=(Need.REBUILD, Need.MOVES, Need.LOOKS),
        acts=lambda order: order.looks_again or order.tears_down_broken,
        order="clean-unlocked",
        scenario="thp",
        rebuilder="vcpu",
        fwb=False,
        guest_caches=False,
        platform="kunpeng920",
        # A clean takes 4 ms there, a dwell half of that; while one vCPU cleans, another must fault a page in. All would
        # clean if all wrote at once.
        granule="16K",
        block_size="32M",
        blocks=1,
        vcpus=4,
        write_fraction=0.001,
        dwell="2ms",
    ),
)

#: Every bug by its name, in the order in which they are printed.
BUGS: Final[Mapping[str, Bug]] = MappingProxyType({bug.name: bug for bug in _CATALOGUE})
