"""The first compilation, in processes of its own: the process that waits for it loads no compiler."""

from __future__ import annotations

import subprocess
import sys
import threading

from stress.errors import RunBroken
from stress.shm import cache


def compile_in_background(interrupted: threading.Event) -> bool:
    """Fill the cache in two processes, which an interrupt can end at any time; False if it did.

    Raises RunBroken if the kernels do not compile.
    """
    halves = [_compiler(part) for part in ("compile_vcpu_loop", "compile_others")]
    try:
        for half in halves:
            if not _finished(half, interrupted):
                return False
    finally:
        for half in halves:
            half.kill()
            half.communicate()
    cache.mark_complete()
    return True


def _compiler(part: str) -> subprocess.Popen[str]:
    """A process that runs one function of `stress.live.warm`."""
    code = f"from stress.live.filling import fill_only; fill_only(); from stress.live.warm import {part}; {part}()"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)


def _finished(compiler: subprocess.Popen[str], interrupted: threading.Event) -> bool:
    """Wait for one half; False if an interrupt came first. Raises RunBroken if it failed."""
    while not interrupted.is_set():
        try:
            _, errors = compiler.communicate(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        if compiler.returncode != 0:
            last = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {compiler.returncode}"
            raise RunBroken(f"kernels do not compile: {last}", "run `stress clean` and try again")
        return True
    return False
