#if defined(__linux__)
#define _GNU_SOURCE /* thread names, affinity */
#endif
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "compiler.h"

/* A thread has at least so many tiles, or calling it costs more than it saves: the second figure holds where it sleeps
 * and has to be woken first (measured: 0.5 us and 30 us). */
enum { TILES_PER_THREAD = 24, TILES_PER_SLEEPER = 128 };

/* Each thread has so many chunks of its own, the same ones in every step of a size. Whoever is done takes over chunks
 * that nobody has begun, so that no step waits for a thread that the system has not yet woken. */
enum { CHUNKS = 4 };

/* How long a thread waits actively before it sleeps: longer than the gap between the phases of a step, much shorter
 * than a backward pass. */
enum { SPIN_NS = 20000, SPINS_PER_CLOCK = 32 };

/* Begun chunks of one thread: generation << 16 | count; on a cache line of its own. */
struct progress {
    atomic_ullong begun;
    char padding[64 - sizeof(atomic_ullong)];
};

struct lrf_pool {
    atomic_ullong ticket;      /* what there is to do: generation << 16 | threads; 0 threads end the workers */
    atomic_uint pending;       /* chunks not yet done */
    atomic_uint sleepers;      /* workers that wait for `wake` */
    atomic_uint caller_sleeps; /* the caller waits for `done` */
    atomic_uint limit;         /* threads asked for, the caller included */
    atomic_flag busy;
    atomic_int spinning; /* whether waiting actively makes sense: threads <= processors */
    atomic_int owner;    /* process that the workers belong to */
    lrf_job *job;
    unsigned workers; /* running */
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    struct progress progress[LRF_POOL_MAX_THREADS];
    struct worker {
        lrf_pool *pool;
        unsigned index; /* among the threads of a step, from 1; 0 is the caller */
        unsigned long long seen;
        pthread_t thread;
    } worker[LRF_POOL_MAX_THREADS];
};

/* ---- waiting --------------------------------------------------------------------------------------------- */

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
}

static unsigned long long ticket_of(lrf_pool *pool)
{
    return atomic_load(&pool->ticket);
}

/* Waits for a ticket other than `seen`: first actively, then asleep. */
static unsigned long long await_ticket(lrf_pool *pool, unsigned long long seen)
{
    unsigned long long ticket = ticket_of(pool);

    if (atomic_load_explicit(&pool->spinning, memory_order_relaxed)) {
        const long long end = now_ns() + SPIN_NS;
        while (ticket == seen && now_ns() < end)
            for (int i = 0; i < SPINS_PER_CLOCK && (ticket = ticket_of(pool)) == seen; i++)
                lrf_relax();
    }
    if (ticket == seen) {
        pthread_mutex_lock(&pool->mutex);
        atomic_fetch_add(&pool->sleepers, 1);
        while ((ticket = ticket_of(pool)) == seen)
            pthread_cond_wait(&pool->wake, &pool->mutex);
        atomic_fetch_sub(&pool->sleepers, 1);
        pthread_mutex_unlock(&pool->mutex);
    }
    return ticket;
}

static void await_chunks(lrf_pool *pool)
{
    if (atomic_load_explicit(&pool->spinning, memory_order_relaxed)) {
        const long long end = now_ns() + SPIN_NS;
        while (atomic_load(&pool->pending) > 0 && now_ns() < end)
            for (int i = 0; i < SPINS_PER_CLOCK && atomic_load(&pool->pending) > 0; i++)
                lrf_relax();
    }
    if (atomic_load(&pool->pending) > 0) {
        pthread_mutex_lock(&pool->mutex);
        atomic_store(&pool->caller_sleeps, 1);
        while (atomic_load(&pool->pending) > 0)
            pthread_cond_wait(&pool->done, &pool->mutex);
        atomic_store(&pool->caller_sleeps, 0);
        pthread_mutex_unlock(&pool->mutex);
    }
}

/* The store of the ticket and the load of `sleepers` are sequentially consistent, as are their counterparts in
 * await_ticket: either the worker sees the ticket, or it is counted here. */
static void issue_ticket(lrf_pool *pool, unsigned long long ticket)
{
    atomic_store(&pool->ticket, ticket);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_mutex_unlock(&pool->mutex); /* who is counted but not yet waiting gets to wait */
        pthread_cond_broadcast(&pool->wake);
    }
}

/* ---- chunks ---------------------------------------------------------------------------------------------- */

/* The next chunk of `thread` that nobody has begun, or CHUNKS. Who comes late, with the ticket of a step that is over,
 * gets none: the generation differs. */
static unsigned begin_chunk(lrf_pool *pool, unsigned long long generation, unsigned thread)
{
    atomic_ullong *const begun = &pool->progress[thread].begun;
    unsigned long long now = atomic_load(begun);

    while (now >> 16 == generation && (now & 0xffff) < CHUNKS)
        if (atomic_compare_exchange_weak(begun, &now, now + 1))
            return (unsigned)(now & 0xffff);
    return CHUNKS;
}

/* Own chunks first, then those of the others. */
static void run_chunks(lrf_pool *pool, unsigned long long ticket, unsigned self)
{
    const unsigned long long generation = ticket >> 16;
    const unsigned threads = (unsigned)(ticket & 0xffff);

    for (unsigned i = 0; i < threads; i++) {
        const unsigned thread = (self + i) % threads;
        unsigned chunk;
        while ((chunk = begin_chunk(pool, generation, thread)) < CHUNKS) {
            lrf_run(pool->job, (size_t)thread * CHUNKS + chunk, (size_t)threads * CHUNKS);
            if (atomic_fetch_sub(&pool->pending, 1) == 1 && atomic_load(&pool->caller_sleeps)) {
                pthread_mutex_lock(&pool->mutex);
                pthread_cond_signal(&pool->done);
                pthread_mutex_unlock(&pool->mutex);
            }
        }
    }
}

