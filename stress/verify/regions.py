"""Arrays whose words are a world's, indexed as kernels index numpy's: each access to a word may stop."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

Index = int | tuple[int, ...]


class Memory(Protocol):
    """An object that has words."""

    words: dict[int, int]  # word -> its value, if that is not 0
    #: Words that the current actor alone uses: it loads and stores these without asking.
    own_loads: Collection[int]
    own_stores: Collection[int]

    def load(self, at: int) -> int:
        """Load a word."""

    def store(self, at: int, value: int) -> None:
        """Store to a word."""


class Region:
    """An array of words of a world, indexed as kernels index numpy's."""

    __slots__ = ("_base", "_parts", "_strides", "_words", "_world", "shape")

    def __init__(self, world: Memory, base: int, shape: tuple[int, ...]) -> None:
        self._world = world
        self._base = base
        self.shape = shape
        strides = [1]
        for extent in reversed(shape[1:]):
            strides.insert(0, strides[0] * extent)
        self._strides = strides
        # By the indices that were used.
        self._words: dict[Index, int] = {}
        self._parts: dict[Index, Region] = {}

    def __len__(self) -> int:
        return self.shape[0]

    def place(self, index: Index) -> int:
        """The first word at an index."""
        at = self._base
        for depth, one in enumerate(index if isinstance(index, tuple) else (index,)):
            extent = self.shape[depth]
            if not 0 <= one < extent:
                raise IndexError(f"index {one} of {extent}")
            at += one * self._strides[depth]
        return at

    def _word(self, index: Index) -> int:
        """The place of a word, or -1 if the index is that of a part."""
        given = len(index) if isinstance(index, tuple) else 1
        self._words[index] = at = self.place(index) if given == len(self.shape) else -1
        return at

    def _part(self, index: Index) -> Region:
        if index not in self._parts:
            given = len(index) if isinstance(index, tuple) else 1
            self._parts[index] = part_of(self._world, self.place(index), self.shape[given:])
        return self._parts[index]

    def __getitem__(self, index: Index) -> Any:
        at = self._words.get(index)
        if at is None:
            at = self._word(index)
        if at < 0:
            return self._part(index)
        world = self._world
        return world.words.get(at, 0) if at in world.own_loads else world.load(at)

    def __setitem__(self, index: Index, value: int) -> None:
        at = self._words.get(index)
        if at is None:
            at = self._word(index)
        world = self._world
        if at in world.own_stores:
            world.words[at] = int(value)
        else:
            world.store(at, int(value))


class Row(Region):
    """A region with one extent, as most regions are."""

    __slots__ = ()

    def __getitem__(self, index: Index) -> Any:
        if not 0 <= index < self.shape[0]:  # type: ignore[operator]
            raise IndexError(f"index {index} of {self.shape[0]}")
        at = self._base + index  # type: ignore[operator]
        world = self._world
        return world.words.get(at, 0) if at in world.own_loads else world.load(at)

    def __setitem__(self, index: Index, value: int) -> None:
        if not 0 <= index < self.shape[0]:  # type: ignore[operator]
            raise IndexError(f"index {index} of {self.shape[0]}")
        at = self._base + index  # type: ignore[operator]
        world = self._world
        if at in world.own_stores:
            world.words[at] = int(value)
        else:
            world.store(at, int(value))


def part_of(world: Memory, base: int, shape: tuple[int, ...]) -> Region:
    """The region of some of a world's words."""
    return Row(world, base, shape) if len(shape) == 1 else Region(world, base, shape)
