"""What a guest lived through besides rebuilds, in words."""

from __future__ import annotations

from typing import Any

from stress.results import cells
from stress.results.layout import counted, wrapped


def life_cycle_lines(document: dict[str, Any]) -> str:
    """A line each for migration, dirty logging, memory that moved, and mappings; empty if nothing of it happened."""
    counts: dict[str, int] = document.get("life_cycle", {})
    copies_differ = any(found["kind"] == "lost-dirty" for found in document["violations"])
    lines = (_migrations(counts, copies_differ), _logging(counts), _moves(counts), _mappings(document, counts))
    return "\n".join(wrapped(line) for line in lines if line)


def _migrations(counts: dict[str, int], copies_differ: bool) -> str:
    completed, cancelled = counts.get("migrations_completed", 0), counts.get("migrations_cancelled", 0)
    if not completed + cancelled:
        return ""
    verdict = "not every copy equal to memory" if copies_differ else "every copy equal to memory"
    line = f"{counted(completed + cancelled, 'migration')}: {cells.count(completed)} completed"
    line += f" ({verdict})" if completed else ""
    line += f", {cells.count(cancelled)} cancelled"
    return line + (f"; {counted(counts['copied_pages'], 'page')} copied" if counts.get("copied_pages") else "")


def _logging(counts: dict[str, int]) -> str:
    parts = []
    for key, word in (("logging_enabled", "enabled"), ("logging_disabled", "disabled")):
        if counts.get(key):
            parts.append(f"{word} {counted(counts[key], 'time')}")
    if counts.get("blocks_split_eagerly"):
        parts.append(f"{counted(counts['blocks_split_eagerly'], 'block')} split eagerly")
    if counts.get("harvests"):
        dirty = counted(counts.get("dirty_pages", 0), "dirty page")
        parts.append(f"{counted(counts['harvests'], 'harvest')} of {dirty}")
    return f"Dirty logging: {', '.join(parts)}" if parts else ""


def _mappings(document: dict[str, Any], counts: dict[str, int]) -> str:
    if not any(counts.values()):
        return ""
    total = {
        name: sum(order["mappings"][name] for order in document["orders"]) for name in ("blocks", "pages", "splits")
    }
    rebuilds = sum(order["rebuilds"] for order in document["orders"])
    line = f"Faults mapped {counted(total['blocks'], 'block')} and {counted(total['pages'], 'page')}"
    return f"{line}, split {counted(total['splits'], 'block')}; {counted(rebuilds, 'rebuild')}"


def _moves(counts: dict[str, int]) -> str:
    parts = [
        counted(counts[key], noun)
        for key, noun in (
            ("collapses", "THP collapse"),
            ("breakups", "break-up"),
            ("slot_moves", "memslot move"),
        )
        if counts.get(key)
    ]
    if counts.get("frames_moved"):
        parts.append(f"{counted(counts['frames_moved'], 'frame')} moved")
    if counts.get("tables_deferred"):
        parts.append(f"{counted(counts['tables_deferred'], 'table')} freed after a grace period")
    line = ", ".join(parts)
    return line[:1].upper() + line[1:]
