"""The regions of the segment: disjoint, on cache lines of their own, and filled as a fresh machine is."""

from __future__ import annotations

import numpy as np
import pytest
from machines import SMALL, assert_sound, small_machine

from stress.arch.descriptors import POISON
from stress.shm import layout, words
from stress.shm.layout import (
    Machine,
    carve,
    segment_bytes,
    shapes,
)
from stress.shm.words import (
    LINE,
    Kind,
)


def test_regions_are_disjoint_and_start_on_cache_lines() -> None:
    sample = small_machine(blocks=3, vcpus=3, orders=2)
    buffer = bytearray(segment_bytes(sample.geo, 2))
    s = carve(buffer, sample.geo, 2)
    start = np.frombuffer(buffer, np.int64).ctypes.data
    end_of_last = LINE * 8  # MAGIC has the first line to itself
    for name, shape in shapes(s.geo, 2):
        view = getattr(s, name)
        assert view.shape == shape
        at = view.ctypes.data - start
        assert at % (LINE * 8) == 0
        assert at >= end_of_last
        end_of_last = at + view.nbytes
    assert end_of_last <= len(buffer)
    for number, name in enumerate(Machine._fields[:-1]):
        getattr(s, name)[...] = number + 1
    for number, name in enumerate(Machine._fields[:-1]):
        assert (getattr(s, name) == number + 1).all(), f"{name} shares words with another region"


def test_words_of_a_row_do_not_collide() -> None:
    """Indices into one row are all different, and fit it."""
    groups = {
        "R_": words.RECORD_WORDS,
        "T_": LINE,
        "E_": words.EVENT_WORDS,
        "EVENT_": words.EVENT_INDEX_WORDS,
        "V_": words.EVIDENCE_WORDS,
        "C_": words.COUNTER_WORDS,
    }
    not_indices = {"EVENT_RING", "EVENT_WORDS", "EVENT_INDEX_WORDS"}
    for prefix, size in groups.items():
        indices = {
            name: value for name, value in vars(layout).items() if name.startswith(prefix) and name not in not_indices
        }
        assert len(indices) > 3
        assert len(set(indices.values())) == len(indices), indices
        assert max(indices.values()) < size
    assert words.R_STEPS + 16 <= words.R_FAULTS, "a step's duration fits for every step an order may have"
    assert words.C_DROPPED == words.C_FAULTS + words.FAULT_KINDS
    assert words.VIOLATIONS + len(Kind) <= words.CONTROL_WORDS


@pytest.mark.parametrize(("granule", "block_size"), SMALL)
@pytest.mark.parametrize("fwb", [False, True])
def test_a_fresh_machine(granule: int, block_size: int, fwb: bool) -> None:
    s = small_machine(granule, block_size, fwb=fwb)
    geo = s.geo
    entries = 1 << geo.index_bits
    tree = assert_sound(s)
    assert tree.leaves == []
    assert list(tree.tables) == list(range(geo.root_pages))
    assert not s.tables[: geo.root_pages * entries].any()
    assert (s.tables[geo.root_pages * entries :] == POISON).all()
    assert (s.cells >> words.TAG_SHIFT == np.arange(geo.frames) + 1).all()
    assert ((s.cells & words.NOT_AT_POC != 0) == (not fwb)).all()
    assert not (s.cells & words.VALUE_MASK).any()
    assert s.control[words.PHASE] == 2, "accesses are charged to no order yet"
    assert (s.procs[:, words.AT_STEP] == -1).all()
    assert s.control[words.POOL_PEAK] == geo.root_pages


def test_labels_are_those_of_the_design() -> None:
    assert [kind.label for kind in Kind] == [
        "stale-translation",
        "tlb-conflict",
        "table-use-after-free",
        "bbm",
        "not-at-poc",
        "refcount",
        "table-leak",
        "double-free",
        "lost-event",
    ]
