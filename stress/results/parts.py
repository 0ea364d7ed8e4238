"""Classes of keys of a result document, and what follows from them: paths, types, units, defects.

A path joins keys with dots; ``[]`` stands for the elements of a list, ``<step>`` for any step's name, ``<class>``
for any fault class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, PydanticUndefined

# No measured number is beyond 64 bits. The types are strict: a flag is no number, and a number no text.
_BOUND: Final = 1 << 64
Int = Annotated[int, Field(strict=True, gt=-_BOUND, lt=_BOUND)]
Num = Annotated[float, Field(strict=True, gt=-_BOUND, lt=_BOUND, allow_inf_nan=False)]
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Free = Mapping[str, Any]

#: The unit of a key that has its parent's.
PARENTS: Final = "parent's"

_UNITS: Final = {"ns": "ns", "bytes": "bytes", "per_s": "1/s"}
_TYPES: Final = {bool: "boolean", int: "integer", float: "number", str: "string", Literal: "string", Mapping: "object"}


@dataclass(frozen=True, slots=True)
class ResultKey:
    """One leaf of the document. ``type`` is JSON's; ``number?`` may be null, ``object`` is free of form."""

    path: str = ""
    type: str = ""
    unit: str = ""  # "" for counts, ratios and words
    meaning: str = ""
    optional: bool = False  # absent from some documents
    since: int = 1  # the schema version that brought it


def key(
    meaning: str = "",
    *,
    unit: str | None = None,
    since: int = 1,
    sometimes: bool = False,
    default: Any = PydanticUndefined,
    column: str | None = None,
    each: str | Mapping[str, tuple[str, str]] = "",
    **bounds: Any,
) -> Any:
    """A key as an attribute.

    ``meaning``: of a key that holds others, the beginning of their meanings; with ``{}`` in it the whole of them, and
    ``{}`` their name. ``unit``: by the key's name (``_ns``, ``_bytes``, ``_per_s``) if it is left out. ``since``: the
    schema version that brought the key. ``sometimes``: the key is not in every document of its version; else a key
    whose ``default`` is None is absent from older documents alone. ``column``: a sweep's table shows the key by default
    (""), or the key at this path below it. ``each``: the text that stands in paths for the names of a mapping, or these
    names with unit and meaning. ``bounds`` are pydantic's.
    """
    about: Any = {"unit": unit, "since": since, "sometimes": sometimes, "column": column, "each": each}
    return Field(default, description=meaning, json_schema_extra=about, **bounds)


def _about(field: FieldInfo) -> Any:
    return field.json_schema_extra


def wrong(at: str) -> PydanticCustomError:
    """The error that an object's own check raises; ``at`` is the path below the object of the wrong or missing key."""
    return PydanticCustomError("wrong", "is missing or wrong", {"at": at})


