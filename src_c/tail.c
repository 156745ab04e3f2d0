#include "tail.h"
#include "check.h"

#include <math.h>
#include <string.h>

enum { CACHE_LINE = 64, LONG_RUN = 16384 }; /* bytes; elements */

static const double CLIP_EPS = 1e-6; /* as in PyTorch's clip_grad_norm_ */

/* Elements of either type. */
typedef union tile {
    float singles[LRF_TILE];
    double doubles[LRF_TILE];
} tile;

size_t lrf_tiles_of(const lrf_tensor *tensor)
{
    return tensor->grad ? (size_t)(tensor->count / LRF_TILE + (tensor->count % LRF_TILE != 0)) : 0;
}

size_t lrf_elements_of(const lrf_tile_run *run)
{
    const size_t rest = (size_t)run->tensor->count - run->first * LRF_TILE;
    const size_t whole = (run->end - run->first) * LRF_TILE;
    return whole < rest ? whole : rest;
}

int lrf_needs_norm(const lrf_options *options)
{
    return (options->flags & (LRF_GRAD_NORM | LRF_REQUIRE_FINITE)) || options->clip_norm > 0;
}

static int has_statistics(const lrf_options *options)
{
    return (options->flags & (LRF_NORMS | LRF_STATS)) != 0;
}

size_t lrf_slot_size(const lrf_options *options)
{
    if (has_statistics(options))
        return sizeof(lrf_slot); /* the larger one; both passes use the same memory */
    return lrf_needs_norm(options) ? sizeof(lrf_norm_slot) : 0;
}

static void *at(void *buffer, size_t element, size_t element_size)
{
    return buffer ? (char *)buffer + element * element_size : NULL;
}

size_t lrf_elements_to_cache_line(const lrf_tensor *tensor, size_t begin, size_t n, size_t element_size)
{
    const size_t misaligned = ((uintptr_t)tensor->param + begin * element_size) % CACHE_LINE;
    return n < LONG_RUN || misaligned == 0 ? 0 : (CACHE_LINE - misaligned) / element_size;
}

/* ---- the pass over the gradients ------------------------------------------------------------------------- */

void lrf_norm_run(const lrf_job *job, const lrf_tile_run *run)
{
    const lrf_kernels *kernels = job->kernels;
    const lrf_options *options = &job->options;
    const size_t type = run->group->dtype - LRF_FLOAT32, element_size = lrf_element_size(run->group);
    const double half_of_largest = (type == 0 ? (double)FLT_MAX : DBL_MAX) / 2;
    const double scale = type == 0 ? (double)(float)options->grad_scale : options->grad_scale;
    lrf_norm_slot *slot = (lrf_norm_slot *)options->work + run->index;
    tile clamped;

    for (size_t i = run->first; i < run->end; i++, slot++) {
        const lrf_tile_run one = {.tensor = run->tensor, .first = i, .end = i + 1};
        const size_t n = lrf_elements_of(&one);
        const void *const g = at(run->tensor->grad, i * LRF_TILE, element_size);

        *slot = (lrf_norm_slot){.sum = kernels->sum_squares[type](g, n)};
        /* If the norm of the tile is in range, so is each of its elements. */
        if ((options->flags & LRF_REQUIRE_FINITE) && !(fabs(scale) * sqrt(slot->sum) <= half_of_largest))
            slot->nonfinite = (double)kernels->count_nonfinite[type](g, n, options->grad_scale);
        if (options->clip_value > 0 && options->clip_norm > 0) {
            kernels->clamp[type](&clamped, g, n, options->grad_scale, options->clip_value);
            slot->clamped_sum = kernels->sum_squares[type](&clamped, n);
        }
    }
}

