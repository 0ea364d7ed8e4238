"""The machine and the software that a result was made on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import stress
from stress.shm.membarrier import membarrier_available
from stress.shm.mode import JIT_DISABLED


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
    """This machine, the versions of its software and its load, as plain JSON values."""
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
        "numba": version("numba"),
        "llvmlite": version("llvmlite"),
        "jit": not JIT_DISABLED,
        "membarrier": membarrier_available(),
        "stress": stress.__version__,
    }
