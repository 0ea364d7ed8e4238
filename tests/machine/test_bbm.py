"""Break-before-make: the full truth table against an oracle of its own, and good and bad sequences of stores."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest

from stress.arch import bbm
from stress.arch.descriptors import (
    AF_SET,
    CONTIGUOUS,
    DBM,
    KIND_BROKEN_LEAF,
    KIND_BROKEN_TABLE,
    KIND_LOCKED,
    NT,
    POISON,
    S2AP_W,
    SOFTWARE,
    broken,
    leaf_attributes,
)
from stress.arch.geometry import BLOCK_SIZES, KIB, Geometry

RW = leaf_attributes(fwb=True)
BREAK_CLOCK = 10


@dataclass(frozen=True)
class Entry:
    """An entry's meaning; `word` is how it is written."""

    what: str  # clean, locked, broken-leaf, broken-table, leaf, table, poison
    address: int = 0
    bits: int = 0  # permissions, AF, software bits: nothing that needs a break
    nt: bool = False

    def word(self, level: int) -> int:
        kind = 0b01 if self.what == "leaf" and level < 3 else 0b11
        match self.what:
            case "clean":
                return 0
            case "locked":
                return KIND_LOCKED << 1
            case "poison":
                return POISON
            case "broken-leaf":
                return broken(KIND_BROKEN_LEAF, 7, BREAK_CLOCK)
            case "broken-table":
                return broken(KIND_BROKEN_TABLE, 7, BREAK_CLOCK)
            case "leaf":
                return self.address | RW | self.bits | (NT.mask if self.nt else 0) | kind
            case _:
                return self.address | kind

    @property
    def valid(self) -> bool:
        return self.what in ("leaf", "table")


def resizes(block: Entry, bbm_level: int) -> bool:
    """Whether a table may become this block, or it a table, without a break; a table here if it is not known."""
    return {0: False, 1: block.nt, 2: True, 3: True}[bbm_level]


def oracle(old: Entry, new: Entry, old_level: int, tlbi_done: int, bbm_level: int) -> int:
    """The rule in words: DDI 0487 D8.14.1 and FEAT_BBM."""
    if old.what == "poison":
        return bbm.FREED
    if not new.valid:
        return bbm.OK  # whatever it was, breaking it is always allowed
    if old.what in ("broken-leaf", "broken-table"):
        was = "leaf" if old.what == "broken-leaf" else "table"
        if tlbi_done >= BREAK_CLOCK + 1 or (old_level < 3 and was != new.what and resizes(new, bbm_level)):
            return bbm.OK
        return bbm.NO_TLBI
    if old.what in ("clean", "locked"):
        return bbm.OK  # no TLB holds anything of it
    if old.what != new.what:
        return bbm.OK if resizes(old if old.what == "leaf" else new, bbm_level) else bbm.NO_BREAK_SIZE
    return bbm.OK if old.address == new.address else bbm.NO_BREAK_ADDRESS


