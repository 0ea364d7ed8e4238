"""The break-before-make rule as a state machine over one entry (DDI 0487 D8.14.1).

An entry is in one of three states, which its own word tells:

==============  =========================================================================================
clean           zero: no TLB can hold a translation from it
broken          invalid, once valid: cached translations may live until a TLBI completes that covers them
valid           a block, page or table descriptor
==============  =========================================================================================

Changing a valid entry's size, or its output address, needs a break: valid -> broken -> TLBI completed -> valid.
Changing permissions, AF or software bits does not. FEAT_BBM relaxes only the change of size: level 1 while the
block has nT set, level 2 always; a changed output address still needs the break.
"""

from __future__ import annotations

from stress.arch.descriptors import (
    CLOCK,
    KIND,
    KIND_BROKEN_LEAF,
    KIND_BROKEN_TABLE,
    NT,
    POISON,
    TYPE,
    TYPE_BLOCK,
    output_address,
)
from stress.arch.geometry import LAST_LEVEL

# Verdicts on one store to an entry.
OK = 0
#: Valid to valid with another size (block <-> table) and no break.
NO_BREAK_SIZE = 1
#: Valid to valid with another output address or another next table and no break.
NO_BREAK_ADDRESS = 2
#: Broken to valid before a TLBI that covers the old translation completed.
NO_TLBI = 3
#: Stores to a freed table page.
FREED = 4
#: nT cleared before a TLBI completed that covers what the block replaced (reported by the rebuild, which knows when).
NT_CLEARED = 5

VERDICTS = (
    "ok",
    "no break: size changed",
    "no break: address changed",
    "no TLBI since the break",
    "freed table",
    "nT cleared without a TLBI since the block was installed",
)

_TYPE = TYPE.mask
_BLOCK = TYPE_BLOCK
_NT = NT.mask
_ADDRESS = output_address(12).mask
_KIND_MASK = KIND.mask
_KIND_LO = KIND.lo
_CLOCK_LO = CLOCK.lo
_LEAF = KIND_BROKEN_LEAF
_TABLE = KIND_BROKEN_TABLE
_POISON = POISON
_LAST = LAST_LEVEL


def verdict(old: int, new: int, level: int, tlbi_done: int, bbm_level: int) -> int:
    """Judge the store of ``new`` over ``old`` in an entry at ``level``; returns one of the verdicts above.

    ``tlbi_done`` is the sequence number of the newest completed VMID-wide TLBI, ``bbm_level`` the platform's
    FEAT_BBM level (0, 1, 2). A TLBI by IPA turns a broken leaf's entry clean, so it needs no clock here.
    """
    if old == _POISON:
        return FREED
    if not new & 1:
        return OK
    if not old & 1:
        kind = (old & _KIND_MASK) >> _KIND_LO
        if (kind == _LEAF or kind == _TABLE) and tlbi_done <= (old >> _CLOCK_LO):
            return NO_TLBI
        return OK
    block = old if old & _TYPE == _BLOCK else new
    if level < _LAST and (old ^ new) & _TYPE:
        if bbm_level == 2 or (bbm_level == 1 and block & _NT):
            return OK
        return NO_BREAK_SIZE
    moved = (old ^ new) & _ADDRESS
    if block & _TYPE == _BLOCK:
        moved &= ~_NT  # bit 16 of a block is nT, not an address bit
    return NO_BREAK_ADDRESS if moved else OK
