/* The pool from inside, between two steps: it is free again, every chunk was begun, and none is pending. */
#define lrf_pool_create inner_create
#define lrf_pool_destroy inner_destroy
#define lrf_pool_set_threads inner_set_threads
#define lrf_pool_step inner_step
#define lrf_pool_threads inner_threads
#define take take_pool
#include "pool.c"
#undef take

#include "harness.h"

enum { COUNT = 2000000, THREADS = 3, STEPS = 20 };

int main(void)
{
    float *const param = calloc(COUNT, sizeof *param), *const grad = calloc(COUNT, sizeof *grad);
    lrf_pool *const pool = inner_create(THREADS);
    lrf_tensor tensor;
    lrf_group group;
    lrf_options options;

    CHECK(param && grad && pool);
    memset(&tensor, 0, sizeof tensor);
    tensor.param = param;
    tensor.grad = grad;
    tensor.count = COUNT;
    lrf_group_init(&group, sizeof group, LRF_SGD);
    group.tensors = &tensor;
    group.count = 1;
    lrf_options_init(&options, sizeof options);
    alarm(20); /* a hang is a failure, and soon */
    for (unsigned step = 0; step < STEPS && failures == 0; step++) {
        const unsigned long long generation = ticket_of(pool) >> 16;
        describe("step %u", step);
        CHECK(inner_step(pool, &group, 1, &options, NULL) == LRF_OK);
        CHECK(ticket_of(pool) == ((generation + 1) << 16 | THREADS));
        CHECK(atomic_load(&pool->pending) == 0);
        for (unsigned i = 0; i < THREADS; i++)
            CHECK(atomic_load(&pool->progress[i].begun) == ((generation + 1) << 16 | CHUNKS));
        CHECK(!atomic_flag_test_and_set(&pool->busy));
        atomic_flag_clear(&pool->busy);
    }
    inner_destroy(pool);
    free(param);
    free(grad);
    return result();
}
