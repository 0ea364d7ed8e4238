"""The trace of page-table changes in the grammar of casemate (University of Cambridge): one s-expression per line.

The segment's rows are spelled out as changes of hardware: the checker knows nothing of this program (docs/traces.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

import numpy as np

from stress.arch.geometry import LAST_LEVEL
from stress.kernels import sources
from stress.results.data import TableShape, TraceData
from stress.shm.traced import Traced
from stress.shm.words import TLBI_FRAMES, TLBI_HINT

#: Invalidating by IPA more pages than this costs more than invalidating all (Linux 6.6 ``MAX_TLBI_OPS``).
_MAX_TLBI_OPS = 512
#: With this width stage 2 needs no concatenated tables: it starts at level 0, with 64 KiB pages at level 1.
_IPA_BITS = 48
_T0SZ = 64 - _IPA_BITS
_TG0 = {12: 0 << 14, 14: 2 << 14, 16: 1 << 14}
#: The level hint of a TLBI by IPA (DDI 0487 D8.14, TTL): the granule, and below it the level of the leaves.
_TTL_SHIFT = 44
_TTL_GRANULE = {12: 1 << 2, 14: 2 << 2, 16: 3 << 2}
_HCR_VM = 1  # stage 2 is on
_TABLE = 0b11
_PIECE = 1 << 12  # lines


def encoded(data: TraceData) -> Iterator[bytes]:
    """The trace, some thousand lines at a time."""
    piece = []
    for line in _Trace(data.shape, data.waits).lines(data):
        piece.append(line)
        if len(piece) == _PIECE:
            yield "".join(piece).encode()
            piece.clear()
    yield "".join(piece).encode()


def first_records(data: TraceData, rows: Collection[int]) -> dict[int, int]:
    """Id of the first record that each of these rows of ``data.changes`` becomes, if the trace gets so far."""
    found = {}
    trace = _Trace(data.shape, data.waits)
    lines = trace.prologue(len(data.guest_ns))
    for row, change in enumerate(_changes(data, max(rows, default=-1) + 1)):
        deque(lines, maxlen=0)
        if row in rows:
            found[row] = trace.next_id
        lines = trace.row(*change)
    return found


def _changes(data: TraceData, end: int) -> Iterator[tuple[Traced, int, int, int]]:
    """The rows before ``end``: kind, process, and the two words whose meaning the kind tells."""
    # The rows are converted in pieces: as Python integers all of them would take ten times the space.
    for start in range(0, end, _PIECE):
        for kind, who, at, value in data.changes[start : min(start + _PIECE, end)].tolist():
            yield Traced(kind), who, at, value


class _Trace:
    """The state from row to row: a copy of the table, and which of its pages are released."""

    def __init__(self, shape: TableShape, waits: bool) -> None:
        self._shape = shape
        self._waits = waits
        self._entries = 1 << shape.index_bits
        self._tables = np.zeros(shape.table_pages * self._entries, np.int64)
        self._levels = [shape.start_level] * shape.table_pages
        self._released: set[int] = set()
        self.next_id = 0
        self._size = 1 << shape.granule_shift
        upper = self._upper_levels()
        # The tables above ours lie below the pool, the root lowest, and below it the lock.
        self._root = shape.tables_pa - len(upper) * self._size
        self._lock = self._root - self._size
        self._upper = upper

    def _upper_levels(self) -> list[int]:
        """Levels above our concatenated tables, up to where a table of 48 bits starts; highest first."""
        bits = _IPA_BITS - self._shape.granule_shift
        first = LAST_LEVEL + 1 - -(-bits // self._shape.index_bits)
        return list(range(first, self._shape.start_level))

    def _address(self, page: int) -> int:
        return self._shape.tables_pa + page * self._size

    def _record(self, head: str, who: int, body: str, source: str) -> str:
        line = f'({head} (id {self.next_id}) (tid {who}) {body} (src "{source}"))\n'
        self.next_id += 1
        return line

    def lines(self, data: TraceData) -> Iterator[str]:
        """Every line."""
        yield from self.prologue(len(data.guest_ns))
        for change in _changes(data, len(data.changes)):
            yield from self.row(*change)

    def prologue(self, who: int) -> Iterator[str]:
        """Registers, the lock, the tables that are there before anything happens, and the MMU switched on."""
        here, shape = sources.INITIALISE, self._shape
        vtcr = _T0SZ | _TG0[shape.granule_shift]
        registers = {"vtcr": vtcr, "tcr": 0x10, "mair": 0, "hcr": 0, "sctlr": 0}
        yield from self._registers(who, registers, here)
        tables = [self._root + i * self._size for i in range(len(self._upper))]
        tables += [self._address(page) for page in range(shape.root_pages)]
        for table in tables:
            yield self._record("mem-init", who, f"(address {table:x}) (size {self._size:x})", here)
        yield self._record("hint", who, f"(kind set_root_lock) (location {self._root:x}) (value {self._lock:x})", here)
        for table in tables[1:]:
            yield self._record("hint", who, f"(kind set_owner_root) (location {table:x}) (value {self._root:x})", here)
        # Each table above ours leads to the next one; the lowest of them to all of ours.
        for i in range(len(self._upper)):
            last = i == len(self._upper) - 1
            for slot in range(shape.root_pages if last else 1):
                table, entry = tables[i + 1 + slot], tables[i] + 8 * slot
                body = f"(mem-order plain) (address {entry:x}) (value {table | _TABLE:x})"
                yield self._record("mem-write", who, body, here)
        on = {"vttbr": self._root, "hcr": _HCR_VM}
        yield from self._registers(who, on, here)
        # Every core has registers of its own, and every process a core.
        for vcpu in range(who):
            yield from self._registers(
                vcpu, {name: value for name, value in registers.items() if name not in on} | on, here
            )

    def _registers(self, who: int, values: dict[str, int], source: str) -> Iterator[str]:
        for register, value in values.items():
            yield self._record("sysreg-write", who, f"(sysreg {register}_el2) (value {value:x})", source)

    def row(self, kind: Traced, who: int, at: int, value: int) -> Iterator[str]:
        """The lines of one change."""
        source = sources.OF[kind]
        match kind:
            case Traced.LOCK:
                yield self._record("lock", who, f"(address {self._lock:x})", source)
            case Traced.UNLOCK:
                yield self._record("unlock", who, f"(address {self._lock:x})", source)
            case Traced.SET | Traced.SWAP:
                yield self._write(who, at, value, "release", source)
            case Traced.FILL:
                level = self._levels[at >> self._shape.index_bits]
                yield self._write(who, at, value, "plain", source if level == LAST_LEVEL else sources.FILL_TABLE)
            case Traced.BREAK:
                yield self._write(who, at, 0, "release", source)
            case Traced.ALLOCATE:
                yield from self._allocated(who, at, value, source)
            case Traced.DETACH:
                yield from self._given_up(who, at, value, source)
            case Traced.FREE:
                if at not in self._released:  # it was emptied, or never linked
                    yield from self._given_up(who, at, LAST_LEVEL, source)
                self._released.discard(at)
                yield self._record("mem-free", who, f"(address {self._address(at):x}) (size {self._size:x})", source)
            case Traced.DSB:
                yield self._barrier(who, source)
            case _:
                yield from self._tlbi(kind, who, at, value, source)

    def _write(self, who: int, index: int, value: int, order: str, source: str) -> str:
        # Hardware reads one bit of an invalid entry; the others, where this program keeps notes, are written as 0.
        value = value if value & 1 else 0
        self._tables[index] = value
        address = self._shape.tables_pa + 8 * index
        return self._record("mem-write", who, f"(mem-order {order}) (address {address:x}) (value {value:x})", source)

    def _allocated(self, who: int, page: int, level: int, source: str) -> Iterator[str]:
        self._levels[page] = level
        self._tables[page * self._entries : (page + 1) * self._entries] = 0
        location = self._address(page)
        yield self._record("mem-init", who, f"(address {location:x}) (size {self._size:x})", source)
        body = f"(kind set_owner_root) (location {location:x}) (value {self._root:x})"
        yield self._record("hint", who, body, source)

    def _given_up(self, who: int, page: int, level: int, source: str) -> Iterator[str]:
        """The lines that empty and release a table and those below it."""
        yield from self._emptied(who, page, level, source)
        yield self._release(who, page, source)

    def _emptied(self, who: int, page: int, level: int, source: str) -> Iterator[str]:
        """The lines that empty a table entry by entry: first the table that the entry leads to, then the entry."""
        first = page * self._entries
        for index in (first + np.flatnonzero(self._tables[first : first + self._entries])).tolist():
            child = self._child(int(self._tables[index])) if level < LAST_LEVEL else -1
            if child >= 0:
                yield from self._emptied(who, child, level + 1, source)
            yield self._write(who, index, 0, "release", source)
            if child >= 0:
                yield self._release(who, child, source)

    def _release(self, who: int, page: int, source: str) -> str:
        self._released.add(page)
        return self._record("hint", who, f"(kind release_table) (location {self._address(page):x}) (value 0)", source)

    def _child(self, descriptor: int) -> int:
        """Page of the table that a descriptor points to, or -1."""
        if descriptor & _TABLE != _TABLE:
            return -1
        address = descriptor & ((1 << _IPA_BITS) - self._size)
        page = (address - self._shape.tables_pa) // self._size
        return page if 0 <= page < self._shape.table_pages else -1

    def _barrier(self, who: int, source: str, kind: str = "ish") -> str:
        return self._record("barrier", who, f"dsb (kind {kind})", source)

    def _tlbi(self, kind: Traced, who: int, start: int, end: int, source: str) -> Iterator[str]:
        """The invalidation up to, but without, the DSB that completes it.

        A run that never waits (the bug missing-dsb) must not complete an earlier TLBI either: the DSB before a TLBI
        then only orders stores (``dsb(ishst)``, as in Linux 6.1 ``__kvm_tlb_flush_vmid``).
        """
        yield self._barrier(who, source, "ish" if self._waits else "ishst")
        hint, end = end >> TLBI_HINT, end & TLBI_FRAMES
        pages = 1 if kind is Traced.TLBI_ENTRY else end - start
        each = 1 << (LAST_LEVEL - hint) * self._shape.index_bits if hint else 1
        if kind is Traced.TLBI_VMID or pages > each * _MAX_TLBI_OPS:
            yield self._record("tlbi", who, "vmalls12e1is", source)
            return
        ttl = (_TTL_GRANULE[self._shape.granule_shift] | hint) << _TTL_SHIFT if hint else 0
        for gfn in range(start, start + pages, each):
            ipa = gfn << self._shape.granule_shift
            yield self._record("tlbi", who, f"ipas2e1is (value {ttl | ipa >> 12:x})", source)
        # Stage 1 entries may have been made with what was just invalidated.
        if self._waits:
            yield self._barrier(who, source)
        yield self._record("tlbi", who, "vmalle1is", source)
