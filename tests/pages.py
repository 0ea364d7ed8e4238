"""Reports made from made-up measurements, for tests of the page."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import head_to_head, order_data, page_table_test, run_data, version_1

from stress.orders import BLOCK_FIRST, CLEAN_FIRST, UNMAP_FIRST
from stress.report.page import render
from stress.results.counterexamples import MAGIC, VERSION
from stress.results.data import Violation
from stress.results.document import build
from stress.results.stored import stored
from stress.results.trials import TrialResult

#: Closes the element that it stands in, and runs a script if anything lets it.
HOSTILE = "</script></title><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>&lt;"


def documents() -> dict[str, dict[str, Any]]:
    """A run of each kind that the page treats differently."""
    rng = np.random.default_rng(1)
    wrong = run_data(
        [order_data(rng, rebuilds=40)],
        complete=False,
        exit_code=1,
        violations=[Violation("bbm", 9, [{"ipa": 1 << 30, "detail": HOSTILE}] * 9)],
        warnings=[("load", HOSTILE)],
        failure={"process": HOSTILE},
        config={"vcpus": 1, "note": HOSTILE},
    )
    compared = head_to_head(rng)
    compared.orders.append(order_data(rng, CLEAN_FIRST))
    return {
        "compared": build(compared),
        "wrong": build(wrong),
        "staged": build(page_table_test(rng, passes=2, orders=(UNMAP_FIRST, BLOCK_FIRST))),
        "old": version_1(build(head_to_head(rng))),
        "empty": build(run_data([order_data(rng, rebuilds=0, stalls_per_cycle=0)])),
    }


def write_run(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document))
    return path


def write_sweep(path: Path, repeats: int = 2) -> Path:
    """vCPUs and granules swept, with two orders in every point."""
    rng = np.random.default_rng(2)
    header = {"sweep_schema": 1, "sweep": "0" * 16, "trials": 6 * repeats, "swept": ["vcpus", "granule"], "tables": {}}
    lines = [json.dumps(header)]
    for repeat in range(repeats):
        for point, (vcpus, granule) in enumerate(product((1, 2, 4), ("4K", "64K"))):
            orders = [
                order_data(rng, order, rebuilds=20, window_ns=window * vcpus, vcpus=vcpus)
                for order, window in ((UNMAP_FIRST, 900_000), (BLOCK_FIRST, 30_000))
            ]
            values = {"vcpus": vcpus, "granule": granule}
            document = build(run_data(orders))
            trial = TrialResult(f"{point}-{repeat}", point, values, repeat, "2026-01-01", document)
            lines.append(json.dumps(trial.to_record()))
    path.write_text("\n".join([*lines, ""]))
    return path


def write_counterexamples(path: Path) -> Path:
    """As `stress verify --output` writes them: one that a step meets, and one that only the audit does."""
    header = ["step", "hypervisor", "vcpu 0", "entry", "table", "TLB 0"]
    rows = [
        ["", "", "", "table 1", "1: empty, 1", "-"],
        ["4", "[invalidate]; sets entry = broken", "", "broken", "", ""],
        ["9", "", f"{HOSTILE}; >>> tlb-conflict", "", "", "page 1>1, block>0"],
    ]
    shown = {"within": "rebuild, 1 vCPU", "actors": 2, "header": header, "rules": ["tlb-conflict: I_HYQMB"]}
    kept = {"magic": MAGIC, "version": VERSION, "order": "invalidate,install,unmap", "kinds": ["tlb-conflict"]}
    leak = {**kept, "order": HOSTILE, "kinds": ["table-leak"], "timeline": {**shown, "rows": rows[:2], "rules": []}}
    path.write_text(json.dumps([{**kept, "timeline": {**shown, "rows": rows}}, leak]))
    return path


def whole_report(directory: Path) -> Path:
    """One page about everything."""
    paths = [write_run(directory / f"{name}.json", document) for name, document in documents().items()]
    paths.append(write_sweep(directory / "sweep.jsonl"))
    paths.append(write_counterexamples(directory / "counterexamples.json"))
    report = directory / "report.html"
    report.write_text(render([stored(path) for path in paths], HOSTILE))
    return report
