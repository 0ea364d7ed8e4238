"""The generated pages are what the code says, and leave nothing out."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from stress.bench.baseline import Record
from stress.bench.metrics import METRICS
from stress.bench.suite import KernelCase, OrderCase, Suite
from stress.cli.run import run
from stress.config import RunConfig, key_of
from stress.config.keys import Form, keys
from stress.config.sweep import TABLES, PlanTable
from stress.results.schema import RESULT_KEYS
from stress.results.warnings import RunWarning

DOCS = Path(__file__).parents[2] / "docs"
PAGES: dict[str, Callable[[], str]] = runpy.run_path(str(DOCS / "reference.py"))["PAGES"]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def first_cells(name: str) -> list[str]:
    """The first cell of each row of each table, without its marks."""
    lines = (DOCS / name).read_text(encoding="utf-8").splitlines()
    return [line.split("|")[1].strip(" *`") for line in lines if line.startswith("| ") and "`" in line.split("|")[1]]


def test_every_key_once() -> None:
    fields = [*RunConfig.model_fields, *PlanTable.model_fields]
    assert sorted(first_cells("config.md")) == sorted(map(key_of, fields))
    expected = [*(key.path for key in RESULT_KEYS), *(warning.value for warning in RunWarning)]
    assert sorted(first_cells("results.md")) == sorted(expected)


def test_every_key_and_metric_of_the_gate() -> None:
    models = (Suite, OrderCase, KernelCase, Record)
    fields = [field.alias or name for model in models for name, field in model.model_fields.items()]
    assert sorted(first_cells("bench.md")) == sorted([*fields, *METRICS])


def test_every_table_of_a_sweep() -> None:
    text = (DOCS / "config.md").read_text(encoding="utf-8")
    assert all(f"]`: {what}" in text for what in TABLES.values())


def test_keys_are_the_options() -> None:
    options = {name for parameter in run.params for name in parameter.opts}
    for key in keys(RunConfig):
        assert f"--{key.name}" in options or key.name == "orders"


def test_what_a_key_says_of_itself() -> None:
    about = {key.field: key for key in keys(RunConfig)}
    assert (about["block_size"].form, about["block_size"].stored) == (Form.SIZE, "block_size_bytes")
    assert (about["watchdog_ns"].name, about["watchdog_ns"].default) == ("watchdog", "5s")
    assert about["watchdog_ns"].bounds == "at least 100ms, at most 720h"
    assert about["seed"].bounds == f"at least 0, less than {1 << 63}"
    assert about["populated"].bounds == "at least 0, at most 1"
    assert about["orders"].form is Form.LIST
    assert about["cmo"].words == ("per-install", "per-fault")
    assert re.fullmatch(r"One vCPU per core.*", about["vcpus"].default)
    assert all(key.meaning for key in about.values())


def test_another_model() -> None:
    """As a sweep's or a benchmark's would be."""

    class Colour(StrEnum):
        RED = "red"

    class Other(BaseModel):
        names: tuple[str, ...] = Field(description="Names")
        wait_ns: Annotated[int, Field(gt=0)] | None = Field(default=None, lt=2_000_000_000, description="Wait")
        paint: Colour = Field(default=Colour.RED, description="Paint")

    names, wait, paint = keys(Other)
    assert (names.form, names.default, names.meaning) == (Form.LIST, "", "Names")
    assert (wait.name, wait.form, wait.bounds) == ("wait", Form.DURATION, "less than 2s")
    assert (paint.form, paint.words, paint.default) == (Form.WORD, ("red",), "red")
