/* The thread pool: the same bits for any number of threads and whatever happens around it. */
#define _GNU_SOURCE
#include "harness.h"
#include "pool.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

enum { TENSORS = 5, STEPS = 4, ARENA = 5 << 22, MAX_TILES = 4096, STEPPERS = 4 };

static const size_t sizes[TENSORS] = {1200000, 3, 0, 70001, 1024};

/* qemu-user does not survive a fork in a program with threads, and does not show their names. */
static int emulated(void)
{
    const char *runner = getenv("LRFAST_TEST_RUNNER");
    return runner && *runner;
}

/* An optimizer with buffers of its own. */
typedef struct subject {
    unsigned char *bytes;
    lrf_tensor tensors[TENSORS];
    lrf_group group;
    lrf_options options;
    double work[4 * MAX_TILES];
} subject;

static subject *make_subject(void)
{
    static unsigned char *numbers; /* made once, by the first call, which is alone: they take longer than the steps */
    subject *s = calloc(1, sizeof *s);
    arena memory = {.bytes = aligned_alloc(64, ARENA), .size = ARENA};

    s->bytes = memory.bytes;
    if (!numbers) {
        arena first = {.bytes = numbers = calloc(1, ARENA), .size = ARENA};
        for (size_t i = 0; i < TENSORS; i++)
            (void)make_tensor(&first, find_rule(LRF_ADAM), LRF_FLOAT32, sizes[i], 10 * i);
    }
    memcpy(s->bytes, numbers, ARENA);
    for (size_t i = 0; i < TENSORS; i++) {
        lrf_tensor *tensor = &s->tensors[i];
        void **buffers[] = {&tensor->param, &tensor->grad, &tensor->state[0], &tensor->state[1]};
        tensor->count = sizes[i];
        for (size_t k = 0; k < 4; k++)
            *buffers[k] = take(&memory, sizes[i] * sizeof(float));
    }
    lrf_group_init(&s->group, sizeof s->group, LRF_ADAM);
    s->group.tensors = s->tensors;
    s->group.count = TENSORS;
    lrf_options_init(&s->options, sizeof s->options);
    s->options.clip_norm = 3;
    s->options.work = s->work;
    s->options.work_size = sizeof s->work;
    return s;
}

static void free_subject(subject *s)
{
    free(s->bytes);
    free(s);
}

/* FNV-1a, by words, of all buffers after some steps in a pool. */
static uint64_t hash_after_steps(subject *s, lrf_pool *pool)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (int i = 0; i < STEPS; i++)
        if (lrf_pool_step(pool, &s->group, 1, &s->options, NULL) != LRF_OK)
            return 0;
    for (size_t i = 0; i < ARENA; i += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, s->bytes + i, sizeof word);
        hash = (hash ^ word) * 0x100000001b3u;
    }
    return hash;
}

static uint64_t hash_with(lrf_pool *pool)
{
    subject *s = make_subject();
    const uint64_t hash = hash_after_steps(s, pool);
    free_subject(s);
    return hash;
}

static void any_number_of_threads(uint64_t expected)
{
    static const unsigned counts[] = {1, 2, 3, 4, 7, 16};

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        lrf_pool *pool = lrf_pool_create(counts[i]);
        describe("%u threads", counts[i]);
        CHECK(lrf_pool_threads(pool) == counts[i]);
        for (int repeat = 0; repeat < 5; repeat++)
            CHECK(hash_with(pool) == expected);
        lrf_pool_destroy(pool);
    }
    describe("limits");
    CHECK(lrf_pool_create(0) == NULL);
    CHECK(lrf_pool_create(LRF_POOL_MAX_THREADS + 1) == NULL);
    lrf_pool_destroy(NULL);
}

static void refusals_pass_through(void)
{
    lrf_pool *pool = lrf_pool_create(2);
    lrf_report report = {.struct_size = sizeof report};
    subject *s = make_subject();

    describe("refusal");
    s->group.lr = -1;
    CHECK(lrf_pool_step(pool, &s->group, 1, NULL, &report) == LRF_BAD_NUMBER);
    CHECK(strcmp(report.what, "lr") == 0);
    CHECK(lrf_pool_set_threads(pool, 0) == -1);
    CHECK(lrf_pool_threads(pool) == 2);
    free_subject(s);
    lrf_pool_destroy(pool);
}

/* ---- several callers ------------------------------------------------------------------------------------- */

typedef struct caller {
    lrf_pool *pool;
    uint64_t hash;
} caller;

static void *step_repeatedly(void *argument)
{
    caller *self = argument;
    const uint64_t first = hash_with(self->pool);

    self->hash = first;
    for (int repeat = 0; repeat < 10; repeat++)
        if (hash_with(self->pool) != first)
            self->hash = 0;
    return NULL;
}

static atomic_int finished;

static void *change_threads(void *argument)
{
    for (unsigned n = 1; !atomic_load(&finished); n = n % 5 + 1) {
        lrf_pool_set_threads(argument, n);
        usleep(200);
    }
    return NULL;
}

