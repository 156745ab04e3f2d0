#if defined(__linux__)
#define _GNU_SOURCE /* thread names, affinity */
#endif
#include "internal.h"
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* A thread has at least TILES_PER_THREAD of Adam, or calling it costs more than it saves
 * (measured: 0.5 us). To wake one that sleeps costs the caller as much as 100,000 elements (30 us, in a virtual
 * machine); that is done for a step of TILES_TO_WAKE, or when steps follow each other so closely that the thread will
 * not fall asleep again. */
enum { TILES_PER_THREAD = 48, TILES_TO_WAKE = 1024 };

/* Each thread has so many chunks of its own, the same ones in every step of a size. Whoever is done takes over chunks
 * that nobody has begun, so that no step waits for a thread that the system has not yet woken. */
enum { CHUNKS = 4 };

/* How long a thread waits actively before it sleeps: longer than the gap between the phases of a step, much shorter
 * than a backward pass. */
enum { SPIN_NS = 50000, SPINS_PER_CLOCK = 64 };

/* Begun chunks of one thread: generation << 16 | count; on a cache line of its own. */
struct progress {
    atomic_ullong begun;
    char padding[64 - sizeof(atomic_ullong)];
};

struct worker {
    lrf_pool *pool;
    unsigned index; /* among the threads of a step, from 1; 0 is the caller */
    unsigned long long seen;
    atomic_uint asleep;
    pthread_cond_t wake;
    pthread_t thread;
};

