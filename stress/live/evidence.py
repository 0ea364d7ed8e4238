"""Violations as results: the segment's counts and evidence in words."""

from __future__ import annotations

from typing import Any

from stress.arch import bbm
from stress.arch.descriptors import output_address
from stress.arch.geometry import LAST_LEVEL
from stress.kernels import codes
from stress.orders import STEPS
from stress.results.data import Violation
from stress.shm import accounts, words
from stress.shm.accounts import Kind
from stress.shm.layout import Machine
from stress.shm.traced import Traced

_DETAIL = {
    Kind.BBM: dict(enumerate(bbm.VERDICTS)),
    Kind.STALE_TRANSLATION: {
        codes.WRONG_FRAME: "the cell carries another frame's tag",
        codes.OUTSIDE_MEMORY: "a leaf maps something else than guest memory",
        codes.NOT_THE_HOSTS: "a leaf maps another frame than the host does",
        codes.WRONG_ATTRIBUTES: "a descriptor's attributes (MemAttr, S2AP, SH, AF, XN, ...) are not its mapping's",
        codes.STILL_FORBIDDEN: "a TLB forbids what the entry allows: no TLBI since the entry changed",
        codes.NEVER_INVALIDATED: "the split is over, and no TLBI has covered its block since that was unlinked",
        codes.STILL_REACHED: "unmapped, but no completed TLBI covers its leaves: a TLB leads to frames that now move",
    },
    Kind.TABLE_USE_AFTER_FREE: {
        codes.WALKED: "a committed walk read a freed table page",
        codes.FREED_TOO_EARLY: "freed while a vCPU could still walk into it: no completed TLBI since the break",
        codes.LINKED_WHEN_FREE: "a freed table page is still linked",
        codes.WALKED_BY_HANDLER: "a fault handler's walk read a freed table page",
        codes.NOT_POISONED: "a freed table page was written",
        codes.WALKED_WITHOUT_LOCK: "a walker without a lock read a table freed within its read-side section",
        codes.FREED_WITHOUT_GRACE: "freed, but no grace period began and ended since it was detached: it may be in use",
        codes.LINKED_UNWRITTEN: "a table is linked before its entries are written: a walker reads what the page held",
    },
    Kind.LOST_DIRTY: {
        codes.COPY_DIFFERS: "written after it was copied, and not logged as dirty",
        codes.NOT_LOGGED: "a guest write under dirty logging whose page is not logged as dirty",
        codes.STILL_WRITABLE: "write-protected without a completed TLBI: the guest may write on, unlogged",
    },
    Kind.REFCOUNT: {
        codes.COUNT: "page_count is not 1 + counted entries",
        codes.LINKED_TWICE: "a table is linked twice",
        codes.WRONG_LEVEL: "a table is linked at another level than it was made for",
    },
    Kind.NOT_AT_POC: {
        codes.ACCESSED: "with caches off, data the host wrote was never cleaned to the PoC",
        codes.BECAME_VALID: "mapped with caches off, but not cleaned to the PoC since the host wrote it",
        codes.MAPPED: "the audit found it mapped with caches off, and not cleaned to the PoC since the host wrote it",
    },
    Kind.TABLE_LEAK: {
        codes.NOT_REACHABLE: "in use but not reachable from the root",
        codes.POOL_RAN_DRY: "no table is free, though there are enough for all of memory, and none waits to be freed",
    },
    Kind.NOT_INSTALLED: {
        codes.LEFT_INVALID: "the rebuild is over, and the entry is not the valid block it promised",
        codes.LEFT_NT: "the rebuild is over, and its block still has nT set",
        codes.FOUND_NT: "the audit found a block with nT set",
        codes.LEFT_UNLINKED: "the split is over, and the entry is not the table it promised",
    },
}
_TEXT = {
    Kind.TLB_CONFLICT: "the TLB holds an entry of a smaller size inside the range of the one filled",
    Kind.DOUBLE_FREE: "freed twice",
    Kind.ENDLESS_FAULT: "the handler resolved the fault, but the entry still forbids the access",
}


# Names of the two words of a piece of evidence, by kind.
_WORDS = {
    Kind.STALE_TRANSLATION: ("cell", "expected_cell"),
    Kind.TLB_CONFLICT: ("held_level", "filled_level"),
    Kind.TABLE_USE_AFTER_FREE: ("descriptor", "entry_now"),
    Kind.BBM: ("old", "new"),
    Kind.NOT_AT_POC: ("cell", "expected_cell"),
    Kind.REFCOUNT: ("found", "expected"),
    Kind.TABLE_LEAK: ("table_page", "page_count"),
    Kind.DOUBLE_FREE: ("table_page", "expected"),
    Kind.LOST_DIRTY: ("copied_cell", "cell"),
    Kind.ENDLESS_FAULT: ("descriptor", "descriptor_at_fault"),
    Kind.NOT_INSTALLED: ("descriptor", "promised"),
}
_WORDS_OF_DETAIL = {
    (Kind.STALE_TRANSLATION, codes.OUTSIDE_MEMORY): ("descriptor", "expected"),
    (Kind.STALE_TRANSLATION, codes.NOT_THE_HOSTS): ("descriptor", "expected"),
    (Kind.STALE_TRANSLATION, codes.WRONG_ATTRIBUTES): ("descriptor", "expected"),
    (Kind.STALE_TRANSLATION, codes.NEVER_INVALIDATED): ("old", "new"),
    (Kind.STALE_TRANSLATION, codes.STILL_REACHED): ("entry_now", "expected"),
    (Kind.LOST_DIRTY, codes.STILL_WRITABLE): ("tlbi_completed", "expected"),
    (Kind.TABLE_USE_AFTER_FREE, codes.FREED_WITHOUT_GRACE): ("grace_period_ended", "grace_period_needed"),
    (Kind.TABLE_LEAK, codes.POOL_RAN_DRY): ("tables_in_use", "tables_free"),
}


