"""The event loop as machine code, called without Numba: to load that takes longer than most predictions.

The first call on a machine has it compiled by a process of its own (`stress.predict.compilation`), which keeps an
object file beside the kernels; all calls, the first as well, load that by LLVM alone.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from stress import interrupt
from stress.errors import Interrupted, RunBroken
from stress.predict.virtual import World
from stress.shm.cache import cache_directory
from stress.shm.compilers import run_compilers
from stress.shm.mode import JIT_DISABLED

#: The name of the function in the object file.
SYMBOL: Final = "stress_predict_play"

_DIGEST: Final = hashlib.sha256().digest_size

#: Sources outside of this package that the loop takes its constants from, besides those of the kernels.
_CONSTANTS: Final = ("programs.py", "results/data.py", "results/schema.py")


@lru_cache(maxsize=1)
def _kept() -> Path:
    """The file that keeps this version of the code."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in (*sorted(here.glob("*.py")), *(here.parent / name for name in _CONSTANTS)):
        digest.update(path.read_bytes())
    return cache_directory() / f"predict-{digest.hexdigest()[:16]}.o"


def is_compiled() -> bool:
    """Whether nothing has to be compiled, because it is kept or because plain Python runs."""
    return JIT_DISABLED or _kept().exists()


def play(world: World, events: int, begins: int) -> int:
    """Play at most so many events (`stress.predict.play`)."""
    return _loop()(world, events, begins)


@lru_cache(maxsize=1)
def _loop() -> Callable[[World, int, int], int]:
    """The event loop; as plain Python where that was asked for."""
    if JIT_DISABLED:
        from stress.predict.play import play as plain

        return plain
    return _loaded(_code(_kept()))


def _code(file: Path) -> bytes:
    """The object file that is kept behind its digest; compiled anew if there is none, or if a crash cut it off.

    Raises `Interrupted` if a signal comes first, and RunBroken if it does not compile.
    """
    for _ in range(2):
        if file.exists():
            content = file.read_bytes()
            if content == framed(content[_DIGEST:]):
                return content[_DIGEST:]
        program = f"from stress.predict.compilation import keep; keep({str(file)!r})"
        if not run_compilers([program], interrupt.requested):
            raise Interrupted("interrupted while the event loop was compiled", "run again; it is compiled once")
    raise RunBroken(f"cannot keep the event loop in {file}", "run `stress clean` and try again")


def framed(code: bytes) -> bytes:
    """What the file that keeps an object file holds: its digest first."""
    return hashlib.sha256(code).digest() + code


def _loaded(code: bytes) -> Callable[[World, int, int], int]:
    """The function in an object file."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    pointer, word = ctypes.c_void_p, ctypes.c_int64
    # As Numba has it: the result and the exception by reference, then arguments word by word.
    words = 1 + 5 * _words(2) - 2  # the state, four arrays of two dimensions, and one of one
    call = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, *[word] * (words + 2))(
        engine.get_function_address(SYMBOL)
    )
    result, raised = word(), pointer()

    def loop(world: World, events: int, begins: int) -> int:
        arrays = [each for part in world[1:] for each in _as_words(part)]
        state = world.s.control.ctypes.data  # its first field
        if call(ctypes.byref(result), ctypes.byref(raised), state, *arrays, events, begins) != 0:
            raise ArithmeticError("a prediction divided by zero")
        return result.value

    loop.engine = engine  # type: ignore[attr-defined]  # whose memory the code is in
    return loop


def _words(dimensions: int) -> int:
    """Words of an array as an argument."""
    return 5 + 2 * dimensions


def _as_words(array: Any) -> tuple[int, ...]:
    """An array as compiled code has it: nobody counts its uses; size, size of an item, data, shape and strides."""
    return (0, 0, array.size, array.itemsize, array.ctypes.data, *array.shape, *array.strides)
