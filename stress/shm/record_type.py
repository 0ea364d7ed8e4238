"""A named tuple of arrays that follow each other in one buffer, as compiled code sees it: one pointer.

As plain tuples of arrays such records would be seven arguments per array, copied at every call.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.extending import NativeValue, register_model, typeof_impl, unbox
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import models

_I64 = ir.IntType(64)
_ARRAY = types.Array(types.int64, 1, "C")


class RecordType(types.Type):
    """Type of a record whose arrays of int64 have these names and lengths, in this order."""

    def __init__(self, name: str, lengths: tuple[tuple[str, int], ...]) -> None:
        self.lengths = lengths
        self.places = {}
        place = 0
        for field, length in lengths:
            self.places[field] = place
            place += length
        super().__init__(name=f"stress.{name}{lengths}")


@register_model(RecordType)
class _Model(models.PrimitiveModel):
    """A pointer to the first array's first word."""

    def __init__(self, manager: Any, kind: RecordType) -> None:
        super().__init__(manager, kind, _I64.as_pointer())


def register(record: type, lengths: dict[str, int]) -> None:
    """Make compiled code take each ``record``, whose arrays have these ``lengths`` and one buffer, as a pointer."""
    kind = RecordType(record.__name__, tuple(lengths.items()))
    typeof_impl.register(record)(lambda value, context: kind)


@unbox(RecordType)
def _unbox(kind: RecordType, value: Any, c: Any) -> NativeValue:
    from numba.np.arrayobj import make_array  # here, as in machine_type

    first = c.pyapi.object_getattr_string(value, kind.lengths[0][0])
    native = c.unbox(_ARRAY, first)
    c.pyapi.decref(first)
    return NativeValue(make_array(_ARRAY)(c.context, c.builder, native.value).data, is_error=native.is_error)


@infer_getattr
class _Attributes(AttributeTemplate):
    key = RecordType

    def generic_resolve(self, kind: RecordType, name: str) -> Any:  # type: ignore[override]
        return _ARRAY if name in kind.places else None


@lower_getattr_generic(RecordType)
def _get(context: Any, builder: Any, kind: RecordType, start: Any, name: str) -> Any:
    from numba.np.arrayobj import make_array, populate_array

    array = make_array(_ARRAY)(context, builder)
    populate_array(
        array,
        data=builder.gep(start, [ir.Constant(_I64, kind.places[name])], inbounds=True),
        shape=[ir.Constant(_I64, dict(kind.lengths)[name])],
        strides=[ir.Constant(_I64, 8)],
        itemsize=ir.Constant(_I64, 8),
        meminfo=None,
        parent=None,
    )
    return array._getvalue()
