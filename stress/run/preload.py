"""Imported once by the forkserver, so that every worker starts with its kernels ready."""

from __future__ import annotations

import signal

from stress.run.warm import compile_all

# Ctrl-C reaches the whole foreground process group; only the supervisor acts on it. Set here, it holds from the
# first instruction of every worker.
signal.signal(signal.SIGINT, signal.SIG_IGN)

compile_all()
