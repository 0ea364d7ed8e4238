"""Rebuild records and cycles as the collector reads them: whole, or not at all. (Events: test_events.)"""

from __future__ import annotations

import numpy as np
import pytest
from machines import small_machine

from stress.shm import drain
from stress.shm.accounts import CYCLE_WORDS, K_DONE, R_DONE, R_NUMBER, RECORD_WORDS
from stress.shm.drain import copy_cycles, copy_records
from stress.shm.layout import Machine, Rings

CYCLE_ROWS = Rings().cycle_rows
RECORD_ROWS = Rings().record_rows

MACHINE = small_machine()


def write(s: Machine, number: int, done: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    row: np.ndarray[tuple[int], np.dtype[np.int64]] = s.records[number % RECORD_ROWS]
    row[:] = np.arange(RECORD_WORDS) + 1000 * number
    row[R_NUMBER], row[R_DONE] = number, done
    return row


@pytest.mark.parametrize("number", [1, 2, RECORD_ROWS - 1, RECORD_ROWS, RECORD_ROWS + 1, 5 * RECORD_ROWS + 7])
def test_a_complete_record_is_copied(number: int) -> None:
    row = write(MACHINE, number, number)
    records, whole = copy_records(MACHINE, np.array([number]))
    assert whole.tolist() == [True]
    assert (records == row).all()


@pytest.mark.parametrize("done", [0, 7, 7 + RECORD_ROWS])
def test_one_that_is_not_complete_or_was_overwritten_is_not(done: int) -> None:
    number = 7 + 2 * RECORD_ROWS
    write(MACHINE, number, done)
    assert not copy_records(MACHINE, np.array([number]))[1].any()


@pytest.mark.parametrize("fence", range(1, 4))
def test_one_that_is_reused_meanwhile_is_not(monkeypatch: pytest.MonkeyPatch, fence: int) -> None:
    """The next rebuild that uses the row begins before the copy's first look, before the copy, or after it."""
    for number in (8, 9, 10):
        write(MACHINE, number, number)
    fences = 0

    def reused() -> None:
        nonlocal fences
        fences += 1
        if fences == fence:
            write(MACHINE, 9 + RECORD_ROWS, 0)

    monkeypatch.setattr(drain, "fence", reused)
    _, whole = copy_records(MACHINE, np.arange(8, 11))
    assert fences == 3
    assert whole.tolist() == [True, False, True]


def test_copied_in_order_across_the_rings_end() -> None:
    numbers = np.arange(RECORD_ROWS - 2, RECORD_ROWS + 3)
    rows = [write(MACHINE, int(number), int(number)).copy() for number in numbers]
    records, whole = copy_records(MACHINE, numbers)
    assert whole.all()
    assert (records == rows).all()


def test_a_cycle_is_whole_once_it_is_over() -> None:
    for number in (CYCLE_ROWS, CYCLE_ROWS + 1):
        MACHINE.cycles[number % CYCLE_ROWS] = np.arange(CYCLE_WORDS) + number
    MACHINE.cycles[1, K_DONE] = 1  # of the ring's last round: this one is under way
    cycles, whole = copy_cycles(MACHINE, np.array([CYCLE_ROWS, CYCLE_ROWS + 1]))
    assert whole.tolist() == [True, False]
    assert (cycles[0] == np.arange(CYCLE_WORDS) + CYCLE_ROWS).all()
