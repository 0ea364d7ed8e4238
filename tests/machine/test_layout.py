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
from stress.shm import accounts, traced, words
from stress.shm.accounts import Kind
from stress.shm.layout import Machine, carve, segment_bytes, shapes
from stress.shm.words import LINE


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
    "TLBI_": (words.TLBI_WORDS, {"TLBI_WORDS", "TLBI_LOCAL", "TLBI_HINT", "TLBI_FRAMES", "TLBI_DONE", "TLBI_PENDING"}),
    "R_": (accounts.RECORD_WORDS, set()),
    "B_": (words.BUILDING_WORDS, set()),
    "T_": (accounts.TOTAL_WORDS, set()),
    "E_": (accounts.EVENT_WORDS, set()),
    "EVENT_": (accounts.EVENT_INDEX_WORDS, {"EVENT_WORDS", "EVENT_INDEX_WORDS"}),
    "V_": (accounts.EVIDENCE_WORDS, set()),
    "C_": (accounts.COUNTER_WORDS, set()),
    "SLOT_": (LINE, set()),
    "D_": (words.DEFERRED_WORDS, set()),
    "P_": (words.PROGRAM_WORDS, set()),
    "G_": (accounts.STAGE_WORDS, set()),
}


@pytest.mark.parametrize("prefix", ROWS)
def test_words_of_a_row_do_not_collide(prefix: str) -> None:
    """Indices into one row are all different, and fit it."""
    size, not_indices = ROWS[prefix]
    indices = {
        name: value
        for name, value in (vars(words) | vars(accounts)).items()
        if name.startswith(prefix) and name not in not_indices
    }
    assert len(indices) >= 3
    assert len(set(indices.values())) == len(indices), indices
    assert min(indices.values()) >= 0
    assert max(indices.values()) < size


def test_groups_of_words_have_room() -> None:
    row = [traced.W_KIND, traced.W_WHO, traced.W_AT, traced.W_VALUE]
    assert sorted(row) == list(range(traced.TRACE_WORDS))
    assert 0 not in list(traced.Traced), "that is a row which is not complete"
    assert accounts.R_STEPS + MAX_STEPS <= accounts.R_FAULTS, "a step's duration fits for every step an order may have"
    assert words.ORDER_WORDS > MAX_STEPS, "and its code, with an end behind it"
    assert len(FAULT_CLASSES) == accounts.FAULT_KINDS
    assert accounts.C_MAPPED_BLOCKS == accounts.C_FAULTS + accounts.FAULT_KINDS
    assert accounts.C_PERMISSION == accounts.C_TRANSLATION + LAST_LEVEL + 1
    assert accounts.C_DROPPED == accounts.C_PERMISSION + LAST_LEVEL + 1
    assert accounts.G_COUNTERS + accounts.COUNTER_WORDS == accounts.STAGE_WORDS


FIRST_LINE = [words.SEQUENCE, words.STOP, words.PARK, words.STAGE, words.CYCLE, words.LOGGED]
POOL_LINE = [words.POOL_HEAD, words.POOL_TAIL, words.POOL_LOCK, words.DEFERRED_HEAD, words.DEFERRED_TAIL]
OTHERS = [
    words.LOCK,
    words.LOCK_WRITERS,
    words.TLBI_DONE,
    words.FENCED,
    words.BARRIER_REFUSED,
    words.HOST_SEQUENCE,
    words.GRACE_BEGUN,
    words.GRACE_DONE,
    words.FINISH,
    words.REBUILDS,
    words.TLBI_PENDING,
]
PROC = [words.PARKED, words.STAGE_DONE, words.WALKING]
TALLY = [
    accounts.PHASE,
    accounts.INSIDE,
    accounts.POOL_PEAK,
    accounts.POOL_LEAKED,
    accounts.STAGES_TAIL,
    accounts.STAGES_HEAD,
    accounts.COSTS_END_NS,
    accounts.COSTS_CUT,
    accounts.CLOSED,
    accounts.VOIDED,
    accounts.ACTED,
    accounts.TRACE_NEXT,
    accounts.TRACE_ENDED,
    *(accounts.VIOLATIONS + kind for kind in Kind),
    *(accounts.BY_RULE + kind for kind in Kind),
]
STATES = [accounts.STATE, accounts.HEARTBEAT, accounts.FIRST_ACCESS_NS, accounts.AT_GFN, accounts.AT_STEP]
STATES += [accounts.STAGE_END_NS, accounts.CHANGED, accounts.CHANGED_ROW, accounts.LOOKED_NS]


@pytest.mark.parametrize(
    ("row", "size"),
    [
        (FIRST_LINE + POOL_LINE + OTHERS, words.CONTROL_WORDS),
        (PROC, words.PROC_WORDS),
        (TALLY, accounts.TALLY_WORDS),
        (STATES, accounts.STATE_WORDS),
    ],
)
def test_words_of_a_region_do_not_collide(row: list[int], size: int) -> None:
    assert len(set(row)) == len(row)
    assert max(row) < size


def test_what_is_written_under_way_is_not_on_the_line_that_accesses_read() -> None:
    assert {at // LINE for at in FIRST_LINE} == {0}
    assert len({at // LINE for at in POOL_LINE}) == 1
    lines = {at // LINE for at in (words.LOCK, words.TLBI_DONE, POOL_LINE[0], words.FINISH, words.REBUILDS)}
    assert len(lines) == 5
    assert 0 not in lines
    assert words.WALKING % LINE == 0, "written on every fault under a shared mmu_lock, read by rebuilders"
    assert {at for at in TALLY if at // LINE == 0} == {accounts.PHASE, accounts.INSIDE}


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
    assert s.tally[accounts.PHASE] == 2, "accesses are charged to no order yet"
    assert (s.states[:, accounts.AT_STEP] == -1).all()
    assert s.tally[accounts.POOL_PEAK] == geo.root_pages


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
