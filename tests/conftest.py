"""Settings of the whole test suite."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, settings

from stress.live.warm import compile_in_background
from stress.shm import cache
from stress.shm.atomics import JIT_DISABLED

# Cores are shared with the very processes under test: a slow example says nothing.
settings.register_profile("stress", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stress")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels once, before two test processes would do it at the same time."""
    distributing = session.config.getoption("numprocesses", None)
    if distributing and not (JIT_DISABLED or cache.is_complete()):
        compile_in_background(threading.Event())
