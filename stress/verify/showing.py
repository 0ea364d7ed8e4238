"""On which toy machine each bug of `stress bugs` is found within seconds: options of ``stress verify``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stress.bugs import BUGS, Need

#: In our own accounts, of which no schedule depends.
RUN_ALONE: Final = frozenset({"event-lost"})
#: `stress run` refuses these: that a fault comes back for ever is no rule of a live run.
VERIFY_ALONE: Final = frozenset(name for name, bug in BUGS.items() if Need.EVERY_FAULT in bug.needs)

_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "leak-on-update": {"scenario": "migration"},
    "wrong-fault-level": {"scenario": "migration", "scheduler": "random"},
    "harvest-without-tlbi": {"scenario": "migration", "vcpus": 1},
    "reference-kept": {"scenario": "thp"},
    "freed-in-walk": {"scenario": "thp", "vcpus": 1},
    "freed-twice": {"vcpus": 1},
    "range-level-hint": {"scenario": "thp", "populated": 2, "scheduler": "pct"},
    "no-grace": {"locking": "shared", "scheduler": "pct"},
    "no-recheck": {
        "scenario": "compaction",
        "rebuilder": "vcpu",
        "populated": 0,
        "speculation": False,
        "scheduler": "pct",
    },
    "range-scale": {"scenario": "compaction", "pages": 4, "populated": 4, "accesses": 3, "scheduler": "pct"},
    "range-unaligned": {"pages": 4, "populated": 2, "rebuilder": "vcpu"},
    "no-local-tlbi": {"scenario": "relax", "locking": "shared"},
}


def order_that_shows(name: str) -> str:
    """The order under which a bug shows."""
    return str(BUGS[name].settings.get("order", "block-first"))


def settings_that_show(name: str) -> Mapping[str, Any]:
    """Options of ``stress verify``, by their parameters' names, with which a bug is found; the others' defaults do."""
    batched = {"batch": 2} if Need.BATCH in BUGS[name].needs else {}
    return {**batched, **_SETTINGS.get(name, {})}
