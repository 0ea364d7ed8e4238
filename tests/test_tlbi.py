"""Invalidations as they are published: numbered, in a ring, and complete once the DSB is through."""

from __future__ import annotations

from machines import small_machine

from stress.kernels.tlbi import publish, tlbi_range, tlbi_vmid, wait_for_completion
from stress.shm.words import SEQUENCE, TLBI_DONE, TLBI_END, TLBI_NUMBER, TLBI_RING, TLBI_START


def test_numbers_count_up_and_rows_say_what_was_invalidated() -> None:
    s = small_machine()
    for n in range(1, 2 * TLBI_RING + 3):
        assert publish(s, 10 * n, 10 * n + 7) == n
        assert s.control[SEQUENCE] == n
        row = s.tlbi[n % TLBI_RING]
        assert (row[TLBI_NUMBER], row[TLBI_START], row[TLBI_END]) == (n, 10 * n, 10 * n + 7)
    newest = range(2 * TLBI_RING + 2 - TLBI_RING + 1, 2 * TLBI_RING + 3)
    assert sorted(s.tlbi[:, TLBI_NUMBER]) == list(newest)


def test_only_a_vmid_wide_one_makes_broken_tables_clean() -> None:
    s = small_machine()
    tlbi_range(s, 5, 6)
    assert (s.control[SEQUENCE], s.control[TLBI_DONE]) == (1, 0)
    tlbi_vmid(s)
    assert (s.control[SEQUENCE], s.control[TLBI_DONE]) == (2, 2)
    assert s.tlbi[2, TLBI_END] == 0, "the whole VMID"
    tlbi_range(s, 5, 6)
    assert (s.control[SEQUENCE], s.control[TLBI_DONE]) == (3, 2)


def test_publishing_alone_completes_nothing() -> None:
    s = small_machine()
    publish(s, 0, 0)
    assert (s.control[SEQUENCE], s.control[TLBI_DONE]) == (1, 0)
    wait_for_completion()
    assert s.control[TLBI_DONE] == 0


def test_an_older_completion_does_not_undo_a_newer_one() -> None:
    s = small_machine()
    s.control[TLBI_DONE] = 50
    tlbi_vmid(s)
    assert s.control[TLBI_DONE] == 50
