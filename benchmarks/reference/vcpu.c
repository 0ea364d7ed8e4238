/*
 * The vCPU loop in C11: what stress/kernels compiles, as a C programmer would write it.
 *
 * It works on the same memory as the kernels, and the benchmarks check that both leave the same bytes behind.
 * layout.h is generated from the Python modules: constants, struct geo, machine, cpu and workload. What never
 * happens in a benchmark (violations, contended locks, parking) calls abort(), but is looked for as the kernels do.
 */
#include "fault.h"
#include "pattern.h"
#include "tlb.h"
#include "walk.h"

/* What one call to vcpu_run checks every access against. */
struct checks {
	int64_t watched; /* bits of a cell that must be as expected */
	bool fenced;
	bool logged; /* a write must find its dirty bit */
};

static inline bool is_allowed(int64_t translation, int64_t access)
{
	const int64_t needed = READ | (access & 1) << 1;

	return (translation & needed) == needed;
}

/* Whether no TLBI came since number `seen`. */
static inline bool is_validated(const struct machine *m, const struct checks *checks, int64_t seen)
{
	if (checks->fenced)
		atomic_thread_fence(memory_order_seq_cst);
	return likely(load(&m->control[SEQUENCE]) == seen);
}

/* Whether a write just made to `page` lacks its dirty bit while logging is in force. */
static inline bool unlogged(const struct machine *m, int64_t page)
{
	const int64_t logged = load(&m->control[LOGGED]);

	if (!(logged & 1) || load(&m->dirty[page >> DIRTY_SHIFT]) & INT64_C(1) << (page & DIRTY_MASK))
		return false;
	return load(&m->control[LOGGED]) == logged;
}

/* Touches the frame's cell and validates the access; if that fails, it must be redone. */
static inline bool touch(const struct machine *m, const struct checks *checks, int64_t translation, int64_t access,
			 int64_t seen)
{
	const int64_t expected = ((access >> 1) + 1) << TAG_SHIFT;
	int64_t *word = &m->cells[translation >> 2];
	const int64_t cell = load(word);

	if (unlikely((cell ^ expected) & checks->watched))
		abort(); /* a violation */
	if (access & 1 && unlikely(!compare_exchange(word, cell, (cell & ~VALUE_MASK) | ((cell + 1) & VALUE_MASK))))
		abort(); /* the frame moved */
	if (access & 1 && unlikely(checks->logged) && unlikely(unlogged(m, access >> 1)))
		abort(); /* a violation: the write is lost */
	return is_validated(m, checks, seen);
}

/* Translation of `gfn` by what its walk met; MISS if that maps nothing. */
static inline int64_t translate(const struct geo *geo, int64_t descriptor, int64_t level, int64_t gfn)
{
	const int64_t pages = pages_at(geo, level);
	const int64_t frame = first_frame(geo, descriptor, level);

	if (unlikely(!is_leaf(descriptor, level)))
		return MISS;
	if (unlikely(frame < 0 || frame + pages > geo->frames))
		abort(); /* a violation: outside of memory */
	return (frame + (gfn & (pages - 1))) << 2 | permissions(descriptor);
}

enum outcome { COUNTS, FORBIDDEN, MOVED };

/*
 * The rest of an access whose walk ended at `level`: touch, validate, and only then keep what was found. Inlined with
 * the usual level as a constant.
 */
static inline enum outcome arrive(const struct machine *m, const struct cpu *cpu, const struct checks *checks,
				  int64_t access, int64_t gfn, struct walked walked, int64_t level, int64_t seen)
{
	const int64_t bits = m->geo.index_bits;
	const int64_t translation = translate(&m->geo, walked.descriptor, level, gfn);

	if (unlikely(!is_allowed(translation, access)))
		return is_validated(m, checks, seen) ? FORBIDDEN : MOVED;
	if (unlikely(!touch(m, checks, translation, access, seen)))
		return MOVED;
	if (level < LAST_LEVEL) {
		if (unlikely(walked.descriptor & FIELD_NT && m->geo.bbm_level >= 1))
			abort(); /* no rebuild is under way */
		if (unlikely(overlapping(cpu, level, bits, gfn) >= 0))
			abort(); /* a violation: a TLB conflict */
	}
	fill(cpu, level, bits, gfn, translation);
	if (walked.first != level)
		cache_walk(cpu, bits, gfn, walked.first, level);
	return COUNTS;
}

/* A validated access is not allowed: resolve the fault, and drop what may have led to it. */
static __attribute__((noinline)) void fault(const struct machine *m, const struct cpu *cpu, int64_t vcpu, int64_t gfn,
					    bool write, int64_t descriptor, int64_t level)
{
	if (unlikely(load(&m->control[STOP]) != 0))
		abort();
	if (unlikely(level >= 0 && descriptor == POISON))
		abort(); /* a violation: a freed table */
	handle(m, vcpu, gfn, write, descriptor, level);
	flush_page(cpu, m->geo.index_bits, gfn);
}

