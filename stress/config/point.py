"""A point of a sweep, and one run of it: a trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stress.config.model import RunConfig
from stress.errors import shown
from stress.executors import LIVE


@dataclass(frozen=True)
class Point:
    """One configuration of a sweep, and the executor that gives its result."""

    index: int  # its place in the configuration, from 0
    values: dict[str, Any]  # what sets it apart, as written in the file
    options: dict[str, Any]  # every key that anybody wrote, as `from_sources` takes them
    config: RunConfig
    executor: str = LIVE

    @cached_property
    def identity(self) -> str:
        """Sixteen hexadecimal digits of a hash over all that decides the result, but what a host decides for itself."""
        config = self.config.to_json()
        if "pin" not in self.options:
            del config["pin"]
        if self.executor != LIVE:
            config["executor"] = self.executor
        canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a point."""

    point: Point
    repeat: int  # from 0

    @property
    def id(self) -> str:
        """The same for the same configuration and repeat, in whatever sweep."""
        return f"{self.point.identity}-{self.repeat}"

    def __str__(self) -> str:
        return label(self.point.values)


def label(values: Mapping[str, Any]) -> str:
    """A point in words: ``order=block-first, vcpus=2``."""
    return ", ".join(f"{key}={_text(value)}" for key, value in values.items()) or "the point without options"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " against ".join(map(_text, value))
    return value if isinstance(value, str) and len(value) <= 60 else shown(value).strip("'")
