"""Keys of what follows dirty logging: what they are if left out, and refused where they would do nothing."""

from __future__ import annotations

from typing import Any

import pytest

from stress.config import Recover, from_sources
from stress.config.loading import ConfigError

MIGRATION = {"scenario": "migration", "block-size": "2M"}


@pytest.mark.parametrize(
    ("options", "recover", "blocks"),
    [
        ({"scenario": "rebuild"}, None, 1),
        (MIGRATION, Recover.FAULT, 1),
        (MIGRATION | {"rebuilder": "hypervisor"}, Recover.IOCTL, 1),
        (MIGRATION | {"recover": "ioctl", "chunk": "1G"}, Recover.IOCTL, 512),
        (MIGRATION | {"recover": "ioctl", "batch": 4}, Recover.IOCTL, 4),
        (MIGRATION | {"recover": "ioctl", "batch": 4, "chunk": "16M"}, Recover.IOCTL, 8),
        (MIGRATION | {"eager-split": True, "chunk": "6M"}, Recover.FAULT, 3),
        ({"scenario": "kvm-page-table-test", "recover": "ioctl"}, Recover.IOCTL, 1),
        ({"scenario": "dirty-log-perf", "recover": "ioctl", "chunk": "2G"}, Recover.IOCTL, 2),
    ],
)
def test_who_recovers_and_over_how_much_memory(options: dict[str, Any], recover: Recover | None, blocks: int) -> None:
    config = from_sources(None, options)
    assert (config.recover, config.chunk_blocks) == (recover, blocks)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"recover": "ioctl"},
            "--recover: scenario rebuild stops no dirty logging; "
            "use scenario migration, kvm-page-table-test, dirty-log-perf",
        ),
        (
            {"scenario": "thp", "chunk": "2M"},
            "--chunk: scenario thp stops no dirty logging; use scenario migration, kvm-page-table-test, dirty-log-perf",
        ),
        (
            MIGRATION | {"rebuilder": "hypervisor", "recover": "fault"},
            "--recover: with rebuilder hypervisor no fault rebuilds a block; use ioctl, or rebuilder vcpu",
        ),
        (
            MIGRATION | {"chunk": "2M"},
            "--chunk: nothing is done in chunks; use it with recover ioctl or eager-split, or leave it out",
        ),
        (
            MIGRATION | {"recover": "ioctl", "batch": 4, "chunk": "4M"},
            "--chunk: 4M is not a multiple of a batch, 8M",
        ),
        (
            MIGRATION | {"recover": "ioctl", "chunk": "3M"},
            "--chunk: 3M is not a multiple of the 2M block",
        ),
        (
            MIGRATION | {"recover": "ioctl", "chunk": "4M", "order": "clean-first-unlocked"},
            "--chunk: clean-first-unlocked gives mmu_lock back for each block; use chunks of 2M",
        ),
        (MIGRATION | {"recover": "faults"}, "--recover: unknown recover 'faults'; did you mean fault?"),
    ],
)
def test_what_would_do_nothing_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_sources(None, options)
    assert caught.value.problems == (expected,)