def entries(geometry: Geometry, level: int) -> list[Entry]:
    """Everything an entry at this level may hold, with several addresses and attributes."""
    size = geometry.level_size(level)
    found = [Entry(what) for what in ("clean", "locked", "broken-leaf", "broken-table", "poison")]
    if level == 3 or level in BLOCK_SIZES[geometry.granule]:
        # Bit 16 is an address bit of a small page and nT of a block; the last address differs in the top bit.
        for address in (1 << 40, (1 << 40) + size, 1 << 40 | 1 << 47, 1 << 40 | max(size, 1 << 16)):
            leaf = Entry("leaf", address)
            found += [leaf, replace(leaf, bits=S2AP_W | SOFTWARE.place(5) | DBM.mask | CONTIGUOUS.mask)]
            if level < 3:
                found.append(replace(leaf, nt=True))
    if level < 3:
        found += [Entry("table", (1 << 32) + geometry.granule * page) for page in (0, 1, 16)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("granule", sorted(BLOCK_SIZES), ids=lambda g: f"{g // KIB}K")
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_whole_truth_table(granule: int, level: int) -> None:
    held = entries(Geometry(granule), level)
    seen = set()
    for old, new in itertools.product(held, held):
        for bbm_level, done in itertools.product((0, 1, 2, 3), (0, BREAK_CLOCK, BREAK_CLOCK + 1, 1000)):
            expected = oracle(old, new, level, done, bbm_level)
            found = bbm.verdict(old.word(level), new.word(level), level, done, bbm_level)
            assert found == expected, (old, new, done, bbm_level)
            seen.add(found)
    possible = {bbm.OK, bbm.NO_TLBI, bbm.FREED, bbm.NO_BREAK_ADDRESS}
    if level < 3 and level in BLOCK_SIZES[granule]:
        possible.add(bbm.NO_BREAK_SIZE)
    assert seen == possible, "every verdict occurs where it can"


def test_every_verdict_has_words() -> None:
    codes = (bbm.OK, bbm.NO_BREAK_SIZE, bbm.NO_BREAK_ADDRESS, bbm.NO_TLBI, bbm.FREED, bbm.NT_CLEARED)
    assert codes == tuple(range(len(bbm.VERDICTS)))
    assert len(set(bbm.VERDICTS)) == len(codes)


TABLE = (1 << 32) | 0b11
BLOCK = (1 << 40) | RW | 0b01
OTHER_BLOCK = (1 << 40) + (1 << 30) | RW | 0b01
READ_ONLY = BLOCK & ~S2AP_W
OLD_BLOCK = BLOCK & ~AF_SET
LOCKED = KIND_LOCKED << 1
NT_BLOCK = BLOCK | NT.mask
NT_OTHER_BLOCK = OTHER_BLOCK | NT.mask

BREAK, TLBI, STALE_TLBI, TLBI_BY_IPA = "break", "tlbi", "a tlbi that was published before the break", "ipas2e1"
GOOD: list[tuple[str, int, list[str | int]]] = [
    ("table to block", 0, [TABLE, BREAK, TLBI, BLOCK]),
    ("block to table", 0, [BLOCK, BREAK, TLBI, TABLE]),
    ("leaf broken, its own IPA flushed", 0, [BLOCK, BREAK, TLBI_BY_IPA, OTHER_BLOCK]),
    ("two tlbis", 0, [TABLE, BREAK, TLBI, TLBI, BLOCK]),
    ("broken twice", 0, [TABLE, BREAK, TLBI, BLOCK, BREAK, TLBI, OTHER_BLOCK]),
    ("permissions relaxed and tightened", 0, [READ_ONLY, BLOCK, READ_ONLY]),
    ("access flag", 0, [OLD_BLOCK, BLOCK]),
    ("locked, then mapped", 0, [LOCKED, BLOCK]),
    ("same again", 0, [BLOCK, BLOCK]),
    ("nT set and cleared", 0, [BLOCK, NT_BLOCK, BLOCK]),
    ("level 1: through nT", 1, [TABLE, NT_BLOCK, TLBI, BLOCK]),
    ("level 1: from nT to a table", 1, [BLOCK, NT_BLOCK, TABLE]),
    ("level 2: no break", 2, [TABLE, BLOCK, TABLE]),
    ("level 3: no break", 3, [TABLE, BLOCK, TABLE]),
    ("level 2: a break without its TLBI is no worse than none", 2, [TABLE, BREAK, BLOCK, BREAK, TABLE]),
    ("level 1: nor where the block has nT", 1, [TABLE, BREAK, NT_BLOCK, TLBI, BLOCK]),
]
BAD: list[tuple[str, int, list[str | int], int]] = [
    ("no break", 0, [TABLE, BLOCK], bbm.NO_BREAK_SIZE),
    ("no break, other way", 0, [BLOCK, TABLE], bbm.NO_BREAK_SIZE),
    ("nT does not help at level 0", 0, [TABLE, NT_BLOCK], bbm.NO_BREAK_SIZE),
    ("level 1 needs nT", 1, [TABLE, BLOCK], bbm.NO_BREAK_SIZE),
    ("block moved", 0, [BLOCK, OTHER_BLOCK], bbm.NO_BREAK_ADDRESS),
    ("block moved at level 1", 1, [NT_BLOCK, NT_OTHER_BLOCK], bbm.NO_BREAK_ADDRESS),
    ("block moved at level 2", 2, [BLOCK, OTHER_BLOCK], bbm.NO_BREAK_ADDRESS),
    ("other table", 2, [TABLE, TABLE + 4096], bbm.NO_BREAK_ADDRESS),
    ("no tlbi", 0, [TABLE, BREAK, BLOCK], bbm.NO_TLBI),
    ("no tlbi at level 1, and no nT", 1, [TABLE, BREAK, BLOCK], bbm.NO_TLBI),
    ("nT does not help at level 0, whatever was broken", 0, [TABLE, BREAK, NT_BLOCK], bbm.NO_TLBI),
    ("no tlbi at level 3, and another block", 3, [BLOCK, BREAK, OTHER_BLOCK], bbm.NO_TLBI),
    ("no tlbi at level 3, and another table", 3, [TABLE, BREAK, TABLE + 4096], bbm.NO_TLBI),
    (
        "the block that was broken may have had nT, which nobody knows any more",
        1,
        [NT_BLOCK, BREAK, TABLE],
        bbm.NO_TLBI,
    ),
    ("no tlbi, back to the same block", 0, [BLOCK, BREAK, BLOCK], bbm.NO_TLBI),
    ("tlbi before the break", 0, [TABLE, TLBI, BREAK, BLOCK], bbm.NO_TLBI),
    ("tlbi published before the break", 0, [TABLE, BREAK, STALE_TLBI, BLOCK], bbm.NO_TLBI),
    ("one IPA is not enough for a table (3a0b870e3448)", 0, [TABLE, BREAK, TLBI_BY_IPA, BLOCK], bbm.NO_TLBI),
    ("tlbi of the break before", 0, [TABLE, BREAK, TLBI, BLOCK, BREAK, OTHER_BLOCK], bbm.NO_TLBI),
    ("store to a freed table", 0, [POISON, BLOCK], bbm.FREED),
    ("break in a freed table", 0, [POISON, BREAK], bbm.FREED),
]


def play(actions: list[str | int], bbm_level: int, level: int = 1) -> list[int]:
    """Verdicts of the stores of a sequence on one entry; the first action is what the entry holds."""
    word, *rest = actions
    assert isinstance(word, int)
    sequence = done = 41  # TLBIs published, newest VMID-wide one completed
    verdicts = []
    for action in rest:
        if action == TLBI:
            sequence += 1
            done = sequence
            continue
        if action == STALE_TLBI:
            done = sequence  # completes now, but its number is the clock at which the break was made
            continue
        if action == TLBI_BY_IPA:
            sequence += 1  # which covers all of a leaf, and `tlbi_entry` clears its entry; not all below a table
            new = 0 if word == broken(KIND_BROKEN_LEAF, 1, sequence - 1) else word
        elif action == BREAK:
            new = broken(KIND_BROKEN_TABLE if word & 0b11 == 0b11 else KIND_BROKEN_LEAF, 1, sequence)
        else:
            assert isinstance(action, int)
            new = action
        verdicts.append(bbm.verdict(word, new, level, done, bbm_level))
        word = new
    return verdicts


@pytest.mark.parametrize(("bbm_level", "actions"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_good_sequences(bbm_level: int, actions: list[str | int]) -> None:
    verdicts = play(actions, bbm_level)
    assert verdicts
    assert set(verdicts) == {bbm.OK}


@pytest.mark.parametrize(("bbm_level", "actions", "verdict"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_sequences(bbm_level: int, actions: list[str | int], verdict: int) -> None:
    *before, last = play(actions, bbm_level)
    assert set(before) <= {bbm.OK}, "only the last store is wrong"
    assert last == verdict
