/* A step: validate once, then phases over tiles, then commit. Parts are runs of whole tiles, so the result does not
 * depend on how many there are. */
#include "tiles.h"

#include <math.h>
#include <string.h>

/* What a step consists of, in this order. What has to be known of a whole tensor, or of all of them, before the update
 * of any element is a phase before it. */
static const lrf_phase *const phases[] = {&lrf_norm_phase, &lrf_update_phase};
enum { PHASES = sizeof phases / sizeof phases[0] };
_Static_assert(PHASES <= 32, "which phases leave slots is kept in 32 bits");

enum progress { CLOSED /* of lrf_open_step */, BEGUN, RUNNING, FINISHED, SKIPPED };

static size_t count_tiles(const lrf_group *groups, size_t group_count)
{
    size_t tiles = 0;
    for (size_t i = 0; i < group_count; i++) {
        const lrf_group *group = lrf_group_at(groups, i);
        for (size_t j = 0; group->tensors && j < group->count; j++)
            tiles += lrf_tiles_of(group, j);
    }
    return tiles;
}

/* Bytes of work memory per tile, which all phases use, and which of them do, as bits. */
static size_t slot_size_of(const lrf_options *options, uint32_t *with_slots)
{
    size_t largest = 0;

    *with_slots = 0;
    for (size_t i = 0; i < PHASES; i++) {
        const size_t size = phases[i]->slot_size(options);
        *with_slots |= (uint32_t)(size > 0) << i;
        largest = size > largest ? size : largest;
    }
    return largest;
}

size_t lrf_work_size(const lrf_group *groups, size_t group_count, const lrf_options *options)
{
    const lrf_fpenv saved = lrf_fpenv_enter();
    uint32_t with_slots;
    const size_t slot_size = options ? slot_size_of(options, &with_slots) : 0;
    lrf_report why;
    lrf_fpenv_leave(saved);
    if (slot_size == 0 || !groups)
        return 0;
    for (size_t i = 0; i < group_count; i++)
        if (lrf_check_group_head(lrf_group_at(groups, i), groups->struct_size, &why) != LRF_OK)
            return 0; /* the step will be refused */
    return count_tiles(groups, group_count) * slot_size;
}

/* ---- phases ---------------------------------------------------------------------------------------------- */

/* Not inlined, so that no arithmetic moves out of the default floating-point environment that lrf_run sets. */
static LRF_NOINLINE void run_tiles(const lrf_step_state *step, size_t first, size_t end)
{
    const lrf_phase *const phase = phases[step->phase];
    lrf_latest latest;
    size_t tile = 0; /* index of the tensor's first tile */

    latest.group = NULL;
    for (size_t i = 0; i < step->group_count && tile < end; i++) {
        const lrf_group *group = lrf_group_at(step->groups, i);
        const int carries = lrf_carries(group->rule);
        for (size_t j = 0; j < group->count && tile < end; j++) {
            const lrf_tensor *tensor = &group->tensors[j];
            const size_t tiles = lrf_tiles_of(group, j);
            if (tiles > 0 && tile + tiles > first) {
                const size_t skipped = first > tile ? first - tile : 0;
                const size_t stop = tile + tiles < end ? tiles : end - tile;
                const lrf_tile_run run = {.group = group,
                                          .tensor = tensor,
                                          .outputs = lrf_outputs_at(group, j),
                                          .carried = carries ? lrf_carried_at(group, j) : NULL,
                                          .storage = lrf_formats_at(group, j),
                                          .first = skipped,
                                          .end = stop,
                                          .index = tile + skipped};
                phase->run(step, &run, &latest);
            }
            tile += tiles;
        }
    }
}

/* Adds up what the tiles left; returns how the step goes on. */
static LRF_NOINLINE int finish_phase(lrf_step_state *step)
{
    return phases[step->phase]->finish(step);
}

/* ---- the public calls ------------------------------------------------------------------------------------ */

/* Not inlined for the same reason as run_tiles: comparisons raise flags, too. */
static LRF_NOINLINE lrf_status begin(lrf_step_state *step, lrf_report *report)
{
    const lrf_options *options = &step->options;
    lrf_status status = lrf_check(step->groups, step->group_count, options, report);
    size_t slot_size;

    if (status != LRF_OK)
        return status;
    step->kernels = lrf_active_kernels(&status);
    if (!step->kernels)
        return lrf_refuse(report, status == LRF_BAD_ISA ? "LRFAST_ISA" : "kernels", status);
    step->tiles = count_tiles(step->groups, step->group_count);
    step->variant = options->flags & LRF_STATS ? LRF_TRACED : options->flags & LRF_NORMS ? LRF_WITH_NORMS : LRF_PLAIN;
    slot_size = slot_size_of(options, &step->with_slots);
    if (slot_size > 0 && step->tiles > 0 &&
        (!options->work || (uintptr_t)options->work % sizeof(double) || options->work_size / slot_size < step->tiles))
        return lrf_refuse(report, "options.work", LRF_BAD_WORK);
    step->progress = BEGUN;
    return LRF_OK;
}