class Part(BaseModel):
    """A part of a document: read, never changed. Keys that a later document may have besides are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    @model_validator(mode="after")
    def _has_what_its_version_has(self, info: ValidationInfo) -> Part:
        version = (info.context or {}).get("version", 0)
        for name, field in type(self).model_fields.items():
            about = _about(field)
            if about is None or field.default is not None:
                continue
            if name in self.model_fields_set:
                if getattr(self, name) is None:
                    raise wrong(name)
            elif version >= about["since"] and not about["sometimes"]:
                raise wrong(name)
        return self


class Quantiles(Part):
    """Times in ns; all None if ``count`` is 0."""

    count: Int = key("how many")
    p50: Int | None = key("median, nearest rank", unit="ns")
    p90: Int | None = key("90th percentile, nearest rank", unit="ns")
    p99: Int | None = key("99th percentile, nearest rank", unit="ns")
    max: Int | None = key("longest", unit="ns")

    @model_validator(mode="after")
    def _none_of_nothing(self) -> Quantiles:
        for name in type(self).model_fields:
            if (getattr(self, name) is None) != (self.count <= 0) and name != "count":
                raise wrong(name)
        return self


class Times(Quantiles):
    """`Quantiles` of times kept one by one, so that they have a mean, in ns."""

    mean: Num | None = key("mean", unit="ns")


class Parallel(Part):
    """Lists whose elements belong together."""

    @model_validator(mode="after")
    def _as_long_as_each_other(self) -> Parallel:
        lists = {name: len(each) for name, each in self if isinstance(each, tuple)}
        for name, length in lists.items():
            if length > min(lists.values()):
                raise wrong(f"{name}[]")
        return self


class Histogram(Parallel):
    """A distribution in log-spaced bins: bin i counts what took ``lower_ns[i]`` to just below ``upper_ns[i]``."""

    lower_ns: tuple[Int, ...] = key("least time of each log-spaced bin")
    upper_ns: tuple[Int, ...] = key("first time beyond each bin")
    count: tuple[Int, ...] = key("how many in each bin; empty bins are left out")


def keys_of(model: type[Part]) -> Iterator[ResultKey]:
    """Every leaf of a class of keys, in sequence."""
    return _leaves(model, ResultKey(), "")


def columns_of(model: type[Part]) -> Iterator[str]:
    """Paths of the keys that are shown of objects of this class by default."""
    for name, field in model.model_fields.items():
        column = _about(field)["column"]
        if column is not None:
            yield f"{name}.{column}" if column else name


def _leaves(kind: Any, at: ResultKey, each: Any) -> Iterator[ResultKey]:
    kind, null = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, Part):
        for name, field in kind.model_fields.items():
            about = _about(field)
            unit = next((its for end, its in _UNITS.items() if re.search(f"_{end}(_|$)", name)), "")
            inner = ResultKey(
                path=f"{at.path}.{name}" if at.path else name,
                unit=at.unit if about["unit"] == PARENTS else unit if about["unit"] is None else about["unit"],
                meaning=": ".join(filter(None, (at.meaning, field.description)))
                if "{}" not in at.meaning
                else at.meaning.format(name),
                optional=at.optional or not field.is_required(),
                since=max(at.since, about["since"]),
            )
            never_null = field.default is None  # such a key is absent instead
            yield from _leaves(_bare(field.annotation)[0] if never_null else field.annotation, inner, about["each"])
    elif get_origin(kind) is tuple:
        yield from _leaves(get_args(kind)[0], replace(at, path=f"{at.path}[]"), "")
    elif isinstance(each, str) and each:
        yield from _leaves(get_args(kind)[1], replace(at, path=at.path + each), "")
    elif each:
        for name, (unit, meaning) in each.items():
            yield from _leaves(get_args(kind)[1], replace(at, path=f"{at.path}.{name}", unit=unit, meaning=meaning), "")
    else:
        yield replace(at, type=_TYPES[get_origin(kind) or kind] + "?" * null)


def _bare(kind: Any) -> tuple[Any, bool]:
    """A type without pydantic's annotations and without None, and whether it may be None."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
        return _bare(kind)[0], True
    return kind, False


def defects(model: type[Part], error: ValidationError) -> list[str]:
    """Paths of the keys that a document of this class lacks or has wrong."""
    found = error.errors(include_url=False, include_input=False)
    return [_path(model, detail["loc"], detail.get("ctx", {}).get("at", "")) for detail in found]


def _path(kind: Any, place: Sequence[str | int], beyond: str) -> str:
    """The path of keys that leads to a place in a document of this class, and beyond."""
    path, each = "", None
    for part in place:
        kind = _bare(kind)[0]
        if get_origin(kind) is tuple:
            kind, path = get_args(kind)[0], f"{path}[]"
        elif get_origin(kind) is Mapping:
            kind, path = get_args(kind)[1], path + (each if isinstance(each, str) else f".{part}")
        else:
            field = kind.model_fields[part]
            kind, each, path = field.annotation, _about(field)["each"], f"{path}.{part}"
    path += beyond if beyond.startswith("[") or not beyond else f".{beyond}"
    return path.removeprefix(".")
