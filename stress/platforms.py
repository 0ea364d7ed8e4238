"""Platform profiles: what a machine has (FWB, DIC, FEAT_BBM) and what its steps cost, from small TOML files.

A live run spins a modelled cost where the step is done. A cost of nothing is not modelled.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from stress import shipped
from stress.errors import UsageError
from stress.reading import read_bytes
from stress.shipped import Kind
from stress.units import format_bytes, format_ns

#: The platform without modelled costs, which every run has unless it names another.
NATIVE: Final = "native"

# What lies beyond would only be a typing error: a TLBI or an exit of more than a second, a clean slower than any memory
# or faster than its cost can be told from none.
_MAX_NS: Final = 1_000_000_000
_LEAST_BYTES_PER_S: Final = 1e6
_MOST_BYTES_PER_S: Final = 1e15

_REMEDY: Final = (
    "give a clean's bandwidth as 1e6 to 1e15 bytes/s, other costs as 0 to 1_000_000_000 ns, and leave out what costs "
    "nothing (configs/platforms/ has examples)"
)

Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Cost = Annotated[int, Field(ge=0, le=_MAX_NS)]


class Platform(BaseModel):
    """One machine. ``name`` is the file's, without its suffix; a file writes keys with dashes (``tlbi-ns``)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_by_name=True,
        validate_by_alias=False,
        alias_generator=AliasGenerator(validation_alias=lambda field: field.replace("_", "-")),
    )

    name: Line
    description: Line
    #: Where the figures come from.
    source: Line
    #: FEAT_S2FWB: stage 2 forces memory cacheable, so the hypervisor cleans nothing.
    fwb: bool
    #: CTR_EL0.DIC: no I-cache invalidation after a clean.
    dic: bool
    #: FEAT_BBM level: 0, 1 or 2.
    bbm_level: int = Field(ge=0, le=2)
    #: Bandwidth of a D-cache clean to PoC; None: not modelled.
    clean_bytes_per_s: float | None = Field(
        default=None, ge=_LEAST_BYTES_PER_S, le=_MOST_BYTES_PER_S, allow_inf_nan=False
    )
    #: An I-cache invalidation after a clean, if not ``dic``.
    icache_ns: Cost = 0
    #: A TLBI by VMID with its DSB.
    tlbi_ns: Cost = 0
    #: A vCPU's exit to the hypervisor and its way back.
    exit_ns: Cost = 0

    def clean_ns_per_page(self, granule: int) -> float:
        """ns to clean one page of ``granule`` bytes; 0 if that is not modelled."""
        return granule * 1e9 / self.clean_bytes_per_s if self.clean_bytes_per_s else 0.0

    @property
    def costs(self) -> dict[str, str]:
        """The modelled costs by step, as people write them; empty if there is none."""
        shown = {}
        if self.clean_bytes_per_s:
            shown["clean"] = f"{format_bytes(self.clean_bytes_per_s)}/s"
        if self.icache_ns and not self.dic:
            shown["I-cache"] = format_ns(self.icache_ns)
        if self.tlbi_ns:
            shown["TLBI"] = format_ns(self.tlbi_ns)
        if self.exit_ns:
            shown["exit"] = format_ns(self.exit_ns)
        return shown


def names() -> tuple[str, ...]:
    """Names of the profiles that come with the program, `NATIVE` first."""
    return tuple(sorted(shipped.names(Kind.PLATFORM), key=lambda name: (name != NATIVE, name)))


def load(name_or_path: str) -> Platform:
    """The profile that a name or a path (`shipped.find`) says.

    Raises `UsageError` for an unknown name, and for a file that cannot be read or makes no sense, with every problem.
    """
    return _read(shipped.find(Kind.PLATFORM, name_or_path))


def _read(path: Path) -> Platform:
    try:
        values = tomllib.loads(read_bytes(path).decode())
    except OSError as error:
        raise UsageError(f"cannot read platform {path}: {error.strerror}", f"use one of {', '.join(names())}") from None
    except (ValueError, RecursionError) as error:
        # ValueError: TOMLDecodeError, UnicodeDecodeError, a path with a null byte, numbers with thousands of digits.
        raise UsageError(f"platform {path} is not TOML: {error}", "see configs/platforms/ for examples") from None
    problems = ["name: the file's name is the platform's"] if "name" in values else []
    try:
        platform = Platform.model_validate({**values, "name": path.stem}, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += [f"{detail['loc'][0]}: {_words(detail['msg'])}" for detail in error.errors(include_url=False)]
    if problems:
        raise UsageError(f"platform {path}: {', '.join(problems)}", _REMEDY)
    return platform


def _words(message: str) -> str:
    message = message.replace("Input should be", "must be")
    return {"Extra inputs are not permitted": "unknown key", "Field required": "missing"}.get(message, message)
