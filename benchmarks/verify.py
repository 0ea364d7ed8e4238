"""How fast `stress verify` is, and how much its reduction saves: ``python -m benchmarks.verify [ORDER...]``.

The schedules without the reduction are too many to count; Knuth's estimate (Mathematics of Computation 29, 1975) can:
along a random schedule, the product of how many actors could have gone on, averaged over many of them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from math import log10, prod
from random import Random

os.environ["NUMBA_DISABLE_JIT"] = "1"

from stress.orders import NAMED_ORDERS, Order, parse_order
from stress.verify.hooks import Hooks
from stress.verify.scene import Bounds, Scene
from stress.verify.session import bounds_for
from stress.verify.verification import look_around, verify

_SAMPLES = 300
#: What `stress verify` has by default, but for what an order needs.
_DEFAULTS = {
    "fwb": None,
    "guest_caches": None,
    "bbm_level": None,
    "pages": 2,
    "populated": 1,
    "granule": "64K",
    "scenario": "rebuild",
    "vcpus": 2,
    "accesses": 2,
    "locking": "exclusive",
    "rebuilder": "hypervisor",
    "memory": "tso",
    "speculation": True,
    "speculating": 1,
}


def schedules_in_all(hooks: Hooks, order: Order, bounds: Bounds) -> float:
    """About how many schedules the machine without speculation has."""
    scene = Scene(hooks, order, bounds, None)
    look_around(scene)
    random, world = Random(1), scene.world
    total = 0
    for _ in range(_SAMPLES):
        world.reset()
        choices = []
        while enabled := world.enabled():
            choices.append(len(enabled))
            world.step(random.choice(enabled))
        total += prod(choices)
    return total / _SAMPLES


def main(names: Sequence[str]) -> None:
    """Print a line per order."""
    for order in map(parse_order, names or NAMED_ORDERS):
        bounds = bounds_for(order, _DEFAULTS, None)
        with Hooks() as hooks:
            began, used = time.monotonic(), time.process_time()
            verified = verify(hooks, order, bounds, None)
            elapsed, used = time.monotonic() - began, time.process_time() - used
        with Hooks() as hooks:
            everything = schedules_in_all(hooks, order, bounds)
        print(
            f"{order.name}: {verified.judgement}, {verified.schedules} schedules in {elapsed:.1f} s"
            f" ({used:.1f} s of processor time, {verified.schedules / used:.0f} schedules per second of it);"
            f" without the reduction about 10^{log10(everything):.0f}, a factor of 10^"
            f"{log10(everything / verified.schedules):.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
