"""The kernels' work in C11: built with gcc on the spot and called on the kernels' own memory."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from stress import bugs
from stress.arch import bbm, descriptors, geometry
from stress.arch.descriptors import Field
from stress.errors import MachineError
from stress.kernels import abort, codes, descriptor, tlb, vcpu
from stress.kernels.tlb import Cpu
from stress.kernels.workload import Pattern, Workload
from stress.shm import accounts, words
from stress.shm.accounts import State
from stress.shm.layout import Geo, Machine
from stress.shm.traced import Traced

_DIRECTORY = Path(__file__).parent
_SOURCES = tuple(str(_DIRECTORY / name) for name in ("vcpu.c", "teardown.c"))
_FLAGS = ("-O3", "-march=native", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")
_CONSTANTS: tuple[ModuleType, ...] = (
    geometry,
    descriptors,
    bbm,
    bugs,
    words,
    accounts,
    tlb,
    descriptor,
    codes,
    abort,
    vcpu,
)
_ENUMS: dict[str, type[IntEnum]] = {"PATTERN": Pattern, "STATE": State, "TRACED": Traced}
_DOUBLES = ("exponent",)
_C_TYPES: dict[str, Any] = {"int64_t": ctypes.c_int64, "double": ctypes.c_double, "int64_t *": ctypes.c_void_p}

#: C type and name of each member, struct by struct; ``machine`` goes on with its geo and counter_slots.
_GEO = [("int64_t", name) for name in Geo._fields]
_WORKLOAD = [("double" if name in _DOUBLES else "int64_t", name) for name in Workload._fields]
_CPU = [("int64_t *", name) for name in Cpu._fields]
_REGIONS = [("int64_t *", name) for name in Machine._fields if name != "geo"]


def _structure(name: str, members: list[tuple[str, str]], *nested: tuple[str, Any]) -> Any:
    fields = [(member, _C_TYPES[kind]) for kind, member in members]
    return type(name, (ctypes.Structure,), {"_fields_": [*fields, *nested]})


_Geo = _structure("geo", _GEO)
_Workload = _structure("workload", _WORKLOAD)
_Cpu = _structure("cpu", _CPU)
_Machine = _structure("machine", _REGIONS, ("geo", _Geo), ("counter_slots", ctypes.c_int64))


def _integers() -> Iterator[tuple[str, int]]:
    """Name and value of every constant that C may use; a field is its mask in place and its lowest bit."""
    for prefix, enum in _ENUMS.items():
        yield from ((f"{prefix}_{member.name}", int(member)) for member in enum)
    for module in _CONSTANTS:
        for name, value in vars(module).items():
            if not name.isupper() or name[0] == "_":
                continue
            if isinstance(value, Field):
                yield f"FIELD_{name}", value.mask
                yield f"{name}_LO", value.lo
            elif isinstance(value, int):
                yield name, int(value)


def _header() -> str:
    """``layout.h``: the constants and records of the Python modules, in C."""
    constants: dict[str, int] = {}
    for name, value in _integers():
        if constants.setdefault(name, value) != value:
            raise AssertionError(f"{name} means two things")
    # As C would write it, so that the signed masks of the upper bits fit too.
    lines = [f"#define {name} ((int64_t)UINT64_C({value % (1 << 64)}))" for name, value in constants.items()]
    for name, members in (("geo", _GEO), ("workload", _WORKLOAD), ("cpu", _CPU), ("machine", _REGIONS)):
        lines += [f"struct {name} {{", *(f"\t{kind} {member};" for kind, member in members)]
        if name == "machine":
            lines += ["\tstruct geo geo;", "\tint64_t counter_slots;"]
        lines.append("};")
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    compiler = shutil.which("gcc")
    if compiler is None:
        raise MachineError("the C reference needs gcc, and there is none", "install it: apt-get install gcc libc6-dev")
    with tempfile.TemporaryDirectory(prefix="stress-bench-") as directory:
        (Path(directory) / "layout.h").write_text(_header())
        built = Path(directory) / "reference.so"
        command = [compiler, *_FLAGS, "-shared", "-fPIC", "-I", directory, *_SOURCES, "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MachineError(f"gcc cannot build the C reference: {done.stderr[:500]}", "install gcc and libc6-dev")
        library = ctypes.CDLL(str(built))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.vcpu_run.argtypes = (pointer, pointer, pointer, integer, integer)
    library.unmap_timed.argtypes = (pointer, integer, integer)
    library.vcpu_run.restype = library.unmap_timed.restype = integer
    return library


def _address(array: Any) -> int:
    if array.dtype != np.int64 or not array.flags.c_contiguous:
        raise AssertionError("C sees arrays of int64 only")
    return int(array.ctypes.data)


def _machine(machine: Machine) -> Any:
    regions = [_address(array) for array in machine[:-1]]
    return _Machine(*regions, _Geo(*machine.geo), machine.counters.shape[1])


def run(machine: Machine, cpu: Cpu, work: Workload, vcpu: int, chunks: int) -> int:
    """As ``stress.kernels.vcpu.run``."""
    records = _machine(machine), _Cpu(*map(_address, cpu)), _Workload(*work)
    return int(_library().vcpu_run(*map(ctypes.byref, records), vcpu, chunks))


def unmap_ns(machine: Machine, page: int, level: int) -> int:
    """As ``stress.kernels.teardown.unmap_table`` by the hypervisor; returns how long it took in ns."""
    return int(_library().unmap_timed(ctypes.byref(_machine(machine)), page, level))