void lrf_finish_norm(lrf_job *job)
{
    const lrf_options *options = &job->options;
    const lrf_norm_slot *slot = options->work;
    double sum = 0, clamped_sum = 0;

    job->grad_norm = 0;
    if (job->tiles == 0)
        return;
    for (size_t i = 0; i < job->group_count; i++)
        for (size_t j = 0; j < job->groups[i].count; j++) {
            const lrf_norm_slot *const end = slot + lrf_tiles_of(&job->groups[i].tensors[j]);
            lrf_norm_slot tensor = {0};
            for (; slot < end; slot++) {
                tensor.sum += slot->sum;
                tensor.clamped_sum += slot->clamped_sum;
                tensor.nonfinite += slot->nonfinite;
            }
            sum += tensor.sum;
            clamped_sum += tensor.clamped_sum;
            if (tensor.nonfinite > 0 && job->nonfinite == 0) {
                job->bad_group = i;
                job->bad_tensor = j;
            }
            job->nonfinite += (uint64_t)tensor.nonfinite;
        }
    job->grad_norm = fabs(options->grad_scale) * sqrt(sum);
    if (options->clip_norm > 0 && job->nonfinite == 0) {
        const double norm = options->clip_value > 0 ? sqrt(clamped_sum) : job->grad_norm;
        const double factor = options->clip_norm / (norm + CLIP_EPS);
        job->clip_factor = factor < 1 || factor != factor ? factor : 1;
    }
}

/* ---- the update and what rides along --------------------------------------------------------------------- */

int lrf_has_stages(const lrf_job *job, const lrf_group *group)
{
    return group->outputs || job->options.clip_value > 0 ||
           (job->options.flags & (LRF_ZERO_GRADS | LRF_NORMS | LRF_STATS));
}

/* What a tile needs beside the tensor's buffers. */
typedef struct tile_memory {
    tile grad, before, update, denominator, last;
    lrf_sums sums;
} tile_memory;

/* Elements begin .. begin + n of a tensor as a tensor of its own. */
static lrf_tensor part_of(const lrf_tensor *tensor, size_t begin, size_t n, size_t element_size)
{
    lrf_tensor part = *tensor;
    part.param = at(tensor->param, begin, element_size);
    part.grad = at(tensor->grad, begin, element_size);
    for (size_t slot = 0; slot < sizeof part.state / sizeof part.state[0]; slot++)
        part.state[slot] = at(tensor->state[slot], begin, element_size);
    part.count = n;
    return part;
}

/* What makes s of a gradient. */
static double signed_scale(const lrf_job *job, const lrf_group *group)
{
    return group->flags & LRF_MAXIMIZE ? -job->options.grad_scale : job->options.grad_scale;
}

static lrf_slot empty_slot(void)
{
    lrf_slot slot = {0};
    memset(slot.bins, LRF_NO_BIN, sizeof slot.bins);
    return slot;
}

/* The update of a strip, elements first .. of a tile of `tile` elements, with statistics. `update_from` is the strip
 * with the gradients to use, `last` the strip's part of lrf_outputs.last. */
static void update_with_statistics(const lrf_job *job, const lrf_group *group, const lrf_tensor *part,
                                   const lrf_tensor *update_from, void *last, size_t first, size_t tile_count,
                                   lrf_slot *slot, const lrf_scalars *scalars, tile_memory *memory)
{
    const lrf_kernels *kernels = job->kernels;
    const size_t type = group->dtype - LRF_FLOAT32, n = (size_t)part->count, bytes = n * lrf_element_size(group);
    const int all = job->variant == LRF_TRACED;
    const lrf_trace trace = {.update = &memory->update, .denominator = &memory->denominator, .last = &memory->last};
    lrf_strip strip = {.g = part->grad,
                       .before = &memory->before,
                       .update = &memory->update,
                       .denominator = &memory->denominator,
                       .last = last ? last : &memory->last,
                       .first = first,
                       .n = n,
                       .tile = tile_count};

    if (first == 0) {
        *slot = empty_slot();
        memset(&memory->sums, 0, sizeof memory->sums);
    }
    memcpy(&memory->before, part->param, bytes);
    kernels->update[job->variant][group->rule][type](update_from, 0, n, scalars, &trace);
    if (!last && part->step == 0)
        memset(&memory->last, 0, bytes);
    if (all)
        kernels->gather[type](slot, &memory->sums, &strip, scalars->rate, group->eps,
                              signed_scale(job, group) < 0 ? -1 : 1);
    else
        kernels->gather_norms[type](&memory->sums, &strip);
    if (all && last)
        memcpy(last, &memory->update, bytes);
    if (first + n == tile_count)
        kernels->fold_sums[type](slot, &memory->sums);
}

