"""The toy machine: as any other, but of kilobytes, and set back at once."""

from __future__ import annotations

import pytest
from guests import cpu_at, workload
from machines import ALL, assert_sound, block_leaf, page_leaves, rebuild_block, split_block

from stress.kernels.rebuild import DONE
from stress.kernels.split import write_unmapped
from stress.kernels.teardown import reap
from stress.kernels.vcpu import RAN, run
from stress.kernels.workload import Pattern
from stress.orders import NAMED_ORDERS, Order
from stress.shm.accounts import C_ACCESSES
from stress.shm.layout import REGIONS
from stress.shm.toy import Toy, ToyGeometry, toy_geo


def test_it_takes_kilobytes() -> None:
    toy = Toy(toy_geo())
    assert toy.machine.geo.pages == 2
    assert toy.machine.geo.granule_shift == 16
    assert toy.size < 128 << 10
    assert len(toy.machine.tlbi) == 8


@pytest.mark.parametrize("pages", [2, 4])
@pytest.mark.parametrize("share", [0, ALL // 2, ALL])
@pytest.mark.parametrize("order", [pytest.param(order, id=name) for name, order in NAMED_ORDERS.items()])
def test_it_is_rebuilt_as_any_machine(order: Order, share: int, pages: int) -> None:
    geo = toy_geo(ToyGeometry(block_pages=pages, blocks=2), fwb=False, bbm_level=order.bbm_level)
    toy = Toy(geo)
    s = toy.machine
    for _ in range(2):
        assert split_block(s, 0, share) == DONE
        assert assert_sound(s).leaves == page_leaves(
            geo, [p for p in range(pages) if share == ALL or (share and p & 1)]
        )
        write_unmapped(s, geo.hypervisor, geo.base_gfn)
        assert rebuild_block(s, 0, order.steps) == DONE
        reap(s, geo.hypervisor)
        assert assert_sound(s).leaves == [block_leaf(geo, 0)]
        toy.reset()
        assert assert_sound(s).leaves == []


def test_a_guest_runs_on_it() -> None:
    toy = Toy(toy_geo(ToyGeometry(blocks=3), spare_ranges=1, vcpus=2))
    s = toy.machine
    assert s.geo.pages == 4
    for vcpu in range(2):
        assert run(s, cpu_at(), workload(s, Pattern.UNIFORM, 2048), vcpu, 3) == RAN
    assert s.counters[:, :, C_ACCESSES].sum() > 0
    assert assert_sound(s).leaves == [block_leaf(s.geo, 0), block_leaf(s.geo, 1)]


def test_it_is_set_back_to_what_was_saved() -> None:
    toy = Toy(toy_geo())
    split_block(toy.machine, 0)
    toy.save()
    before = {name: getattr(toy.machine, name).copy() for name in REGIONS}
    rebuild_block(toy.machine, 0, NAMED_ORDERS["block-first"].steps)
    assert assert_sound(toy.machine).leaves == [block_leaf(toy.machine.geo, 0)]
    toy.reset()
    for name, words in before.items():
        assert (getattr(toy.machine, name) == words).all()
