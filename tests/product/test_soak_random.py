"""Settings drawn at random: under all of them a correct order has no violation, and its run has a verdict (make soak).

STRESS_SOAK_MINUTES says for how long (30), STRESS_SOAK_SEED with which draw to begin: it replays one that failed.
"""

from __future__ import annotations

import os
import shlex
import time
from random import Random
from typing import Any

import pytest
from live import run_json

from stress.arch.geometry import BLOCK_SIZES, GIB, MIB
from stress.config import STAGED, Locking, Pattern, Rebuilder, Scenario, cores, from_sources
from stress.config.values import LOGGING, Cmo, Recover
from stress.orders import NAMED_ORDERS
from stress.splits import SPLIT_ORDERS
from stress.units import format_size

MINUTES = float(os.environ.get("STRESS_SOAK_MINUTES", "30"))
FIRST_SEED = int(os.environ.get("STRESS_SOAK_SEED") or time.time())

#: Size of a block -> the most of them in a memslot, and how often each is rebuilt under each order.
_MOST = {2 * MIB: (16, 20), 32 * MIB: (4, 10), 512 * MIB: (2, 5), GIB: (1, 3)}


def draw(seed: int) -> dict[str, Any]:
    """Keys of a configuration and their values, all of them possible together."""
    random = Random(seed)
    pick = random.choice
    scenario = pick(list(Scenario))
    staged = scenario in STAGED
    granule = pick(list(BLOCK_SIZES))
    sizes = sorted(BLOCK_SIZES[granule].values())
    # Transparent huge pages are at level 2; in dirty-log-perf each vCPU has memory of its own.
    block = sizes[0] if scenario in (Scenario.THP, Scenario.DIRTY_LOG_PERF) else pick(sizes)
    most, rebuilds = _MOST[block]
    vcpus = random.randint(1, 3 * cores())
    level = random.randrange(4)
    known = [name for name, order in NAMED_ORDERS.items() if order.bbm_level <= level]
    largest = 1 if scenario is Scenario.THP else 3 if staged or block == GIB else len(known)  # thp compares nothing
    rebuilder = Rebuilder.VCPU if staged or scenario is Scenario.THP else pick(list(Rebuilder))
    vcpus_rebuild = scenario in (Scenario.REBUILD, Scenario.MIGRATION) and rebuilder is Rebuilder.VCPU
    settings: dict[str, Any] = {
        "orders": random.sample(known, random.randint(1, largest)),
        "scenario": scenario,
        "granule": granule,
        "block-size": block,
        "vcpus": vcpus,
        # Without a dwell no vCPU would meet the block before the next cycle.
        "dwell": pick(["2ms", "5ms"] if vcpus_rebuild else ["0ms", "200us", "1ms", "5ms"]),
        "write-fraction": pick([0.05, 0.2, 0.5, 1.0]),
        "locking": pick(list(Locking)),
        "rebuilder": rebuilder,
        "cmo": pick(list(Cmo)),
        "fwb": pick([False, True]),
        "guest-caches": pick([False, True]),
        "bbm-level": level,
        "batch": pick([1, 1, 2, 8]),
        "split-order": pick([name for name, order in SPLIT_ORDERS.items() if order.bbm_level <= level]),
        "platform": pick(["native", "native", "native", "kunpeng920"]) if block <= 32 * MIB else "native",
        "audit-interval": pick(["50ms", "1s"]),
        "seed": random.randrange(1 << 32),
    }
    if scenario is not Scenario.PAGE_TABLE_TEST:
        settings["pattern"] = pick(list(Pattern))
    if scenario is Scenario.REBUILD:
        settings["populated"] = pick([0.1, 0.5, 0.9, 1.0])
    if scenario is Scenario.DIRTY_LOG_PERF:
        settings["memory"] = block * random.randint(1, min(2, most))
        blocks = settings["memory"] // block * vcpus
        settings["memslots"] = pick([each for each in (1, 2, 3) if blocks % each == 0])  # each with whole blocks
        settings["overlap"] = pick([False, True])
        settings["get-clears"] = pick([False, True])
        if not settings["get-clears"]:
            settings["clear-chunk"] = 64 * granule * random.randint(1, 8)
    else:
        memslots = pick([1, 1, 2, 3]) if staged or scenario is Scenario.MIGRATION else 1
        settings["memslots"] = memslots
        settings["blocks"] = memslots * random.randint(1, min(most, 2) if staged else most)
    if scenario in (Scenario.MIGRATION, Scenario.DIRTY_LOG_PERF):
        settings["eager-split"] = pick([False, True])
    if scenario in LOGGING:
        settings["recover"] = Recover.IOCTL if rebuilder is Rebuilder.HYPERVISOR else pick(list(Recover))
    if any(NAMED_ORDERS[name].tears_down_locked for name in settings["orders"]):
        settings["yield-every"] = pick([0, 0, 1, 64, 4096])
    if scenario is Scenario.THP:
        settings["duration"] = "2s"
    elif staged:
        settings["passes"] = 2
    else:
        settings["rebuilds"] = 2 if scenario is Scenario.MIGRATION else rebuilds
    return settings


def command_of(settings: dict[str, Any]) -> list[str]:
    """The command that runs these settings."""
    orders = settings["orders"]
    words = ["compare", *orders] if len(orders) > 1 else ["run", f"--order={orders[0]}"]
    for key, value in settings.items():
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{key}")
        elif key != "orders":
            words.append(f"--{key}={format_size(value) if key in ('granule', 'block-size', 'memory') else value}")
    return words


def test_every_draw_is_a_configuration_and_all_of_it_is_drawn() -> None:
    drawn: dict[str, set[str]] = {}
    for seed in range(300):
        settings = draw(seed)
        from_sources(None, settings)
        assert draw(seed) == settings, "a seed replays"
        for key, value in settings.items():
            drawn.setdefault(key, set()).update(value if key == "orders" else [str(value)])
    assert drawn["orders"] == set(NAMED_ORDERS)
    assert drawn["scenario"] == set(Scenario)
    assert drawn["vcpus"] == {str(number) for number in range(1, 3 * cores() + 1)}
    assert all(len(values) > 1 for values in drawn.values() if values not in ({"2"}, {"2s"})), drawn


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 900)
def test_whatever_is_drawn_every_order_stays_correct() -> None:
    end = time.monotonic() + MINUTES * 60
    runs = untested = 0
    while time.monotonic() < end:
        seed = FIRST_SEED + runs
        command = command_of(draw(seed))
        again = f"STRESS_SOAK_SEED={seed}, or: stress {shlex.join(command)}"
        print(again, flush=True)
        document = run_json(*command, timeout_s=600)
        assert (document["violations"], document["failure"]) == ([], None), again
        assert document["complete"], again
        assert document["exit"] == (4 if document["untested"] else 0), again
        if document["untested"]:
            print(f"nothing tested: {document['untested']}", flush=True)
        untested += bool(document["untested"])
        runs += 1
    assert untested <= 1 + runs // 50, f"{untested} of {runs} runs from STRESS_SOAK_SEED={FIRST_SEED} on tested nothing"
