"""The regions of the segment: disjoint, on cache lines of their own, and filled as a fresh machine is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from machines import SMALL, assert_sound, small_machine

from stress.arch.descriptors import POISON
from stress.arch.geometry import LAST_LEVEL
from stress.orders import MAX_STEPS
from stress.results.data import FAULT_CLASSES
from stress.shm import traced, words
from stress.shm.layout import Machine, carve, segment_bytes, shapes
from stress.shm.words import LINE, Kind


def test_regions_are_disjoint_and_start_on_cache_lines() -> None:
    sample = small_machine(blocks=3, vcpus=3, orders=2, trace_rows=5)
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


#: Prefix -> words of a row, and names that begin like it and are no index into it.
ROWS: dict[str, tuple[int, set[str]]] = {
    "TLBI_": (words.TLBI_WORDS, {"TLBI_WORDS", "TLBI_DONE", "TLBI_PENDING"}),
    "R_": (words.RECORD_WORDS, set()),
    "B_": (words.BUILDING_WORDS, set()),
    "T_": (words.TOTAL_WORDS, set()),
    "E_": (words.EVENT_WORDS, set()),
    "EVENT_": (words.EVENT_INDEX_WORDS, {"EVENT_WORDS", "EVENT_INDEX_WORDS"}),
    "V_": (words.EVIDENCE_WORDS, set()),
    "C_": (words.COUNTER_WORDS, set()),
    "SLOT_": (LINE, set()),
    "D_": (words.DEFERRED_WORDS, set()),
    "P_": (words.PROGRAM_WORDS, set()),
    "G_": (words.STAGE_WORDS, set()),
}


@pytest.mark.parametrize("prefix", ROWS)
def test_words_of_a_row_do_not_collide(prefix: str) -> None:
    """Indices into one row are all different, and fit it."""
    size, not_indices = ROWS[prefix]
    indices = {
        name: value for name, value in vars(words).items() if name.startswith(prefix) and name not in not_indices
    }
    assert len(indices) >= 3
    assert len(set(indices.values())) == len(indices), indices
    assert min(indices.values()) >= 0
    assert max(indices.values()) < size


def test_groups_of_words_have_room() -> None:
    row = [traced.W_KIND, traced.W_WHO, traced.W_AT, traced.W_VALUE]
    assert sorted(row) == list(range(traced.TRACE_WORDS))
    assert 0 not in list(traced.Traced), "that is a row which is not complete"
    assert words.R_STEPS + MAX_STEPS <= words.R_FAULTS, "a step's duration fits for every step an order may have"
    assert words.ORDER_WORDS > MAX_STEPS, "and its code, with an end behind it"
    assert len(FAULT_CLASSES) == words.FAULT_KINDS
    assert words.C_MAPPED_BLOCKS == words.C_FAULTS + words.FAULT_KINDS
    assert words.C_PERMISSION == words.C_TRANSLATION + LAST_LEVEL + 1
    assert words.C_DROPPED == words.C_PERMISSION + LAST_LEVEL + 1
    assert words.G_COUNTERS + words.COUNTER_WORDS == words.STAGE_WORDS


FIRST_LINE = [words.SEQUENCE, words.PHASE, words.STOP, words.PARK, words.INSIDE, words.STAGE, words.CYCLE]
POOL_LINE = [words.POOL_HEAD, words.POOL_TAIL, words.POOL_PEAK, words.POOL_LOCK]
POOL_LINE += [words.DEFERRED_HEAD, words.DEFERRED_TAIL]
REBUILD_LINE = [words.REBUILDS, words.CLOSED, words.VOIDED, words.TLBI_PENDING]
OTHERS = [
    words.TRACE_NEXT,
    words.TRACE_ENDED,
    words.LOCK,
    words.LOCK_WRITERS,
    words.TLBI_DONE,
    words.FENCED,
    words.HOST_SEQUENCE,
    words.FINISH,
    words.STAGES_TAIL,
    words.COSTS_END_NS,
    words.COSTS_CUT,
]
PROC = [words.STATE, words.HEARTBEAT, words.PARKED, words.FIRST_ACCESS_NS, words.AT_GFN, words.AT_STEP]
PROC += [words.STAGE_DONE, words.STAGE_END_NS, words.WALKING]


def test_control_words_do_not_collide() -> None:
    at = FIRST_LINE + POOL_LINE + REBUILD_LINE + OTHERS + [words.VIOLATIONS + kind for kind in Kind]
    assert len(set(at)) == len(at)
    assert max(at) < words.CONTROL_WORDS
    assert len(set(PROC)) == len(PROC)
    assert max(PROC) < words.PROC_WORDS


def test_what_is_written_under_way_is_not_on_the_line_that_accesses_read() -> None:
    assert {at // LINE for at in FIRST_LINE} == {0}
    assert len({at // LINE for at in POOL_LINE}) == len({at // LINE for at in REBUILD_LINE}) == 1
    lines = {at // LINE for at in (words.LOCK, words.TLBI_DONE, POOL_LINE[0], words.FINISH, REBUILD_LINE[0])}
    assert len(lines) == 5
    assert 0 not in lines
    assert words.WALKING % LINE == 0, "written on every fault under a shared mmu_lock, read by rebuilders"


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
    assert geo.pages == geo.frames
    assert (s.cells >> words.TAG_SHIFT == np.arange(geo.frames) + 1).all()
    assert list(s.host) == list(range(geo.pages))
    assert (s.orders == -1).all()
    assert not s.dirty.any()
    assert ((s.cells & words.NOT_AT_POC != 0) == (not fwb)).all()
    assert not (s.cells & words.VALUE_MASK).any()
    assert s.control[words.PHASE] == 2, "accesses are charged to no order yet"
    assert (s.procs[:, words.AT_STEP] == -1).all()
    assert s.control[words.POOL_PEAK] == geo.root_pages


@pytest.mark.parametrize("pages", [1025, 1200, 1536])
@pytest.mark.parametrize("memslots", [1, 2, 3, 7])
def test_memslots_cut_guest_memory_into_near_equal_parts(pages: int, memslots: int) -> None:
    s = small_machine(blocks=3, pages=pages, memslots=memslots, phys_offset=5 << 30)
    assert_sound(s)
    rows = s.memslots.tolist()
    assert len(rows) == memslots
    assert rows[0][words.SLOT_FIRST] == 0
    for row, following in pairwise(rows):
        assert following[words.SLOT_FIRST] == row[words.SLOT_FIRST] + row[words.SLOT_PAGES]
    assert rows[-1][words.SLOT_FIRST] + rows[-1][words.SLOT_PAGES] == pages
    assert max(row[words.SLOT_PAGES] for row in rows) - min(row[words.SLOT_PAGES] for row in rows) <= 1
    assert all(row[words.SLOT_BASE] - row[words.SLOT_FIRST] == s.geo.base_gfn == 5 << 18 for row in rows)
    assert not any(row[words.SLOT_LOGGING] for row in rows)


def test_frames_that_back_nothing_are_poisoned() -> None:
    s = small_machine(blocks=3, pages=1200, spare_blocks=1)
    assert s.geo.frames == 4 * 512
    assert (s.cells[:1200] >> words.TAG_SHIFT == np.arange(1200) + 1).all()
    assert (s.cells[1200:] == words.POISONED_CELL).all()
    assert s.geo.pages < words.POISONED_CELL >> words.TAG_SHIFT, "no page has that tag"


@pytest.mark.parametrize("thp", [False, True])
def test_what_the_host_maps_with_huge_pages(thp: bool) -> None:
    s = small_machine(blocks=3, pages=1200, backing_thp=thp)
    assert list(s.huge) == [int(thp)] * 3


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
        "lost-dirty",
        "endless-fault",
        "not-installed",
    ]
