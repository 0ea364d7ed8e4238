"""The keys of a configuration as data: what is written for each, by default and within which bounds.

The command line's options and the reference manual are both made of it, for any model whose fields follow the rules of
`RunConfig`: a field ``dwell_ns`` is a duration, one serialized as ``block_size_bytes`` a size, a default factory's
docstring says what it gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, Final, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stress.config.values import key_of
from stress.units import format_duration, format_size


class Form(StrEnum):
    """How a key's value is written."""

    LIST = "list of texts"
    FLAG = "true or false"
    INTEGER = "integer"
    NUMBER = "number"
    SIZE = "size"
    DURATION = "duration"
    WORD = "word"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. ``default`` and ``bounds`` are as people write them, "" if there are none."""

    field: str
    name: str  # in files and options
    stored: str  # in a result's ``config``
    form: Form
    kind: type
    words: tuple[str, ...]  # of a closed set
    default: str
    bounds: str
    meaning: str


_FORMS: Final = {tuple: Form.LIST, bool: Form.FLAG, int: Form.INTEGER, float: Form.NUMBER, str: Form.TEXT}


def key(model: type[BaseModel], field: str) -> Key:
    """The key of one field."""
    info = model.model_fields[field]
    kind = _kind(info)
    stored = info.serialization_alias or field
    if field.endswith("_ns"):
        form = Form.DURATION
    elif stored.endswith("_bytes"):
        form = Form.SIZE
    else:
        form = Form.WORD if issubclass(kind, StrEnum) else _FORMS[kind]
    return Key(
        field=field,
        name=key_of(field),
        stored=stored,
        form=form,
        kind=kind,
        words=tuple(kind) if issubclass(kind, StrEnum) else (),
        default=_default(info, form),
        bounds=_bounds(info, form),
        meaning=info.description or "",
    )


def keys(model: type[BaseModel]) -> tuple[Key, ...]:
    """The keys of all fields."""
    return tuple(key(model, field) for field in model.model_fields)


def as_written(form: Form, value: object) -> str:
    """A value as one would write it."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and form is Form.DURATION:
        return format_duration(value)
    if isinstance(value, int) and form is Form.SIZE:
        return format_size(value)
    return str(value)


def _kind(info: FieldInfo) -> type:
    """The type of a field's values: that of ``Annotated`` and of what may also be None."""
    kind: Any = info.annotation
    if NoneType in get_args(kind):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    kind = get_origin(kind) or kind
    assert isinstance(kind, type)
    return kind


def _default(info: FieldInfo, form: Form) -> str:
    if info.default_factory is not None:
        first, *_ = (info.default_factory.__doc__ or "").split("\n")
        return first.strip().rstrip(".")
    return "" if info.default is None or info.is_required() else as_written(form, info.default)


def _bounds(info: FieldInfo, form: Form) -> str:
    lowest = highest = ""
    for each in info.metadata:
        if isinstance(each, Ge):
            lowest = f"at least {as_written(form, each.ge)}"
        elif isinstance(each, Gt):
            lowest = f"more than {as_written(form, each.gt)}"
        elif isinstance(each, Le):
            highest = f"at most {as_written(form, each.le)}"
        elif isinstance(each, Lt):
            highest = f"less than {as_written(form, each.lt)}"
    return ", ".join(bound for bound in (lowest, highest) if bound)