/* ---- workers --------------------------------------------------------------------------------------------- */

static void *work(void *argument)
{
    const struct worker *self = argument;
    unsigned long long seen = self->seen;

    for (;;) {
        seen = await_ticket(self->pool, seen);
        if ((seen & 0xffff) == 0)
            return NULL;
        if (self->index < (seen & 0xffff))
            run_chunks(self->pool, seen, self->index);
    }
}

/* Processors that this process may use. */
static unsigned processors(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

/* Brings the number of workers to limit - 1; fewer if the system refuses. */
static void start_workers(lrf_pool *pool, unsigned limit)
{
    sigset_t all, before;

    if (pool->workers + 1 >= limit)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited: signals are the host's business */
    while (pool->workers + 1 < limit) {
        struct worker *worker = &pool->worker[pool->workers];
        *worker = (struct worker){.pool = pool, .index = pool->workers + 1, .seen = ticket_of(pool)};
        if (pthread_create(&worker->thread, NULL, work, worker) != 0)
            break;
#if defined(__linux__)
        char name[16];
        snprintf(name, sizeof name, "lrfast-%u", worker->index);
        pthread_setname_np(worker->thread, name);
#endif
        pool->workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    atomic_store(&pool->spinning, pool->workers + 1 <= processors());
}

static void init_sync(lrf_pool *pool)
{
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    atomic_store(&pool->ticket, 1ull << 16);
    atomic_store(&pool->pending, 0);
    atomic_store(&pool->sleepers, 0);
    atomic_store(&pool->caller_sleeps, 0);
    pool->workers = 0;
}

/* Whether the pool is ours for this step. In a forked child the workers are gone, and locks and flags are as some
 * thread of the parent left them: the first thread to come begins anew, others find it busy meanwhile. */
static int take(lrf_pool *pool)
{
    enum { NOBODY = -1 };
    const int self = (int)getpid();
    int owner = atomic_load(&pool->owner);

    if (owner == self)
        return !atomic_flag_test_and_set(&pool->busy);
    if (owner == NOBODY || !atomic_compare_exchange_strong(&pool->owner, &owner, NOBODY))
        return 0;
    init_sync(pool);
    (void)atomic_flag_test_and_set(&pool->busy);
    atomic_store(&pool->owner, self);
    return 1;
}

/* ---- the public calls ------------------------------------------------------------------------------------ */

static int in_range(unsigned threads)
{
    return threads >= 1 && threads <= LRF_POOL_MAX_THREADS;
}

lrf_pool *lrf_pool_create(unsigned threads)
{
    lrf_pool *pool = in_range(threads) ? calloc(1, sizeof *pool) : NULL;

    if (pool) {
        init_sync(pool);
        atomic_store(&pool->limit, threads);
        atomic_store(&pool->owner, (int)getpid());
        atomic_flag_clear(&pool->busy);
    }
    return pool;
}

int lrf_pool_set_threads(lrf_pool *pool, unsigned threads)
{
    if (!in_range(threads))
        return -1;
    atomic_store(&pool->limit, threads);
    return 0;
}

unsigned lrf_pool_threads(const lrf_pool *pool)
{
    return atomic_load(&pool->limit);
}

/* How many threads this step is worth. */
static unsigned threads_for(const lrf_pool *pool, size_t tiles)
{
    const unsigned limit = pool ? lrf_pool_threads(pool) : 1;
    const size_t enough = pool && atomic_load(&pool->sleepers) > 0 ? TILES_PER_SLEEPER : TILES_PER_THREAD;
    const size_t worthwhile = tiles / enough;
    return worthwhile >= limit ? limit : worthwhile > 1 ? (unsigned)worthwhile : 1;
}

static void run_phase(lrf_pool *pool, lrf_job *job, unsigned threads)
{
    const unsigned long long generation = (ticket_of(pool) >> 16) + 1;

    pool->job = job;
    atomic_store(&pool->pending, threads * CHUNKS);
    for (unsigned i = 0; i < threads; i++)
        atomic_store(&pool->progress[i].begun, generation << 16);
    issue_ticket(pool, generation << 16 | threads);
    run_chunks(pool, generation << 16 | threads, 0);
    await_chunks(pool);
}

lrf_status lrf_pool_step(lrf_pool *pool, const lrf_group *groups, size_t group_count, const lrf_options *options,
                         lrf_report *report)
{
    lrf_job job;
    lrf_status status = lrf_begin(&job, groups, group_count, options, report);
    unsigned threads;

    if (status != LRF_OK)
        return status;
    threads = threads_for(pool, job.tiles);
    if (threads > 1 && take(pool)) {
        start_workers(pool, threads);
        threads = threads <= pool->workers + 1 ? threads : pool->workers + 1;
        while (lrf_next(&job))
            run_phase(pool, &job, threads);
        atomic_flag_clear(&pool->busy);
    } else {
        while (lrf_next(&job))
            lrf_run(&job, 0, 1);
    }
    return lrf_end(&job, report);
}

void lrf_pool_destroy(lrf_pool *pool)
{
    if (!pool)
        return;
    if (atomic_load(&pool->owner) == (int)getpid()) {
        issue_ticket(pool, ((ticket_of(pool) >> 16) + 1) << 16);
        for (unsigned i = 0; i < pool->workers; i++)
            pthread_join(pool->worker[i].thread, NULL);
    }
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->done);
    free(pool);
}
