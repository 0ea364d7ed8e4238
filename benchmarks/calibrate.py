"""What `stress predict` says of this machine, fitted by `stress calibrate --live`, against `stress run` here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.command import stress
from benchmarks.figure import Figure
from stress.calibrate.own_runs import HOLD, WINDOW, measured
from stress.cli.main import invoke
from stress.orders import NAMED_ORDERS

#: Median error at most.
TARGET = 0.25
#: Runs of each order, vCPUs and block size: all of them, so many times over, as `stress calibrate --live` does its own.
_RUNS = 3
_SCENARIO = ("--scenario", "kvm-page-table-test", "--memory", "1G", "--bbm-level", "2")


def figures(rounds: int) -> Iterator[Figure]:
    """The median error of stages, windows and lock holds of all named orders, with 1 and 2 vCPUs, 2M and 1G."""
    errors: dict[str, list[float]] = {"stages": [], "windows": [], "lock holds": []}
    with tempfile.TemporaryDirectory(prefix="stress-") as directory:
        here = str(Path(directory, "here.toml"))
        if invoke(["calibrate", "--live", "-o", here]) != 0:
            raise click.ClickException("this machine was not fitted")
        cases = {
            (order, "--vcpus", str(vcpus), "--block-size", size): list[dict[str, Any]]()
            for vcpus in (1, 2)
            for size in ("2M", "1G")
            for order in NAMED_ORDERS
        }
        for _ in range(_RUNS):
            for (order, *options), documents in cases.items():
                documents.append(stress("run", "--order", order, *_SCENARIO, *options, "--duration", "500ms"))
        for (order, *options), documents in cases.items():
            predicted = measured([stress("predict", order, *_SCENARIO, *options, "--fwb", "--platform", here)])
            for name, ns in measured(documents).items():
                if ns > 0:
                    group = {WINDOW: "windows", HOLD: "lock holds"}.get(name, "stages")
                    errors[group].append(abs(predicted[name] / ns - 1))
    groups = {**errors, "all of these": [each for found in errors.values() for each in found]}
    for group, found in groups.items():
        quartiles = np.quantile(found, (0.25, 0.5, 0.75))
        worst = f"worst {max(found):.0%}"
        spread = (float(quartiles[0]), float(quartiles[2]))
        name = f"prediction of this machine, error of {group}"
        yield Figure(name, f"{quartiles[1]:.0%}", worst, float(quartiles[1]), spread, TARGET, at_least=False)