/* The vCPU loop; returns RAN, FINISHED or STOPPED. */

int64_t vcpu_run(const struct machine *machine, const struct cpu *private, const struct workload *work,
		 int64_t vcpu, int64_t chunks)
{
	const struct machine m = *machine;
	const struct cpu cpu = *private;
	const struct geo *geo = &m.geo;
	struct checks checks = {
		.watched = geo->poc_checked != 0 ? ~VALUE_MASK : ~(VALUE_MASK | NOT_AT_POC),
		.fenced = load(&m.control[FENCED]) != 0,
	};
	struct position at = {cpu.registers[CPU_PAGE], cpu.registers[CPU_RANDOM]};
	int64_t seen = cpu.registers[CPU_SEEN], left = cpu.registers[CPU_LEFT];
	int64_t *state = &m.states[vcpu * STATE_WORDS];
	int64_t status = RAN;

	for (int64_t chunk = 0; chunk < chunks; chunk++) {
		if (unlikely(load(&m.control[STOP]) != 0)) {
			status = STOPPED;
			break;
		}
		if (unlikely(load(&m.control[PARK]) != 0))
			abort();
		if (unlikely(geo->lockless != 0))
			abort(); /* nothing is torn down */
		checks.logged = load(&m.control[LOGGED]) & 1;
		const int64_t slot = phase_now(&m) & PHASE_SLOT_MASK;
		const int64_t base = load(&m.memslots[SLOT_BASE]);
		int64_t length = CHUNK;
		at = draw_accesses(work, cpu.upcoming, at);
		if (left >= 0) {
			length = left < CHUNK ? left : CHUNK;
			left -= length;
			if (length == 0) {
				status = FINISHED;
				break;
			}
		}
		state[AT_GFN] = base + (cpu.upcoming[length - 1] >> 1);
		int64_t sizes = sizes_held(&cpu);
		int64_t done = 0, writes = 0, walks = 0, redone = 0;
		bool faulted = false;

		for (;;) {
			int64_t access, gfn, translation;
			struct walked walked = {0, -1, 0};
			enum outcome outcome;

			/* Validated TLB hits, as long as they last. */
			for (; done < length; done++) {
				access = cpu.upcoming[done];
				gfn = base + (access >> 1);
				translation = lookup(&cpu, geo->index_bits, gfn, sizes);
				if (unlikely(!is_allowed(translation, access)))
					break;
				if (unlikely(!touch(&m, &checks, translation, access, seen)))
					break;
				writes += access & 1;
			}
			if (done == length)
				break;
			if (unlikely(translation != MISS)) {
				const bool allowed = is_allowed(translation, access);
				outcome = !allowed && is_validated(&m, &checks, seen) ? FORBIDDEN : MOVED;
			} else {
				walked = walk(&m, &cpu, gfn);
				if (likely(walked.level == LAST_LEVEL))
					outcome = arrive(&m, &cpu, &checks, access, gfn, walked, LAST_LEVEL, seen);
				else
					outcome = arrive(&m, &cpu, &checks, access, gfn, walked, walked.level, seen);
			}
			if (likely(outcome == COUNTS)) {
				sizes |= INT64_C(1) << walked.level;
				done++;
				writes += access & 1;
				walks++;
				if (unlikely(faulted)) { /* a chunk of long faults takes long */
					state[HEARTBEAT]++;
					faulted = false;
				}
				continue;
			}
			if (outcome == FORBIDDEN) {
				faulted = true;
				fault(&m, &cpu, vcpu, gfn, access & 1, walked.descriptor, walked.level);
			} else { /* a TLBI came in between: the access did not happen */
				seen = catch_up(&m, &cpu, seen);
				redone++;
			}
			sizes = sizes_held(&cpu);
		}
		int64_t *counters = &m.counters[(vcpu * m.counter_slots + slot) * COUNTER_WORDS];
		counters[C_WRITES] += writes;
		counters[C_WALKS] += walks;
		counters[C_HITS] += length - walks;
		counters[C_REDONE] += redone;
		store(&counters[C_ACCESSES], counters[C_ACCESSES] + length);
		state[HEARTBEAT]++;
		if (unlikely(state[FIRST_ACCESS_NS] == 0))
			abort(); /* the benchmark is not the first */
	}
	cpu.registers[CPU_SEEN] = seen;
	cpu.registers[CPU_PAGE] = at.page;
	cpu.registers[CPU_RANDOM] = at.state;
	cpu.registers[CPU_LEFT] = left;
	return status;
}
