/* The unmap step in C11: stress/kernels/teardown.py and the pool's part of it. */
#include "entries.h"

/* Drops the last reference of a table page and gives it back; false if references are left. */
static bool free_table(const struct machine *m, int64_t page, int64_t who)
{
	const int64_t bits = m->geo.index_bits;

	if (unlikely(m->page_level[page] == FREE))
		abort(); /* a violation: a double free */
	if (put_page(m, page) != 0)
		return false;
	m->states[who * STATE_WORDS + CHANGED] = TRACED_FREE;
	m->states[who * STATE_WORDS + CHANGED_ROW] = 0;
	for (int64_t i = page << bits; i < (page + 1) << bits; i++)
		m->tables[i] = POISON;
	m->page_level[page] = FREE;
	lock_pool(m, who);
	const int64_t tail = m->control[POOL_TAIL];
	m->free_ring[tail % m->geo.table_pages] = page;
	store(&m->control[POOL_TAIL], tail + 1);
	unlock_pool(m);
	return true;
}

static int64_t unmap_table(const struct machine *m, int64_t page, int64_t level, int64_t who)
{
	const int64_t bits = m->geo.index_bits;
	int64_t freed = 0;

	for (int64_t i = page << bits; i < (page + 1) << bits; i++) {
		const int64_t descriptor = load(&m->tables[i]);
		if (descriptor & 1) {
			if (is_table(descriptor, level))
				freed += unmap_table(m, next_table(&m->geo, descriptor), level + 1, who);
			put_page(m, page);
		}
	}
	return freed + free_table(m, page, who);
}

/* Unmaps the detached table `page` that serves `level`; returns how long it took in ns. */

int64_t unmap_timed(const struct machine *m, int64_t page, int64_t level)
{
	const int64_t start = clock_ns();

	if (unlikely(m->geo.inject & ROOT_TABLE_KEPT))
		abort();
	unmap_table(m, page, level, m->geo.hypervisor);
	return clock_ns() - start;
}
