"""The table of all basic orders, by `stress verify`: ``python docs/orders_table.py`` (``make orders-table``) writes it.

Each order is judged on every machine by its program: one schedule refutes most, all schedules prove the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from stress.arch.bbm import HIGHEST
from stress.orders import Step, enumerate_orders
from stress.search.classes import Steps, program, written
from stress.search.constraints import learn
from stress.search.crew import Crew
from stress.search.verdicts import OPEN, PROVED, REFUTED, Verdict, Verdicts

BASIC: Final = (Step.INVALIDATE, Step.TLBI, Step.CLEAN, Step.INSTALL, Step.UNMAP)
EVERY: Final = list(enumerate_orders(BASIC))
#: Kind of violation -> the letters that stand for it in a cell.
LETTERS: Final = {
    "bbm": "B",
    "tlb-conflict": "C",
    "table-use-after-free": "U",
    "table-leak": "L",
    "not-at-poc": "P",
    "not-installed": "I",
    "stale-translation": "S",
}
#: Bounds of every proof, besides those that the columns name.
BOUNDS: Final = {"vcpus": 1, "accesses": 2, "pages": 2}

Limits = Mapping[str, Any]

HEAD: Final = """\
# Every basic order

<!-- Written by `make orders-table` from the code. Do not edit. -->

The 261 orders that can be written with `invalidate`, `tlbi`, `clean`, `install` and `unmap`, each at most once,
with an install, as `stress verify` judges them on a toy machine: one vCPU with two accesses, a walk of the hardware
by itself, a block of two pages. `ok` is proved within these bounds. A letter is a violation in the first schedule
that shows one; each order is wrong for at least what it says, and all schedules of `stress verify ORDER` may show
more. **B** `bbm`, **C** `tlb-conflict`, **I** `not-installed`, **L** `table-leak`, **P** `not-at-poc`, **S**
`stale-translation`, **U** `table-use-after-free`.

A machine is a way of memory, how much of the block the old table maps, and a level of FEAT_BBM. With FWB the
guest's accesses are cacheable whatever it says, and a clean has nothing to do. Without it, `on` or `off` is what
the guest makes of its caches: with them off it reads from the Point of Coherency (PoC). `partial`: half of the
block is not mapped, and the host wrote to it, in its cache. `full`: each page was cleaned when it was mapped.

## What makes an order correct

Machines in one row agree on all 261 orders.

RULES

So the correct orders below level 2 are those of a partial order: `invalidate < tlbi < install` and `tlbi < unmap`,
all four there; from level 2 on also those with `install < tlbi < unmap`, and an `invalidate` before the `install` or
none. To both comes `clean < install`, with the clean there, where the guest sees what is at the PoC and not all of
it was mapped. Nothing else matters: `unmap` on either side of `install`, the clean inside the window or before it.
An order must end with the entry the valid block (`install < invalidate` is wrong) and with the table freed (no
`unmap` is wrong).

## How FEAT_BBM is read

- **Level 1** changes nothing here: it allows a change of size without a break for a block that has nT set
  (R_HHCXC), and the basic `install` sets none. A walk may then still leave both sizes in a TLB, which aborts
  (I_HYQMB). With `install-nt` and `clear-nt` see `stress orders`; nT that is never cleared is wrong, for no TLB
  would keep the block.
- **Level 2** allows `install` over the valid table (R_KFLJB, R_PVTFW). A TLB that gets the block while it holds
  pages of it may abort: an exit and a TLBI of that core, counted as `conflict_aborts` in a run, and no violation.
  What is left of the rule is R_GPPYH: `install < tlbi < unmap`, or a walker still reads the table.
- **Level 3** is level 2 without the abort. That costs no step and needs none, so the two agree on every order; the
  difference is in the time of the guest (`stress compare block-first bbml2 --bbm-level 2`, then 3).
- **Invalid to valid before the TLBI** (`invalidate < install < tlbi < unmap`) is correct from level 2 on, and with
  `install-nt` from level 1 on. R_WHZWS says when a break is required, and R_DDMVT what it consists of where it is: a
  change that needs no break needs no step of one. Nor could a TLB tell: invalid entries are never cached (I_WZCBG),
  so it may hold what it may hold after `install` alone, pages of the old table and the block, which these levels
  allow side by side. The table still outlives the TLBI. What changes besides the size, an address, needs the whole
  break at every level. The manual leaves room for a stricter reading, by which a break that was begun must be
  completed: these 6 orders, 2 of them where a clean is needed, would then be wrong at levels 2 and 3, by the rule
  alone (`B`), for no vCPU of the model meets a consequence. At levels 0 and 1 they are wrong in both.
