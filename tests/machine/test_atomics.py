"""Each atomic operation on its own, and no update lost between four processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import WORKERS, run_workers, shared_machine

from stress.shm import atomics, membarrier, syscalls
from stress.shm.jit import kernel
from stress.shm.layout import Machine
from stress.shm.mode import JIT_DISABLED
from stress.shm.words import CONTROL_WORDS

# Intrinsics exist inside compiled code only.


def _load(words: Any, at: Any) -> int:
    return atomics.load(words, at)


def _store(words: Any, at: Any, value: int) -> None:
    atomics.store(words, at, value)


def _fetch_add(words: Any, at: Any, value: int) -> int:
    return atomics.fetch_add(words, at, value)


def _fetch_and(words: Any, at: Any, value: int) -> int:
    return atomics.fetch_and(words, at, value)


def _fetch_or(words: Any, at: Any, value: int) -> int:
    return atomics.fetch_or(words, at, value)


def _fetch_max(words: Any, at: Any, value: int) -> int:
    return atomics.fetch_max(words, at, value)


def _exchange(words: Any, at: Any, value: int) -> int:
    return atomics.exchange(words, at, value)


def _compare_exchange(words: Any, at: Any, expected: int, value: int) -> bool:
    return bool(atomics.compare_exchange(words, at, expected, value))


def _load_bits(words: Any, at: Any, bits: int) -> int:
    return atomics.load_bits(words, at, bits)


def _set_bits(words: Any, at: Any, bits: int) -> int:
    return atomics.set_bits(words, at, bits)


def _clear_bits(words: Any, at: Any, bits: int) -> int:
    return atomics.clear_bits(words, at, bits)


load, store, compare_exchange = kernel(_load), kernel(_store), kernel(_compare_exchange)
UPDATES: dict[str, tuple[Any, Any]] = {
    "add": (kernel(_fetch_add), lambda old, value: old + value),
    "and": (kernel(_fetch_and), lambda old, value: old & value),
    "or": (kernel(_fetch_or), lambda old, value: old | value),
    "max": (kernel(_fetch_max), max),
    "exchange": (kernel(_exchange), lambda old, value: value),
}
ON_BITS: dict[str, tuple[Any, Any]] = {
    "load": (kernel(_load_bits), lambda old, bits: old),
    "set": (kernel(_set_bits), lambda old, bits: old | bits),
    "clear": (kernel(_clear_bits), lambda old, bits: old & ~bits),
}
HALVES = st.integers(-(1 << 62), (1 << 62) - 1)  # a sum of two fits a word
WORDS = st.integers(-(1 << 63), (1 << 63) - 1)
SHAPE = (3, 4)
INDEX = st.tuples(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1))


def array_of(values: list[int], shape: tuple[int, ...]) -> Any:
    return np.array(values, np.int64).reshape(shape)


@pytest.mark.thorough
@pytest.mark.parametrize("name", UPDATES)
@given(values=st.lists(HALVES, min_size=12, max_size=12), at=INDEX, operand=HALVES)
def test_updates_change_one_word_and_return_the_old_one(
    name: str, values: list[int], at: tuple[int, int], operand: int
) -> None:
    update, twin = UPDATES[name]
    for shape, index in ((SHAPE, at), ((12,), at[0] * SHAPE[1] + at[1])):
        words = array_of(values, shape)
        expected = words.copy()
        old = int(words[index])
        expected[index] = twin(old, operand)
        assert update(words, index, operand) == old
        assert (words == expected).all()


@given(values=st.lists(WORDS, min_size=12, max_size=12), at=INDEX, value=WORDS)
def test_load_and_store(values: list[int], at: tuple[int, int], value: int) -> None:
    words = array_of(values, SHAPE)
    expected = words.copy()
    assert load(words, at) == words[at]
    store(words, at, value)
    expected[at] = value
    assert (words == expected).all()
    assert load(words.reshape(-1), at[0] * SHAPE[1] + at[1]) == value


@pytest.mark.parametrize("name", ON_BITS)
@given(old=WORDS, bits=WORDS)
def test_some_bits_of_a_word(name: str, old: int, bits: int) -> None:
    operation, twin = ON_BITS[name]
    words = np.array([1, old, 3], np.int64)
    assert operation(words, 1, bits) == old & bits
    assert list(words) == [1, twin(old, bits), 3]


@given(old=WORDS, expected=WORDS, new=WORDS, same=st.booleans())
def test_compare_exchange(old: int, expected: int, new: int, same: bool) -> None:
    words = np.array([1, old, 3], np.int64)
    expected = old if same else expected
    assert compare_exchange(words, 1, expected, new) == (old == expected)
    assert list(words) == [1, new if old == expected else old, 3]


def _clock() -> int:
    return int(syscalls.clock_ns())


def _system_calls() -> int:
    syscalls.sched_yield()
    syscalls.fence()
    atomics.pause()
    return int(syscalls.membarrier())


def test_clock_is_that_of_python() -> None:
    import time

    clock = kernel(_clock)
    clock()  # compiled
    before = time.monotonic_ns()
    now = clock()
    assert before <= now <= time.monotonic_ns()


def test_system_calls() -> None:
    assert kernel(_system_calls)() == (0 if membarrier.membarrier_available() else -1)
    assert membarrier.membarrier_register() == membarrier.membarrier_available()


def test_unknown_machine_has_no_membarrier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membarrier, "SYS_MEMBARRIER", -1)
    assert not membarrier.membarrier_available()
    assert not membarrier.membarrier_register()


# Words of "control" that a machine nobody runs on does not use otherwise, each on a line of its own.
READY, ADDED, SWAPPED, TALLY, CLASHES = (CONTROL_WORDS - 8 * n for n in range(1, 6))
ROUND = 100 if JIT_DISABLED else 20_000
MOST_ROUNDS = 500


def _count(words: Any, rounds: int, each: int) -> None:
    """Add and swap, ``each`` times a round, until some swap has met a competitor."""
    atomics.fetch_add(words, READY, 1)
    while atomics.load(words, READY) < WORKERS:
        syscalls.sched_yield()
    for _ in range(rounds):
        for i in range(each):
            atomics.fetch_add(words, ADDED, 1)
            while True:
                old = atomics.load(words, SWAPPED)
                if i % 64 == 0:
                    syscalls.sched_yield()  # even on a single core somebody else gets in here
                if atomics.compare_exchange(words, SWAPPED, old, old + 1):
                    break
                atomics.fetch_add(words, CLASHES, 1)
        atomics.fetch_add(words, TALLY, each)
        if atomics.load(words, CLASHES) > 0:
            break


def count(s: Machine, who: int) -> None:
    kernel(_count)(s.control, MOST_ROUNDS, ROUND)


@pytest.mark.thorough
def test_four_processes_lose_no_update() -> None:
    with shared_machine() as segment:
        words = segment.machine.control
        assert not words[[READY, ADDED, SWAPPED, TALLY, CLASHES]].any()
        run_workers(segment, count)
        assert words[READY] == WORKERS
        assert words[TALLY] >= WORKERS * ROUND
        assert words[ADDED] == words[TALLY]
        assert words[SWAPPED] == words[TALLY]
        assert words[CLASHES] > 0, "the processes never met"