struct lrf_pool {
    atomic_ullong ticket;      /* what there is to do: generation << 16 | threads; 0 threads end the workers */
    atomic_uint pending;       /* chunks not yet done */
    atomic_uint caller_sleeps; /* the caller waits for `done` */
    atomic_uint limit;         /* threads asked for, the caller included */
    atomic_uint workers;       /* running */
    atomic_flag busy;
    atomic_int spinning;   /* whether waiting actively makes sense: threads <= processors */
    atomic_int owner;      /* process that the workers belong to */
    atomic_llong last_end; /* of a step on several threads, in ns */
    lrf_job *job;
    pthread_mutex_t mutex;
    pthread_cond_t done;
    struct progress progress[LRF_POOL_MAX_THREADS];
    struct worker worker[LRF_POOL_MAX_THREADS];
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

/* Waits for a ticket other than the one that this worker saw last: first actively, then asleep. */
static void await_ticket(struct worker *self)
{
    lrf_pool *const pool = self->pool;
    unsigned long long ticket = ticket_of(pool);

    if (atomic_load_explicit(&pool->spinning, memory_order_relaxed)) {
        const long long end = now_ns() + SPIN_NS;
        while (ticket == self->seen && now_ns() < end) {
            for (int i = 0; i < SPINS_PER_CLOCK && (ticket = ticket_of(pool)) == self->seen; i++)
                lrf_relax();
            sched_yield();
        }
    }
    if (ticket == self->seen) {
        pthread_mutex_lock(&pool->mutex);
        atomic_store(&self->asleep, 1);
        while ((ticket = ticket_of(pool)) == self->seen)
            pthread_cond_wait(&self->wake, &pool->mutex);
        atomic_store(&self->asleep, 0);
        pthread_mutex_unlock(&pool->mutex);
    }
    self->seen = ticket;
}

static void await_chunks(lrf_pool *pool)
{
    if (atomic_load_explicit(&pool->spinning, memory_order_relaxed)) {
        const long long end = now_ns() + SPIN_NS;
        while (atomic_load(&pool->pending) > 0 && now_ns() < end) {
            for (int i = 0; i < SPINS_PER_CLOCK && atomic_load(&pool->pending) > 0; i++)
                lrf_relax();
            sched_yield(); /* to a worker that waits for this very processor */
        }
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

/* Tells the first workers, and wakes those of them that sleep; the others may sleep on. The store of the ticket and the
 * load of `asleep` are sequentially consistent, as are their counterparts in await_ticket: either the worker sees the
 * ticket, or it is seen to be asleep. */
static void issue_ticket(lrf_pool *pool, unsigned long long ticket, unsigned workers)
{
    atomic_store(&pool->ticket, ticket);
    for (unsigned i = 0; i < workers; i++)
        if (atomic_load(&pool->worker[i].asleep)) {
            pthread_mutex_lock(&pool->mutex);
            pthread_mutex_unlock(&pool->mutex); /* one that is about to wait gets there */
            pthread_cond_signal(&pool->worker[i].wake);
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
    struct worker *const self = argument;

    for (;;) {
        await_ticket(self);
        if ((self->seen & 0xffff) == 0)
            return NULL;
        if (self->index < (self->seen & 0xffff))
            run_chunks(self->pool, self->seen, self->index);
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
    unsigned n = atomic_load(&pool->workers);
    sigset_t all, before;

    if (n + 1 >= limit)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited: signals are the host's business */
    for (; n + 1 < limit; n++) {
        struct worker *worker = &pool->worker[n];
        worker->pool = pool;
        worker->index = n + 1;
        worker->seen = ticket_of(pool);
        atomic_store(&worker->asleep, 0);
        pthread_cond_init(&worker->wake, NULL);
        if (pthread_create(&worker->thread, NULL, work, worker) != 0)
            break;
#if defined(__linux__)
        char name[16];
        snprintf(name, sizeof name, "lrfast-%u", worker->index);
        pthread_setname_np(worker->thread, name);
#endif
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    atomic_store(&pool->workers, n);
}

static void init_sync(lrf_pool *pool)
{
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->done, NULL);
    atomic_store(&pool->ticket, 1ull << 16);
    atomic_store(&pool->pending, 0);
    atomic_store(&pool->caller_sleeps, 0);
    atomic_store(&pool->workers, 0);
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

/* Whether so many threads wait actively. */
static int are_awake(lrf_pool *pool, unsigned threads)
{
    if (atomic_load(&pool->workers) + 1 < threads)
        return 0;
    for (unsigned i = 0; i + 1 < threads; i++)
        if (atomic_load(&pool->worker[i].asleep))
            return 0;
    return 1;
}

/* Tiles of Adam that take as long as those of a step: inside the caches, a tile of SGD takes a third, and time goes
 * with the number of states (measured). With several rules the cheapest one counts. */
static size_t tiles_of_adam(const lrf_step_state *step)
{
    size_t cost = 3;

    for (size_t i = 0; i < step->group_count; i++) {
        const lrf_rule_info *rule = lrf_find_rule(lrf_group_at(step->groups, i)->rule);
        size_t own = 1;
        for (size_t slot = 0; slot < LRF_STATE_SLOTS; slot++)
            own += rule->state[slot] != NULL;
        cost = own < cost ? own : cost;
    }
    return step->tiles * cost / 3;
}

/* How many threads this step is worth. */
static unsigned threads_for(lrf_pool *pool, const lrf_step_state *step)
{
    const unsigned limit = pool ? lrf_pool_threads(pool) : 1;
    size_t worthwhile;
    unsigned threads;

    if (limit == 1 || step->tiles < 2 * TILES_PER_THREAD)
        return 1;
    worthwhile = tiles_of_adam(step) / TILES_PER_THREAD;
    threads = worthwhile >= limit ? limit : worthwhile > 1 ? (unsigned)worthwhile : 1;
    if (threads == 1 || step->tiles >= TILES_TO_WAKE || are_awake(pool, threads))
        return threads;
    return now_ns() - atomic_load_explicit(&pool->last_end, memory_order_relaxed) < SPIN_NS ? threads : 1;
}

static void run_phase(lrf_pool *pool, lrf_job *job, unsigned threads)
{
    const unsigned long long generation = (ticket_of(pool) >> 16) + 1;

    pool->job = job;
    atomic_store(&pool->pending, threads * CHUNKS);
    for (unsigned i = 0; i < threads; i++)
        atomic_store(&pool->progress[i].begun, generation << 16);
    issue_ticket(pool, generation << 16 | threads, threads - 1);
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
    threads = threads_for(pool, lrf_open(&job));
    if (threads > 1 && take(pool)) {
        start_workers(pool, threads);
        atomic_store(&pool->spinning, threads <= processors());
        threads = threads <= pool->workers + 1 ? threads : pool->workers + 1;
        while (lrf_next(&job))
            run_phase(pool, &job, threads);
        atomic_flag_clear(&pool->busy);
    } else {
        while (lrf_next(&job))
            lrf_run(&job, 0, 1);
    }
    status = lrf_end(&job, report);
    if (pool && lrf_open(&job)->tiles >= 2 * TILES_PER_THREAD && lrf_pool_threads(pool) > 1)
        atomic_store_explicit(&pool->last_end, now_ns(), memory_order_relaxed);
    return status;
}

void lrf_pool_destroy(lrf_pool *pool)
{
    if (!pool)
        return;
    /* In a forked child there are no workers, and locks are as some thread of the parent left them. */
    if (atomic_load(&pool->owner) == (int)getpid()) {
        const unsigned workers = atomic_load(&pool->workers);
        issue_ticket(pool, ((ticket_of(pool) >> 16) + 1) << 16, workers);
        for (unsigned i = 0; i < workers; i++) {
            pthread_join(pool->worker[i].thread, NULL);
            pthread_cond_destroy(&pool->worker[i].wake);
        }
        pthread_mutex_destroy(&pool->mutex);
        pthread_cond_destroy(&pool->done);
    }
    free(pool);
}

LRF_END_OF_SOURCE
