"""A small checker of break-before-make that judges a trace by its records alone, as casemate does.

A table page is fresh until it is linked, live while a chain of valid entries leads to it from the root, pending from
the store that breaks the chain to the TLBI that completes, and detached from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from casemate_grammar import Record, read

#: Bits of a valid entry that may change without a break: S2AP, AF, DBM, XN, software bits.
_FREE_TO_CHANGE = 0b11 << 6 | 1 << 10 | 1 << 51 | 0b11 << 53 | 0b1111 << 55
#: And of a block, where it is no address bit: nT, which keeps a block out of TLBs and says nothing of where it leads.
_NT = 1 << 16
#: VTTBR_EL2: the VMID above, CnP below.
_BADDR = (1 << 48) - 2
_NEEDED_BY_TLBI = ("vtcr_el2", "vttbr_el2", "hcr_el2")
_BEGINNING = ["vtcr_el2", "tcr_el2", "mair_el2", "hcr_el2", "sctlr_el2"]
_GRANULES = {0: 12, 1: 16, 2: 14}
#: A DSB of stores alone puts them before what follows, and completes no TLBI.
_ORDERING = ("ish", "sy", "ishst")
_COMPLETING = ("ish", "sy")
FRESH, LIVE, PENDING, DETACHED = "fresh", "live", "pending", "detached"


class Broken(Exception):  # noqa: N818 - a verdict
    """The trace breaks a rule."""


@dataclass
class Unclean:
    """An entry made invalid, and how far whoever did it has come with the invalidation."""

    tid: int
    old: int
    first: int  # IPA
    size: int
    done: str = ""  # "", "dsb", "all", "ipa", "ipa dsb", "ipa stage 1"


@dataclass
class Page:
    """An announced table page."""

    owner: int | None = None
    parent: int | None = None  # address of the entry that leads to it, or led
    linked: bool = False  # at any time
    detached: bool = False
    released: bool = False
    valid: dict[int, int] = field(default_factory=dict)  # address -> descriptor
    unclean: dict[int, Unclean] = field(default_factory=dict)


class Checker:
    """The state that the records lead to; `step` raises `Broken`."""

    def __init__(self) -> None:
        self.pages: dict[int, Page] = {}
        self.locks: dict[int, int] = {}  # root -> its lock
        self.holders: dict[int, int] = {}  # lock -> tid
        self.root = -1
        self.on = False
        self.shift = 12
        self.begun: list[str] = []
        self.registers: dict[int, dict[str, int]] = {}  # tid -> its core's
        self.unclean: dict[int, Unclean] = {}  # of all pages
        self.mapped: dict[tuple[int, int], int] = {}  # (size, first IPA) -> address of the unclean entry

    def step(self, record: Record) -> None:
        """Judge one record and take it into account."""
        getattr(self, "_" + record.head.replace("-", "_"))(record)

    # Helpers.

    def _need(self, condition: object, what: str) -> None:
        if not condition:
            raise Broken(what)

    def _base(self, address: int) -> int:
        return address >> self.shift << self.shift

    def _table(self, descriptor: int) -> int:
        """Address of the announced table that a valid descriptor leads to, or -1."""
        address = descriptor & ((1 << 48) - (1 << self.shift))
        return address if descriptor & 3 == 3 and address in self.pages else -1

    def _level(self, base: int) -> int:
        """Level of a table, -1 if no chain leads up to the root."""
        depth = 0
        while base != self.root:
            parent = self.pages[base].parent
            if parent is None:
                return -1
            base, depth = self._base(parent), depth + 1
        bits = self.shift - 3
        return 4 - -(-(48 - self.shift) // bits) + depth

    def _status(self, base: int) -> str:
        page = self.pages[base]
        if base == self.root:
            return LIVE
        if page.detached:
            return DETACHED
        if page.parent is None:
            return FRESH
        parent = self.pages[self._base(page.parent)]
        above = self._status(self._base(page.parent))
        if above != LIVE:
            return above
        return PENDING if page.parent in parent.unclean else LIVE

    def _ipa(self, address: int) -> tuple[int, int]:
        """(first IPA, size) of what an entry of a linked table maps."""
        base, bits = self._base(address), self.shift - 3
        size = 1 << self.shift + (3 - self._level(base)) * bits
        ipa = (address - base) // 8 * size
        parent = self.pages[base].parent
        return (ipa + (self._ipa(parent)[0] if parent is not None else 0)), size

    def _guarded(self, page: Page, tid: int) -> None:
        """Only under the root's lock, once the MMU is on."""
        if self.on and page.owner is not None:
            self._need(self.holders.get(self.locks[page.owner]) == tid, "written without the root's lock")

    # Registers, memory, locks.

    def _sysreg_write(self, record: Record) -> None:
        name, value = record.texts["sysreg"], record.numbers["value"]
        if len(self.begun) < len(_BEGINNING):
            self.begun.append(name)
            self._need(self.begun == _BEGINNING[: len(self.begun)], "the registers come first")
        mine = self.registers.setdefault(record.tid, {})
        mine[name] = value
        if name == "vtcr_el2":
            self._need(value & 0x3F == 16, "stage 2 translates 48 bits")
            shift = _GRANULES[value >> 14 & 3]
            self._need(not self.on or shift == self.shift, "cores translate with different granules")
            self.shift = shift
        elif name == "vttbr_el2":
            root = value & _BADDR
            self._need(root in self.locks, "a root without a lock")
            self._need(self.root in (-1, root), "cores translate from different roots")
            self.root = root
        elif name == "hcr_el2" and value & 1:
            self._need(mine.get("vttbr_el2"), "the MMU is on without a root")
            self.on = True

    def _mem_init(self, record: Record) -> None:
        self._need(len(self.begun) == len(_BEGINNING), "the registers come first")
        base, size = record.numbers["address"], record.numbers["size"]
        self._need(base == self._base(base) and size == 1 << self.shift, "no table page")
        self._need(base not in self.pages, "allocated twice")
        self.pages[base] = Page()

    def _mem_free(self, record: Record) -> None:
        base = record.numbers["address"]
        self._need(base in self.pages, "freed, but not allocated")
        self._need(self.pages[base].released, "a table is freed before it is released")
        del self.pages[base]

    def _lock(self, record: Record) -> None:
        address = record.numbers["address"]
        self._need(address not in self.holders, "the lock is held")
        self.holders[address] = record.tid

    def _trylock(self, record: Record) -> None:
        """Takes the lock unless it is held; then it failed, and its caller goes on without it."""
        self.holders.setdefault(record.numbers["address"], record.tid)

    def _unlock(self, record: Record) -> None:
        self._need(self.holders.pop(record.numbers["address"], None) == record.tid, "unlocked by somebody else")

    def _hint(self, record: Record) -> None:
        location, value = record.numbers["location"], record.numbers["value"]
        self._need(location in self.pages, "a hint about an unannounced table")
        page = self.pages[location]
        match record.texts["kind"]:
            case "set_root_lock":
                self._need(location not in self.locks, "a root with two locks")
                self.locks[location], page.owner = value, location
            case "set_owner_root":
                self._need(value in self.locks, "the owner is no root")
                self._need(page.parent is None, "owned when it is linked already")
                page.owner = value
                self._guarded(page, record.tid)
            case _:
                self._release(page, location, record.tid)

    def _release(self, page: Page, location: int, tid: int) -> None:
        self._guarded(page, tid)
        self._need(self._status(location) in (FRESH, DETACHED), "a table is released before its parent is clean")
        self._need(not page.valid, "a table is released with valid entries")
        self._need(not page.unclean, "a table is released with unclean entries")
        page.released, page.owner = True, None

    # Entries.

    def _mem_write(self, record: Record) -> None:
        address, new = record.numbers["address"], record.numbers["value"]
        base = self._base(address)
        self._need(base in self.pages, "a write to memory that was not announced")
        page = self.pages[base]
        self._need(page.owner is not None, "a write to a table without an owner")
        self._guarded(page, record.tid)
        status = self._status(base)
        plain = record.texts["mem-order"] == "plain"
        found = self.on and (page.linked or base == self.root)
        self._need(not (plain and found), "a plain store to a table that others may have found")
        self._need(status != PENDING, "unclean parent: children are written between the invalidate and the TLBI")
        old = page.valid.get(address, 0)
        if new & 1:
            self._need(status != DETACHED, "a detached table is filled")
            self._need(address not in page.unclean, "invalid unclean->valid")
            is_block = old & 3 == new & 3 == 1
            self._need(not old or not (old ^ new) & ~(_FREE_TO_CHANGE | _NT * is_block), "valid->valid")
            page.valid[address] = new
            if not old:
                self._link(address, new)
        elif old:
            del page.valid[address]
            self._invalidate(page, address, old, status, record.tid)

    def _link(self, address: int, descriptor: int) -> None:
        child, base = self._table(descriptor), self._base(address)
        if child >= 0:
            page = self.pages[child]
            self._need(page.owner is not None, "a table is linked before set_owner_root")
            self._need(page.parent is None and not page.detached, "a table is linked twice")
            page.parent, page.linked = address, True
        if self.on and self._status(base) == LIVE:
            self._announced(descriptor, self._level(base))

    def _announced(self, descriptor: int, level: int) -> None:
        """All tables below a live entry are known."""
        if descriptor & 3 == 3 and level < 3:
            child = self._table(descriptor)
            self._need(child >= 0, "an unannounced table is linked")
            for below in self.pages[child].valid.values():
                self._announced(below, level + 1)

    def _children(self, base: int) -> list[int]:
        """Tables that valid entries of a table lead to."""
        found = [self._table(descriptor) for descriptor in self.pages[base].valid.values()]
        return [child for child in found if child >= 0 and self._base(self.pages[child].parent or 0) == base]

    def _all_clean(self, base: int) -> bool:
        return not self.pages[base].unclean and all(self._all_clean(child) for child in self._children(base))

    def _invalidate(self, page: Page, address: int, old: int, status: str, tid: int) -> None:
        child = self._table(old)
        linked = child >= 0 and self.pages[child].parent == address
        if status == LIVE:
            self._need(not linked or self._all_clean(child), "a table is invalidated with unclean entries below")
            entry = Unclean(tid, old, *self._ipa(address))
            page.unclean[address] = self.unclean[address] = entry
            self.mapped[entry.size, entry.first] = address
        elif linked:
            self.pages[child].detached = True

    def _clean(self, address: int) -> None:
        entry = self.pages[self._base(address)].unclean.pop(address)
        del self.unclean[address], self.mapped[entry.size, entry.first]
        child = self._table(entry.old)
        if child >= 0 and self.pages[child].parent == address:
            self._detach(child)

    def _detach(self, base: int) -> None:
        for child in self._children(base):
            self._detach(child)
        self.pages[base].detached = True

    # Barriers and invalidations.

    def _barrier(self, record: Record) -> None:
        kind = record.texts["kind"]
        for address, entry in list(self.unclean.items()):
            if entry.tid != record.tid:
                continue
            if entry.done == "" and kind in _ORDERING:
                entry.done = "dsb"
            elif kind in _COMPLETING:
                if entry.done in ("all", "ipa stage 1"):
                    self._clean(address)
                elif entry.done == "ipa":
                    entry.done = "ipa dsb"

    def _tlbi(self, record: Record) -> None:
        mine = self.registers.get(record.tid, {})
        self._need(all(mine.get(name) for name in _NEEDED_BY_TLBI), "a TLBI on a core without a translation regime")
        if record.word == "ipas2e1is":
            self._tlbi_ipa((record.numbers["value"] & (1 << 36) - 1) << 12, record.tid)
            return
        for entry in self.unclean.values():
            if entry.tid == record.tid and entry.done:
                if record.word == "vmalls12e1is":
                    entry.done = "all"
                elif entry.done == "ipa dsb":
                    entry.done = "ipa stage 1"

    def _tlbi_ipa(self, ipa: int, tid: int) -> None:
        """Invalidating one IPA is enough for a leaf; for a table only if nothing is mapped below."""
        for level in range(4):
            size = 1 << self.shift + level * (self.shift - 3)
            entry = self.unclean.get(self.mapped.get((size, ipa // size * size), -1))
            if entry is not None and entry.tid == tid and entry.done == "dsb":
                child = self._table(entry.old)
                if child < 0 or not self.pages[child].valid:
                    entry.done = "ipa"


def judge(lines: Iterable[str]) -> str:
    """What is wrong with a trace, "" if nothing is. Raises `GrammarError`."""
    checker = Checker()
    for number, record in enumerate(read(lines)):
        try:
            checker.step(record)
        except Broken as broken:
            return f"{broken} (record {number}: {record})"
    return "" if checker.on else "the MMU was never on"
