"""The programs of vCPUs in the stages of a scenario: data, which each executor plays in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

NO_HEAD, READ_HEAD, WRITE_HEAD = range(3)
NEVER: Final = 0
ALWAYS: Final = 4096

#: Cycles of scenario ``thp`` from one move of the memslot to the next.
MOVE_EVERY: Final = 8


@dataclass(frozen=True, slots=True)
class Program:
    """The accesses of one vCPU in a stage, in pages.

    For each of its groups of ``group`` pages from page ``first`` on: access the group's first page if there is a
    ``head``, then ``run`` pages from page ``skip`` of the group on, of which it writes ``write_below`` in `ALWAYS`.
    """

    groups: int
    group: int = 1
    first: int = 0
    head: int = NO_HEAD
    skip: int = 0
    run: int = 0
    write_below: int = NEVER
    pattern: int | None = None  # instead, draw the pages that a program of single groups would access in turn


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that vCPUs play: its name as the selftest has it, and each vCPU's program."""

    name: str
    #: Whether dirty logging is on meanwhile.
    logged: bool
    program: Callable[[int], Program]


def own_part(pages: int, vcpus: int, vcpu: int, overlap: bool, write_below: int) -> Program:
    """Access every page of a vCPU's part of ``pages`` once, in turn; all of them if vCPUs overlap."""
    if overlap:
        return Program(pages, run=1, write_below=write_below)
    first = pages * vcpu // vcpus
    return Program(pages * (vcpu + 1) // vcpus - first, first=first, run=1, write_below=write_below)


def page_table_test(pages: int, large: int) -> tuple[Stage, ...]:
    """The stages of KVM's ``kvm_page_table_test`` (Linux 6.1) over ``pages``, of which ``large`` are a large page."""
    # Even vCPUs write, odd ones read, the first page of every large page.
    create = [Program(-(-pages // large), large, head=head) for head in (WRITE_HEAD, READ_HEAD)]
    # Write the first page of each large page, which splits it, then read its upper half.
    update = Program(pages // large, large, head=WRITE_HEAD, skip=large - large // 2, run=large // 2)
    # Read every page from the start: the second one faults, and the block is rebuilt.
    adjust = Program(pages, run=1)
    return (
        Stage("KVM_CREATE_MAPPINGS", False, lambda vcpu: create[vcpu % 2]),
        Stage("KVM_UPDATE_MAPPINGS", True, lambda vcpu: update),
        Stage("KVM_ADJUST_MAPPINGS", False, lambda vcpu: adjust),
    )
