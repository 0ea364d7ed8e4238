r"""Stage-2 descriptors of VMSAv8-64 with 48-bit output addresses (DDI 0487 D8.3), and our invalid ones.

``s`` is the shift of the mapped size (12 for a 4 KiB page, 30 for a 1 GiB block), ``g`` the granule's::

     63   59 58    55 54 53 52 51 50 48 47             s s-1  17 16 15 11 10 9  8 7  6 5     2 1 0
    +-------+--------+-----+--+--+-----+----------------+-------+--+-----+--+----+----+-------+---+
    | IGN   |   SW   | XN  |C |D |RES0 | output address | RES0  |nT|RES0 |AF| SH |S2AP|MemAttr|0 1| block
    +-------+--------+-----+--+--+-----+----------------+-------+--+-----+--+----+----+-------+---+
    | IGN   |   SW   | XN  |C |D |RES0 | output address [47:g]     |RES0 |AF| SH |S2AP|MemAttr|1 1| page
    +-------+--------+-----+--+--+-----+---------------------------+-----+--+----+----+-------+---+
    | RES0  |    IGN [58:51]     |RES0 | next table [47:g]         |        IGN [g-1:2]       |1 1| table
    +-------+--------------------+-----+---------------------------+--------------------------+---+

Hardware ignores bits [63:1] of an invalid descriptor. A zero word is an entry that no TLB may hold. Any other
invalid word is ours and says why it is invalid, so that a fault and the break-before-make rule can read it::

     63 62                            28 27                    4 3   1 0
    +--+--------------------------------+-----------------------+-----+-+
    |0 | TLBI clock at the break        | rebuild number        |kind |0|
    +--+--------------------------------+-----------------------+-----+-+

No descriptor used here has bit 63 set, so compiled code holds them in signed 64-bit integers.
"""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """Bits [hi:lo] of a 64-bit descriptor."""

    hi: int
    lo: int

    @property
    def mask(self) -> int:
        """Mask of the field in place."""
        return ((1 << (self.hi - self.lo + 1)) - 1) << self.lo

    def place(self, value: int) -> int:
        """``value`` shifted into the field; ValueError if it does not fit."""
        if value < 0 or (value << self.lo) & ~self.mask:
            raise ValueError(f"{value} does not fit bits [{self.hi}:{self.lo}]")
        return value << self.lo

    def take(self, word: int) -> int:
        """The field's value in ``word``."""
        return (word & self.mask) >> self.lo


TYPE = Field(1, 0)
MEMATTR = Field(5, 2)
S2AP = Field(7, 6)
SH = Field(9, 8)
AF = Field(10, 10)
NT = Field(16, 16)
DBM = Field(51, 51)
CONTIGUOUS = Field(52, 52)
XN = Field(54, 53)
SOFTWARE = Field(58, 55)

_UPPER = {
    "res0_50": Field(50, 48),
    "dbm": DBM,
    "contiguous": CONTIGUOUS,
    "xn": XN,
    "software": SOFTWARE,
    "ignored": Field(63, 59),
}
_LOWER = {"type": TYPE, "memattr": MEMATTR, "s2ap": S2AP, "sh": SH, "af": AF}


def output_address(shift: int) -> Field:
    """Address field of an entry that maps ``1 << shift`` bytes, or points to a table of that size."""
    return Field(47, shift)


def block_fields(shift: int) -> dict[str, Field]:
    """Fields of a block descriptor mapping ``1 << shift`` bytes; disjoint, covering the word."""
    middle = {"res0_11": Field(15, 11), "nt": NT, "res0_17": Field(shift - 1, 17), "oa": output_address(shift)}
    return _LOWER | middle | _UPPER


def page_fields(granule_shift: int) -> dict[str, Field]:
    """Fields of a page descriptor; disjoint, covering the word."""
    return _LOWER | {"res0_11": Field(granule_shift - 1, 11), "oa": output_address(granule_shift)} | _UPPER


def table_fields(granule_shift: int) -> dict[str, Field]:
    """Fields of a table descriptor; disjoint, covering the word."""
    return {
        "type": TYPE,
        "ignored_2": Field(granule_shift - 1, 2),
        "next_table": output_address(granule_shift),
        "res0_48": Field(50, 48),
        "ignored_51": Field(58, 51),
        "res0_59": Field(63, 59),
    }


VALID = 0b01
TYPE_BLOCK = 0b01
TYPE_TABLE_OR_PAGE = 0b11

S2AP_R = S2AP.place(0b01)
S2AP_W = S2AP.place(0b10)
#: Normal memory, inner and outer write-back cacheable (``KVM_S2_MEMATTR(pgt, NORMAL)`` without FWB).
MEMATTR_NORMAL = MEMATTR.place(0b1111)
#: Normal write-back with FEAT_S2FWB (``MT_S2_FWB_NORMAL``): the guest cannot make it non-cacheable.
MEMATTR_FWB_NORMAL = MEMATTR.place(0b0110)
SH_INNER = SH.place(0b11)
AF_SET = AF.place(1)


def leaf_attributes(fwb: bool, writable: bool = True) -> int:
    """Attribute bits of a leaf that maps guest RAM, as ``stage2_set_prot_attr`` (Linux 6.1) sets them."""
    memattr = MEMATTR_FWB_NORMAL if fwb else MEMATTR_NORMAL
    return memattr | S2AP_R | (S2AP_W if writable else 0) | SH_INNER | AF_SET


# Invalid descriptors. Why an entry is invalid ("kind"):
KIND = Field(3, 1)
REBUILD = Field(27, 4)
CLOCK = Field(62, 28)

#: A leaf was here; its translation may still be cached until a TLBI that covers it completes.
KIND_BROKEN_LEAF = 1
#: A table was here; any translation of its range may still be cached until a VMID-wide TLBI completes.
KIND_BROKEN_TABLE = 2
#: Nothing was here; a fault handler is about to install a mapping (``KVM_INVALID_PTE_LOCKED``, Linux 6.2).
KIND_LOCKED = 3

#: Every word of a freed table page: invalid for the walker, and like no other invalid word.
POISON = 0x6B6B6B6B6B6B6B6E


def broken(kind: int, rebuild: int, clock: int) -> int:
    """Invalid descriptor left where a valid one was broken.

    ``rebuild`` is the rebuild's number (kept modulo 2**24; 0 outside of rebuilds), ``clock`` the TLBI sequence
    number read before the break.
    """
    return (kind << 1) | ((rebuild & 0xFFFFFF) << 4) | (clock << 28)
