"""The forkserver that every worker is forked from, with the kernels loaded."""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

import psutil

from stress.interrupt import SIGNALS
from stress.shm import cache


def ensure_running() -> ForkServerContext:
    """Start the forkserver unless it runs, without waiting until it is ready; the context that starts its workers.

    Ctrl-C and the loss of the terminal reach the whole process group. The server inherits the mask before its first
    instruction, and its workers from it: only the supervisor acts on these signals.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stress.live.preload"])
    resource_tracker.ensure_running()  # first: once it has started it unblocks signals for whoever started it
    unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
    return context


def kill() -> None:
    """End it at once, whatever it is doing; the next `ensure_running` starts another."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any("multiprocessing.forkserver" in argument for argument in child.cmdline()):
                child.kill()


def start_early() -> None:
    """Let the forkserver load the kernels while the supervisor still imports; not if they must be compiled first."""
    if cache.is_complete():
        ensure_running()
