/* A step: validate once, then phases over tiles, then commit. Parts are runs of whole tiles, so the result does not
 * depend on how many there are. */
#include "check.h"
#include "tail.h"

#include <math.h>

enum phase { CLOSED, BEGUN, NORM, UPDATE, FINISHED, SKIPPED };

static size_t count_tiles(const lrf_group *groups, size_t group_count)
{
    size_t tiles = 0;
    for (size_t i = 0; i < group_count; i++)
        for (size_t j = 0; groups[i].tensors && j < groups[i].count; j++)
            tiles += lrf_tiles_of(&groups[i].tensors[j]);
    return tiles;
}

size_t lrf_work_size(const lrf_group *groups, size_t group_count, const lrf_options *options)
{
    const lrf_fpenv saved = lrf_fpenv_enter();
    const size_t slot_size = options ? lrf_slot_size(options) : 0;
    lrf_fpenv_leave(saved);
    return slot_size > 0 && groups ? count_tiles(groups, group_count) * slot_size : 0;
}

/* ---- phases ---------------------------------------------------------------------------------------------- */

static void update_run(const lrf_job *job, const lrf_tile_run *run, const lrf_scalars *scalars)
{
    static const lrf_trace nothing;
    const lrf_kernels *kernels = job->kernels;
    const lrf_group *group = run->group;
    lrf_update *const update = kernels->update[LRF_PLAIN][group->rule][group->dtype - LRF_FLOAT32];
    const size_t begin = run->first * LRF_TILE, n = lrf_elements_of(run);
    const size_t head = lrf_elements_to_cache_line(run->tensor, begin, n, lrf_element_size(group));

    if (head > 0)
        update(run->tensor, begin, head, scalars, &nothing);
    update(run->tensor, begin + head, n - head, scalars, &nothing);
}

static void compute_scalars(const lrf_job *job, lrf_scalars *scalars, const lrf_group *group, uint64_t step)
{
    /* clip_value comes between the scale and the clip factor, in a stage of its own. */
    const double scale = job->options.clip_value > 0 ? 1 : job->options.grad_scale;

    lrf_compute_scalars(scalars, group, step, scale * job->clip_factor);
    if (job->variant == LRF_TRACED)
        lrf_add_trace_scalars(scalars, group, step);
}

/* Not inlined, so that no arithmetic moves out of the default floating-point environment that lrf_run sets. */
static LRF_NOINLINE void run_tiles(const lrf_job *job, size_t first, size_t end)
{
    size_t tile = 0; /* index of the tensor's first tile */

    for (size_t i = 0; i < job->group_count && tile < end; i++) {
        const lrf_group *group = &job->groups[i];
        const int staged = lrf_has_stages(job, group);
        lrf_scalars scalars;
        const lrf_tensor *scalars_of = NULL; /* a tensor at the step that they belong to */

        for (size_t j = 0; j < group->count && tile < end; j++) {
            const lrf_tensor *tensor = &group->tensors[j];
            const size_t tiles = lrf_tiles_of(tensor);
            if (tiles > 0 && tile + tiles > first) {
                const size_t skipped = first > tile ? first - tile : 0;
                const size_t stop = tile + tiles < end ? tiles : end - tile;
                const lrf_outputs *outputs = group->outputs ? &group->outputs[j] : NULL;
                const lrf_tile_run run = {group, tensor, outputs, skipped, stop, tile + skipped};
                if (job->phase == NORM) {
                    lrf_norm_run(job, &run);
                } else {
                    if (!scalars_of || scalars_of->step != tensor->step)
                        compute_scalars(job, &scalars, group, tensor->step + 1);
                    scalars_of = tensor;
                    if (staged)
                        lrf_staged_run(job, &run, &scalars);
                    else
                        update_run(job, &run, &scalars);
                }
            }
            tile += tiles;
        }
    }
}

/* ---- the public calls ------------------------------------------------------------------------------------ */

