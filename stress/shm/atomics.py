"""Atomic 64-bit operations on int64 arrays, for compiled code.

``load`` has acquire, ``store`` release, read-modify-writes acquire-release order (C11 names). An index is an
integer or a tuple of integers, never negative, and is not checked. Aligned 64-bit words are single-copy atomic on
every 64-bit host, so these are ordinary moves plus the fences that the host's memory model needs.

``get`` and ``put`` have no order at all, and the compiler may join them: for words that a lock protects, or that nobody
else can reach yet, or that are only read while nobody writes. Kernels access each word of the protocol
(`stress.shm.layout.PROTOCOL`) by a function of this module, never by an index.

With ``NUMBA_DISABLE_JIT=1`` each operation is a Python twin, done by the `stress.shm.processor`.
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from stress.shm.mode import JIT_DISABLED
from stress.shm.processor import Twins


def set_rmw_lock(lock: AbstractContextManager[Any]) -> None:
    """Make ``lock`` exclude read-modify-writes of other processes (only without the JIT)."""
    Twins.processor.rmw_lock = lock


if JIT_DISABLED:

    def load(array: Any, index: Any) -> int:
        """Load-acquire."""
        return Twins.processor.load(array, index)

    def store(array: Any, index: Any, value: int) -> None:
        """Store-release."""
        Twins.processor.store(array, index, value)

    def get(array: Any, index: Any) -> int:
        """Load without order."""
        return Twins.processor.get(array, index)

    def put(array: Any, index: Any, value: int) -> None:
        """Store without order."""
        Twins.processor.put(array, index, value)

    def fetch_add(array: Any, index: Any, value: int) -> int:
        """Add ``value``; returns the old word."""
        return Twins.processor.update(array, index, lambda old: old + value)

    def fetch_and(array: Any, index: Any, value: int) -> int:
        """Bitwise AND; returns the old word."""
        return Twins.processor.update(array, index, lambda old: old & value)

    def fetch_or(array: Any, index: Any, value: int) -> int:
        """Bitwise OR; returns the old word."""
        return Twins.processor.update(array, index, lambda old: old | value)

    def fetch_max(array: Any, index: Any, value: int) -> int:
        """Signed maximum; returns the old word."""
        return Twins.processor.update(array, index, lambda old: max(old, value))

    def exchange(array: Any, index: Any, value: int) -> int:
        """Swap in ``value``; returns the old word."""
        return Twins.processor.update(array, index, lambda _old: value)

    def compare_exchange(array: Any, index: Any, expected: int, value: int) -> bool:
        """Store ``value`` if the word is ``expected``; returns whether it was."""
        return Twins.processor.compare_exchange(array, index, expected, value)

    def load_bits(array: Any, index: Any, bits: int) -> int:
        """Load-acquire of some bits of a word."""
        with Twins.processor.only(bits):
            return load(array, index) & bits

    def set_bits(array: Any, index: Any, bits: int) -> int:
        """Set bits; returns which of them were set."""
        with Twins.processor.only(bits):
            return fetch_or(array, index, bits) & bits

    def clear_bits(array: Any, index: Any, bits: int) -> int:
        """Clear bits; returns which of them were set."""
        with Twins.processor.only(bits):
            return fetch_and(array, index, ~bits) & bits

    def pause() -> None:
        """Spin-wait hint."""
        Twins.processor.pause()

else:

    def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type, index_type = signature.args[:2]
        array = context.make_array(array_type)(context, builder, args[0])
        if isinstance(index_type, types.BaseTuple):
            indices = cgutils.unpack_tuple(builder, args[1], len(index_type))
            kinds: list[Any] = [*index_type]  # type: ignore[misc]
        else:
            indices, kinds = [args[1]], [index_type]
        wide = [context.cast(builder, i, kind, types.intp) for i, kind in zip(indices, kinds, strict=True)]
        return cgutils.get_item_pointer(context, builder, array_type, array, wide, wraparound=False)

    @intrinsic
    def load(typing_context: Any, array: Any, index: Any) -> Any:
        """Load-acquire."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load_atomic(_pointer(context, builder, signature, args), "acquire", 8)

        return types.int64(array, index), generate

    @intrinsic
    def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        """Store-release."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = context.cast(builder, args[2], signature.args[2], types.int64)
            builder.store_atomic(word, _pointer(context, builder, signature, args), "release", 8)
            return context.get_dummy_value()

        return types.void(array, index, value), generate

    @intrinsic
    def get(typing_context: Any, array: Any, index: Any) -> Any:
        """Load without order."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load(_pointer(context, builder, signature, args))

        return types.int64(array, index), generate

    @intrinsic
    def put(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        """Store without order."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = context.cast(builder, args[2], signature.args[2], types.int64)
            builder.store(word, _pointer(context, builder, signature, args))
            return context.get_dummy_value()

        return types.void(array, index, value), generate

    def _read_modify_write(operation: str) -> Any:
        def typed(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                word = context.cast(builder, args[2], signature.args[2], types.int64)
                pointer = _pointer(context, builder, signature, args)
                return builder.atomic_rmw(operation, pointer, word, "acq_rel")

            return types.int64(array, index, value), generate

        return typed

    fetch_add = intrinsic(_read_modify_write("add"))
    fetch_and = intrinsic(_read_modify_write("and"))
    fetch_or = intrinsic(_read_modify_write("or"))
    fetch_max = intrinsic(_read_modify_write("max"))
    exchange = intrinsic(_read_modify_write("xchg"))

    def _of_bits(operation: Any) -> Any:
        def typed(typing_context: Any, array: Any, index: Any, bits: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                mask = context.cast(builder, args[2], signature.args[2], types.int64)
                pointer = _pointer(context, builder, signature, args)
                return builder.and_(operation(builder, pointer, mask), mask)

            return types.int64(array, index, bits), generate

        return typed

    load_bits = intrinsic(_of_bits(lambda builder, word, _: builder.load_atomic(word, "acquire", 8)))
    set_bits = intrinsic(_of_bits(lambda builder, word, bits: builder.atomic_rmw("or", word, bits, "acq_rel")))
    clear_bits = intrinsic(
        _of_bits(lambda builder, word, bits: builder.atomic_rmw("and", word, builder.not_(bits), "acq_rel"))
    )

    @intrinsic
    def compare_exchange(typing_context: Any, array: Any, index: Any, expected: Any, value: Any) -> Any:
        """Store ``value`` if the word is ``expected``; returns whether it was."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            old = context.cast(builder, args[2], signature.args[2], types.int64)
            new = context.cast(builder, args[3], signature.args[3], types.int64)
            pointer = _pointer(context, builder, signature, args)
            result = builder.cmpxchg(pointer, old, new, "acq_rel", "acquire")
            return builder.extract_value(result, 1)

        return types.boolean(array, index, expected, value), generate

    #: LLVM intrinsics: x86 PAUSE; Arm HINT #1 (YIELD).
    _SPIN_HINTS = {"x86_64": ("llvm.x86.sse2.pause", ()), "aarch64": ("llvm.aarch64.hint", (1,))}

    @intrinsic
    def pause(typing_context: Any) -> Any:
        """Spin-wait hint."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            hint = _SPIN_HINTS.get(platform.machine())
            if hint is not None:
                name, operands = hint
                constants = [ir.Constant(ir.IntType(32), operand) for operand in operands]
                kind = ir.FunctionType(ir.VoidType(), [constant.type for constant in constants])
                builder.call(cgutils.get_or_insert_function(builder.module, kind, name), constants)
            return context.get_dummy_value()

        return types.void(), generate
