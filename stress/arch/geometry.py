"""Geometry of a stage-2 table: granules, levels, block sizes and the concatenated start level.

Sources: DDI 0487 D8.2 (translation granules), Linux 6.1 ``arch/arm64/include/asm/kvm_pgtable.h``
(``kvm_granule_size``, ``kvm_level_supports_block_mapping``) and ``stage2_pgtable.h`` (``stage2_pgtable_levels``).
"""

from __future__ import annotations

from dataclasses import dataclass

LAST_LEVEL = 3
#: Stage 2 may concatenate up to 16 tables at the start level (DDI 0487 D8.2.2).
CONCATENATION_BITS = 4

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

#: IPA of the first byte of guest RAM, as on QEMU's arm64 machines; a multiple of every block size.
MEMSLOT_BASE = 1 * GIB

#: Granule size in bytes -> {level: size in bytes of a block entry that KVM uses at this level}.
BLOCK_SIZES: dict[int, dict[int, int]] = {
    4 * KIB: {1: GIB, 2: 2 * MIB},
    16 * KIB: {2: 32 * MIB},
    64 * KIB: {2: 512 * MIB},
}


def levels_needed(input_bits: int, granule_shift: int) -> int:
    """Number of levels that resolve an input address of this width (Linux ``ARM64_HW_PGTABLE_LEVELS``)."""
    return (input_bits - 4) // (granule_shift - 3)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape of one stage-2 table.

    ``granule`` in bytes, ``ipa_bits`` the width of the intermediate physical address.
    """

    granule: int
    ipa_bits: int = 40

    def __post_init__(self) -> None:
        if self.granule not in BLOCK_SIZES:
            raise ValueError(f"no such granule: {self.granule} bytes")
        if not self.granule_shift + self.index_bits < self.ipa_bits <= 48:
            raise ValueError(f"no such IPA size: {self.ipa_bits} bits")

    @property
    def granule_shift(self) -> int:
        """log2 of the granule."""
        return self.granule.bit_length() - 1

    @property
    def index_bits(self) -> int:
        """IPA bits that one level resolves."""
        return self.granule_shift - 3

    @property
    def entries(self) -> int:
        """Entries in one table page."""
        return 1 << self.index_bits

    @property
    def start_level(self) -> int:
        """Level of the root: as few levels as concatenation allows, but two, as KVM chooses it (``kvm_get_vtcr``)."""
        needed = levels_needed(self.ipa_bits - CONCATENATION_BITS, self.granule_shift)
        return LAST_LEVEL + 1 - max(2, needed)

    @property
    def root_pages(self) -> int:
        """Concatenated table pages at the start level."""
        return 1 << max(0, self.ipa_bits - self.level_shift(self.start_level) - self.index_bits)

    def level_shift(self, level: int) -> int:
        """log2 of the bytes that one entry at this level maps."""
        return self.granule_shift + (LAST_LEVEL - level) * self.index_bits

    def level_size(self, level: int) -> int:
        """Bytes that one entry at this level maps (``kvm_granule_size``)."""
        return 1 << self.level_shift(level)

    def block_level(self, block_size: int) -> int:
        """Level whose block entry maps ``block_size`` bytes; ValueError if KVM has no such block."""
        for level, size in BLOCK_SIZES[self.granule].items():
            if size == block_size and level >= self.start_level:
                return level
        raise ValueError(f"no {block_size}-byte block with a {self.granule}-byte granule")

    def pages_per(self, level: int) -> int:
        """Pages (frames) that one entry at this level maps."""
        return 1 << (LAST_LEVEL - level) * self.index_bits

    def tables_below(self, level: int) -> int:
        """Table pages of a fully populated subtree under one entry at this level."""
        return sum(1 << depth * self.index_bits for depth in range(LAST_LEVEL - level))
