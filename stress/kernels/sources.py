"""Where in our sources each kind of traced change happens, found in the sources themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import stress
from stress.kernels import entries, pool, teardown, tlbi, unlinked
from stress.shm import layout, mmu_lock
from stress.shm.traced import Traced

_ROOT: Final = Path(stress.__file__).parent.parent


def _line(function: Callable[..., Any], text: str) -> str:
    """``file:line`` of the first line of a function that contains ``text``."""
    plain = inspect.unwrap(getattr(function, "py_func", function))
    lines, first = inspect.getsourcelines(plain)
    [number, *_] = [first + i for i, line in enumerate(lines) if text in line]
    return f"{Path(inspect.getfile(plain)).relative_to(_ROOT)}:{number}"


INITIALISE: Final = _line(layout.initialise, "machine.page_level[: geo.root_pages]")
FILL_TABLE: Final = _line(unlinked.fill_table, "put(s.tables, base + i,")

OF: Final = {
    Traced.LOCK: _line(mmu_lock.acquire, "compare_exchange(s.control, LOCK"),
    Traced.UNLOCK: _line(mmu_lock.release, "store(s.control, LOCK, 0)"),
    Traced.ALLOCATE: _line(pool.clear_table, "put(s.tables, i, 0)"),
    Traced.FREE: _line(pool.free_table, "put(s.tables, i, POISON)"),
    Traced.DETACH: _line(teardown.unmap_last, "put_page(s, page)"),
    Traced.FILL: _line(unlinked.fill_last, "put(s.tables, base + i,"),
    Traced.SET: _line(entries.set_entry, "write_entry("),
    Traced.SWAP: _line(entries.swap_entry, "write_entry("),
    Traced.BREAK: _line(entries.break_entry, "write_entry("),
    Traced.TLBI_VMID: _line(tlbi.tlbi_vmid, "publish(s, 0, 0)"),
    Traced.TLBI_ENTRY: _line(entries.tlbi_entry, "tlbi_ipas("),
    Traced.TLBI_RANGE: _line(tlbi.tlbi_range, "tlbi_ipas("),
    Traced.DSB: _line(tlbi.wait_for_completion, "membarrier()"),
}
