"""Invalidations as they are published: numbered, in a ring, and complete once the DSB is through."""

from __future__ import annotations

import time

import pytest
from machines import small_machine

from stress.bugs import BUGS, MISSING_DSB
from stress.kernels import tlbi
from stress.kernels.tlbi import publish, tlbi_range, tlbi_vmid, wait_for_completion
from stress.shm.layout import Rings
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import (
    BARRIER_REFUSED,
    FENCED,
    FINISH,
    FINISH_ASKED,
    SEQUENCE,
    TLBI_DONE,
    TLBI_END,
    TLBI_NUMBER,
    TLBI_START,
)

TLBI_ROWS = Rings().tlbi_rows


def test_numbers_count_up_and_rows_say_what_was_invalidated() -> None:
    s = small_machine()
    for n in range(1, 2 * TLBI_ROWS + 3):
        assert publish(s, 10 * n, 10 * n + 7) == n
        assert s.control[SEQUENCE] == n
        row = s.tlbi[n % TLBI_ROWS]
        assert (row[TLBI_NUMBER], row[TLBI_START], row[TLBI_END]) == (n, 10 * n, 10 * n + 7)
    newest = range(2 * TLBI_ROWS + 2 - TLBI_ROWS + 1, 2 * TLBI_ROWS + 3)
    assert sorted(s.tlbi[:, TLBI_NUMBER]) == list(newest)


def test_only_a_vmid_wide_one_makes_broken_tables_clean() -> None:
    s = small_machine()
    tlbi_range(s, 5, 6, 0)
    assert (s.control[SEQUENCE], s.control[TLBI_DONE]) == (1, 0)
    tlbi_vmid(s, 0)
    assert (s.control[SEQUENCE], s.control[TLBI_DONE]) == (2, 2)
    assert s.tlbi[2, TLBI_END] == 0, "the whole VMID"
    tlbi_range(s, 5, 6, 0)
    assert (s.control[SEQUENCE], s.control[TLBI_DONE]) == (3, 2)


@pytest.mark.parametrize("pages", [1, 2, 3, 64, 513, 5 * 512, (1 << 21) + 1])
def test_a_range_takes_as_many_instructions_as_its_length_says(pages: int) -> None:
    for bug in (0, BUGS["range-scale"].flag):
        s = small_machine(inject=bug)
        tlbi_range(s, 5, 5 + pages, 0)
        rows = s.tlbi[1 : s.control[SEQUENCE] + 1, [TLBI_START, TLBI_END]].tolist()
        assert [start for start, _ in rows] == [5, *(end for _, end in rows[:-1])]
        lengths = [end - start for start, end in rows]
        assert set(lengths) <= {1, *(count << 5 * scale + 1 for count in range(1, 33) for scale in range(4))}
        if bug == 0:
            assert sum(lengths) == pages
            whole = lengths
    assert lengths == whole[:1]


def test_publishing_alone_completes_nothing() -> None:
    s = small_machine()
    publish(s, 0, 0)
    assert (s.control[SEQUENCE], s.control[TLBI_DONE]) == (1, 0)
    wait_for_completion(s)
    assert s.control[TLBI_DONE] == 0


def test_an_older_completion_does_not_undo_a_newer_one() -> None:
    s = small_machine()
    s.control[TLBI_DONE] = 50
    tlbi_vmid(s, 0)
    assert s.control[TLBI_DONE] == 50


@pytest.mark.parametrize("duration_ns", [0, 2_000_000])
def test_a_modelled_latency_is_spent_before_completion(duration_ns: int) -> None:
    s = small_machine(tlbi_ns=duration_ns, tlbi_ipa_ns=duration_ns)
    tlbi_vmid(s, 0)
    tlbi_range(s, 1, 2, 0)
    for number, ranged in ((3, False), (4, True)):
        start = time.monotonic_ns()
        if ranged:
            tlbi_range(s, 1, 2, 0)
        else:
            tlbi_vmid(s, 0)
        assert time.monotonic_ns() - start >= duration_ns
        assert s.control[SEQUENCE] == number
    assert s.control[TLBI_DONE] == 3


def test_with_a_missing_dsb_each_takes_effect_when_the_next_is_issued() -> None:
    """And none is ever known to be complete. (An injected bug.)"""
    s = small_machine(inject=MISSING_DSB)
    tlbi_vmid(s, 0)
    assert s.control[SEQUENCE] == 0
    tlbi_range(s, 5, 7, 0)
    assert s.control[SEQUENCE] == 1
    assert s.tlbi[1, TLBI_END] == 0, "the first, of the whole VMID"
    tlbi_vmid(s, 0)
    assert s.control[SEQUENCE] == 2
    assert (s.tlbi[2, TLBI_START], s.tlbi[2, TLBI_END]) == (5, 7)
    assert s.control[TLBI_DONE] == 0


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code calls the kernel")
@pytest.mark.parametrize("fenced", [0, 1])
def test_a_membarrier_that_fails_ends_the_run(monkeypatch: pytest.MonkeyPatch, fenced: int) -> None:
    """Unless there never was one, and every access fences."""
    s = small_machine()
    s.control[FENCED] = fenced
    monkeypatch.setattr(tlbi, "membarrier", lambda: -1)
    tlbi_range(s, 1, 2, 0)
    assert s.control[BARRIER_REFUSED] == 1 - fenced
    assert s.control[FINISH] == (0 if fenced else FINISH_ASKED)
