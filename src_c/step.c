/* A step: validate once, then phases over tiles, then commit. Parts are runs of whole tiles, so the result does not
 * depend on how many there are. */
#include "check.h"
#include "dispatch.h"

#include <math.h>

enum phase { CLOSED, BEGUN, NORM, UPDATE, FINISHED };

enum { CACHE_LINE = 64, LONG_RUN = 16384 }; /* bytes; elements */

static const double CLIP_EPS = 1e-6; /* as in PyTorch's clip_grad_norm_ */

static size_t tiles_of(const lrf_tensor *tensor)
{
    return tensor->grad ? (size_t)(tensor->count / LRF_TILE + (tensor->count % LRF_TILE != 0)) : 0;
}

static size_t count_tiles(const lrf_group *groups, size_t group_count)
{
    size_t tiles = 0;
    for (size_t i = 0; i < group_count; i++)
        for (size_t j = 0; j < groups[i].count; j++)
            tiles += tiles_of(&groups[i].tensors[j]);
    return tiles;
}

static int needs_norm(const lrf_options *options)
{
    return (options->flags & LRF_GRAD_NORM) || options->clip_norm > 0;
}

size_t lrf_work_size(const lrf_group *groups, size_t group_count, const lrf_options *options)
{
    const lrf_fpenv saved = lrf_fpenv_enter();
    const int needed = options && needs_norm(options);
    lrf_fpenv_leave(saved);
    return needed && groups ? count_tiles(groups, group_count) * sizeof(double) : 0;
}

/* ---- phases ---------------------------------------------------------------------------------------------- */

/* Tiles first .. end of one tensor; `index` is the index of its tile `first` in the whole step. */
typedef struct tile_run {
    const lrf_tensor *tensor;
    size_t first, end, index;
} tile_run;

static size_t elements_from(const tile_run *run)
{
    const size_t rest = (size_t)run->tensor->count - run->first * LRF_TILE;
    const size_t whole = (run->end - run->first) * LRF_TILE;
    return whole < rest ? whole : rest;
}

static void norm_of_run(const lrf_job *job, const lrf_group *group, const tile_run *run)
{
    const lrf_kernels *kernels = job->kernels;
    double *const slots = job->options.work;

    for (size_t tile = run->first; tile < run->end; tile++) {
        const tile_run one = {run->tensor, tile, tile + 1, 0};
        slots[run->index + tile - run->first] =
            kernels->sum_squares[group->dtype - LRF_FLOAT32](run->tensor, tile * LRF_TILE, elements_from(&one));
    }
}

/* How many elements come before the first whole cache line of the parameter, where that pays: vectors as wide as a
 * line would otherwise all straddle two (measured at 40 M elements: SGD 20 % slower). */
static size_t elements_to_cache_line(const lrf_tensor *tensor, size_t begin, size_t n, size_t element_size)
{
    const size_t misaligned = ((uintptr_t)tensor->param + begin * element_size) % CACHE_LINE;
    return n < LONG_RUN || misaligned == 0 ? 0 : (CACHE_LINE - misaligned) / element_size;
}

/* Not inlined, so that no arithmetic moves out of the default floating-point environment that lrf_run sets. */
static LRF_NOINLINE void run_tiles(const lrf_job *job, size_t first, size_t end)
{
    const lrf_kernels *kernels = job->kernels;
    size_t tile = 0; /* index of the tensor's first tile */

    for (size_t i = 0; i < job->group_count && tile < end; i++) {
        const lrf_group *group = &job->groups[i];
        lrf_update *const update = kernels->update[group->dtype - LRF_FLOAT32][group->rule];
        lrf_scalars scalars;
        const lrf_tensor *scalars_of = NULL; /* a tensor at the step that they belong to */

        for (size_t j = 0; j < group->count && tile < end; j++) {
            const lrf_tensor *tensor = &group->tensors[j];
            const size_t tiles = tiles_of(tensor);
            if (tiles > 0 && tile + tiles > first) {
                const size_t skipped = first > tile ? first - tile : 0;
                const size_t stop = tile + tiles < end ? tiles : end - tile;
                const tile_run run = {tensor, skipped, stop, tile + skipped};
                if (job->phase == NORM) {
                    norm_of_run(job, group, &run);
                } else {
                    if (!scalars_of || scalars_of->step != tensor->step)
                        lrf_compute_scalars(&scalars, group, tensor->step + 1,
                                            job->options.grad_scale * job->clip_factor);
                    scalars_of = tensor;
                    const size_t begin = skipped * LRF_TILE, n = elements_from(&run);
                    const size_t head = elements_to_cache_line(tensor, begin, n, lrf_element_size(group));
                    if (head > 0)
                        update(tensor, begin, head, &scalars);
                    update(tensor, begin + head, n - head, &scalars);
                }
            }
            tile += tiles;
        }
    }
}

static LRF_NOINLINE void finish_norm(lrf_job *job)
{
    const double *const slots = job->options.work;
    const double clip_norm = job->options.clip_norm;
    double sum = 0;

    for (size_t tile = 0; tile < job->tiles; tile++)
        sum += slots[tile];
    job->grad_norm = fabs(job->options.grad_scale) * sqrt(sum);
    if (clip_norm > 0) {
        const double factor = clip_norm / (job->grad_norm + CLIP_EPS);
        job->clip_factor = factor < 1 || factor != factor ? factor : 1;
    }
}

/* ---- the public calls ------------------------------------------------------------------------------------ */

/* Not inlined for the same reason as run_tiles: comparisons raise flags, too. */
static LRF_NOINLINE lrf_status begin(lrf_job *job, lrf_report *report)
{
    const lrf_options *options = &job->options;
    const lrf_status status = lrf_check(job->groups, job->group_count, options, report);

    if (status != LRF_OK)
        return status;
    job->kernels = lrf_active_kernels();
    if (!job->kernels) {
        report->what = "LRFAST_ISA";
        return LRF_BAD_ISA;
    }
    job->tiles = count_tiles(job->groups, job->group_count);
    job->needs_norm = needs_norm(options) ? 1 : 0;
    if (job->needs_norm && job->tiles > 0 &&
        (!options->work || (uintptr_t)options->work % sizeof(double) ||
         options->work_size / sizeof(double) < job->tiles)) {
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
    case BEGUN: job->phase = needs_norm(&job->options) ? NORM : UPDATE; return 1;
    case NORM: {
        const lrf_fpenv saved = lrf_fpenv_enter();
        finish_norm(job);
        lrf_fpenv_leave(saved);
        job->phase = UPDATE;
        return 1;
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
    uint64_t updated = 0;

    if (job->phase != FINISHED)
        return LRF_UNFINISHED;
    job->phase = CLOSED;
    for (size_t i = 0; i < job->group_count; i++)
        for (size_t j = 0; j < job->groups[i].count; j++) {
            lrf_tensor *tensor = &job->groups[i].tensors[j];
            if (tensor->grad) {
                tensor->step++;
                updated++;
            }
        }
    if (report)
        *report = (lrf_report){.grad_norm = job->grad_norm, .clip_factor = job->clip_factor, .updated = updated};
    return LRF_OK;
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
