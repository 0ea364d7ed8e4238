"""What the collector keeps of a run that is longer than its memory."""

from __future__ import annotations

import pytest
from machines import small_machine

from stress.live import collector as module
from stress.live.collector import Collector
from stress.orders import BLOCK_FIRST
from stress.shm import words


def test_of_very_many_passes_a_sample_of_whole_ones_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STAGES_KEPT", 30)
    s = small_machine()
    collector = Collector(s, (BLOCK_FIRST,), 1)
    for number in range(3 * 1000):
        row = s.stages[number % words.STAGE_ROWS]
        row[words.G_WHAT], row[words.G_REPEAT], row[words.G_DURATION_NS] = number % 3, number // 3, number
        s.control[words.STAGES_HEAD] = number + 1
        if number % 700 == 699:
            collector.poll()
    collector.poll(final=True)
    assert s.control[words.STAGES_TAIL] == 3000
    assert collector.passes == 1000
    kept = collector.stages()
    repeats = [stage.repeat for stage in kept]
    assert repeats == [repeat for repeat in range(0, 1000, 128) for _ in range(3)]
    assert [stage.duration_ns for stage in kept] == [3 * repeat + at % 3 for at, repeat in enumerate(repeats)]
