/* Words of the segment in the memory orders that stress/shm/atomics.py gives them, and the system calls beside them. */
#pragma once

#include <linux/membarrier.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"

#define likely(condition) __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

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

static inline int64_t fetch_or(int64_t *word, int64_t value)
{
	return atomic_fetch_or_explicit((_Atomic int64_t *)word, value, memory_order_acq_rel);
}

static inline bool compare_exchange(int64_t *word, int64_t expected, int64_t value)
{
	return atomic_compare_exchange_strong_explicit((_Atomic int64_t *)word, &expected, value,
						       memory_order_acq_rel, memory_order_acquire);
}

static inline int64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static inline void membarrier(void)
{
	syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
}
