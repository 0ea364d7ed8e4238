"""The checker of casemate traces and our oracle agree about every order that can be written, each by its own rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from casemate_rules import judge
from machines import ALL, SHAPES, block_gfn, fault, rebuild_block, small_machine, split_block, violations
from test_order_outcomes import ALPHABETS, outcome
from traces import TRACED, lines_of, trace_of, verdict

from stress.bugs import BUGS
from stress.kernels.codes import PERMISSION, POPULATION
from stress.kernels.dirty import set_logging
from stress.kernels.notifier import unmap_memslots, unmap_range
from stress.kernels.rebuild import DONE
from stress.kernels.split import populate
from stress.kernels.teardown import reap
from stress.live.evidence import violations as violations_of
from stress.orders import BLOCK_FIRST, NAMED_ORDERS, Step, enumerate_orders, parse_order
from stress.shm.accounts import State
from stress.shm.layout import Machine
from stress.shm.mmu_lock import acquire, release
from stress.shm.traced import W_AT, W_KIND, Traced
from stress.trace.casemate import encoded
from stress.trace.files import name_records

Steps = tuple[Step, ...]
FEW = ALL // 64  # pages of a block that are mapped: 8 of 512


def rebuilt(steps: Steps, granule: int = 4096, block_size: int = 2 << 20, share: int = FEW, **more: Any) -> Machine:
    """A machine on which a block was mapped, split and rebuilt, and then all was unmapped."""
    s = small_machine(granule, block_size, **{**TRACED, **more})
    assert populate(s, s.geo.hypervisor, block_gfn(s.geo, 1)) == DONE
    assert split_block(s, 0, share) == DONE
    assert rebuild_block(s, 0, steps) == DONE
    reap(s, s.geo.hypervisor)
    unmap_memslots(s, s.geo.hypervisor)
    return s


def locked_fault(s: Machine, write: int = 0) -> int:
    """vCPU 0 faults on the first page, and takes mmu_lock as its handler does."""
    assert acquire(s, 0)
    what = fault(s, s.geo.base_gfn, write)
    release(s, 0, int(State.GUEST))
    return what


@pytest.mark.thorough
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_checker_and_oracle_agree(alphabet: str) -> None:
    verdicts = []
    for steps in enumerate_orders(ALPHABETS[alphabet]):
        found, _ = outcome(steps, 0, 1)
        wrong = verdict(rebuilt(steps))
        # A table that leaks, and an entry that does not become the block promised, are no matter of translations.
        assert bool(wrong) == bool(found.keys() - {"table-leak", "not-installed"}), (steps, wrong, found)
        verdicts.append(bool(wrong))
    assert {True, False} == set(verdicts)


@pytest.mark.parametrize(
    ("steps", "what"),
    [
        ("tlbi,install,unmap", "valid->valid"),
        ("clean,install", "valid->valid"),
        ("install,tlbi,unmap", "valid->valid"),
        ("invalidate,install", "invalid unclean->valid"),
        ("invalidate,install,tlbi,unmap", "invalid unclean->valid"),
        ("invalidate,tlbi-ipa,install,unmap", "invalid unclean->valid"),
        ("invalidate,unmap,tlbi,install", "unclean parent"),
        ("invalidate,unmap,tlbi,clean,install", "unclean parent"),
        ("invalidate,unmap-deferred,tlbi,install", "unclean parent"),
        ("invalidate,unmap,tlbi,install-nt,clear-nt", "unclean parent"),
        ("install-nt,tlbi,clear-nt,unmap", "valid->valid"),
        ("invalidate,install,unmap-unlocked", "invalid unclean->valid"),
        ("unmap,invalidate,tlbi,install", "a table is released before its parent is clean"),
    ],
)
def test_what_the_checker_says_of_a_wrong_order(steps: str, what: str) -> None:
    assert verdict(rebuilt(parse_order(steps).steps)).startswith(what)


@pytest.mark.parametrize(("granule", "block_size"), SHAPES)
def test_named_orders_that_break_pass_on_every_geometry(granule: int, block_size: int) -> None:
    for order in NAMED_ORDERS.values():
        s = rebuilt(order.steps, granule, block_size, FEW if block_size < 1 << 30 else FEW >> 9)
        wrong = verdict(s)
        # A checker of the base architecture knows no FEAT_BBM.
        assert wrong.startswith("valid->valid") if order.bbm_level else wrong == "", order.name
        assert (violations(s) == {}) == (order.bbm_level == 0)


@pytest.mark.parametrize("bug", ["tlbi-one-ipa", "free-before-tlbi", "no-break"])
def test_bugs_in_the_steps_are_seen(bug: str) -> None:
    assert verdict(rebuilt(BUGS[bug].rewrite(BLOCK_FIRST).steps)) != ""


def test_the_hint_of_a_leaf_for_a_table_is_seen() -> None:
    s = rebuilt(BLOCK_FIRST.steps, inject=BUGS["table-level-hint"].flag)
    assert verdict(s).startswith("invalid unclean->valid")
    assert any(f"(value {(1 << 2 | s.geo.block_level) << 44 | s.geo.base_gfn:x})" in line for line in lines_of(s))


def test_a_missing_dsb_is_seen() -> None:
    wrong = verdict(rebuilt(BLOCK_FIRST.steps, inject=BUGS["missing-dsb"].flag))
    assert wrong.startswith("invalid unclean->valid")


@pytest.mark.parametrize("inject", [BUGS["missing-dsb"].flag, 0])
def test_a_missing_dsb_is_seen_long_after(inject: int) -> None:
    """The next TLBI begins with a barrier, and its DSBs must not pass for those that were left out."""
    s = small_machine(**TRACED, blocks=3, inject=inject)
    who = s.geo.hypervisor
    for block in range(3):
        assert populate(s, who, block_gfn(s.geo, block)) == DONE
    for block in range(2):  # a TLBI by IPA for each
        assert acquire(s, who)
        assert unmap_range(s, block_gfn(s.geo, block), block_gfn(s.geo, block + 1), who) == 1
        release(s, who, int(State.DWELL))
    assert locked_fault(s) == POPULATION
    assert verdict(s).startswith("invalid unclean->valid") if inject else verdict(s) == ""
    assert any("dsb (kind ish)" in line for line in lines_of(s)) != bool(inject)


def vcpu_maps_and_splits() -> Machine:
    """A vCPU writes to a block that a memslot with dirty logging maps: it splits it, with a TLBI of its own."""
    s = small_machine(**TRACED)
    assert populate(s, s.geo.hypervisor, block_gfn(s.geo, 0)) == DONE
    assert set_logging(s, s.geo.hypervisor, 1) == 1
    assert locked_fault(s, write=1) == PERMISSION
    return s


def test_every_core_has_its_registers() -> None:
    lines = lines_of(vcpu_maps_and_splits())
    assert judge(lines) == ""
    assert any(line.startswith("(tlbi ") and "(tid 0) ipas2e1is" in line for line in lines)
    for register in ("vtcr", "vttbr", "hcr"):
        without = [line for line in lines if not (f"{register}_el2" in line and "(tid 0)" in line)]
        assert len(without) == len(lines) - 1
        wrong = judge(renumbered(without))
        assert wrong.startswith("a TLBI on a core without a translation regime" if register != "vttbr" else "the MMU")


def renumbered(lines: Iterable[str]) -> list[str]:
    """The same records with ids that increase by one again."""
    return [re.sub(r"\(id \d+\)", f"(id {number})", line) for number, line in enumerate(lines)]


def test_a_vmid_in_vttbr_says_nothing_of_the_root() -> None:
    lines = [re.sub(r"(vttbr_el2\) \(value )", r"\g<1>5a0000", line) for line in lines_of(rebuilt(BLOCK_FIRST.steps))]
    assert sum("5a0000" in line for line in lines) == 2
    assert judge(lines) == ""
    other = [line.replace("5a0000fffff000", "5a0000ffffe000") for line in lines]
    assert judge(other).startswith("a root without a lock")


@pytest.mark.parametrize(("held", "what"), [(False, ""), (True, "written without the root's lock")])
def test_trylock_takes_a_lock_that_is_free(held: bool, what: str) -> None:
    """The first change is made under a lock that was tried, by a core that finds it held or free."""
    lines = lines_of(rebuilt(BLOCK_FIRST.steps))
    first = next(i for i, line in enumerate(lines) if line.startswith("(lock "))
    tried = lines[first].replace("(lock ", "(trylock ")
    before = [lines[first].replace("(tid 1)", "(tid 0)")] if held else []
    assert judge(renumbered([*lines[:first], *before, tried, *lines[first + 1 :]])).startswith(what)
    assert held or judge(renumbered([*lines[:first], tried, *lines[first + 1 :]])) == ""


@pytest.mark.parametrize("ipa_bits", [40, 48])
@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ("invalidate,install,tlbi,unmap", "bbm"),
        ("invalidate,tlbi-ipa,install,unmap", "bbm"),
        ("tlbi,install,unmap", "bbm"),
        ("invalidate,unmap,tlbi,install", "table-use-after-free"),
        ("invalidate,unmap-deferred,tlbi,install", "table-use-after-free"),
    ],
)
def test_evidence_names_what_the_checker_names(steps: str, kind: str, ipa_bits: int, tmp_path: Path) -> None:
    s = rebuilt(parse_order(steps).steps, ipa_bits=ipa_bits)
    data, lines = trace_of(s), lines_of(s)
    found = violations_of(s, 0)
    name_records(tmp_path / "a.casemate", data, found)
    [piece, *_] = next(each.evidence for each in found if each.kind == kind)
    match = re.search(r"\(record (\d+):", verdict(s))
    assert match is not None
    assert piece["record"] == int(match[1])
    assert "trace_row" not in piece
    line = lines[piece["record"]]
    assert f'(src "{piece["stored_at"]}")' in line
    # From the entry in question up to the root's level each is where the one above it leads.
    address = int(piece["entry"], 16)
    if kind == "bbm":
        assert f"(address {address:x})" in line
    levels = []
    for above in reversed(piece["above"]):
        level, at, word = re.fullmatch(r"level (\d) at 0x(\w+): 0x(\w+)", above).groups()  # type: ignore[union-attr]
        assert int(word, 16) == address >> 12 << 12 | 0b11
        assert f"(address {at}) (value {word})" in "".join(lines)
        levels.append(int(level))
        address = int(at, 16)
    assert levels == list(range(1, s.geo.start_level - 1, -1)) != []


def test_without_a_trace_evidence_names_the_line_and_no_record() -> None:
    s = rebuilt(parse_order("invalidate,install,tlbi,unmap").steps, trace_rows=0)
    [piece] = next(each.evidence for each in violations_of(s, 0) if each.kind == "bbm")
    path, line = piece["stored_at"].split(":")
    source = (Path(__file__).parents[2] / path).read_text().splitlines()[int(line) - 1]
    assert "s.tables, index" in source
    assert not piece.keys() & {"record", "trace_row"}


@pytest.mark.parametrize("steps", ["clean,install-nt,tlbi,unmap", "clean,install,tlbi,invalidate,unmap"])
def test_a_store_that_is_missing_has_no_line(steps: str, tmp_path: Path) -> None:
    """What the rebuild stored last, here the tear-down's, is not what left the entry so."""
    s = rebuilt(parse_order(steps).steps, bbm_level=2)
    found = violations_of(s, 0)
    name_records(tmp_path / "a.casemate", trace_of(s), found)
    [piece] = next(each.evidence for each in found if each.kind == "not-installed")
    assert piece.keys() >= {"entry", "above"}
    assert not piece.keys() & {"stored_at", "record", "trace_row"}