lrf_status lrf_begin(lrf_job *job, const lrf_group *groups, size_t group_count, const lrf_options *options,
                     lrf_report *report)
{
    lrf_report news = {.grad_norm = NAN, .clip_factor = 1, .limited_norm = NAN};
    lrf_status status;

    if (job)
        lrf_open_step(lrf_open(job), groups, group_count);
    if (!lrf_is_report(report))
        return LRF_BAD_STRUCT;
    if (!job) {
        status = lrf_refuse(&news, "job", LRF_NULL_POINTER);
    } else if (options && !lrf_knows_size(options->struct_size, LRF_FIRST_OPTIONS, sizeof *options)) {
        status = lrf_refuse(&news, "options.struct_size", LRF_BAD_STRUCT);
    } else {
        const lrf_fpenv saved = lrf_fpenv_enter();
        lrf_complete_options(&lrf_open(job)->options, options);
        status = begin(lrf_open(job), &news);
        lrf_fpenv_leave(saved);
    }
    lrf_write_report(report, &news);
    return status;
}

int lrf_next(lrf_job *job)
{
    lrf_step_state *const step = lrf_open(job);

    if (step->progress == BEGUN) {
        step->progress = RUNNING;
        step->phase = 0;
    } else if (step->progress == RUNNING) {
        if (step->with_slots >> step->phase & 1) {
            const lrf_fpenv saved = lrf_fpenv_enter();
            const int next = finish_phase(step);
            lrf_fpenv_leave(saved);
            if (next == LRF_ONCE_MORE)
                return 1;
            if (next == LRF_STOP) {
                step->progress = SKIPPED;
                return 0;
            }
        }
        step->phase++;
    } else {
        return 0;
    }
    while (step->phase < PHASES && !phases[step->phase]->is_always_needed && !(step->with_slots >> step->phase & 1))
        step->phase++;
    if (step->phase == PHASES)
        step->progress = FINISHED;
    return step->progress == RUNNING;
}

void lrf_run(lrf_job *job, size_t part, size_t parts)
{
    const lrf_step_state *const step = lrf_open(job);
    /* part * tiles / parts without overflow; parts differ by at most one tile. */
    const size_t share = step->tiles / parts, extra = step->tiles % parts;
    const size_t first = part * share + (part < extra ? part : extra);
    const size_t end = first + share + (part < extra);

    if (first < end && step->progress == RUNNING) {
        const lrf_fpenv saved = lrf_fpenv_enter();
        run_tiles(step, first, end);
        lrf_fpenv_leave(saved);
    }
}

/* What the tensors of a group carry becomes what it is after the update. Not inlined for the same reason as run_tiles.
 */
static LRF_NOINLINE void commit_carried(const lrf_group *group)
{
    lrf_latest latest;

    latest.group = NULL;
    for (size_t i = 0; i < group->count; i++) {
        double *const carried = lrf_carried_at(group, i);
        if (group->tensors[i].grad) {
            if (!lrf_is_latest(&latest, group, &group->tensors[i], carried))
                lrf_compute_scalars(&latest, group, &group->tensors[i], carried, 1);
            memcpy(carried, latest.after, sizeof latest.after);
        }
    }
}

lrf_status lrf_end(lrf_job *job, lrf_report *report)
{
    lrf_step_state *const step = lrf_open(job);
    const int skipped = step->progress == SKIPPED;
    uint64_t updated = 0;

    if (step->progress != FINISHED && !skipped)
        return LRF_UNFINISHED;
    if (!lrf_is_report(report))
        return LRF_BAD_STRUCT;
    step->progress = CLOSED;
    for (size_t i = 0; i < step->group_count && !skipped; i++) {
        const lrf_group *group = lrf_group_at(step->groups, i);
        if (lrf_carries(group->rule)) {
            const lrf_fpenv saved = lrf_fpenv_enter();
            commit_carried(group);
            lrf_fpenv_leave(saved);
        }
        for (size_t j = 0; j < group->count; j++)
            if (group->tensors[j].grad) {
                group->tensors[j].step++;
                updated++;
            }
    }
    if (report) {
        const lrf_report news = {
            .what = !skipped              ? NULL
                    : step->nonfinite > 0 ? "grad"
                                          : "grad squared",
            .group = step->bad_group,
            .tensor = step->bad_tensor,
            .grad_norm = step->grad_norm,
            .clip_factor = step->clip_factor,
            .updated = updated,
            .nonfinite = step->nonfinite,
            .limited_norm = step->limited_norm,
            .overflowed = step->overflowed,
        };
        lrf_write_report(report, &news);
    }
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

LRF_END_OF_SOURCE
