/* The software TLB and its walk cache: stress/kernels/tlb.py. */
#pragma once

#include "atomics.h"

static inline int64_t lookup_level(const struct cpu *cpu, int64_t level, int64_t bits, int64_t gfn)
{
	const int64_t low = (LAST_LEVEL - level) * bits;
	const int64_t key = gfn >> low;
	const int64_t at = level * PER_LEVEL + (key & (SETS - 1)) * WAYS;

	for (int way = 0; way < WAYS; way++)
		if (cpu->key[at + way] == key)
			return cpu->value[at + way] + ((gfn & ((INT64_C(1) << low) - 1)) << 2);
	return MISS;
}

static inline int64_t sizes_held(const struct cpu *cpu)
{
	return (cpu->live[1] != 0) << 1 | (cpu->live[2] != 0) << 2 | (cpu->live[3] != 0) << 3;
}

static inline int64_t lookup(const struct cpu *cpu, int64_t bits, int64_t gfn, int64_t sizes)
{
	int64_t translation = MISS;

	if (sizes & 1 << 3)
		translation = lookup_level(cpu, 3, bits, gfn);
	if (translation == MISS && sizes & 1 << 2)
		translation = lookup_level(cpu, 2, bits, gfn);
	if (translation == MISS && sizes & 1 << 1)
		translation = lookup_level(cpu, 1, bits, gfn);
	return translation;
}

static inline void fill(const struct cpu *cpu, int64_t level, int64_t bits, int64_t gfn, int64_t translation)
{
	const int64_t low = (LAST_LEVEL - level) * bits;
	const int64_t key = gfn >> low;
	const int64_t group = level * SETS + (key & (SETS - 1));
	const int64_t way = cpu->turn[group];
	const int64_t at = group * WAYS + way;

	cpu->turn[group] = (way + 1) & (WAYS - 1);
	if (cpu->key[at] == EMPTY)
		cpu->live[level]++;
	cpu->key[at] = key;
	cpu->value[at] = translation - ((gfn & ((INT64_C(1) << low) - 1)) << 2);
}

/* Level of a live entry of a smaller size inside the new entry's range, or -1. */
static int64_t overlapping(const struct cpu *cpu, int64_t level, int64_t bits, int64_t gfn)
{
	const int64_t key = gfn >> ((LAST_LEVEL - level) * bits);

	for (int64_t smaller = level + 1; smaller < LEVELS; smaller++) {
		if (cpu->live[smaller] == 0)
			continue;
		const int64_t *entry = cpu->key + smaller * PER_LEVEL;
		const int64_t down = (smaller - level) * bits;
		int64_t found = 0;
		for (int at = 0; at < PER_LEVEL; at++)
			found += entry[at] >> down == key;
		if (found)
			return smaller;
	}
	return -1;
}

/* Empties the slots whose key is in [first, last], of the `sets` sets of `ways` at `keys`; how many. */
static inline int64_t forget(int64_t *keys, int64_t sets, int64_t ways, int64_t first, int64_t last)
{
	const int64_t most = first + sets - 1;
	int64_t forgotten = 0;

	for (int64_t key = first; key <= (last < most ? last : most); key++) {
		int64_t *group = keys + (key & (sets - 1)) * ways;
		for (int64_t way = 0; way < ways; way++) {
			if (first <= group[way] && group[way] <= last) {
				group[way] = EMPTY;
				forgotten++;
			}
		}
	}
	return forgotten;
}

/* Forgets what translates, or helps to walk to, one guest frame: one key per level, in one set each. */
static void flush_page(const struct cpu *cpu, int64_t bits, int64_t gfn)
{
	for (int64_t level = 1; level < LEVELS; level++) {
		const int64_t key = gfn >> ((LAST_LEVEL - level) * bits), above = key >> bits;
		int64_t *group = &cpu->key[level * PER_LEVEL + (key & (SETS - 1)) * WAYS];
		int64_t *slot = &cpu->walk_key[level * CACHED + (above & (CACHED - 1))];

		for (int64_t way = 0; way < WAYS; way++) {
			if (group[way] == key) {
				group[way] = EMPTY;
				cpu->live[level]--;
			}
		}
		if (*slot == above)
			*slot = EMPTY;
	}
}

/* Forgets what translates, or helps to walk to, guest frames [start, end). */
static void flush_range(const struct cpu *cpu, int64_t bits, int64_t start, int64_t end)
{
	if (end - start == 1) {
		flush_page(cpu, bits, start);
		return;
	}
	for (int64_t level = 1; level < LEVELS; level++) {
		const int64_t low = (LAST_LEVEL - level) * bits;

		if (cpu->live[level] != 0)
			cpu->live[level] -=
				forget(&cpu->key[level * PER_LEVEL], SETS, WAYS, start >> low, (end - 1) >> low);
		forget(&cpu->walk_key[level * CACHED], CACHED, 1, start >> (low + bits), (end - 1) >> (low + bits));
	}
}

/* Applies the invalidations published since number `seen`; returns the number caught up with. */
static int64_t catch_up(const struct machine *m, const struct cpu *cpu, int64_t seen)
{
	const int64_t now = load(&m->control[SEQUENCE]);

	if (unlikely(now - seen >= m->geo.tlbi_rows))
		abort(); /* fell behind the ring */
	for (int64_t number = seen + 1; number <= now; number++) {
		const int64_t *row = &m->tlbi[(number & (m->geo.tlbi_rows - 1)) * TLBI_WORDS];
		const int64_t written = load(&row[TLBI_NUMBER]);
		const int64_t start = load(&row[TLBI_START]);
		const int64_t end = load(&row[TLBI_END]);

		if (unlikely(written != number || end == 0 || load(&m->control[SEQUENCE]) - number >= m->geo.tlbi_rows))
			abort(); /* a row reused, or a TLBI of the VMID */
		if (unlikely(end >> TLBI_LOCAL))
			abort(); /* of one vCPU, or of the leaves of one level */
		flush_range(cpu, m->geo.index_bits, start, end);
	}
	return now;
}
