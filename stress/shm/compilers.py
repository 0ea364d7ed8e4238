"""Processes that compile for the cache: the one that waits for them loads no compiler, and an interrupt ends them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence

from stress.errors import RunBroken


def run_compilers(programs: Sequence[str], interrupted: threading.Event) -> bool:
    """Run Python programs that fill the cache, each in a process of its own; False if an interrupt came first.

    Raises RunBroken if one of them fails.
    """
    compilers = [_compiler(program) for program in programs]
    try:
        return all(_finished(compiler, interrupted) for compiler in compilers)
    finally:
        for compiler in compilers:
            compiler.kill()
            compiler.communicate()


def _compiler(program: str) -> subprocess.Popen[str]:
    code = f"from stress.shm.filling import fill_only; fill_only(); {program}"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)


def _finished(compiler: subprocess.Popen[str], interrupted: threading.Event) -> bool:
    """Wait for a compiler; False if an interrupt came first. Raises RunBroken if it failed."""
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
