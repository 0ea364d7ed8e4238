"""Rebuild records as the collector reads them: whole, or not at all. (Events: test_events.)"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from machines import small_machine

from stress.kernels import drain
from stress.kernels.drain import copy_record
from stress.shm.atomics import JIT_DISABLED
from stress.shm.layout import Machine
from stress.shm.words import R_DONE, R_NUMBER, RECORD_RING, RECORD_WORDS

MACHINE = small_machine()


def write(s: Machine, number: int, done: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    row: np.ndarray[tuple[int], np.dtype[np.int64]] = s.records[number % RECORD_RING]
    row[:] = np.arange(RECORD_WORDS) + 1000 * number
    row[R_NUMBER], row[R_DONE] = number, done
    return row


@pytest.mark.parametrize("number", [1, 2, RECORD_RING - 1, RECORD_RING, RECORD_RING + 1, 5 * RECORD_RING + 7])
def test_a_complete_record_is_copied(number: int) -> None:
    row = write(MACHINE, number, number)
    out = np.zeros(RECORD_WORDS, np.int64)
    assert copy_record(MACHINE, number, out)
    assert (out == row).all()


@pytest.mark.parametrize("done", [0, 7, 7 + RECORD_RING])
def test_one_that_is_not_complete_or_was_overwritten_is_not(done: int) -> None:
    number = 7 + 2 * RECORD_RING
    write(MACHINE, number, done)
    assert not copy_record(MACHINE, number, np.zeros(RECORD_WORDS, np.int64))


@pytest.mark.skipif(not JIT_DISABLED, reason="compiled code cannot be stopped between two loads")
@pytest.mark.parametrize("after", [1, 2, RECORD_WORDS, RECORD_WORDS + 1])
def test_one_that_is_reused_meanwhile_is_not(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The next rebuild that uses the row begins between two of the copy's loads."""
    write(MACHINE, 9, 9)
    loads = 0

    def reused(array: Any, index: Any) -> int:
        nonlocal loads
        loads += 1
        word = int(load(array, index))
        if loads == after:
            write(MACHINE, 9 + RECORD_RING, 0)
        return word

    load: Any = vars(drain)["load"]
    monkeypatch.setattr(drain, "load", reused)
    assert not copy_record(MACHINE, 9, np.zeros(RECORD_WORDS, np.int64))


def test_copied_into_a_row_of_a_batch() -> None:
    row = write(MACHINE, 3, 3)
    batch = np.zeros((2, RECORD_WORDS), np.int64)
    assert copy_record(MACHINE, 3, batch[1])
    assert (batch[1] == row).all()
    assert not batch[0].any()
