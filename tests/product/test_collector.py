"""What the collector keeps of a run that is longer than its memory, and what it tells while the run goes on."""

from __future__ import annotations

import pytest
from machines import small_machine

from stress.live import collector as module
from stress.live.collector import Collector
from stress.orders import BLOCK_FIRST, CLEAN_FIRST, UNMAP_FIRST
from stress.shm import accounts, words
from stress.shm.layout import Rings

CYCLE_ROWS = Rings().cycle_rows
RECORD_ROWS = Rings().record_rows
STAGE_ROWS = Rings().stage_rows


def test_of_very_many_passes_a_sample_of_whole_ones_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STAGES_KEPT", 30)
    s = small_machine()
    collector = Collector(s, (BLOCK_FIRST,), 1)
    for number in range(3 * 1000):
        row = s.stages[number % STAGE_ROWS]
        row[accounts.G_WHAT], row[accounts.G_REPEAT], row[accounts.G_DURATION_NS] = number % 3, number // 3, number
        s.tally[accounts.STAGES_HEAD] = number + 1
        if number % 700 == 699:
            collector.poll()
    collector.poll(final=True)
    assert s.tally[accounts.STAGES_TAIL] == 3000
    assert collector.passes == 1000
    kept = collector.stages()
    repeats = [stage.repeat for stage in kept]
    assert repeats == [repeat for repeat in range(0, 1000, 128) for _ in range(3)]
    assert [stage.duration_ns for stage in kept] == [3 * repeat + at % 3 for at, repeat in enumerate(repeats)]


def test_recent_windows_are_told_order_by_order() -> None:
    s = small_machine(orders=3)
    collector = Collector(s, (UNMAP_FIRST, BLOCK_FIRST, CLEAN_FIRST), 1)
    # The last rebuild's window has no end.
    windows = [(0, 900_000), (1, 30_000), (0, 1_000_000), (1, 31_000), (1, 29_000), (0, 1_100_000), (0, -7)]
    for number, (order, window_ns) in enumerate(windows, 1):
        row = s.records[number & (RECORD_ROWS - 1)]
        row[accounts.R_ORDER], row[accounts.R_INVALID_NS], row[accounts.R_VALID_NS] = order, 7, 7 + window_ns
        row[accounts.R_NUMBER] = row[accounts.R_DONE] = number
    s.tally[accounts.CLOSED] = len(windows)
    collector.poll(final=True)
    assert collector.recent_window_p50_ns() == {"unmap-first": 1e6, "block-first": 3e4, "clean-first": None}


def test_cycles_are_taken_once_they_are_over_and_counted_where_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 7)
    s = small_machine(orders=2)
    collector = Collector(s, (BLOCK_FIRST, UNMAP_FIRST), 1)

    def begin(number: int) -> None:
        row = s.cycles[number % CYCLE_ROWS]
        row[accounts.K_DONE], row[accounts.K_ORDER], s.control[words.CYCLE] = 0, number % 2, number

    def end(number: int) -> None:
        row = s.cycles[number % CYCLE_ROWS]
        row[accounts.K_TIME_NS], row[accounts.K_ACCESSES], row[accounts.K_DONE] = 10 * number, 100 * number, number

    for number in range(1, 15):
        begin(number)
        collector.poll()
        end(number)
    collector.poll()
    for number in range(15, 40):
        begin(number)
        if number != 20:  # its row was used again before it was read
            end(number)
    collector.poll(final=True)
    found = [order.cycles for order in collector.results()]
    for order, cycles in enumerate(found):
        numbers = [number for number in range(1, 40) if number % 2 == order and number != 20]
        assert cycles.tolist() == [(number, 10 * number, 100 * number, 0, 0) for number in numbers]
    assert collector.shortfall() == "1 cycles were overwritten before they were read"
