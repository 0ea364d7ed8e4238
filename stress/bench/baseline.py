"""The file of what one ``stress bench`` measured: a baseline for later ones, which is refused unless it fits them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stress.errors import UsageError, why
from stress.reading import read_bytes
from stress.results import store

#: Version of the file. No other can be read: a baseline is cheap to make again.
SCHEMA_VERSION: Final = 1

#: Keys of the host that must agree with the baseline's. Another CPU or number of cores has other ratios, and a verdict
#: would be one about the machine; without membarrier or the JIT other code is measured.
_SAME_HOST: Final = ("cpu_model", "architecture", "cores", "membarrier", "jit")
#: Keys that may differ, and are told if they do: the gate is there to judge an update of the compiler, for example.
_TOLD: Final = ("kernel", "python", "numpy", "numba", "llvmlite", "memory_bytes")

#: Every key that identifies the machine.
HOST_KEYS: Final = (*_SAME_HOST, *_TOLD)

_AGAIN: Final = "save a new one: stress bench --save-baseline FILE"

Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Ratios = Annotated[list[Ratio], Field(min_length=1)]


class Record(BaseModel):
    """One measurement of a suite, or of some of its cases."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bench_schema_version: int = Field(description="Version of this document")
    stress_version: str = Field(description="Version of stress")
    suite_hash: str = Field(description="Hash of what the suite measures")
    started_at: str = Field(description="Begin, ISO 8601, UTC")
    elapsed_s: float = Field(description="How long it took, in s")
    launches: int = Field(ge=1, description="Launches of each case")
    host: dict[str, Any] = Field(description="The machine, with its load at the beginning")
    samples: dict[str, list[Ratios]] = Field(description="Ratios by figure, launch, and block of cycles or round")

    def of_cases(self, names: set[str]) -> dict[str, list[list[float]]]:
        """The samples of some cases."""
        return {figure: each for figure, each in self.samples.items() if figure.split(":")[0] in names}


def write(path: Path, record: Record) -> None:
    """Write ``record`` whole or not at all. Raises `StressError`."""
    store.write(path, record.model_dump())


def read(path: Path) -> Record:
    """The baseline in ``path``; `UsageError` if it is missing, damaged, no baseline, or of another schema."""
    try:
        document = json.loads(read_bytes(path))
    except OSError as error:
        raise UsageError(f"cannot read baseline {path}: {why(error)}", _AGAIN) from None
    except (ValueError, RecursionError):
        raise UsageError(f"cannot read baseline {path}: not JSON, or cut off", _AGAIN) from None
    version = document.get("bench_schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise UsageError(f"{path} is no baseline: it has no bench_schema_version", _AGAIN)
    if version != SCHEMA_VERSION:
        age, reader = (
            ("newer", "the stress that wrote it") if version > SCHEMA_VERSION else ("older", "its time's stress")
        )
        message = f"baseline {path} has the {age} schema version {version}, this stress reads {SCHEMA_VERSION}"
        raise UsageError(message, f"use {reader}, or {_AGAIN}")
    try:
        record = Record.model_validate(document)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(map(str, detail["loc"]))
        raise UsageError(f"baseline {path} is damaged: {where}: {detail['msg']}", _AGAIN) from None
    for figure, each in record.samples.items():
        if len(each) != record.launches:
            message = f"baseline {path} is damaged: {figure} has {len(each)} of {record.launches} launches"
            raise UsageError(message, _AGAIN)
    return record


def differences(baseline: Record, suite_hash: str, host: dict[str, Any]) -> list[str]:
    """What differs and is to be told; `UsageError` if it makes the ratios incomparable."""
    if baseline.suite_hash != suite_hash:
        message = f"the baseline is of another suite ({baseline.suite_hash}, this is {suite_hash})"
        raise UsageError(message, f"what is measured changed; {_AGAIN}")
    then = baseline.host
    for key in _SAME_HOST:
        if then.get(key) != host[key]:
            message = f"the baseline is of another machine: {key} {then.get(key)}, this is {host[key]}"
            raise UsageError(message, f"ratios carry over only in part; {_AGAIN}")
    return [f"{key}: {then.get(key)} in the baseline, {host[key]} now" for key in _TOLD if then.get(key) != host[key]]
