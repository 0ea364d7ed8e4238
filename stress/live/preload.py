"""Imported once by the forkserver, so that every worker starts with its kernels ready."""

from __future__ import annotations

from stress.live.warm import compile_all

compile_all()
