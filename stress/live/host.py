"""The machine a result was made on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
import psutil

import stress
from stress.shm.atomics import JIT_DISABLED
from stress.shm.syscalls import membarrier_available


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """Host, versions and load, as plain JSON values."""
    return {
        "cpu_model": _cpu_model(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_1min": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "jit": not JIT_DISABLED,
        "membarrier": membarrier_available(),
        "stress": stress.__version__,
    }
