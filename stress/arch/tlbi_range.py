"""What one TLBI instruction covers (FEAT_TLBIRANGE; DDI 0487 C5.5, ``TLBI RIPAS2E1IS``).

A TLBI by range invalidates (NUM + 1) * 2 ** (5 * SCALE + 1) pages from its base on. NUM has 5 bits and SCALE has 2, so
a range of any other length takes several instructions, and an odd page one by IPA (Linux ``__flush_tlb_range_op``).
"""

from __future__ import annotations

NUM_BITS = 5
SCALES = 4


def covered(pages: int) -> int:
    """Pages that one TLBI covers of a range of ``pages``: at the largest scale that fits into it, or 1 by IPA."""
    for scale in range(SCALES - 1, -1, -1):
        shift = NUM_BITS * scale + 1
        if pages >> shift != 0:
            return min(pages >> shift, 1 << NUM_BITS) << shift
    return 1
