/* A small thread pool for steps: optional, explicit, and separate from the core, which knows no threads.
 *
 *     lrf_pool *pool = lrf_pool_create(4);                    // starts nothing yet
 *     lrf_pool_step(pool, &group, 1, NULL, NULL);             // like lrf_step, same bits
 *     lrf_pool_destroy(pool);
 *
 * Threads start at the first step that is large enough for them, block all signals, wait actively for some
 * microseconds after a step and then sleep without using the processor. A step that is small, or comes while another
 * thread uses the pool, runs on the calling thread alone; so does a step for which no thread could be started. After
 * fork the child starts threads of its own. Needs POSIX threads. */
#ifndef LRFAST_POOL_H
#define LRFAST_POOL_H

#include "lrfast.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LRF_POOL_MAX_THREADS = 256 };

typedef struct lrf_pool lrf_pool;

/* threads: how many run a step, the calling one included; 1 .. LRF_POOL_MAX_THREADS. NULL: no memory, or threads out
 * of range. */
lrf_pool *lrf_pool_create(unsigned threads);

/* Takes effect with the next step; surplus threads sleep. Any thread may call it at any time. Returns 0, or -1 if
 * threads is out of range. */
int lrf_pool_set_threads(lrf_pool *pool, unsigned threads);
unsigned lrf_pool_threads(const lrf_pool *pool);

/* lrf_step with the threads of the pool; pool NULL: exactly lrf_step. */
lrf_status lrf_pool_step(lrf_pool *pool, const lrf_group *groups, size_t group_count, const lrf_options *options,
                         lrf_report *report);

/* Ends its threads and frees it. No step may be running in it. NULL is allowed. */
void lrf_pool_destroy(lrf_pool *pool);

#ifdef __cplusplus
}
#endif
#endif
