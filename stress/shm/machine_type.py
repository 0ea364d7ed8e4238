"""The machine as compiled code sees it: one pointer to the segment, whose directory says where each region lies.

As a plain tuple of two dozen arrays the machine would be some two hundred arguments of every function, which took most
of the time to compile them, and much of that to call them. What is read from the directory never changes, and the
compiler is told so; the lengths of rows, which are the same in every configuration, it need not read.

What only compiling needs of Numba is imported where it is used: who loads kernels from the cache starts sooner.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.extending import NativeValue, register_model, typeof_impl, unbox
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import models

from stress.shm.layout import DIRECTORY, DIRECTORY_ENTRY, DIRECTORY_WORDS, REGIONS, Geo, Machine

_I64 = ir.IntType(64)
_GEO = types.NamedUniTuple(types.int64, len(Geo._fields), Geo)
_ARRAYS = {name: types.Array(types.int64, 1 + len(inner), "C") for name, inner in REGIONS.items()}
_PLACES = {name: DIRECTORY + place * DIRECTORY_ENTRY for place, name in enumerate(REGIONS)}
_GEO_AT = DIRECTORY + len(REGIONS) * DIRECTORY_ENTRY


class MachineType(types.Type):
    """Type of every ``Machine``: which configuration it has is not part of it."""

    def __init__(self) -> None:
        super().__init__(name="stress.Machine")


@register_model(MachineType)
class _Model(models.PrimitiveModel):
    """A pointer to the segment's first word."""

    def __init__(self, manager: Any, kind: MachineType) -> None:
        super().__init__(manager, kind, _I64.as_pointer())


@typeof_impl.register(Machine)
def _type_of(value: Machine, context: Any) -> MachineType:
    return MachineType()


@unbox(MachineType)
def _unbox(kind: MachineType, value: Any, c: Any) -> NativeValue:
    """The segment begins a fixed distance before its first region."""
    from numba.np.arrayobj import make_array

    control = c.pyapi.object_getattr_string(value, "control")
    native = c.unbox(_ARRAYS["control"], control)
    c.pyapi.decref(control)
    array = make_array(_ARRAYS["control"])(c.context, c.builder, native.value)
    start = c.builder.gep(array.data, [ir.Constant(_I64, -(DIRECTORY + DIRECTORY_WORDS))])
    return NativeValue(start, is_error=native.is_error)


@infer_getattr
class _Attributes(AttributeTemplate):
    key = MachineType

    def generic_resolve(self, kind: MachineType, name: str) -> Any:  # type: ignore[override]
        return _GEO if name == "geo" else _ARRAYS.get(name)


@lower_getattr_generic(MachineType)
def _get(context: Any, builder: Any, kind: MachineType, start: Any, name: str) -> Any:
    from numba.np.arrayobj import make_array, populate_array

    def word(place: int) -> Any:
        loaded = builder.load(builder.gep(start, [ir.Constant(_I64, place)], inbounds=True))
        loaded.set_metadata("invariant.load", builder.module.add_metadata([]))
        return loaded

    if name == "geo":
        fields = [word(_GEO_AT + place) for place in range(len(Geo._fields))]
        return context.make_tuple(builder, _GEO, fields)
    array_type = _ARRAYS[name]
    place = _PLACES[name]
    array = make_array(array_type)(context, builder)
    shape = [
        word(place + 1 + axis) if extent is None else ir.Constant(_I64, extent)
        for axis, extent in enumerate((None, *REGIONS[name]))
    ]
    strides = [ir.Constant(_I64, 8)]
    for extent in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], extent))
    populate_array(
        array,
        data=builder.gep(start, [word(place)], inbounds=True),
        shape=shape,
        strides=strides,
        itemsize=ir.Constant(_I64, 8),
        meminfo=None,
        parent=None,
    )
    return array._getvalue()
