/* The vCPU's hardware walk, from the deepest cached table pointer: stress/kernels/walk.py. */
#pragma once

#include "descriptor.h"

struct walked {
	int64_t descriptor, level, first;
};

/*
 * From table `page`, which serves `level`, down to a leaf or an invalid entry. Inlined with a constant level, as the
 * rest of the walk is: gcc then unrolls it, which makes walks a quarter faster.
 */
static inline struct walked descend(const struct machine *m, const struct cpu *cpu, int64_t gfn, int64_t level,
				    int64_t page)
{
	const struct geo *geo = &m->geo;
	const int64_t bits = geo->index_bits, mask = (INT64_C(1) << bits) - 1, first = level;
	int64_t slot = gfn >> ((LAST_LEVEL - level) * bits);
	int64_t descriptor = 0;

	if (level > geo->start_level) /* root tables are concatenated */
		slot &= mask;
#pragma GCC unroll 4
	for (; level <= LAST_LEVEL; level++) {
		descriptor = load(&m->tables[(page << bits) + slot]);
		if (!is_table(descriptor, level))
			break;
		page = next_table(geo, descriptor);
		if (unlikely(page < 0 || page >= geo->table_pages))
			abort(); /* a pointer out of the pool */
		cpu->path[level + 1] = page;
		slot = (gfn >> ((LAST_LEVEL - level - 1) * bits)) & mask;
	}
	return (struct walked){descriptor, level, first};
}

static inline bool is_cached(const struct cpu *cpu, int64_t bits, int64_t gfn, int64_t level, int64_t *page)
{
	const int64_t key = gfn >> ((LAST_LEVEL + 1 - level) * bits);
	const int64_t slot = level * CACHED + (key & (CACHED - 1));

	if (cpu->walk_key[slot] != key)
		return false;
	*page = cpu->walk_page[slot];
	return true;
}

static inline struct walked walk(const struct machine *m, const struct cpu *cpu, int64_t gfn)
{
	const int64_t bits = m->geo.index_bits, start = m->geo.start_level;
	int64_t page;

	if (start < 3 && is_cached(cpu, bits, gfn, 3, &page))
		return descend(m, cpu, gfn, 3, page);
	if (start < 2 && is_cached(cpu, bits, gfn, 2, &page))
		return descend(m, cpu, gfn, 2, page);
	if (start < 1 && is_cached(cpu, bits, gfn, 1, &page))
		return descend(m, cpu, gfn, 1, page);
	return descend(m, cpu, gfn, start, 0);
}

static inline void cache_table(const struct cpu *cpu, int64_t bits, int64_t gfn, int64_t level)
{
	const int64_t key = gfn >> ((LAST_LEVEL + 1 - level) * bits);
	const int64_t slot = level * CACHED + (key & (CACHED - 1));

	cpu->walk_key[slot] = key;
	cpu->walk_page[slot] = cpu->path[level];
}

/* Keeps the table pointers of a validated walk from `first` down to `level`. */
static inline void cache_walk(const struct cpu *cpu, int64_t bits, int64_t gfn, int64_t first, int64_t level)
{
	if (first < 1 && level >= 1)
		cache_table(cpu, bits, gfn, 1);
	if (first < 2 && level >= 2)
		cache_table(cpu, bits, gfn, 2);
	if (first < 3 && level >= 3)
		cache_table(cpu, bits, gfn, 3);
}
