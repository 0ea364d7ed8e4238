"""The break-before-make rule as a state machine over one entry (DDI 0487 D8.14.1).

An entry is in one of three states, which its own word tells:

==============  =========================================================================================
clean           zero: no TLB can hold a translation from it
broken          invalid, once valid: cached translations may live until a TLBI completes that covers them
valid           a block, page or table descriptor
==============  =========================================================================================

Changing a valid entry's size, or its output address, needs a break: valid -> broken -> TLBI completed -> valid.
Changing permissions, AF or software bits does not. FEAT_BBM relaxes only the change of size: level 1 while the
block has nT set, levels 2 and 3 always; a changed output address still needs the break.

A break without its TLBI is worth nothing, and does no harm: invalid entries are never cached (I_WZCBG), so what TLBs
may hold is what they might hold had nothing been broken. What needs no break needs none of its TLBI either. A broken
word keeps what kind of entry was there, and not its address: a leaf that becomes a leaf again is taken for another.

============  ============================================================================================
level         a change of size without a break
============  ============================================================================================
0             is wrong: a TLB that gets both sizes may do anything
1             is allowed where the block has nT set; a TLB does not keep such a block, so its accesses walk
2             is allowed; a vCPU whose TLB gets both sizes may take a TLB conflict abort
3             is allowed, and aborts nobody
============  ============================================================================================
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

#: From this level on a size may change without a break, whatever the block.
ANY_SIZE = 2
#: At this level that may end in a TLB conflict abort.
MAY_ABORT = 2
#: The highest level.
HIGHEST = 3

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
    FEAT_BBM level (0 to 3). A TLBI by IPA turns a broken leaf's entry clean, so it needs no clock here.
    """
    if old == _POISON:
        return FREED
    if not new & 1:
        return OK
    is_block = new & _TYPE == _BLOCK
    if not old & 1:
        kind = (old & _KIND_MASK) >> _KIND_LO
        if (kind != _LEAF and kind != _TABLE) or tlbi_done > (old >> _CLOCK_LO):
            return OK
        resized = level < _LAST and is_block == (kind == _TABLE)
        if resized and (bbm_level >= ANY_SIZE or (bbm_level == 1 and is_block and new & _NT)):
            return OK
        return NO_TLBI
    block = old if old & _TYPE == _BLOCK else new
    if level < _LAST and (old ^ new) & _TYPE:
        if bbm_level >= ANY_SIZE or (bbm_level == 1 and block & _NT):
            return OK
        return NO_BREAK_SIZE
    moved = (old ^ new) & _ADDRESS
    if block & _TYPE == _BLOCK:
        moved &= ~_NT  # bit 16 of a block is nT, not an address bit
    return NO_BREAK_ADDRESS if moved else OK
