"""A schedule as an engineer reads it: a column per actor, with the entry, its table and each TLB beside them."""

from __future__ import annotations

from collections.abc import Sequence

from stress.arch.descriptors import NT, POISON, S2AP_W
from stress.arch.geometry import LAST_LEVEL
from stress.kernels.descriptor import WRITE, first_frame, is_leaf, is_table, next_page, window_of
from stress.kernels.tlb import CACHED, EMPTY, PER_LEVEL, Cpu
from stress.results.counterexamples import FOUND
from stress.shm import words
from stress.verify.hooks import BESIDE
from stress.verify.scene import Scene

_CONTROL = {
    words.SEQUENCE: "TLBI number",
    words.LOCK: "mmu_lock",
    words.TLBI_DONE: "TLBI done",
    words.HOST_SEQUENCE: "host sequence",
    words.POOL_LOCK: "pool lock",
    words.POOL_HEAD: "pool head",
    words.POOL_TAIL: "pool tail",
}
#: The rule that a violation breaks (DDI 0487, section D8; names as in the manual).
RULES = {
    "bbm": "R_WHZWS, R_DDMVT: break-before-make",
    "tlb-conflict": "I_HYQMB: two sizes for one address, no TLBI between them",
    "stale-translation": "R_GPPYH: a change needs a TLBI; I_DMCXY: and its completion",
    "table-use-after-free": "R_GPPYH, I_DMCXY: a walker may hold a table until a TLBI has completed",
    "not-at-poc": "accesses with caches off read from the Point of Coherency (D7.5)",
    "not-installed": "R_HHCXC where nT is left set; else the order's own promise",
}


def describe(scene: Scene, descriptor: int, level: int) -> str:
    """A descriptor in words."""
    geo = scene.s.geo
    if descriptor == POISON:
        return "freed"
    if is_table(descriptor, level):
        return f"table {next_page(geo, descriptor)}"
    if is_leaf(descriptor, level):
        kind = "page" if level == LAST_LEVEL else "block"
        nt = " nT" if level < LAST_LEVEL and descriptor & NT.mask else ""
        return f"{kind}{nt} at {first_frame(geo, descriptor, level)}{'' if descriptor & S2AP_W else ' read-only'}"
    if window_of(descriptor):
        return "broken"
    return "empty" if descriptor == 0 else "locked"


def name_word(scene: Scene, word: int, value: int) -> str:
    """``what = value`` of a word."""
    region, index = scene.world.about(word)
    geo = scene.s.geo
    if region == "control" and index[0] in _CONTROL:
        return f"{_CONTROL[index[0]]} = {value}"
    if region == "tables":
        page, slot = index[0] >> geo.index_bits, index[0] & (1 << geo.index_bits) - 1
        if page < geo.root_pages:
            which = f" {index[0]}" if len(scene.entries) > 1 else ""
            return f"entry{which} = {describe(scene, value, geo.start_level)}"
        return f"table {page}[{slot}] = {describe(scene, value, LAST_LEVEL)}"
    if region == "cells":
        poc = ", not at the PoC" if value & words.NOT_AT_POC else ""
        return f"frame {index[0]} = {value & words.VALUE_MASK}{poc}"
    return f"{region}{list(index)} = {value}"


def tlb_of(scene: Scene, cpu: Cpu) -> str:
    """The translations and table pointers that a vCPU's TLB and walk cache hold, in words."""
    geo = scene.s.geo
    held = []
    for level in range(1, LAST_LEVEL + 1):
        for at in range(level * PER_LEVEL, (level + 1) * PER_LEVEL):
            if cpu.key[at] != EMPTY:
                page = (cpu.key[at] << (LAST_LEVEL - level) * geo.index_bits) - geo.base_gfn
                what = f"page {page}" if level == LAST_LEVEL else "block"
                if level < LAST_LEVEL and len(scene.entries) > 1:
                    what += f" {cpu.key[at]}"
                held.append(f"{what}>{cpu.value[at] >> 2}{'' if cpu.value[at] & WRITE else ' ro'}")
        for at in range(level * CACHED, (level + 1) * CACHED):
            if cpu.walk_key[at] != EMPTY:
                held.append(f"table {cpu.walk_page[at]}")
    return ", ".join(held) or "-"


class Columns:
    """Plays a schedule and keeps a row per step."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._texts: list[str] = []
        self._next: dict[int, list[str]] = {}
        self.names = [one.name for one in scene.world.team]
        self.rows: list[list[str]] = []
        self.found = 0  # the number of the last row in which a violation was found

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        blocks = ["entry", "table"]
        if len(self._scene.entries) > 1:
            blocks = [f"{name} {entry}" for entry in self._scene.entries for name in blocks]
        return ["step", *self.names, *blocks, *(f"TLB {vcpu}" for vcpu in range(len(self._scene.cpus)))]

    def play(self, choices: Sequence[int]) -> None:
        """Play a schedule's choices, and from there on to the end by the first actor that can go on."""
        world = self._scene.world
        world.watcher, world.listener = self._watch, self._note
        world.reset()
        last = self._state()
        self.rows = [["", *("" for _ in self.names), *last]]
        step, at = 0, 0
        while enabled := world.enabled():
            while at < len(choices) and choices[at] not in enabled:
                at += 1
            actor = choices[at] if at < len(choices) else enabled[0]
            at += 1
            step += 1
            self._texts = self._next.pop(actor, [])
            world.step(actor)
            state = self._state()
            changed = [now if now != before else "" for now, before in zip(state, last, strict=True)]
            column = actor % len(self.names)
            if self._texts or any(changed):
                cells = ["; ".join(self._texts) if each == column else "" for each in range(len(self.names))]
                self.rows.append([str(step), *cells, *changed])
            last = state
        world.watcher = world.listener = None
        if self.found:
            del self.rows[self.found + 1 :]

    def _watch(self, actor: int, verb: str, word: int, value: int) -> None:
        if self._scene.world.about(word)[0] == "tlbi":
            return  # words of a published invalidation, which is shown by its number
        what = name_word(self._scene, word, value)
        if verb == "sets" and self._texts and self._texts[-1].startswith("updates "):
            self._texts.pop()  # the old value, which the line above or the state beside it shows
        self._texts.append(f"{verb} {what}")

    def _note(self, actor: int, text: str) -> None:
        if text.startswith(("[", BESIDE, "faults")):
            self._next.setdefault(actor, []).append(text)  # shown with the actor's next step
        else:
            self._texts.append(text)
            if text.startswith(FOUND):
                self.found = len(self.rows)

    def _state(self) -> list[str]:
        scene = self._scene
        geo = scene.s.geo
        blocks = []
        for entry, table in zip(scene.entries, scene.tables, strict=True):
            held = [scene.s.tables[(table << geo.index_bits) + slot] for slot in range(1 << geo.index_bits)]
            children = [describe(scene, each, LAST_LEVEL).removeprefix("page at ") for each in held]
            blocks += [describe(scene, scene.s.tables[entry], geo.start_level), f"{table}: " + ", ".join(children)]
        return [*blocks, *(tlb_of(scene, cpu) for cpu in scene.cpus)]
