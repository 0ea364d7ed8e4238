/* Where a vCPU goes next: stress/kernels/pattern.py, without Zipf, which nothing here measures. */
#pragma once

#include "atomics.h"

struct position {
	int64_t page, state;
};

static inline int64_t advance(int64_t state)
{
	return (int64_t)((uint64_t)state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407));
}

static inline bool is_write(const struct workload *work, int64_t state)
{
	return ((state >> 20) & 0xfff) < work->write_below;
}

static inline int64_t page_after(const struct workload *work, int64_t pattern, int64_t page, int64_t state)
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

/* Inlined once per pattern, so that the loop does not ask for it. */
static inline struct position draw_by(const struct workload *work, int64_t pattern, int64_t *upcoming,
				      struct position at)
{
	for (int i = 0; i < CHUNK; i++) {
		at.state = advance(at.state);
		at.page = page_after(work, pattern, at.page, at.state);
		upcoming[i] = at.page << 1 | is_write(work, at.state);
	}
	return at;
}

static inline struct position draw_program(const struct workload *work, int64_t *upcoming, struct position at)
{
	const int64_t head = work->head != 0, each = work->run + head;
	int64_t group = at.page / each, offset = at.page % each;

	for (int i = 0; i < CHUNK; i++) {
		const int64_t start = work->first + group * work->group;

		at.state = advance(at.state);
		if (head && offset == 0)
			upcoming[i] = start << 1 | (work->head == 2);
		else
			upcoming[i] = (start + work->skip + offset - head) << 1 | is_write(work, at.state);
		if (++offset == each) {
			group++;
			offset = 0;
		}
	}
	at.page += CHUNK;
	return at;
}

static inline struct position draw_pattern(const struct workload *work, int64_t *upcoming, struct position at)
{
	switch (work->pattern) {
	case PATTERN_SEQUENTIAL:
		return draw_by(work, PATTERN_SEQUENTIAL, upcoming, at);
	case PATTERN_UNIFORM:
		return draw_by(work, PATTERN_UNIFORM, upcoming, at);
	case PATTERN_STRIDED:
		return draw_by(work, PATTERN_STRIDED, upcoming, at);
	default:
		abort(); /* not measured */
	}
}

static __attribute__((noinline)) struct position draw_accesses(const struct workload *work, int64_t *upcoming,
							       struct position at)
{
	const struct workload local = *work;

	if (local.pattern == PATTERN_PROGRAM)
		return draw_program(&local, upcoming, at);
	at = draw_pattern(&local, upcoming, at);
	if (local.first)
		for (int i = 0; i < CHUNK; i++)
			upcoming[i] += local.first << 1;
	return at;
}
