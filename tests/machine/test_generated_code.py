"""What the compiler makes of the hot loops, where that decides how fast they are on another vendor's machine."""

from __future__ import annotations

import re
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from machines import small_machine
from numba import njit, typeof

from stress.kernels import conflict, pattern, rebuild, tlb
from stress.kernels.tlb import CHUNK, EMPTY, new_cpu
from stress.kernels.workload import Workload
from stress.shm.jit import inline, kernel
from stress.shm.mode import JIT_DISABLED
from stress.shm.placement import cold, likely, unlikely
from stress.shm.whole import WholeProgramCompiler

pytestmark = pytest.mark.skipif(JIT_DISABLED, reason="without the compiler there is no generated code")

#: Stores that a mask makes conditional: AMD's cores before Zen 4 execute VPMASKMOV's as microcode.
MASKED_STORE = re.compile(r"llvm\.masked\.(store|scatter)")


def optimised(function: Any, *arguments: object) -> str:
    """LLVM's text of ``function``, compiled anew with all it calls: what comes from the cache has none."""
    fresh = kernel(function.py_func)
    fresh.compile(tuple(typeof(argument) for argument in arguments))  # type: ignore[no-untyped-call]
    (text,) = fresh.inspect_llvm().values()
    return str(text)


@pytest.mark.skipif(not llvm.get_host_cpu_features().get("avx2"), reason="this CPU has no masked stores")
def test_the_check_sees_masked_stores() -> None:
    @kernel
    def forget(keys: Any, first: int, last: int) -> None:
        for at in range(256):
            if first <= keys[at] <= last:
                keys[at] = EMPTY

    assert MASKED_STORE.search(optimised(forget, np.zeros(256, np.int64), 0, 0))


def test_what_is_rare_stays_out_of_what_is_inlined() -> None:
    """Numba hands down "always inline" to what an inlined function calls; a fault's handler then held a rebuild."""

    @kernel
    def rare(value: int) -> int:
        cold()
        return value * 12345

    @inline
    def fast(value: int) -> int:
        return int(rare(value)) if value > 99 else value

    @kernel
    def caller(value: int) -> int:
        return int(fast(value))

    text = optimised(caller, 0)
    assert re.search(r"call .*rare", text)
    assert re.search(r"attributes #\d+ = {[^}]*\bcold\b[^}]*\bnoinline\b", text)


def test_the_compiler_is_told_which_branch_is_rare() -> None:
    """Without that a walk took twice the jumps, which costs a fifth where a hyperthread shares the core."""

    @inline
    def look(keys: Any, key: int) -> int:
        for at in range(4):
            if unlikely(keys[at] == key):
                return at
        return -1

    @kernel
    def caller(keys: Any, key: int) -> int:
        at = look(keys, key)
        return at if likely(key > 0) else -2

    expected = r'!{!"branch_weights", (?:!"expected", )?i32 (?:1, i32 2000|2000, i32 1)}'
    text = optimised(caller, np.zeros(4, np.int64), 0)
    numbers = re.findall(rf"(!\d+) = {expected}", text)
    assert sum(len(re.findall(rf"br i1 .*!prof {number}\b", text)) for number in numbers) >= 4
    assert [caller(np.arange(4), key) for key in (0, 2, 7)] == [-2, 2, -1]


def test_an_entry_point_and_what_it_calls_are_one_program() -> None:
    """What is private to an entry point is known to raise nothing: no call of it is asked for an exception."""

    @kernel
    def rare(value: int) -> int:
        cold()
        return value * 12345

    def caller(value: int) -> int:
        return int(rare(value)) if value > 99 else value

    entry_point = njit(pipeline_class=WholeProgramCompiler)(caller)
    assert entry_point(100) == 1234500
    (text,) = entry_point.inspect_llvm().values()
    assert re.search(r"define private .*rare", text)
    assert re.search(r"call [^@]*void @\S*rare", text)  # no word of an exception comes back


def test_no_other_program_calls_what_is_private_to_an_entry_point() -> None:
    """LLVM's linker knows functions by name, and in a whole program they have other arguments."""

    @kernel
    def rare(values: Any, at: int) -> int:
        cold()
        return int(values[at]) * 12345

    def caller(values: Any) -> int:
        return int(rare(values, 1))

    values = np.array([2, 3])
    assert njit(pipeline_class=WholeProgramCompiler)(caller)(values) == 37035
    assert kernel(caller)(values) == 37035


MACHINE = small_machine(blocks=1, vcpus=1)
WORK = Workload(0, 0, 0, 0.0, 0, 0)
LOOPS = {
    "invalidating": (tlb.catch_up, (MACHINE, new_cpu(), 0), "flush_range"),
    "after a fault": (tlb.flush_page, (new_cpu(), 9, 0), "flush_page"),
    "filling": (conflict.fill_block, (MACHINE, new_cpu(), 0, 0, 0, 0, 0, 0, True), "overlapping"),
    "drawing": (pattern.draw_accesses, (WORK, np.zeros(CHUNK, np.int64), 0, 0), "draw_accesses"),
    "rebuilding": (rebuild.rebuild, (MACHINE, 0, 0), "unmap_table"),
}


@pytest.mark.timeout(600)  # the compiler takes its time on a slow machine
@pytest.mark.parametrize(("function", "arguments", "contains"), LOOPS.values(), ids=LOOPS)
def test_the_loops_of_vcpu_and_rebuild_have_no_masked_store(
    function: Any, arguments: tuple[object, ...], contains: str
) -> None:
    text = optimised(function, *arguments)
    assert contains in text
    assert not MASKED_STORE.search(text)
