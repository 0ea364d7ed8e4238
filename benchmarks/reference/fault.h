/* A vCPU's exit with a stage-2 fault, resolved and accounted for: fault.py, abort.py, mapping.py and memslots.py. */
#pragma once

#include "entries.h"

/* PHASE, with the counter slot of this very moment. */
static inline int64_t phase_now(const struct machine *m)
{
	int64_t phase = load(&m->tally[PHASE]);

	if (unlikely(load(&m->tally[INSIDE]) != 0) && (phase & PHASE_SLOT_MASK) + 1 < m->counter_slots)
		phase |= 1;
	return phase;
}

static inline const int64_t *slot_of(const struct machine *m, int64_t gfn)
{
	for (int64_t number = 0; number < m->geo.memslots; number++) {
		const int64_t *slot = &m->memslots[number * LINE];
		const int64_t base = load(&slot[SLOT_BASE]);
		if (base <= gfn && gfn < base + load(&slot[SLOT_PAGES]))
			return slot;
	}
	abort(); /* the guest stays inside its memory */
}

/* Whether the block around `page` may be mapped (fault_supports_stage2_huge_mapping). */
static inline bool supports_block(const struct geo *geo, const int64_t *slot, int64_t page, int64_t level)
{
	const int64_t pages = pages_at(geo, level), first = load(&slot[SLOT_FIRST]);
	const int64_t start = page & ~(pages - 1);

	if ((load(&slot[SLOT_BASE]) - first) & (pages - 1))
		return false;
	return start >= first && start + pages <= first + load(&slot[SLOT_PAGES]);
}

/* Level at which `page` may be mapped. */
static inline int64_t mapping_level(const struct machine *m, const int64_t *slot, int64_t page)
{
	const struct geo *geo = &m->geo;

	if (load(&slot[SLOT_LOGGING]) != 0)
		return LAST_LEVEL;
	if (geo->backing_thp && load(&m->huge[page >> geo->index_bits]) == 0)
		return LAST_LEVEL;
	for (int64_t level = geo->backing_level; level < LAST_LEVEL; level++)
		if (supports_block(geo, slot, page, level))
			return level;
	return LAST_LEVEL;
}

static inline int64_t decide(bool leaf, int64_t level, int64_t wanted, bool allowed, bool rebuilds)
{
	if (level > wanted) {
		if (rebuilds)
			return DO_REBUILD;
		wanted = leaf ? level : LAST_LEVEL;
	}
	if (!leaf)
		return level <= wanted && wanted < LAST_LEVEL ? DO_MAP : DO_MAP_PAGE;
	if (allowed)
		return DO_NOTHING;
	return level == wanted ? DO_RELAX : DO_SPLIT;
}

static inline void mark_dirty(const struct machine *m, int64_t page)
{
	int64_t *word = &m->dirty[page >> DIRTY_SHIFT];
	const int64_t bit = INT64_C(1) << (page & DIRTY_MASK);

	if (!(load(word) & bit))
		fetch_or(word, bit);
}

static inline void clean_frames(const struct machine *m)
{
	if (unlikely(!m->geo.fwb))
		abort(); /* nothing to clean here */
}

/* Lets the guest write through leaf `old` (kvm_pgtable_stage2_relax_perms). */
static inline void relax(const struct machine *m, int64_t index, int64_t old, int64_t level, int64_t gfn,
			 int64_t who)
{
	if (unlikely(!swap_entry(m, index, old, old | S2AP_W, level, who)))
		abort(); /* lost a race */
	if (unlikely(m->geo.inject & LEAK_ON_UPDATE))
		get_page(m, index >> m->geo.index_bits);
	tlbi_range(m, gfn, gfn + 1);
}

/* Maps `gfn` to `frame` as a page, in a table that is there. */
static inline void map_page(const struct machine *m, int64_t gfn, int64_t frame, bool writable, int64_t who)
{
	const struct geo *geo = &m->geo;
	const struct found found = find(m, gfn, LAST_LEVEL);
	const int64_t old = load(&m->tables[found.index]);

	if (unlikely(found.level < LAST_LEVEL))
		abort(); /* tables are not added here */
	if (unlikely(old & 1 || not_ours(m, old)))
		abort(); /* lost a race */
	if (unlikely(old != 0 || !lock_entry(m, found.index, LAST_LEVEL, who)))
		abort(); /* a rebuild left it broken, or lost a race */
	if (geo->cmo_per_fault == 0)
		clean_frames(m);
	int64_t leaf = leaf_descriptor(geo, frame, LAST_LEVEL);
	if (!writable)
		leaf &= ~S2AP_W;
	set_entry(m, found.index, leaf, LAST_LEVEL, who);
	get_page(m, found.index >> geo->index_bits);
}

struct resolved {
	int64_t kind, did, level;
};

