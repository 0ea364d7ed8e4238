"""A machine small enough to explore: one or a few blocks of very few pages, in kilobytes, and set back in microseconds.

Its table pages have fewer entries than the granule holds; all else is as in any machine, and so are the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stress.arch.geometry import KIB, LAST_LEVEL, Geometry
from stress.shm.layout import Geo, Rings, carve, geo_for, initialise, segment_bytes

RINGS = Rings(tlbi_rows=8, deferred_rows=8, record_rows=8, cycle_rows=8, event_rows=8, stage_rows=1, evidence_rows=2)


@dataclass(frozen=True, slots=True)
class ToyGeometry(Geometry):
    """Two levels of tables: a root whose entries map ``block_pages`` (a power of two) each, for ``blocks`` blocks."""

    granule: int = 64 * KIB
    block_pages: int = 2
    blocks: int = 1

    @property
    def index_bits(self) -> int:
        """IPA bits that one level resolves: those of a block's pages."""
        return self.block_pages.bit_length() - 1

    @property
    def start_level(self) -> int:
        """Level of the root, and of the blocks."""
        return LAST_LEVEL - 1

    @property
    def root_pages(self) -> int:
        """Concatenated table pages at the start level."""
        return -(-self.blocks // self.entries)

    def block_level(self, block_size: int) -> int:
        """Level of the blocks."""
        return self.start_level


def toy_geo(
    geometry: ToyGeometry | None = None,
    *,
    spare_ranges: int = 0,
    vcpus: int = 1,
    fwb: bool = True,
    guest_caches: bool = True,
    **policy: Any,
) -> Geo:
    """Guest memory fills the blocks of ``geometry``, but the last ``spare_ranges``: there memslots may be moved to.

    ``policy`` is what else ``geo_for`` knows.
    """
    geometry = geometry or ToyGeometry()
    return geo_for(
        geometry,
        block_size=geometry.level_size(geometry.start_level),
        blocks=geometry.blocks - spare_ranges,
        phys_offset=0,
        vcpus=vcpus,
        fwb=fwb,
        guest_caches=guest_caches,
        rings=RINGS,
        **policy,
    )


class Toy:
    """A machine on memory of its own that can be set back to a moment of its past."""

    def __init__(self, geo: Geo, orders: int = 1) -> None:
        self._words = np.zeros(segment_bytes(geo, orders) // 8, np.int64)
        self.machine = carve(self._words, geo, orders)
        for _ in initialise(self.machine):
            pass
        self.save()

    @property
    def size(self) -> int:
        """Bytes of the machine."""
        return self._words.nbytes

    def save(self) -> None:
        """Make the machine's present state the one that ``reset`` leads back to."""
        self._saved = self._words.copy()

    def reset(self) -> None:
        """Set every word back to what it was at the last ``save``: at first, that of a fresh machine."""
        self._words[:] = self._saved
