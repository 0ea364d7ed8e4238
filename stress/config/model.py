"""The configuration of a run as one validated record: its keys checked against each other, and what follows from them.

A field whose value follows from others, if no source sets it, is None while those are checked; the last validator fills
it in.
"""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import PrivateAttr, ValidationInfo, field_validator, model_validator

from stress.arch.geometry import BLOCK_SIZES, Geometry
from stress.backings import Backing
from stress.bugs import BUGS, Bug
from stress.config import blocks as rules
from stress.config import recovery, staged
from stress.config.run_keys import SECOND_NS, RunKeys, cores
from stress.config.values import LOGGING, Rebuilder, Scenario, choice, parsed, problem
from stress.errors import shown
from stress.guess import did_you_mean
from stress.orders import MAX_ORDERS, Order, parse_order
from stress.platforms import Platform, load
from stress.splits import SplitOrder, parse_split_order

#: The orders that a comparison compares by default.
COMPARED: Final = ("unmap-first", "block-first")


class RunConfig(RunKeys):
    """Everything that decides what a run does. Sizes in bytes, times in ns.

    Built in code by field name (pydantic's ``ValidationError``), from users by `from_sources` (`UsageError`).
    """

    _platform: Platform = PrivateAttr()
    _asked: tuple[Order, ...] = PrivateAttr()

    @field_validator("orders")
    @classmethod
    def _distinct(cls, orders: tuple[str, ...]) -> tuple[str, ...]:
        if not orders:
            raise problem("there is no order; give at least one")
        if len(orders) > MAX_ORDERS:
            raise problem(f"{len(orders)} orders, one run compares at most {MAX_ORDERS}; make it several runs")
        for index, name in enumerate(orders):
            if name in orders[:index]:
                steps = ",".join(parse_order(name).steps)
                raise problem(f"{name} is there twice; to compare it with itself, write the other one {steps}")
        return orders

    @field_validator("granule")
    @classmethod
    def _supported_granule(cls, granule: int) -> int:
        if granule not in BLOCK_SIZES:
            raise problem(f"no granule has {granule} bytes; use {choice(BLOCK_SIZES)}")
        return granule

    @field_validator("block_size", "backing", "phys_offset", "memory", "blocks")
    @classmethod
    def _possible(cls, value: Any, info: ValidationInfo) -> Any:
        """Check a key of guest memory against those above it that are right: a wrong one is not in ``info.data``."""
        data = info.data
        if not {"scenario", "granule", "ipa_bits"} <= data.keys():
            return value
        machine = data["scenario"], data["granule"], data["ipa_bits"]
        if info.field_name == "block_size":
            rules.check_block_size(value, *machine)
            return value
        if "block_size" not in data:
            return value
        if info.field_name == "backing":
            rules.check_backing(value, *machine, data["block_size"])
            return value
        if "backing" not in data:
            return value
        block = rules.block_of(data["backing"] or rules.default_backing(*machine, data["block_size"]), data["granule"])
        if info.field_name == "phys_offset":
            rules.check_phys_offset(value, *machine, block)
        elif "phys_offset" in data and info.field_name == "memory":
            parts = rules.parts(data["scenario"], data.get("vcpus", 1))  # a number that is wrong has its own problem
            rules.check_memory(value, parts, *machine, block, data["phys_offset"])
        elif "phys_offset" in data:
            rules.check_blocks(value, data["ipa_bits"], block, data["phys_offset"])
        return value

    @field_validator("blocks")
    @classmethod
    def _instead_of_memory(cls, blocks: int, info: ValidationInfo) -> int:
        if info.data.get("memory", 0) is not None:  # no value at all: one was given, and is wrong
            raise problem("given together with memory; give one of them")
        return blocks

    @field_validator("memslots")
    @classmethod
    def _cut(cls, memslots: int, info: ValidationInfo) -> int:
        data = info.data
        if memslots > 1 and data.get("scenario", LOGGING[0]) not in LOGGING:
            raise problem(f"scenario {data['scenario']} has one memslot; use scenario {', '.join(LOGGING)}")
        if data.get("memory") and {"scenario", "vcpus", "granule"} <= data.keys():
            memory = data["memory"] * rules.parts(data["scenario"], data["vcpus"])
            if memory < memslots * data["granule"]:
                raise problem(f"{memslots} memslots need a page each; use fewer, or more memory")
        return memslots

    @field_validator("yield_every")
    @classmethod
    def _under_mmu_lock(cls, entries: int, info: ValidationInfo) -> int:
        orders = info.data.get("orders", ())
        if entries and orders and not any(parse_order(name).tears_down_locked for name in orders):
            raise problem(f"{orders[0]} tears nothing down under mmu_lock; use another order, or leave it out")
        return entries

    @field_validator(*staged.KEYS)
    @classmethod
    def _in_stages(cls, value: Any, info: ValidationInfo) -> Any:
        staged.check(info.field_name or "", value, info.data)
        return value

    @field_validator(*recovery.KEYS)
    @classmethod
    def _after_logging(cls, value: Any, info: ValidationInfo) -> Any:
        data = info.data
        block = None
        if {"block_size", "backing", "granule", "ipa_bits", "scenario"} <= data.keys():
            backing = data["backing"] or rules.default_backing(
                data["scenario"], data["granule"], data["ipa_bits"], data["block_size"]
            )
            block = data["block_size"] or rules.block_of(backing, data["granule"])
        recovery.check(info.field_name or "", value, {**data, "block": block})
        return value

    @field_validator("platform")
    @classmethod
    def _loadable(cls, platform: str) -> str:
        parsed(load, platform)
        return platform

    @field_validator("inject")
    @classmethod
    def _known_bug(cls, inject: str | None) -> str | None:
        if inject is None:
            return None
        if inject not in BUGS:
            hint = did_you_mean(inject, BUGS, f"the bugs are {', '.join(BUGS)}")
            raise problem(f"unknown bug {shown(inject)}; {hint}")
        return inject

    @model_validator(mode="after")
    def _derive(self) -> Self:
        """Fill in the fields that no source set; every value that is set has been checked."""
        self._platform = load(self.platform)
        self._asked = tuple(map(parse_order, self.orders))
        given = dict(self.__dict__)
        granule, ipa_bits = self.granule, self.ipa_bits
        given["backing"] = self.backing or rules.default_backing(self.scenario, granule, ipa_bits, self.block_size)
        size = given["block_size"] = self.block_size or rules.block_of(given["backing"], granule)
        if self.memory:
            given["memory"] = self.memory * rules.parts(self.scenario, self.vcpus)
            given["blocks"] = given["memory"] // size
        else:
            room = rules.room_in_blocks(ipa_bits, size, self.phys_offset)
            given["blocks"] = self.blocks or min(rules.DEFAULT_BLOCKS, room)
            given["memory"] = given["blocks"] * size
        endless = self.rebuilds is None and self.passes is None
        derived = {
            "duration_ns": 10 * SECOND_NS if endless else None,
            "write_fraction": 1.0 if self.scenario is Scenario.DIRTY_LOG_PERF else 0.2,
            "rebuilder": Rebuilder.HYPERVISOR if self.scenario is Scenario.REBUILD else Rebuilder.VCPU,
            "fwb": self._platform.fwb,
            "bbm_level": self._platform.bbm_level,
            "pin": self.vcpus < cores(),
        }
        given |= {field: value for field, value in derived.items() if given[field] is None}
        given["recover"] = recovery.recovers(self.scenario, self.recover, given["rebuilder"])
        self.__dict__.update(given)  # the record is frozen for everybody else
        return self

    @property
    def bug(self) -> Bug | None:
        """The bug injected, if any."""
        return BUGS[self.inject] if self.inject else None

    @property
    def asked_orders(self) -> tuple[Order, ...]:
        """The orders under test as they were asked for, without the bug injected."""
        return self._asked

    @property
    def parsed_orders(self) -> tuple[Order, ...]:
        """The orders under test, with the steps that are executed: those of an injected bug."""
        return tuple(map(self.bug.rewrite, self._asked)) if self.bug else self._asked

    def looks_again(self, order: Order) -> bool:
        """Whether a rebuild by ``order`` is without mmu_lock before its block stands, and so has to look again."""
        return order.looks_again or (self.yield_every > 0 and order.tears_down_broken)

    @property
    def parsed_split_order(self) -> SplitOrder:
        """The split order."""
        return parse_split_order(self.split_order)

    @property
    def platform_profile(self) -> Platform:
        """The platform's features and costs. `fwb` and `bbm_level` here overrule its own."""
        return self._platform

    def on(self, platform: Platform) -> Self:
        """The same configuration with the costs of another machine; features that followed from its own stay."""
        moved = self.model_copy()
        moved._platform = platform
        return moved

    @property
    def only_predicted(self) -> str:
        """The problem with running this configuration instead of predicting it, after the key; "" if there is none."""
        return "" if self.cores is None else "a live run has this machine's cores; leave it out, or use stress predict"

    @property
    def geometry(self) -> Geometry:
        """The table's geometry."""
        return Geometry(self.granule, self.ipa_bits)

    @property
    def block_level(self) -> int:
        """The level whose entries are the blocks."""
        return self.geometry.block_level(self.block_size)

    @property
    def has_blocks(self) -> bool:
        """Whether stage 2 may map guest memory by blocks at all."""
        return self.backing is not Backing.ANONYMOUS and self.phys_offset % self.block_size == 0

    @property
    def chunk_blocks(self) -> int:
        """Blocks over which eager splitting and recovery hold mmu_lock."""
        return self.chunk // self.block_size if self.chunk else self.batch

    @property
    def pages(self) -> int:
        """Pages of guest memory."""
        return self.memory // self.granule

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the unit in each key."""
        return self.model_dump(mode="json", by_alias=True) | {
            "platform_profile": self._platform.model_dump(mode="json")
        }