void lrf_staged_run(const lrf_job *job, const lrf_tile_run *run, const lrf_scalars *scalars)
{
    static const lrf_outputs none;
    static const lrf_trace nothing;
    const lrf_kernels *kernels = job->kernels;
    const lrf_options *options = &job->options;
    const lrf_group *group = run->group;
    const lrf_outputs *outputs = run->outputs ? run->outputs : &none;
    const size_t type = group->dtype - LRF_FLOAT32, element_size = lrf_element_size(group);
    const size_t copy_size = lrf_dtype_size(outputs->copy_dtype);
    const size_t end = run->first * LRF_TILE + lrf_elements_of(run);
    const int statistics = has_statistics(options);
    const size_t usual = statistics ? LRF_STRIP : LRF_TILE;
    size_t begin = run->first * LRF_TILE, step = usual;
    tile_memory memory;

    /* Statistics need their tiles where they are; everything else may begin on a cache line. */
    if (!statistics) {
        const size_t head = lrf_elements_to_cache_line(run->tensor, begin, end - begin, element_size);
        step = head > 0 ? head : usual;
    }
    for (; begin < end; begin += step, step = usual) {
        const size_t n = end - begin < step ? end - begin : step;
        const lrf_tensor part = part_of(run->tensor, begin, n, element_size);
        lrf_tensor update_from = part;

        if (options->clip_value > 0) {
            kernels->clamp[type](&memory.grad, part.grad, n, options->grad_scale, options->clip_value);
            update_from.grad = &memory.grad;
        }
        if (statistics) {
            const size_t index = begin / LRF_TILE, first = begin % LRF_TILE;
            const size_t rest = (size_t)run->tensor->count - index * LRF_TILE;
            update_with_statistics(job, group, &part, &update_from, at(outputs->last, begin, element_size), first,
                                   rest < LRF_TILE ? rest : LRF_TILE,
                                   (lrf_slot *)options->work + run->index + index - run->first, scalars, &memory);
        } else {
            kernels->update[LRF_PLAIN][group->rule][type](&update_from, 0, n, scalars, &nothing);
        }
        if (outputs->ema)
            kernels->average[type](at(outputs->ema, begin, element_size), part.param, n, 1 - options->ema_decay);
        if (outputs->copy)
            kernels->copy[outputs->copy_dtype][type](at(outputs->copy, begin, copy_size), part.param, n);
        if (options->flags & LRF_ZERO_GRADS)
            memset(part.grad, 0, n * element_size);
    }
}

/* ---- statistics ------------------------------------------------------------------------------------------ */

static void add_slot(lrf_stats *stats, const lrf_slot *slot)
{
    stats->grad_sq += slot->grad_sq;
    stats->param_sq += slot->param_sq;
    stats->update_sq += slot->update_sq;
}

static void add_rest(lrf_stats *stats, const lrf_slot *slot)
{
    stats->grad_update += slot->grad_update;
    stats->grad_last += slot->grad_last;
    stats->grad_max = lrf_larger(stats->grad_max, slot->grad_max);
    stats->update_max = lrf_larger(stats->update_max, slot->update_max);
    stats->rate_max = lrf_larger(stats->rate_max, slot->rate_max);
    stats->nan += slot->nan;
    stats->inf += slot->inf;
    stats->zero += slot->zero;
    stats->lost += slot->lost;
    stats->turned += slot->turned;
    stats->eps_dominates += slot->eps_dominates;
    for (size_t k = 0; k < LRF_SAMPLES; k++)
        if (slot->bins[k] != LRF_NO_BIN)
            stats->rates[slot->bins[k]]++;
}

void lrf_finish_statistics(const lrf_job *job)
{
    static const lrf_slot none;
    const lrf_slot *slot = job->tiles > 0 ? job->options.work : &none;

    if (!has_statistics(&job->options))
        return;
    for (size_t i = 0; i < job->group_count; i++) {
        const lrf_group *group = &job->groups[i];
        const double scale = signed_scale(job, group);
        for (size_t j = 0; j < group->count; j++) {
            const lrf_slot *const end = slot + lrf_tiles_of(&group->tensors[j]);
            lrf_stats stats = {.elements = group->tensors[j].grad ? (double)group->tensors[j].count : 0};
            for (; slot < end; slot++) {
                add_slot(&stats, slot);
                if (job->variant == LRF_TRACED)
                    add_rest(&stats, slot);
            }
            if (stats.elements > 0 && job->variant == LRF_TRACED) { /* otherwise 0 might become -0 */
                stats.grad_max *= fabs(scale);
                stats.grad_update *= scale;
                stats.grad_last *= scale;
            }
            if (group->outputs && group->outputs[j].stats)
                *group->outputs[j].stats = stats;
        }
    }
}
