/* One step on your own threads: AdamW with clipping, workers that wait at a barrier between the phases, and the same
 * bits as on one thread.
 *
 *     cc threads.c -I$(python3 -c 'import lrfast; print(lrfast.get_include())') \
 *                  -L$(python3 -c 'import lrfast; print(lrfast.get_library_dir())') -llrfast -lm -pthread -o threads
 *     ./threads */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lrfast.h"

enum { THREADS = 4, COUNT = 100000, UPDATES = 10 };

/* ---- a team of threads that runs the parts of a job --------------------------------------------------------- */

static lrf_job job;
static int stopping;
static pthread_barrier_t phase_begins, phase_ends;

static void *work_on_part(void *part)
{
    for (;;) {
        pthread_barrier_wait(&phase_begins);
        if (stopping)
            return NULL;
        lrf_run(&job, *(const size_t *)part, THREADS);
        pthread_barrier_wait(&phase_ends);
    }
}

/* What lrf_step does, with the calling thread as part 0 of the team. */
static lrf_status step_in_parallel(const lrf_group *groups, size_t group_count, const lrf_options *options,
                                   lrf_report *report)
{
    const lrf_status status = lrf_begin(&job, groups, group_count, options, report);
    if (status != LRF_OK)
        return status;
    while (lrf_next(&job)) {
        pthread_barrier_wait(&phase_begins);
        lrf_run(&job, 0, THREADS);
        pthread_barrier_wait(&phase_ends);
    }
    return lrf_end(&job, report);
}

/* ---- something to train ------------------------------------------------------------------------------------- */

typedef struct model {
    float param[COUNT], grad[COUNT], exp_avg[COUNT], exp_avg_sq[COUNT];
} model;

static lrf_tensor tensor_of(model *m)
{
    memset(m, 0, sizeof *m);
    for (int i = 0; i < COUNT; i++)
        m->param[i] = (float)(i % 1000) / 1000;
    return (lrf_tensor){.param = m->param, .grad = m->grad, .state = {m->exp_avg, m->exp_avg_sq}, .count = COUNT};
}

/* The gradient of the loss sum (p - 0.5)^2 / 2. */
static void compute_gradient(model *m)
{
    for (int i = 0; i < COUNT; i++)
        m->grad[i] = m->param[i] - 0.5f;
}

int main(void)
{
    static model alone, together;
    static const size_t parts[THREADS] = {0, 1, 2, 3};
    pthread_t team[THREADS];
    lrf_tensor tensors[2] = {tensor_of(&alone), tensor_of(&together)};
    lrf_group groups[2];
    lrf_options options;
    lrf_report report = {.struct_size = sizeof report};
    lrf_status status = LRF_OK;

    lrf_options_init(&options, sizeof options);
    options.clip_norm = 1;
    for (int i = 0; i < 2; i++) {
        lrf_group_init(&groups[i], sizeof groups[i], LRF_ADAM);
        groups[i].decoupled_weight_decay = 0.01;
        groups[i].tensors = &tensors[i];
        groups[i].count = 1;
    }
    options.work_size = lrf_work_size(groups, 1, &options);
    options.work = malloc(options.work_size);

    pthread_barrier_init(&phase_begins, NULL, THREADS);
    pthread_barrier_init(&phase_ends, NULL, THREADS);
    for (int i = 1; i < THREADS; i++)
        if (pthread_create(&team[i], NULL, work_on_part, (void *)&parts[i]) != 0)
            return 2;

    for (int t = 0; t < UPDATES && status == LRF_OK; t++) {
        compute_gradient(&alone);
        compute_gradient(&together);
        status = lrf_step(&groups[0], 1, &options, NULL);
        if (status == LRF_OK)
            status = step_in_parallel(&groups[1], 1, &options, &report);
        if (status != LRF_OK)
            fprintf(stderr, "update %d: %s\n", t, lrf_status_text(status));
        else
            printf("update %d: norm %.3f, clipped by %.4f\n", t, report.grad_norm, report.clip_factor);
    }

    stopping = 1;
    pthread_barrier_wait(&phase_begins);
    for (int i = 1; i < THREADS; i++)
        pthread_join(team[i], NULL);
    free(options.work);
    if (status != LRF_OK || memcmp(&alone, &together, sizeof alone) != 0) {
        puts("the results differ");
        return 1;
    }
    puts("the same bits on one thread and on four");
    return 0;
}
