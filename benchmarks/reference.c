/*
 * The vCPU loop and the unmap step in C11: what stress/kernels compiles, as a C programmer would write it.
 *
 * Both work on the same memory as the kernels, and the benchmark checks that both leave the same bytes behind.
 * layout.h is generated from the Python modules: constants, struct geo, machine, cpu and workload. What never
 * happens in a benchmark (faults, TLBIs, violations, parking) calls abort().
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "layout.h"

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* Atomics, in the orders that stress/shm/atomics.py gives them. */

static inline int64_t load(const int64_t *word)
{
	return atomic_load_explicit((const _Atomic int64_t *)word, memory_order_acquire);
}

static inline void store(int64_t *word, int64_t value)
{
	atomic_store_explicit((_Atomic int64_t *)word, value, memory_order_release);
}

static inline int64_t fetch_add(int64_t *word, int64_t value)
{
	return atomic_fetch_add_explicit((_Atomic int64_t *)word, value, memory_order_acq_rel);
}

static inline bool compare_exchange(int64_t *word, int64_t expected, int64_t value)
{
	return atomic_compare_exchange_strong_explicit((_Atomic int64_t *)word, &expected, value,
						       memory_order_acq_rel, memory_order_acquire);
}

/* Descriptors */

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
	const int64_t pfn = (descriptor & 0xffffffffffff) >> geo->granule_shift;

	return pfn - geo->tables_pfn;
}

static inline int64_t first_frame(const struct geo *geo, int64_t descriptor, int64_t level)
{
	const int64_t low = (LAST_LEVEL - level) * geo->index_bits;

	return ((descriptor & 0xffffffffffff) >> (geo->granule_shift + low) << low) - geo->memory_pfn;
}

static inline int64_t permissions(int64_t descriptor)
{
	return (descriptor & S2AP_R ? READ : 0) | (descriptor & S2AP_W ? WRITE : 0);
}

static inline int64_t pages_at(const struct geo *geo, int64_t level)
{
	return INT64_C(1) << ((LAST_LEVEL - level) * geo->index_bits);
}

/* TLB */

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

static inline void fill(const struct cpu *cpu, int64_t level, int64_t bits, int64_t gfn, int64_t value)
{
	const int64_t key = gfn >> ((LAST_LEVEL - level) * bits);
	const int64_t group = level * SETS + (key & (SETS - 1));
	const int64_t way = cpu->turn[group];
	const int64_t at = group * WAYS + way;

	cpu->turn[group] = (way + 1) & (WAYS - 1);
	if (cpu->key[at] == EMPTY)
		cpu->live[level]++;
	cpu->key[at] = key;
	cpu->value[at] = value;
}

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

/* Walk */

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

static inline void cache_walk(const struct cpu *cpu, int64_t bits, int64_t gfn, int64_t first, int64_t level)
{
	if (first < 1 && level >= 1)
		cache_table(cpu, bits, gfn, 1);
	if (first < 2 && level >= 2)
		cache_table(cpu, bits, gfn, 2);
	if (first < 3 && level >= 3)
		cache_table(cpu, bits, gfn, 3);
}

/* Access pattern */

static inline int64_t next_page(const struct workload *work, int64_t pattern, int64_t page, int64_t state)
{
	const int64_t drawn = (state >> 32) & 0xffffffff;

	switch (pattern) {
	case PATTERN_SEQUENTIAL:
		return page + 1 >= work->pages ? 0 : page + 1;
	case PATTERN_UNIFORM:
		return (drawn * work->pages) >> 32;
	default: /* strided */
		page += work->stride;
		return page >= work->pages ? (page % work->stride + 1) % work->stride : page;
	}
}

struct position {
	int64_t page, state;
};

/* Inlined once per pattern, so that the loop does not ask for it. */
static inline struct position draw_by(const struct workload *work, int64_t pattern, int64_t *upcoming,
				      struct position at)
{
	for (int i = 0; i < CHUNK; i++) {
		at.state = (int64_t)((uint64_t)at.state * UINT64_C(6364136223846793005) +
				     UINT64_C(1442695040888963407));
		at.page = next_page(work, pattern, at.page, at.state);
		upcoming[i] = at.page << 1 | (((at.state >> 20) & 0xfff) < work->write_below);
	}
	return at;
}

static __attribute__((noinline)) struct position draw_accesses(const struct workload *work, int64_t *upcoming,
							       struct position at)
{
	const struct workload local = *work;

	switch (local.pattern) {
	case PATTERN_SEQUENTIAL:
		return draw_by(&local, PATTERN_SEQUENTIAL, upcoming, at);
	case PATTERN_UNIFORM:
		return draw_by(&local, PATTERN_UNIFORM, upcoming, at);
	case PATTERN_STRIDED:
		return draw_by(&local, PATTERN_STRIDED, upcoming, at);
	default:
		abort(); /* not measured */
	}
}

/* What one call to vcpu_run checks every access against. */
struct checks {
	int64_t watched; /* bits of a cell that must be as expected */
	int64_t seen; /* number of the newest TLBI applied */
	bool fenced;
};

/* Touches the frame's cell and validates the access; from then on it counts. */
static inline void touch(const struct machine *m, const struct checks *checks, int64_t translation, int64_t access,
			 int64_t done)
{
	const int64_t write = access & 1;
	const int64_t needed = READ | write << 1;
	const int64_t expected = ((access >> 1) + 1) << TAG_SHIFT;

	if (unlikely((translation & needed) != needed))
		abort(); /* a fault */
	int64_t *word = &m->cells[translation >> 2];
	const int64_t cell = load(word);
	if (unlikely((cell ^ expected) & checks->watched))
		abort(); /* a violation */
	if (write && unlikely(!compare_exchange(word, cell, (cell & ~VALUE_MASK) | (done + 1))))
		abort(); /* the frame moved: redo */
	if (checks->fenced)
		atomic_thread_fence(memory_order_seq_cst);
	if (unlikely(load(&m->control[SEQUENCE]) != checks->seen))
		abort(); /* a TLBI: redo */
}

