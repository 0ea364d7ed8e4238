"""Cleaning to the PoC: exactly the frames asked for, and nothing with FWB."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import small_machine

from stress.kernels.clean import clean_frames
from stress.shm.words import (
    NOT_AT_POC,
    VALUE_MASK,
)

NO_FWB, FWB = small_machine(fwb=False), small_machine(fwb=True)
FRAMES = NO_FWB.geo.frames


@given(st.integers(0, FRAMES), st.integers(0, FRAMES), st.integers(0, 1 << 32))
def test_cleans_the_frames_asked_for_and_keeps_tags_and_values(one: int, other: int, seed: int) -> None:
    first, end = sorted((one, other))
    random = np.random.default_rng(seed)
    s = NO_FWB
    s.cells[:] = (np.arange(FRAMES) + 1) << 32 | random.integers(0, VALUE_MASK, FRAMES, endpoint=True)
    s.cells[random.random(FRAMES) < 0.5] |= NOT_AT_POC
    expected = s.cells.copy()
    expected[first:end] &= ~NOT_AT_POC
    assert clean_frames(s, first, end - first) == (end - first) * 4096
    assert (s.cells == expected).all()


@pytest.mark.parametrize("count", [0, 1, FRAMES])
def test_with_fwb_nothing_needs_cleaning(count: int) -> None:
    s = FWB
    s.cells[:] |= NOT_AT_POC
    before = s.cells.copy()
    assert clean_frames(s, 0, count) == 0
    assert (s.cells == before).all()