- **Who may still walk.** A table may be freed once a TLBI that began after it was unlinked is complete. Here
  mmu_lock is held alone, so no grace period is needed; `unmap-deferred` and a shared mmu_lock have one (an RCU
  section covers a walk without the lock from its first load to its last).

With caches on and no FWB no order needs its clean in the table, since that guest never looks at the PoC. KVM cleans
all the same: a guest may turn its caches off at any time, and other observers may not be coherent.

## The table

Columns are the rows above.

TABLE
"""


def machines() -> Iterator[tuple[str, Limits]]:
    """The columns: a heading, and what differs between them."""
    for memory, fwb, caches in (("FWB", True, True), ("caches on", False, True), ("caches off", False, False)):
        for share, populated in (("full", 2), ("partial", 1)):
            for level in range(HIGHEST + 1):
                limits = {"fwb": fwb, "guest_caches": caches, "populated": populated, "bbm_level": level}
                yield f"{memory}, {share}, {level}", {**BOUNDS, **limits}


def judge(crew: Crew, kept: Verdicts, limits: Limits) -> dict[Steps, Verdict]:
    """The verdict on every basic order on one machine."""
    programs = {steps: written(program(steps, limits["fwb"])) for steps in EVERY}
    verdicts: dict[Steps, Verdict] = {}
    todo = list(dict.fromkeys(programs.values()))
    for what in ("screen", "explore"):
        asked = []
        for steps in todo:
            known = kept.get(what, steps, limits)
            if known is None:
                asked.append((what, steps, limits) if what == "screen" else (what, steps, limits, None))
            else:
                verdicts[steps] = known
        for task, verdict in crew.results(asked):
            verdicts[task[1]] = verdict
            kept.put(what, task[1], limits, verdict)
        todo = [steps for steps in todo if verdicts[steps].judgement == OPEN]
    return {steps: verdicts[its] for steps, its in programs.items()}


def cell(verdict: Verdict) -> str:
    """A verdict in few letters."""
    if verdict.judgement == REFUTED:
        return "".join(sorted(LETTERS[kind] for kind in verdict.kinds))
    return "ok" if verdict.judgement == PROVED else "?"


def merged(columns: Mapping[str, Mapping[Steps, Verdict]]) -> dict[tuple[str, ...], list[str]]:
    """The machines that agree on every order, each time with their cells."""
    found: dict[str, list[str]] = {}
    for name, verdicts in columns.items():
        found.setdefault("\n".join(cell(verdicts[steps]) for steps in EVERY), []).append(name)
    return {tuple(names): text.split("\n") for text, names in found.items()}


def lines(rows: Iterable[Sequence[str]]) -> str:
    """Rows of a table, the first of which is its head."""
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest))


def rules(columns: Mapping[str, Mapping[Steps, Verdict]], groups: Iterable[tuple[str, ...]]) -> str:
    """The rules that all correct orders keep, and no other order."""
    rows = [("column", "machines: memory, mapped, FEAT_BBM", "correct", "exactly the orders with")]
    for number, names in enumerate(groups, 1):
        verdicts = columns[names[0]]
        refuted = [steps for steps, verdict in verdicts.items() if verdict.judgement == REFUTED]
        right = [steps for steps, verdict in verdicts.items() if verdict.judgement != REFUTED]
        constraints = sorted(constraint.text for constraint in learn(refuted, right))
        rows.append((str(number), "; ".join(names), str(len(right)), "; ".join(constraints)))
    return lines(rows)


def main() -> None:
    """Write the page."""
    columns = {}
    with Crew(len(os.sched_getaffinity(0))) as crew:
        for name, limits in machines():
            columns[name] = judge(crew, Verdicts(), limits)
            print(name, sum(verdict.judgement == PROVED for verdict in columns[name].values()), flush=True)
    groups = merged(columns)
    cells = [(", ".join(steps), *(each[at] for each in groups.values())) for at, steps in enumerate(EVERY)]
    table = lines([("order", *(str(number) for number in range(1, len(groups) + 1))), *cells])
    page = Path(__file__).with_name("orders-table.md")
    page.write_text(HEAD.replace("RULES", rules(columns, groups)).replace("TABLE", table), encoding="utf-8")


if __name__ == "__main__":
    main()
