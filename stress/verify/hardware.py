"""What hardware does by itself: a vCPU's walker fills its TLB and walk cache at any time, from anything it can reach.

DDI 0487 D8: a translation may be cached speculatively, whether an access needs it or not, and so may the intermediate
entries of a walk. A walk that a TLBI overtakes leaves nothing.
"""

from __future__ import annotations

from stress.arch.descriptors import POISON
from stress.arch.geometry import LAST_LEVEL
from stress.kernels.codes import WALKED
from stress.kernels.conflict import fill_block
from stress.kernels.oracle import report
from stress.kernels.tlb import CPU_SEEN, MISS, Cpu, fill, lookup, sizes_held
from stress.kernels.vcpu import translate
from stress.kernels.walk import cache_walk, walk
from stress.shm.accounts import Kind
from stress.shm.layout import Machine
from stress.shm.words import SEQUENCE
from stress.verify.world import World

_AFTER_FREE = int(Kind.TABLE_USE_AFTER_FREE)


def speculate(world: World, s: Machine, cpu: Cpu, vcpu: int, gfn: int, tlb: int) -> bool:
    """Let a vCPU's hardware walk for ``gfn`` and keep in TLB and walk cache what it met; whether it kept anything.

    Word ``tlb`` stands for both caches. The walk is one step: a vCPU's own walks show what a walk meets that others
    overtake.
    """
    with world.one_step("walks by itself"):
        world.touch((tlb,), ())
        bits, seen = s.geo.index_bits, cpu.registers[CPU_SEEN]
        if s.control[SEQUENCE] != seen or lookup(cpu, bits, gfn, sizes_held(cpu)) != MISS:
            return False
        own = cpu._replace(path=[0] * len(cpu.path))  # type: ignore[arg-type]  # the vCPU may be in a walk itself
        descriptor, level, first = walk(s, own, gfn)
        if descriptor == POISON:
            report(s, _AFTER_FREE, vcpu, gfn, level, descriptor, 0, WALKED)
            return False
        translation = translate(s.geo, descriptor, level, gfn)
        if translation == MISS and first == level:
            return False
        world.touch((), (tlb,))
        world.words[tlb] = world.words.get(tlb, 0) + 1  # wakes an actor that waits until a word that it read changes
        if translation != MISS and level == LAST_LEVEL:
            fill(cpu, level, bits, gfn, translation)
        elif translation != MISS:
            fill_block(s, cpu, vcpu, level, gfn, translation, descriptor, -1, True)
        if first != level:
            cache_walk(own, bits, gfn, first, level)
        return True