# Broken rules that no store broke, but something that was not done: the process's last store has nothing to do with it.
_WITHOUT_STORE = {
    (Kind.NOT_INSTALLED, codes.LEFT_INVALID),
    (Kind.NOT_INSTALLED, codes.LEFT_NT),
    (Kind.STALE_TRANSLATION, codes.STILL_REACHED),
    (Kind.TABLE_USE_AFTER_FREE, codes.FREED_WITHOUT_GRACE),
}


def _place(machine: Machine, kind: Kind, row: Any) -> dict[str, Any]:
    """The place of a store: the entry, those above it, the line of our sources, and the trace's row."""
    # The module is imported here, because it searches the sources: only a violation is worth that.
    from stress.kernels import sources

    geo = machine.geo
    gfn, level = int(row[accounts.V_GFN]), int(row[accounts.V_LEVEL])
    table, above = words.TABLES_PA, []
    for at in range(geo.start_level, level + 1):
        slot = gfn >> (LAST_LEVEL - at) * geo.index_bits
        if at > geo.start_level:
            slot &= (1 << geo.index_bits) - 1
        entry = table + 8 * slot
        if at < level:
            descriptor = int(row[accounts.V_ABOVE + at])
            above.append(f"level {at} at {entry:#x}: {descriptor:#x}")
            table = output_address(geo.granule_shift).take(descriptor) << geo.granule_shift
    place: dict[str, Any] = {"entry": f"{entry:#x}", "above": above}
    if (kind, int(row[accounts.V_DETAIL])) in _WITHOUT_STORE:
        return place
    if row[accounts.V_CHANGED]:
        place["stored_at"] = sources.OF[Traced(int(row[accounts.V_CHANGED]))]
    if row[accounts.V_CHANGED_ROW]:
        place["trace_row"] = int(row[accounts.V_CHANGED_ROW]) - 1
    return place


def _process_name(machine: Machine, who: int) -> str:
    return "hypervisor" if who == machine.geo.hypervisor else f"vcpu {who}"


def _piece(machine: Machine, kind: Kind, row: Any, started_ns: int) -> dict[str, Any]:
    step = int(row[accounts.V_STEP])
    level = int(row[accounts.V_LEVEL])
    detail = int(row[accounts.V_DETAIL])
    found, expected = _WORDS_OF_DETAIL.get((kind, detail)) or _WORDS[kind]
    return {
        "found_by": "rule" if row[accounts.V_RULE] else "access",
        "process": _process_name(machine, int(row[accounts.V_WHO])),
        "ipa": f"{int(row[accounts.V_GFN]) << machine.geo.granule_shift:#x}",
        "level": level if level >= 0 else None,
        "step": STEPS[step].value if step >= 0 else None,
        "time_ns": int(row[accounts.V_TIME_NS]) - started_ns,
        found: f"{int(row[accounts.V_FOUND]):#x}",
        expected: f"{int(row[accounts.V_EXPECTED]):#x}",
        "detail": _DETAIL.get(kind, {}).get(detail) or _TEXT.get(kind, ""),
        **(_place(machine, kind, row) if row[accounts.V_RULE] and level >= 0 else {}),
    }


def violations(machine: Machine, started_ns: int) -> list[Violation]:
    """Every kind of violation that occurred, with its first pieces of evidence; times relative to ``started_ns``."""
    found = []
    for kind in Kind:
        count = int(machine.tally[accounts.VIOLATIONS + kind])
        if count:
            rows = machine.evidence[kind][: min(count, machine.geo.evidence_rows)]
            pieces = [_piece(machine, kind, row, started_ns) for row in rows if row[accounts.V_READY]]
            found.append(Violation(kind.label, count, pieces, int(machine.tally[accounts.BY_RULE + kind])))
    return found


def lost_events(lost: list[tuple[int, int, int]]) -> list[Violation]:
    """The ``lost-event`` violation, if a vCPU logged more or fewer events than were drained and dropped."""
    if not lost:
        return []
    evidence = [
        {"found_by": "access", "process": f"vcpu {vcpu}", "logged": logged, "found": found}
        for vcpu, logged, found in lost
    ]
    return [Violation(Kind.LOST_EVENT.label, len(lost), evidence)]
