"""What a spreadsheet opens holds no formula, whoever wrote the result; a number stays one."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command, command_line
from synthetic import head_to_head

from stress.results.document import build
from stress.results.text import inert

EVIL = "=cmd|'/C calc'!A1"


@pytest.mark.parametrize(
    ("cell", "safe"),
    [
        (EVIL, f"'{EVIL}"),
        ("+1+cmd|x", "'+1+cmd|x"),
        ("-2+3+cmd|x", "'-2+3+cmd|x"),
        ("@SUM(1,1)", "'@SUM(1,1)"),
        ("\t=1+1", "'=1+1"),
        ("\r=1+1", "'=1+1"),
        ("\n=1+1", "'=1+1"),
        ("-1.5", "-1.5"),
        ("+3e-5", "+3e-5"),
        ("-", "-"),
        ("unmap-first", "unmap-first"),
        ("", ""),
        ("\x1b[2J", "\\x1b[2J"),
    ],
)
def test_formulas_are_quoted_and_numbers_are_not(cell: str, safe: str) -> None:
    assert inert([cell]) == [safe]


@pytest.fixture
def stress(capsys: pytest.CaptureFixture[str]) -> Command:
    return command_line(capsys)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A result whose platform somebody named."""
    document: dict[str, Any] = build(head_to_head(np.random.default_rng(1)))
    document["config"]["platform"] = EVIL
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    return path


def test_csv_and_tsv_hold_no_formula(result: Path, stress: Command) -> None:
    code, out, _ = stress("show", str(result), "--csv", "--rows", "order,platform", "--values", "rebuilds")
    assert code == 0
    header, *lines = csv.reader(io.StringIO(out))
    assert header == ["order", "platform", "rebuilds"]
    assert [line[1] for line in lines] == [f"'{EVIL}"] * 2
    assert all(float(line[2]) > 0 for line in lines)
    for arguments in (("--rows", "platform", "--columns", ""), ("--list",)):
        code, out, _ = stress("show", str(result), "--format", "tsv", *arguments)
        assert code == 0
        cells = [cell.strip() for line in out.splitlines() for cell in line.split("\t")]
        assert f"'{EVIL}" in cells
        assert EVIL not in cells