/* Not inlined for the same reason as run_tiles: comparisons raise flags, too. */
static LRF_NOINLINE lrf_status begin(lrf_job *job, lrf_report *report)
{
    const lrf_options *options = &job->options;
    const lrf_status status = lrf_check(job->groups, job->group_count, options, report);
    size_t slot_size;

    if (status != LRF_OK)
        return status;
    job->kernels = lrf_active_kernels();
    if (!job->kernels) {
        report->what = "LRFAST_ISA";
        return LRF_BAD_ISA;
    }
    job->tiles = count_tiles(job->groups, job->group_count);
    job->variant = options->flags & LRF_STATS ? LRF_TRACED : options->flags & LRF_NORMS ? LRF_WITH_NORMS : LRF_PLAIN;
    slot_size = lrf_slot_size(options);
    if (slot_size > 0 && job->tiles > 0 &&
        (!options->work || (uintptr_t)options->work % sizeof(double) || options->work_size / slot_size < job->tiles)) {
        report->what = "options.work";
        return LRF_BAD_WORK;
    }
    job->phase = BEGUN;
    return LRF_OK;
}

lrf_status lrf_begin(lrf_job *job, const lrf_group *groups, size_t group_count, const lrf_options *options,
                     lrf_report *report)
{
    lrf_report unused;
    lrf_fpenv saved;
    lrf_status status;

    report = report ? report : &unused;
    *report = (lrf_report){.grad_norm = NAN, .clip_factor = 1};
    if (!job) {
        report->what = "job";
        return LRF_NULL_POINTER;
    }
    *job = (lrf_job){.groups = groups, .group_count = group_count, .grad_norm = NAN, .clip_factor = 1, .phase = CLOSED};
    if (options && options->struct_size != sizeof *options) {
        report->what = "options.struct_size";
        return LRF_BAD_STRUCT;
    }
    if (options)
        job->options = *options;
    else
        lrf_options_init(&job->options, sizeof job->options);
    saved = lrf_fpenv_enter();
    status = begin(job, report);
    lrf_fpenv_leave(saved);
    return status;
}

int lrf_next(lrf_job *job)
{
    switch (job->phase) {
    case BEGUN: job->phase = lrf_needs_norm(&job->options) ? NORM : UPDATE; return 1;
    case NORM: {
        const lrf_fpenv saved = lrf_fpenv_enter();
        lrf_finish_norm(job);
        lrf_fpenv_leave(saved);
        job->phase = job->nonfinite > 0 ? SKIPPED : UPDATE;
        return job->phase == UPDATE;
    }
    case UPDATE: job->phase = FINISHED; return 0;
    default: return 0;
    }
}

void lrf_run(lrf_job *job, size_t part, size_t parts)
{
    /* part * tiles / parts without overflow; parts differ by at most one tile. */
    const size_t share = job->tiles / parts, extra = job->tiles % parts;
    const size_t first = part * share + (part < extra ? part : extra);
    const size_t end = first + share + (part < extra);

    if (first < end && (job->phase == NORM || job->phase == UPDATE)) {
        const lrf_fpenv saved = lrf_fpenv_enter();
        run_tiles(job, first, end);
        lrf_fpenv_leave(saved);
    }
}

lrf_status lrf_end(lrf_job *job, lrf_report *report)
{
    const int skipped = job->phase == SKIPPED;
    uint64_t updated = 0;

    if (job->phase != FINISHED && !skipped)
        return LRF_UNFINISHED;
    job->phase = CLOSED;
    if (!skipped) {
        const lrf_fpenv saved = lrf_fpenv_enter();
        lrf_finish_statistics(job);
        lrf_fpenv_leave(saved);
    }
    for (size_t i = 0; i < job->group_count && !skipped; i++)
        for (size_t j = 0; j < job->groups[i].count; j++) {
            lrf_tensor *tensor = &job->groups[i].tensors[j];
            if (tensor->grad) {
                tensor->step++;
                updated++;
            }
        }
    if (report)
        *report = (lrf_report){
            .what = skipped ? "grad" : NULL,
            .group = job->bad_group,
            .tensor = job->bad_tensor,
            .grad_norm = job->grad_norm,
            .clip_factor = job->clip_factor,
            .updated = updated,
            .nonfinite = job->nonfinite,
        };
    return skipped ? LRF_NOT_FINITE : LRF_OK;
}

lrf_status lrf_step(const lrf_group *groups, size_t group_count, const lrf_options *options, lrf_report *report)
{
    lrf_job job;
    lrf_status status = lrf_begin(&job, groups, group_count, options, report);

    if (status != LRF_OK)
        return status;
    while (lrf_next(&job))
        lrf_run(&job, 0, 1);
    return lrf_end(&job, report);
}
