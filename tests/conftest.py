"""Settings of the whole test suite."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
from hypothesis import HealthCheck, settings

from stress.shm import cache
from stress.shm.mode import JIT_DISABLED

# The commands under test inherit which signals are ignored; whoever started the tests in the background ignores some.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.SIG_DFL)

# Commands annotate what went wrong where this is set, which a test must ask for.
os.environ.pop("GITHUB_ACTIONS", None)

# Cores are shared with the very processes under test: a slow example says nothing.
settings.register_profile("stress", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("stress"), max_examples=25)
settings.load_profile("stress")


def compile_once() -> None:
    """Compile the kernels unless they are: no test's time must pass over it."""
    if not (JIT_DISABLED or cache.is_complete()):
        from stress.live.first_compilation import compile_in_background

        compile_in_background(threading.Event())


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile before two test processes would do it at the same time."""
    if session.config.getoption("numprocesses", None):
        compile_once()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile if there are tests that run the command."""
    if "live" in sys.modules and not session.config.option.collectonly:
        compile_once()
