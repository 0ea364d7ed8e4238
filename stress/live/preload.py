"""Imported once by the forkserver, so that every worker starts with its kernels ready.

The forkserver notices that its supervisor has gone only once it has loaded them; until then a thread watches.
"""

from __future__ import annotations

import os
import threading

_LOOK_S = 0.02

_supervisor = os.getppid()
_loaded = threading.Event()


def _follow_supervisor() -> None:
    while not _loaded.wait(_LOOK_S):
        if os.getppid() != _supervisor:
            os._exit(0)


# Gone before the first worker is forked: a fork must not happen beside another thread.
_watch = threading.Thread(target=_follow_supervisor)
_watch.start()
try:
    import stress.live.worker  # noqa: F401 - what each worker would otherwise import for itself
    from stress.live.warm import compile_all

    compile_all()
finally:
    _loaded.set()
    _watch.join()
