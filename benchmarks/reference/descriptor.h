/* Descriptors: what stress/kernels/descriptor.py reads and makes, and the rule of stress/arch/bbm.py. */
#pragma once

#include "atomics.h"

#define OA_MASK INT64_C(0xffffffffffff)

static inline bool is_table(int64_t descriptor, int64_t level)
{
	return (descriptor & TYPE_TABLE_OR_PAGE) == TYPE_TABLE_OR_PAGE && level < LAST_LEVEL;
}

static inline bool is_leaf(int64_t descriptor, int64_t level)
{
	return (descriptor & TYPE_TABLE_OR_PAGE) == (level == LAST_LEVEL ? TYPE_TABLE_OR_PAGE : TYPE_BLOCK);
}

static inline int64_t next_table(const struct geo *geo, int64_t descriptor)
{
	return ((descriptor & OA_MASK) >> geo->granule_shift) - geo->tables_pfn;
}

static inline int64_t first_frame(const struct geo *geo, int64_t descriptor, int64_t level)
{
	const int64_t low = (LAST_LEVEL - level) * geo->index_bits;

	return ((descriptor & OA_MASK) >> (geo->granule_shift + low) << low) - geo->memory_pfn;
}

static inline int64_t leaf_descriptor(const struct geo *geo, int64_t frame, int64_t level)
{
	const int64_t type = level == LAST_LEVEL ? TYPE_TABLE_OR_PAGE : TYPE_BLOCK;

	return (frame + geo->memory_pfn) << geo->granule_shift | geo->leaf_attributes | type;
}

static inline int64_t permissions(int64_t descriptor)
{
	return (descriptor & S2AP_R ? READ : 0) | (descriptor & S2AP_W ? WRITE : 0);
}

static inline int64_t pages_at(const struct geo *geo, int64_t level)
{
	return INT64_C(1) << ((LAST_LEVEL - level) * geo->index_bits);
}

static inline bool was_valid(int64_t descriptor)
{
	const int64_t kind = (descriptor & FIELD_KIND) >> KIND_LO;

	return !(descriptor & 1) && (kind == KIND_BROKEN_LEAF || kind == KIND_BROKEN_TABLE);
}

/* Number of the rebuild that broke the entry, or 0. */
static inline int64_t window_of(int64_t descriptor)
{
	return was_valid(descriptor) ? (descriptor & FIELD_REBUILD) >> REBUILD_LO : 0;
}

/* Judges the store of `new` over `old` (DDI 0487 D8.14.1). */
static inline int64_t verdict(int64_t old, int64_t new, int64_t level, int64_t tlbi_done, int64_t bbm_level)
{
	if (old == POISON)
		return FREED;
	if (!(new & 1))
		return OK;
	const bool is_block = (new & FIELD_TYPE) == TYPE_BLOCK;

	if (!(old & 1)) {
		if (!was_valid(old) || tlbi_done > old >> CLOCK_LO)
			return OK;
		const bool was_table = (old & FIELD_KIND) >> KIND_LO == KIND_BROKEN_TABLE;
		const bool resized = level < LAST_LEVEL && is_block == was_table;
		const bool nt = bbm_level == 1 && is_block && new & FIELD_NT;

		return resized && (bbm_level >= ANY_SIZE || nt) ? OK : NO_TLBI;
	}
	const int64_t block = (old & FIELD_TYPE) == TYPE_BLOCK ? old : new;
	if (level < LAST_LEVEL && (old ^ new) & FIELD_TYPE) {
		const bool allowed = bbm_level >= ANY_SIZE || (bbm_level == 1 && block & FIELD_NT);

		return allowed ? OK : NO_BREAK_SIZE;
	}
	const int64_t address = (block & FIELD_TYPE) == TYPE_BLOCK ? OA_MASK & ~FIELD_NT : OA_MASK;
	return (old ^ new) & address & ~INT64_C(0xfff) ? NO_BREAK_ADDRESS : OK;
}