/* user_mem_abort, under mmu_lock. */
static inline struct resolved resolve(const struct machine *m, int64_t gfn, bool write, int64_t who)
{
	const struct geo *geo = &m->geo;
	const int64_t *slot = slot_of(m, gfn);
	const int64_t page = gfn - load(&slot[SLOT_BASE]) + load(&slot[SLOT_FIRST]);
	const int64_t frame = load(&m->host[page]);
	if (unlikely(frame < 0))
		abort(); /* retry: an MMU notifier is at it */
	const int64_t logging = load(&slot[SLOT_LOGGING]);
	const int64_t wanted = mapping_level(m, slot, page);
	const struct found found = find(m, gfn, LAST_LEVEL);
	const int64_t old = load(&m->tables[found.index]);
	if (unlikely(not_ours(m, old) || is_table(old, found.level)))
		abort(); /* retry */
	const bool leaf = is_leaf(old, found.level);
	const bool permission = leaf && write && !(permissions(old) & WRITE);
	struct resolved result = {SPURIOUS, NOTHING, found.level};

	const int64_t action = decide(leaf, found.level, wanted, !permission, geo->vcpu_rebuilds != 0);
	if (geo->cmo_per_fault != 0 && action != DO_RELAX)
		clean_frames(m);
	if (unlikely(geo->inject & WRONG_FAULT_LEVEL))
		abort();
	switch (action) {
	case DO_RELAX:
		relax(m, found.index, old, found.level, gfn, who);
		result.kind = PERMISSION;
		result.did = RELAXED;
		break;
	case DO_MAP_PAGE:
		map_page(m, gfn, frame, write || logging == 0, who);
		result.kind = permission ? PERMISSION : POPULATION;
		result.did = MAPPED_PAGE;
		break;
	default:
		abort(); /* blocks, splits, rebuilds and spurious faults are not measured */
	}
	if (write && logging != 0)
		mark_dirty(m, page);
	if (permission) {
		const struct found again = find(m, gfn, LAST_LEVEL);
		const int64_t now = load(&m->tables[again.index]);
		if (unlikely(is_leaf(now, again.level) && !(permissions(now) & WRITE)))
			abort(); /* a violation: said to be resolved */
	}
	return result;
}

/* Sub-buckets per power of two, as stress/shm/histogram.py has them. */
enum { SUB_BITS = 5, SUB_BUCKETS = 1 << SUB_BITS };

static inline int64_t bucket(int64_t value_ns)
{
	if (value_ns < 2 * SUB_BUCKETS)
		return value_ns < 0 ? 0 : value_ns;
	const int shift = 63 - __builtin_clzll(value_ns) - SUB_BITS;
	const int64_t at = shift * SUB_BUCKETS + (value_ns >> shift);
	return at < HISTOGRAM_BUCKETS ? at : HISTOGRAM_BUCKETS - 1;
}

/* Appends one event; false if the ring is full. */
static inline bool log_fault(const struct machine *m, int64_t vcpu, int64_t time_ns, int64_t gfn, int64_t stall_ns,
			     int64_t lock_wait_ns, int64_t number, int64_t what, int64_t cycle)
{
	int64_t *index = &m->event_index[vcpu * EVENT_INDEX_WORDS];

	index[EVENT_LOGGED]++;
	const int64_t head = index[EVENT_HEAD];
	if (head - load(&index[EVENT_TAIL]) >= m->geo.event_rows) {
		index[EVENT_DROPPED]++;
		return false;
	}
	int64_t *row = &m->events[(vcpu * m->geo.event_rows + (head & (m->geo.event_rows - 1))) * EVENT_WORDS];
	row[E_TIME_NS] = time_ns;
	row[E_GFN] = gfn;
	row[E_STALL_NS] = stall_ns;
	row[E_LOCK_WAIT_NS] = lock_wait_ns;
	row[E_NUMBER] = number;
	row[E_WHAT] = what;
	row[E_CYCLE] = cycle;
	store(&index[EVENT_HEAD], head + 1);
	return true;
}

/* Exits with a validated fault; `descriptor` and `level` are what the walk met, 0 and -1 if the TLB hit. */
static __attribute__((noinline)) void handle(const struct machine *m, int64_t vcpu, int64_t gfn, bool write,
					     int64_t descriptor, int64_t level)
{
	const struct geo *geo = &m->geo;
	const int64_t start = clock_ns();

	store(&m->states[vcpu * STATE_WORDS + STATE], STATE_FAULT);
	spend(geo->exit_ns);
	const int64_t phase = phase_now(m);
	if (unlikely(window_of(descriptor) != 0))
		abort(); /* no rebuild is under way */
	if (unlikely(geo->shared != 0))
		abort(); /* mmu_lock is held alone here */
	acquire(m, vcpu);
	const int64_t locked = clock_ns();
	const struct resolved resolved = resolve(m, gfn, write, vcpu);
	const int64_t done = clock_ns();
	release(m, vcpu, STATE_GUEST);

	if (unlikely(load(&m->tally[COSTS_CUT]) != 0))
		abort(); /* no modelled costs here */
	const int64_t slot = phase & PHASE_SLOT_MASK, kind = resolved.kind;
	int64_t *counters = &m->counters[(vcpu * m->counter_slots + slot) * COUNTER_WORDS];
	counters[C_FAULTS + kind]++;
	counters[C_LOCKS]++;
	counters[C_LOCK_WAIT_NS] += locked - start;
	counters[C_LOCK_HOLD_NS] += done - locked;
	counters[C_MAPPED_BLOCKS + resolved.did]++; /* neither of the two does nothing */
	if (level < 0)
		counters[C_PERMISSION + resolved.level]++;
	else if (is_leaf(descriptor, level))
		counters[C_PERMISSION + level]++;
	else
		counters[C_TRANSLATION + level]++;
	if (slot + 1 < m->counter_slots) {
		const int64_t stall = done - start;
		const int64_t orders = m->counter_slots / 2;
		const int64_t what = kind | (level < 0 ? 0 : level) << 4 | (int64_t)write << 8 | slot << 16;

		m->stalls[((vcpu * orders + (slot >> 1)) * FAULT_KINDS + kind) * HISTOGRAM_BUCKETS + bucket(stall)]++;
		if (!log_fault(m, vcpu, start, gfn, stall, locked - start, 0, what, phase >> PHASE_SLOT_BITS))
			counters[C_DROPPED]++;
	}
}