def test_a_full_trace_is_a_prefix() -> None:
    whole = lines_of(rebuilt(BLOCK_FIRST.steps))
    part = lines_of(rebuilt(BLOCK_FIRST.steps, trace_rows=20))
    assert len(part) < len(whole)
    assert part == whole[: len(part)]


def test_what_follows_a_row_that_was_never_completed_is_left_out() -> None:
    s = rebuilt(BLOCK_FIRST.steps)
    whole = lines_of(s)
    s.trace[20, W_KIND] = 0  # its writer was killed
    part = lines_of(s)
    assert 15 < len(part) < len(whole)
    assert part == whole[: len(part)]


def test_it_ends_with_the_last_rebuild_asked_for() -> None:
    ended = lines_of(rebuilt(BLOCK_FIRST.steps, trace_rebuilds=1))
    whole = lines_of(rebuilt(BLOCK_FIRST.steps))
    assert ended == whole[: len(ended)]
    assert ended[-1].startswith("(unlock ")
    assert sum("ipas2e1is" in line for line in ended) == 1, "that of the split; unmapping is left out"
    assert sum("ipas2e1is" in line for line in whole) > 1


@pytest.mark.parametrize(("vcpus", "tables", "beyond"), [(3, 8192, ""), (4, 8193, "4 vCPUs, more than 3; 8193 tables")])
def test_what_casemate_cannot_follow_is_named(vcpus: int, tables: int, beyond: str) -> None:
    s = small_machine(**TRACED, vcpus=vcpus)
    s.trace[:, W_KIND], s.trace[:, W_AT] = Traced.UNLOCK, 0
    above = s.geo.start_level + s.geo.root_pages
    s.trace[: tables - above, W_KIND] = Traced.ALLOCATE
    s.trace[: tables - above, W_AT] = np.arange(tables - above) + s.geo.root_pages
    assert trace_of(s).beyond.startswith(beyond)
    assert (trace_of(s).beyond == "") == (beyond == "")
    assert "tables" not in trace_of(rebuilt(BLOCK_FIRST.steps, 16384, 32 << 20)).beyond


def test_an_untraced_machine_keeps_nothing() -> None:
    s = rebuilt(BLOCK_FIRST.steps, trace_rows=0)
    assert s.trace.size == 0
    assert verdict(s) == ""
    assert len(lines_of(s)) == 15 + 6, "the table as it begins, and a core's registers"


def test_a_change_without_the_lock_is_seen() -> None:
    data = trace_of(rebuilt(BLOCK_FIRST.steps))
    data.changes = data.changes[~np.isin(data.changes[:, W_KIND], [Traced.LOCK, Traced.UNLOCK])]
    assert judge(b"".join(encoded(data)).decode().splitlines()).startswith("written without the root's lock")