static void callers_share_a_pool(uint64_t expected)
{
    lrf_pool *pool = lrf_pool_create(3);
    caller callers[STEPPERS];
    pthread_t threads[STEPPERS], changer;

    describe("several callers");
    pthread_create(&changer, NULL, change_threads, pool);
    for (size_t i = 0; i < STEPPERS; i++) {
        callers[i] = (caller){.pool = pool};
        pthread_create(&threads[i], NULL, step_repeatedly, &callers[i]);
    }
    for (size_t i = 0; i < STEPPERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(callers[i].hash == expected);
    }
    atomic_store(&finished, 1);
    pthread_join(changer, NULL);
    lrf_pool_destroy(pool);
}

/* ---- fork ------------------------------------------------------------------------------------------------ */

/* Forks; the child steps in the inherited pool and leaves, or is killed by the alarm if it hangs. expected 0: it only
 * destroys the pool. */
static void child_steps(lrf_pool *pool, uint64_t expected)
{
    int status = -1;
    const pid_t child = fork();

    if (child == 0) {
        alarm(60);
        if (expected == 0)
            lrf_pool_destroy(pool);
        _exit(expected == 0 || (hash_with(pool) == expected && hash_with(pool) == expected) ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void fork_after_and_during_steps(uint64_t expected)
{
    lrf_pool *pool = lrf_pool_create(2);
    caller other = {.pool = pool};
    pthread_t thread;

    describe("fork after steps");
    CHECK(hash_with(pool) == expected);
    for (int i = 0; i < 5; i++)
        child_steps(pool, expected);
    CHECK(hash_with(pool) == expected);

    describe("fork during a step");
    pthread_create(&thread, NULL, step_repeatedly, &other);
    for (int i = 0; i < 5; i++)
        child_steps(pool, expected);
    pthread_join(thread, NULL);
    CHECK(other.hash == expected);
    child_steps(pool, 0);
    lrf_pool_destroy(pool);
}

/* ---- surroundings ---------------------------------------------------------------------------------------- */

static void no_thread_can_be_started(uint64_t expected)
{
    pthread_attr_t ordinary, impossible;
    lrf_pool *pool = lrf_pool_create(4);

    describe("pthread_create fails");
    pthread_getattr_default_np(&ordinary);
    pthread_attr_init(&impossible);
    CHECK(pthread_attr_setstacksize(&impossible, (size_t)1 << 62) == 0);
    CHECK(pthread_setattr_default_np(&impossible) == 0);
    CHECK(hash_with(pool) == expected);
    pthread_setattr_default_np(&ordinary);
    CHECK(hash_with(pool) == expected);
    lrf_pool_destroy(pool);
    pthread_attr_destroy(&impossible);
    pthread_attr_destroy(&ordinary);
}

/* Workers are born into the caller's floating-point environment and must not work in it. */
static void flush_to_zero_of_the_host(uint64_t expected)
{
#if defined(__x86_64__)
    const unsigned saved = _mm_getcsr();
    lrf_pool *pool = lrf_pool_create(2);
    uint64_t hash;

    describe("flush to zero");
    {
        subject *s = make_subject();
        _mm_setcsr(saved | 0x8040u);
        hash = hash_after_steps(s, pool);
        CHECK((_mm_getcsr() & 0x8040u) == 0x8040u);
        _mm_setcsr(saved);
        free_subject(s);
    }
    CHECK(hash == expected);
    lrf_pool_destroy(pool);
#else
    (void)expected;
#endif
}

/* Workers are named lrfast-N and block every signal that can be blocked. */
static void workers_block_signals(void)
{
    lrf_pool *pool = lrf_pool_create(2);
    DIR *tasks;
    int workers = 0, blocking = 0;

    describe("signals");
    (void)hash_with(pool);
    tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        char path[300], line[200];
        int ours = 0;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *status = fopen(path, "r");
        while (status && fgets(line, sizeof line, status)) {
            unsigned long long blocked;
            ours |= strncmp(line, "Name:\tlrfast-", 13) == 0;
            if (ours && sscanf(line, "SigBlk: %llx", &blocked) == 1) {
                workers++;
                blocking += (blocked & 1ull << (SIGINT - 1)) && (blocked & 1ull << (SIGTERM - 1));
            }
        }
        if (status)
            fclose(status);
    }
    if (tasks)
        closedir(tasks);
    CHECK(workers == blocking);
    CHECK(workers == 1 || emulated());
    lrf_pool_destroy(pool);
}

int main(void)
{
    const uint64_t expected = hash_with(NULL);

    CHECK(expected != 0);
    any_number_of_threads(expected);
    refusals_pass_through();
    flush_to_zero_of_the_host(expected);
    callers_share_a_pool(expected);
    if (!emulated())
        fork_after_and_during_steps(expected);
    no_thread_can_be_started(expected);
    workers_block_signals();
    return result();
}
