"""The executors that give results: processes that run, or virtual time."""

from __future__ import annotations

from typing import Final

LIVE: Final = "live"
PREDICT: Final = "predict"
EXECUTORS: Final = (LIVE, PREDICT)