/* Walks, touches, fills; returns the bit of the size that the TLB holds now. */
static inline int64_t miss(const struct machine *m, const struct cpu *cpu, const struct checks *checks,
			   int64_t access, int64_t done)
{
	const struct geo *geo = &m->geo;
	const int64_t bits = geo->index_bits;
	const int64_t gfn = geo->base_gfn + (access >> 1);
	const struct walked walked = walk(m, cpu, gfn);
	const int64_t pages = pages_at(geo, walked.level);
	const int64_t frame = first_frame(geo, walked.descriptor, walked.level);

	if (unlikely(!is_leaf(walked.descriptor, walked.level) || frame < 0 || frame + pages > geo->frames))
		abort(); /* a fault, or a violation */
	const int64_t offset = gfn & (pages - 1);
	const int64_t value = frame << 2 | permissions(walked.descriptor);
	touch(m, checks, value + (offset << 2), access, done);
	if (walked.level < LAST_LEVEL && unlikely(overlapping(cpu, walked.level, bits, gfn) >= 0))
		abort(); /* a TLB conflict */
	fill(cpu, walked.level, bits, gfn, value);
	cache_walk(cpu, bits, gfn, walked.first, walked.level);
	return INT64_C(1) << walked.level;
}

/* The vCPU loop; returns RAN or STOPPED. */

int64_t vcpu_run(const struct machine *machine, const struct cpu *private, const struct workload *work,
		 int64_t vcpu, int64_t chunks)
{
	const struct machine m = *machine;
	const struct cpu cpu = *private;
	const struct geo *geo = &m.geo;
	const int64_t bits = geo->index_bits;
	const struct checks checks = {
		.watched = geo->poc_checked != 0 ? ~VALUE_MASK : ~(VALUE_MASK | NOT_AT_POC),
		.seen = cpu.registers[R_SEEN],
		.fenced = load(&m.control[FENCED]) != 0,
	};
	struct position at = {cpu.registers[R_PAGE], cpu.registers[R_RANDOM]};
	int64_t status = RAN;

	for (int64_t chunk = 0; chunk < chunks; chunk++) {
		if (unlikely(load(&m.control[STOP]) != 0)) {
			status = STOPPED;
			break;
		}
		if (unlikely(load(&m.control[PARK]) != 0))
			abort();
		const int64_t slot = load(&m.control[PHASE]) & 0xff;
		at = draw_accesses(work, cpu.upcoming, at);
		int64_t sizes = sizes_held(&cpu);
		int64_t writes = 0, walks = 0;

		for (int64_t done = 0; done < CHUNK; done++) {
			const int64_t access = cpu.upcoming[done];
			const int64_t write = access & 1;
			const int64_t gfn = geo->base_gfn + (access >> 1);
			const int64_t translation = lookup(&cpu, bits, gfn, sizes);

			if (likely(translation != MISS)) {
				touch(&m, &checks, translation, access, done);
			} else {
				sizes |= miss(&m, &cpu, &checks, access, done);
				walks++;
			}
			writes += write;
		}
		int64_t *counters = &m.counters[(vcpu * m.counter_slots + slot) * COUNTER_WORDS];
		counters[C_WRITES] += writes;
		counters[C_WALKS] += walks;
		counters[C_HITS] += CHUNK - walks;
		store(&counters[C_ACCESSES], counters[C_ACCESSES] + CHUNK);
		int64_t *proc = &m.procs[vcpu * PROC_WORDS];
		proc[HEARTBEAT]++;
		proc[AT_GFN] = geo->base_gfn + at.page;
		if (unlikely(proc[FIRST_ACCESS_NS] == 0))
			abort(); /* the benchmark is not the first */
	}
	cpu.registers[R_PAGE] = at.page;
	cpu.registers[R_RANDOM] = at.state;
	return status;
}

/* The unmap step */

static int64_t put_page(const struct machine *m, int64_t page)
{
	return fetch_add(&m->page_count[page], -1) - 1;
}

static void free_table(const struct machine *m, int64_t page)
{
	const int64_t bits = m->geo.index_bits;

	if (unlikely(m->page_level[page] == FREE))
		abort(); /* a double free */
	if (put_page(m, page) != 0)
		return;
	for (int64_t i = page << bits; i < (page + 1) << bits; i++)
		m->tables[i] = POISON;
	m->page_level[page] = FREE;
	const int64_t tail = m->control[POOL_TAIL];
	m->free_ring[tail % m->geo.table_pages] = page;
	store(&m->control[POOL_TAIL], tail + 1);
}

static void unmap_table(const struct machine *m, int64_t page, int64_t level)
{
	const int64_t bits = m->geo.index_bits;

	for (int64_t i = page << bits; i < (page + 1) << bits; i++) {
		const int64_t descriptor = load(&m->tables[i]);
		if (descriptor & 1) {
			if (is_table(descriptor, level))
				unmap_table(m, next_table(&m->geo, descriptor), level + 1);
			put_page(m, page);
		}
	}
	free_table(m, page);
}

static int64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Unmaps the detached table `page` that serves `level`; returns how long it took in ns. */

int64_t unmap_timed(const struct machine *m, int64_t page, int64_t level)
{
	const int64_t start = clock_ns();

	unmap_table(m, page, level);
	return clock_ns() - start;
}
