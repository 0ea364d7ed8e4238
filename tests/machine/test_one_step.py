"""What `stress verify` takes for one step, explored in full: mmu_lock taken alone, and a TLBI published and applied."""

from __future__ import annotations

from functools import partial

import pytest

from stress.kernels import tlbi
from stress.kernels.tlb import MISS, Cpu, catch_up, fill, flush_all, lookup, new_cpu, sizes_held
from stress.shm import mmu_lock, words
from stress.shm.atomics import load, store
from stress.shm.mode import JIT_DISABLED
from stress.shm.toy import toy_geo

if not JIT_DISABLED:
    pytest.skip("compiled code cannot be stopped between two accesses", allow_module_level=True)

from played import explored

from stress.verify.scene import machine_on
from stress.verify.world import World

pytestmark = pytest.mark.thorough


def test_mmu_lock_excludes_and_lets_everybody_in() -> None:
    world = World()
    s = machine_on(world, toy_geo(vcpus=2))
    sections = world.region("sections", (1,))

    def work(who: int) -> None:
        assert mmu_lock.acquire(s, who)
        store(sections, 0, load(sections, 0) + 1)
        mmu_lock.release(s, who, 0)

    for who in range(3):
        world.actor(f"process {who}", partial(work, who))
    world.keep()

    def judge() -> None:
        assert sections[0] == 3
        assert s.control[words.LOCK] == s.control[words.LOCK_WRITERS] == 0

    assert explored(world, judge) > 100


@pytest.mark.parametrize("ends", [(1, 0), (1, 2)])
def test_whoever_applies_invalidations_drops_at_least_what_was_published(ends: tuple[int, int]) -> None:
    """Two publish, each a page or all there is, while a vCPU catches up: half a row makes it drop all it holds."""
    world = World()
    s = machine_on(world, toy_geo(vcpus=1))
    cpu = Cpu(**{name: part.tolist() for name, part in new_cpu()._asdict().items()})
    caught_up: list[int] = []
    numbers: dict[int, int] = {}

    def restore() -> None:
        caught_up.clear()
        numbers.clear()
        flush_all(cpu)
        for page in range(2):
            fill(cpu, 3, s.geo.index_bits, page, page << 2 | 3)

    def publish(page: int) -> None:
        numbers[page] = int(tlbi.publish(s, page, ends[page]))

    for page in range(2):
        world.actor(f"publisher {page}", partial(publish, page))
    world.actor("vcpu", lambda: caught_up.append(int(catch_up(s, cpu, 0))))
    world.keep()
    world.at_reset(restore)

    def judge() -> None:
        for page, number in numbers.items():
            if number <= caught_up[0]:
                for gone in (page,) if ends[page] else (0, 1):
                    assert lookup(cpu, s.geo.index_bits, gone, sizes_held(cpu)) == MISS

    assert explored(world, judge) > 20
