"""Whether compiled code is compiled at all. Numba's own setting, read here so that nobody loads Numba to ask."""

from __future__ import annotations

import os


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # as Numba reads it, which warns
        return 0


#: ``NUMBA_DISABLE_JIT`` is set: kernels run as plain Python.
JIT_DISABLED: bool = bool(_number(os.environ.get("NUMBA_DISABLE_JIT", "")))
