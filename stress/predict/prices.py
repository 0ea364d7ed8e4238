"""From a platform to what the event loop adds up: each piece of work that it knows, in ps."""

from __future__ import annotations

import numpy as np

from stress.config import RunConfig
from stress.orders import Step
from stress.platforms import ONCE, Shape, Work
from stress.predict import virtual as v
from stress.predict.virtual import Words


def prices(config: RunConfig) -> Words:
    """Costs in ps of a configuration's platform and sizes, (COST_WORDS,)."""
    platform = config.platform_profile

    def ps(step: Step | Work, shape: Shape = ONCE) -> int:
        return round(platform.cost(step, shape) * 1000)

    found = np.zeros(v.COST_WORDS, np.int64)
    found[v.K_EXIT] = ps(Work.EXIT)
    found[v.K_CONFLICT] = ps(Work.CONFLICT)
    found[v.K_FAULT] = ps(Work.FAULT)
    found[v.K_MAP] = ps(Work.MAP, Shape(entries=1))
    found[v.K_SPLIT] = ps(Step.LINK)
    found[v.K_ZERO_PAGE] = ps(Work.ZERO, Shape(bytes=config.granule))
    found[v.K_ZERO_BLOCK] = ps(Work.ZERO, Shape(bytes=config.block_size))
    found[v.K_COPY_PAGE] = ps(Work.COPY, Shape(bytes=config.granule))
    found[v.K_CLEAN_PAGE] = ps(Step.CLEAN, Shape(bytes=config.granule, ranges=0))
    found[v.K_CLEAN_BLOCK] = ps(Step.CLEAN, Shape(bytes=config.block_size, ranges=0))
    found[v.K_ICACHE] = ps(Step.CLEAN)
    of_next_block = Shape(between=config.block_size // config.granule)  # the guest has accessed a whole block since
    found[v.K_TLBI] = ps(Step.TLBI, of_next_block)
    found[v.K_REBUILD] = ps(Work.REBUILD, of_next_block)
    found[v.K_TLBI_IPA] = ps(Step.TLBI_IPA)
    local = platform.tlbi_local_ns is not None
    found[v.K_TLBI_LOCAL] = ps(Step.TLBI_IPA, Shape(local=True)) if local else -1
    found[v.K_TLBI_WAITING] = ps(Step.TLBI, Shape(waiting=1)) - ps(Step.TLBI)
    found[v.K_UNMAP_TABLE] = ps(Step.UNMAP, Shape(entries=config.geometry.entries, tables=1))
    found[v.K_HAND_OVER] = ps(Work.HAND_OVER)
    found[v.K_HAND_OVER_WAITING] = ps(Work.HAND_OVER, Shape(waiting=1)) - ps(Work.HAND_OVER)
    found[v.K_SHARE] = ps(Work.SHARE)
    # A pattern comes back to each page: of blocks the TLB holds all, of pages hardly any.
    found[v.K_HIT] = ps(Work.HIT)
    found[v.K_WALK] = ps(Work.WALK)
    found[v.K_START] = ps(Work.START)
    return found


def access_prices(config: RunConfig) -> Words:
    """ps of an access to a page that no TLB and no cache holds, as in programs, while n vCPUs do so, (ACTORS,)."""
    cost = config.platform_profile.cost
    found = np.zeros(v.ACTORS, np.int64)
    for vcpus in range(1, config.vcpus + 2):
        found[vcpus] = round(cost(Work.MISS, Shape(waiting=vcpus - 1)) * 1000)
    return found
