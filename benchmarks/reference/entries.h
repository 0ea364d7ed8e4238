/* mmu_lock held alone, TLBIs by IPA, the live table, its pool: mmu_lock.py, tlbi.py, entries.py and pool.py. */
#pragma once

#include "descriptor.h"

enum { UNTRACED };

static inline void spend(int64_t duration_ns)
{
	if (unlikely(duration_ns > 0))
		abort(); /* no modelled costs here */
}

static inline void acquire(const struct machine *m, int64_t who)
{
	if (unlikely(!compare_exchange(&m->control[LOCK], 0, who + 1)))
		abort(); /* contended */
	store(&m->states[who * STATE_WORDS + STATE], STATE_LOCK_HELD);
}

static inline void release(const struct machine *m, int64_t who, int64_t state)
{
	store(&m->states[who * STATE_WORDS + STATE], state);
	if (unlikely(load(&m->control[LOCK]) <= 0))
		abort(); /* held for reading */
	store(&m->control[LOCK], 0);
}

/* TLBI by IPA, and DSB. */
static inline void tlbi_range(const struct machine *m, int64_t start, int64_t end)
{
	if (unlikely(m->geo.inject & MISSING_DSB))
		abort();
	const int64_t number = fetch_add(&m->control[SEQUENCE], 1) + 1;
	int64_t *row = &m->tlbi[(number & (m->geo.tlbi_rows - 1)) * TLBI_WORDS];
	store(&row[TLBI_START], start);
	store(&row[TLBI_END], end);
	store(&row[TLBI_NUMBER], number);
	atomic_thread_fence(memory_order_seq_cst);
	membarrier();
	spend(m->geo.tlbi_ns);
}

static inline void get_page(const struct machine *m, int64_t page)
{
	fetch_add(&m->page_count[page], 1);
}

static inline int64_t put_page(const struct machine *m, int64_t page)
{
	return fetch_add(&m->page_count[page], -1) - 1;
}

static inline void lock_pool(const struct machine *m, int64_t who)
{
	if (unlikely(!compare_exchange(&m->control[POOL_LOCK], 0, who + 1)))
		abort(); /* contended */
}

static inline void unlock_pool(const struct machine *m)
{
	store(&m->control[POOL_LOCK], 0);
}

/*
 * Replaces `old` by `new`; false if something else is there. Evidence would name it as our last store, unless it is
 * one that no checker is told of.
 */
static inline bool write_entry(const struct machine *m, int64_t index, int64_t old, int64_t new, int64_t level,
			       int64_t who, int64_t traced)
{
	const int64_t judged = verdict(old, new, level, load(&m->control[TLBI_DONE]), m->geo.bbm_level);

	if (!compare_exchange(&m->tables[index], old, new))
		return false;
	if (unlikely(m->geo.trace_rows != 0))
		abort(); /* not traced here */
	if (traced != UNTRACED) {
		m->states[who * STATE_WORDS + CHANGED] = traced;
		m->states[who * STATE_WORDS + CHANGED_ROW] = 0;
	}
	if (unlikely(judged != OK || m->geo.poc_checked != 0))
		abort(); /* a violation, or one to be looked for */
	return true;
}

/* Owns an empty entry; false if it is not empty any more. */
static inline bool lock_entry(const struct machine *m, int64_t index, int64_t level, int64_t who)
{
	return write_entry(m, index, 0, LOCKED, level, who, UNTRACED);
}

/* Puts `new` into an entry that is ours. */
static inline void set_entry(const struct machine *m, int64_t index, int64_t new, int64_t level, int64_t who)
{
	while (!write_entry(m, index, load(&m->tables[index]), new, level, who, TRACED_SET))
		;
}

/* Replaces `old` by `new`; false if somebody else was faster. */
static inline bool swap_entry(const struct machine *m, int64_t index, int64_t old, int64_t new, int64_t level,
			      int64_t who)
{
	return write_entry(m, index, old, new, level, who, TRACED_SWAP);
}

/* Whether a walk that met `descriptor` must be given up: a freed table's word, or owned by another. */
static inline bool not_ours(const struct machine *m, int64_t descriptor)
{
	if (unlikely(descriptor == POISON))
		abort(); /* a violation */
	if (unlikely((m->geo.shared || m->geo.yield_every) && !(descriptor & 1) && descriptor != 0))
		abort(); /* mmu_lock is held alone here, and never given up in between */
	return false;
}

struct found {
	int64_t index, level;
};

static inline int64_t entry_index(const struct geo *geo, int64_t page, int64_t level, int64_t gfn)
{
	int64_t slot = gfn >> ((LAST_LEVEL - level) * geo->index_bits);

	if (level > geo->start_level)
		slot &= (INT64_C(1) << geo->index_bits) - 1;
	return (page << geo->index_bits) + slot;
}

/* The entry for `gfn` where a walk down to level `deepest` ends. */
static inline struct found find(const struct machine *m, int64_t gfn, int64_t deepest)
{
	const struct geo *geo = &m->geo;
	int64_t level = geo->start_level;
	int64_t index = entry_index(geo, 0, level, gfn);

	while (level < deepest) {
		const int64_t descriptor = load(&m->tables[index]);
		if (!is_table(descriptor, level))
			break;
		const int64_t page = next_table(geo, descriptor);
		if (unlikely(page < 0 || page >= geo->table_pages))
			break;
		level++;
		index = entry_index(geo, page, level, gfn);
	}
	return (struct found){index, level};
}
