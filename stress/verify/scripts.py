"""What the hypervisor does while vCPUs access the block, by the name of a scenario, and what there is before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from stress.kernels.dirty import harvest, set_logging, stop_logging_at
from stress.kernels.notifier import invalidate_end, invalidate_start, move_frames
from stress.kernels.rebuild import rebuild
from stress.kernels.recover import recover
from stress.kernels.split import populate, split, write_unmapped
from stress.kernels.teardown import reap
from stress.shm.layout import Machine

_ALL: Final = 1 << 20  # shares of a block are counted in 2**-20

#: A part of a script: it has the machine, and how many of a block's pages are mapped.
Part = Callable[[Machine, int], object]


class Guests(Enum):
    """What vCPUs access, in turn."""

    READ_THEN_WRITE_NEXT = auto()  # each reads one page, then writes the next
    WRITE_ONE = auto()  # each writes one page again and again
    READ_THEN_WRITE_SAME = auto()  # all read one page, then write it


@dataclass(frozen=True, slots=True)
class Script:
    """A scenario on the toy machine."""

    does: str
    before: Part
    then: Part
    shares: bool = False  # mmu_lock with the vCPUs, where they share it; else the hypervisor takes it alone
    rebuilds: bool = False  # by the order under test, whoever is asked to
    splits: bool = False  # by the split order, the hypervisor
    moves: bool = False  # frames: there are as many again to move to
    scatters: bool = False  # then by pages: a huge page may be gone
    invalidates: bool = True  # a TLBI is part of it, whatever vCPUs do
    logs: bool = False  # dirty pages, and stops
    guests: Guests = Guests.READ_THEN_WRITE_NEXT


def _table(s: Machine, populated: int) -> None:
    """Each block is a table that maps some pages; the host wrote the others."""
    who, pages = s.geo.hypervisor, s.geo.pages // s.geo.blocks
    for gfn in range(s.geo.base_gfn, s.geo.base_gfn + s.geo.pages, pages):
        assert split(s, who, gfn, _ALL * populated // pages, True, True) == 0
        write_unmapped(s, who, gfn)


def _block(s: Machine, populated: int) -> None:
    assert populate(s, s.geo.hypervisor, s.geo.base_gfn) == 0


def _logged_block(s: Machine, populated: int) -> None:
    _block(s, populated)
    set_logging(s, s.geo.hypervisor, 1)


def _logged_table(s: Machine, populated: int) -> None:
    _table(s, s.geo.pages)
    set_logging(s, s.geo.hypervisor, 1)


def _rebuild(s: Machine, populated: int) -> None:
    rebuild(s, s.geo.hypervisor, s.geo.base_gfn)
    reap(s, s.geo.hypervisor)


def _reap(s: Machine, populated: int) -> None:
    reap(s, s.geo.hypervisor)


def _split(s: Machine, populated: int) -> None:
    split(s, s.geo.hypervisor, s.geo.base_gfn, _ALL, True, False)


def _replace_frames(s: Machine, pages: int, mix: int, huge: int) -> None:
    """Unmap so many pages of the block, move each page i to frame ``i ^ mix`` of the next, let it be mapped there."""
    who, new = s.geo.hypervisor, s.geo.pages
    invalidate_start(s, who, s.geo.base_gfn, 0, pages)
    move_frames(s, 0, 0, new, mix, pages)
    invalidate_end(s, who, 0, pages, new, mix, huge)
    reap(s, who)


def _move(s: Machine, populated: int) -> None:
    """As a collapse to a huge page."""
    _replace_frames(s, s.geo.pages, 0, 1)


def _scatter(s: Machine, populated: int) -> None:
    """As compaction: mapped again by pages. Where there are more than two, the last one stays, as if pinned."""
    whole = s.geo.pages == 2
    _replace_frames(s, s.geo.pages if whole else s.geo.pages - 1, int(whole), 0)


def _harvest(s: Machine, populated: int) -> None:
    """A harvest of the dirty bitmap, then the end of logging."""
    who, first = s.geo.hypervisor, s.geo.base_gfn
    harvest(s, who, [0] * len(s.dirty))
    stop_logging_at(s, who, first, first + s.geo.pages)
    reap(s, who)


def recover_block(s: Machine) -> None:
    """Who stopped dirty logging makes a block of the table that it left, if any."""
    who, first = s.geo.hypervisor, s.geo.base_gfn
    recover(s, who, first, first + s.geo.pages)
    reap(s, who)


SCRIPTS: Final = {
    "rebuild": Script("a table becomes a block by the order under test", _table, _rebuild, shares=True, rebuilds=True),
    "faults": Script("vCPUs fault; the hypervisor does nothing", _table, _reap, shares=True, invalidates=False),
    "split": Script("a block becomes pages at once", _block, _split, splits=True),
    "thp": Script("the host moves the block's frames, as a collapse does", _table, _move, moves=True),
    "compaction": Script(
        "the host moves the block's pages, and no huge page is left", _table, _scatter, moves=True, scatters=True
    ),
    "migration": Script(
        "dirty logging: a harvest, then its end", _logged_block, _harvest, logs=True, guests=Guests.WRITE_ONE
    ),
    "relax": Script(
        "vCPUs write to a page that dirty logging has write-protected",
        _logged_table,
        _reap,
        shares=True,
        guests=Guests.READ_THEN_WRITE_SAME,
    ),
}
