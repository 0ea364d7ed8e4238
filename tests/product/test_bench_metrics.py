"""Ratios per block of cycles, from made-up rebuilds with known truth."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import order_data

from stress.bench.metrics import BLOCKS, METRICS, MIN_CYCLES, ratios
from stress.errors import TooFewSamples
from stress.orders import BLOCK_FIRST, UNMAP_FIRST
from stress.results.data import FAULT_CLASSES, NOT_MEASURED, OrderData


def interleaved(rebuilds: int = 400) -> list[OrderData]:
    """Unmap-first and block-first cycle by cycle; block-first with a tenth of the window."""
    rng = np.random.default_rng(1)
    found = [
        order_data(rng, UNMAP_FIRST, rebuilds=rebuilds),
        order_data(rng, BLOCK_FIRST, rebuilds=rebuilds, window_ns=100_000, accesses_per_ns=0.6, stall_ns=4_000),
    ]
    for offset, data in enumerate(found):
        data.cycles["number"] = 2 * data.cycles["number"] + offset
        for rows in (data.rows, data.stalls):
            rows["cycle"] = 2 * rows["cycle"] + offset
    return found


def test_ratios_to_the_first_order() -> None:
    orders = interleaved()
    for metric, truth in {"window": 0.1, "throughput": 2, "stall": 0.2, "rebuild": 0.1, "window-faults": 1}.items():
        (only,) = ratios(orders, metric).items()
        assert only[0] == "block-first"
        assert len(only[1]) == BLOCKS
        assert np.median(only[1]) == pytest.approx(truth, rel=0.3), metric
    assert set(METRICS) == {"window", "throughput", "stall", "rebuild", "window-faults", "hold"}


def test_a_step_is_held_to_the_rest_of_its_own_rebuild() -> None:
    orders = interleaved()
    for data in orders:
        data.rows["step_ns"] = 0
        data.rows["step_ns"][:, data.order.steps.index("tlbi")] = 3000
        data.rows["rebuild_ns"] = 5000
    assert ratios(orders, "tlbi") == {"unmap-first": [1.5] * BLOCKS, "block-first": [1.5] * BLOCKS}


def test_blocks_follow_time_whatever_the_sequence_of_rows() -> None:
    orders = interleaved()
    for data in orders:
        data.rows["window_ns"] = 1000
    # From the half on the first order's windows double, so its ratio halves in the later blocks.
    orders[0].rows["window_ns"][200:] = 2000
    for data in orders:
        np.random.default_rng(2).shuffle(data.rows)
    assert ratios(orders, "window")["block-first"] == [1.0] * (BLOCKS // 2) + [0.5] * (BLOCKS // 2)


def test_cycles_without_a_running_guest_are_left_out_with_their_neighbours() -> None:
    orders = interleaved()
    for data in orders:
        data.rows["window_ns"] = 1000
        data.cycles["accesses"][data.cycles["number"] // 100 % 2 == 0] = 0
        # A TLBI that meets nobody; and at both ends of such a spell, when the vCPU is just leaving or coming back.
        cycle = data.rows["cycle"]
        data.rows["window_ns"][(cycle // 100 % 2 == 0) | (cycle % 100 == 99) | (cycle % 100 == 0)] = 1
    orders[1].rows["window_ns"] *= 3
    assert ratios(orders, "window") == {"block-first": [3.0] * BLOCKS}


def test_fewer_cycles_give_fewer_blocks_and_too_few_none() -> None:
    (found,) = ratios(interleaved(3 * MIN_CYCLES + 5), "window").values()
    assert len(found) == 3
    with pytest.raises(TooFewSamples, match=r"cycles of unmap-first and block-first .* no ratio of window"):
        ratios(interleaved(MIN_CYCLES), "window")


def test_rare_events_give_fewer_blocks_and_none_no_ratio() -> None:
    orders = interleaved()
    for data in orders:
        data.rows["window_faults"] = data.rows["cycle"] < 450
    (found,) = ratios(orders, "window-faults").values()
    assert 1 <= len(found) < BLOCKS
    orders[0].stalls["fault_class"] = FAULT_CLASSES.index("spurious")
    with pytest.raises(TooFewSamples, match="no ratio of stall"):
        ratios(orders, "stall")
    orders[1].rows["window_ns"] = NOT_MEASURED
    with pytest.raises(TooFewSamples, match="no ratio of window"):
        ratios(orders, "window")
