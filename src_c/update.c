/* Phase 2: the update of each element and its stages, tile by tile: limited gradients, the rule, then statistics,
 * averages, copies and zeroing. Where there are no stages, whole runs of tiles at once. */
#include "tiles.h"

#include <math.h>
#include <string.h>

enum { CACHE_LINE = 64, LONG_RUN = 16384 }; /* bytes; elements */

static int has_statistics(const lrf_options *options)
{
    return (options->flags & (LRF_NORMS | LRF_STATS)) != 0;
}

static size_t slot_size(const lrf_options *options)
{
    return has_statistics(options) ? sizeof(lrf_slot) : options->flags & LRF_REQUIRE_FINITE ? sizeof(double) : 0;
}

/* What tile `index` of the step leaves. */
static void *slot_at(const lrf_step_state *step, size_t index)
{
    return (char *)step->options.work + index * slot_size(&step->options);
}

/* A gradient up to this size leaves a finite sum or average of squares finite: its own is less than half the distance
 * of the largest numbers. storage: NULL, all native. */
static double calm(const lrf_group *group, const lrf_storage *storage)
{
    if (storage && storage->state_format[LRF_SQUARES] == LRF_FLOAT16)
        return 0x1p+1;
    return group->dtype == LRF_FLOAT64 ? 0x1p+483 : 0x1p+50;
}

/* Whether squares that a tensor keeps may become infinite, as far as is known before its tiles are looked at. */
static int is_watched(const lrf_step_state *step, const lrf_group *group, const lrf_storage *storage)
{
    return (step->options.flags & LRF_REQUIRE_FINITE) &&
           (!(step->largest_used <= calm(group, storage)) || group->weight_decay > 0) && lrf_keeps_squares(group);
}

/* The same of n parameters: what the rule squares is gradient + weight_decay parameter. */
static int may_overflow(const lrf_step_state *step, const lrf_tile_run *run, const void *param, size_t n)
{
    const lrf_group *group = run->group;
    const double largest = step->kernels->largest[group->dtype - LRF_FLOAT32](param, n);
    return !(step->largest_used + group->weight_decay * largest <= calm(group, run->storage));
}

/* What remains for the rule to multiply gradients with. clip_value comes between the scale and the clip factor, in a
 * stage of its own. */
static lrf_factors rule_factors(const lrf_step_state *step, const lrf_group *group)
{
    const double scale = step->options.clip_value > 0 ? 1 : step->options.grad_scale;
    return lrf_split_factor(scale, step->clip_factor, step->lifted_factor, group->dtype);
}

/* Whether updates of this group go tile by tile. */
static int has_stages(const lrf_step_state *step, const lrf_group *group, lrf_factors factors)
{
    const lrf_options *options = &step->options;
    return factors.first != 1 || group->outputs || options->clip_value > 0 ||
           (options->flags & (LRF_ZERO_GRADS | LRF_NORMS | LRF_STATS));
}

/* Elements before the first whole cache line of the parameter, where it pays to begin there: vectors as wide as a line
 * would otherwise all straddle two (measured at 40 M elements: SGD 20 % slower). */
static size_t elements_to_cache_line(const lrf_tensor *tensor, size_t begin, size_t n, size_t element_size)
{
    const size_t misaligned = ((uintptr_t)tensor->param + begin * element_size) % CACHE_LINE;
    return n < LONG_RUN || misaligned == 0 ? 0 : (CACHE_LINE - misaligned) / element_size;
}

/* ---- the update alone ------------------------------------------------------------------------------------ */

static void run_plain(const lrf_step_state *step, const lrf_tile_run *run, const lrf_scalars *scalars)
{
    static const lrf_trace nothing;
    const lrf_group *group = run->group;
    lrf_update *const update = step->kernels->update[LRF_PLAIN][group->rule][group->dtype - LRF_FLOAT32];
    const size_t begin = run->first * LRF_TILE, n = lrf_elements_of(run->tensor, run->first, run->end);
    const size_t head = elements_to_cache_line(run->tensor, begin, n, lrf_element_size(group));

    if (head > 0)
        update(run->tensor, begin, head, scalars, &nothing);
    update(run->tensor, begin + head, n - head, scalars, &nothing);
}

/* ---- the update and its stages --------------------------------------------------------------------------- */

/* What a tile needs beside the tensor's buffers. */
typedef struct tile_memory {
    lrf_limit_memory limit;
    lrf_tile grad, before, squares, update, denominator;
    lrf_sums sums;
    lrf_decoded decoded;
} tile_memory;

/* What makes s of a gradient. */
static double signed_scale(const lrf_options *options, const lrf_group *group)
{
    return group->flags & LRF_MAXIMIZE ? -options->grad_scale : options->grad_scale;
}

/* Of a strip, the elements whose update the parameter's format loses. */
static uint64_t count_lost(const lrf_kernels *kernels, uint8_t format, const lrf_strip *strip)
{
    uint16_t codes[LRF_STRIP];
    float stored[LRF_STRIP];

    kernels->subtract(stored, strip->before, strip->update, strip->n);
    kernels->copy[format][0](codes, stored, strip->n);
    kernels->decode[format](stored, codes, strip->n);
    return kernels->count_lost(strip->before, strip->update, stored, strip->n);
}

static lrf_slot empty_slot(void)
{
    lrf_slot slot = {0};
    memset(slot.bins, LRF_NO_BIN, sizeof slot.bins);
    return slot;
}

/* n gradients as the rule takes them. */
static void *limited_gradients(const lrf_step_state *step, const lrf_group *group, void *g, size_t n,
                               tile_memory *memory)
{
    const double first = rule_factors(step, group).first;
    void *limited = step->options.clip_value > 0 ? lrf_limit(step, group->dtype, g, n, &memory->limit) : g;

    if (first == 1)
        return limited;
    step->kernels->multiply[group->dtype - LRF_FLOAT32](&memory->grad, limited, n, first);
    return &memory->grad;
}

/* The update of a strip, elements first .. of a tile of `tile_count` elements, with statistics. `update_from` is the
 * strip with the gradients to use, `last` the strip's part of lrf_outputs.last, `format` that of a parameter without
 * master. */
static void update_with_statistics(const lrf_step_state *step, const lrf_group *group, const lrf_tensor *part,
                                   const lrf_tensor *update_from, void *last, size_t first, size_t tile_count,
                                   uint8_t format, lrf_slot *slot, const lrf_scalars *scalars, tile_memory *memory)
{
    const lrf_kernels *kernels = step->kernels;
    const size_t type = group->dtype - LRF_FLOAT32, n = (size_t)part->count, bytes = n * lrf_element_size(group);
    const lrf_trace trace = {.update = &memory->update, .denominator = &memory->denominator};
    const lrf_strip strip = {.g = part->grad,
                             .before = &memory->before,
                             .update = &memory->update,
                             .denominator = &memory->denominator,
                             .last = last ? last : &memory->update, /* what comes of it is then dropped */
                             .first = first,
                             .n = n,
                             .tile = tile_count};

    if (first == 0) {
        *slot = empty_slot();
        memset(&memory->sums, 0, sizeof memory->sums);
    }
    memcpy(&memory->before, part->param, bytes);
    kernels->update[step->variant][group->rule][type](update_from, 0, n, scalars, &trace);
    if (step->variant == LRF_TRACED) {
        const double lost = slot->lost;
        kernels->gather[type](slot, &memory->sums, &strip, scalars->rate, group->eps,
                              signed_scale(&step->options, group) < 0 ? -1 : 1);
        if (format == LRF_FLOAT16 || format == LRF_BFLOAT16)
            slot->lost = lost + (double)count_lost(kernels, format, &strip);
        if (last && !(step->options.flags & LRF_KEEP_LAST))
            memcpy(last, &memory->update, bytes);
    } else {
        kernels->gather_norms[type](&memory->sums, &strip);
    }
    if (first + n == tile_count)
        kernels->fold_sums[type](slot, &memory->sums);
}

/* What follows the elements begin .. begin + n of a parameter, whether they were updated or not. */
static void write_outputs(const lrf_step_state *step, const lrf_group *group, const lrf_outputs *outputs,
                          const void *param, size_t begin, size_t n)
{
    const lrf_kernels *kernels = step->kernels;
    const size_t type = group->dtype - LRF_FLOAT32;

    if (outputs->ema) {
        const uint32_t dtype = lrf_ema_dtype(group, outputs);
        kernels->average[dtype == LRF_FLOAT64][type](lrf_element_address(outputs->ema, begin, lrf_dtype_size(dtype)),
                                                     param, n, 1 - step->options.ema_decay);
    }
    if (outputs->copy)
        kernels->copy[outputs->copy_dtype][type](
            lrf_element_address(outputs->copy, begin, lrf_dtype_size(outputs->copy_dtype)), param, n);
}

static void run_staged(const lrf_step_state *step, const lrf_tile_run *run, const lrf_scalars *scalars)
{
    static const lrf_outputs none;
    static const lrf_trace nothing;
    const lrf_kernels *kernels = step->kernels;
    const lrf_options *options = &step->options;
    const lrf_group *group = run->group;
    const lrf_outputs *outputs = run->outputs ? run->outputs : &none;
    const size_t type = group->dtype - LRF_FLOAT32, element_size = lrf_element_size(group);
    const size_t end = run->first * LRF_TILE + lrf_elements_of(run->tensor, run->first, run->end);
    const int statistics = has_statistics(options);
    const size_t usual = statistics ? LRF_STRIP : LRF_TILE;
    const uint8_t format = run->storage && !run->storage->master_format ? run->storage->param_format : LRF_NATIVE;
    const size_t grad_size = run->storage ? lrf_format_size(group, run->storage->grad_format) : element_size;
    size_t begin = run->first * LRF_TILE, stride = usual;
    tile_memory memory;

    /* Statistics need their tiles where they are; everything else may begin on a cache line. */
    if (!statistics && !run->storage) {
        const size_t head = elements_to_cache_line(run->tensor, begin, end - begin, element_size);
        stride = head > 0 ? head : usual;
    }
    for (; begin < end; begin += stride, stride = usual) {
        const size_t n = end - begin < stride ? end - begin : stride;
        const lrf_tensor part = lrf_open_tile(kernels, run, begin, n, &memory.decoded);
        const int watched = is_watched(step, group, run->storage) && may_overflow(step, run, part.param, n);
        lrf_tensor update_from = part;

        if (watched)
            memcpy(&memory.squares, part.state[LRF_SQUARES], n * element_size);
        update_from.grad = limited_gradients(step, group, part.grad, n, &memory);
        if (statistics) {
            const size_t index = begin / LRF_TILE, first = begin % LRF_TILE;
            const size_t rest = (size_t)run->tensor->count - index * LRF_TILE;
            update_with_statistics(step, group, &part, &update_from,
                                   lrf_element_address(outputs->last, begin, element_size), first,
                                   rest < LRF_TILE ? rest : LRF_TILE, format,
                                   slot_at(step, run->index + index - run->first), scalars, &memory);
        } else {
            kernels->update[LRF_PLAIN][group->rule][type](&update_from, 0, n, scalars, &nothing);
        }
        lrf_close_tile(kernels, run, begin, &part, watched || run->outputs);
        if (watched)
            *(double *)slot_at(step, run->index + begin / LRF_TILE - run->first) +=
                (double)kernels->count_overflowed[type](&memory.squares, part.state[LRF_SQUARES], n);
        write_outputs(step, group, outputs, part.param, begin, n);
        if (options->flags & LRF_ZERO_GRADS)
            memset(lrf_element_address(run->tensor->grad, begin, grad_size), 0, n * grad_size);
    }
}

/* A tensor without a gradient: what follows its parameter, and slots that say nothing. */
static void run_outputs(const lrf_step_state *step, const lrf_tile_run *run)
{
    const size_t begin = run->first * LRF_TILE, n = lrf_elements_of(run->tensor, run->first, run->end);
    float decoded[LRF_TILE];

    for (size_t done = 0; done < n; done += LRF_TILE) {
        const size_t rest = n - done < LRF_TILE ? n - done : LRF_TILE;
        write_outputs(step, run->group, run->outputs, lrf_decode_param(step->kernels, run, begin + done, rest, decoded),
                      begin + done, rest);
    }
    for (size_t i = 0; has_statistics(&step->options) && i < run->end - run->first; i++)
        *(lrf_slot *)slot_at(step, run->index + i) = empty_slot();
}

static void run_update(const lrf_step_state *step, const lrf_tile_run *run, lrf_latest *latest)
{
    const lrf_group *group = run->group;
    const lrf_factors factors = rule_factors(step, group);
    const int watched = is_watched(step, group, run->storage);

    if (!run->tensor->grad) {
        run_outputs(step, run);
        return;
    }
    if (!lrf_is_latest(latest, group, run->tensor, run->carried))
        lrf_compute_scalars(latest, group, run->tensor, run->carried, factors.last);
    if (watched && !has_statistics(&step->options))
        memset(slot_at(step, run->index), 0, (run->end - run->first) * sizeof(double));
    if (watched || run->storage || has_stages(step, group, factors))
        run_staged(step, run, &latest->scalars);
    else
        run_plain(step, run, &latest->scalars);
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
    stats->dead += slot->dead;
    for (size_t k = 0; k < LRF_SAMPLES; k++)
        if (slot->bins[k] != LRF_NO_BIN)
            stats->rates[slot->bins[k]]++;
}

/* Adds up the slots of a tensor's tiles. */
static void add_up(lrf_stats *stats, const lrf_step_state *step, const lrf_group *group, size_t index,
                   const lrf_slot *slot)
{
    const lrf_tensor *tensor = &group->tensors[index];
    const lrf_slot *const end = slot + lrf_tiles_of(group, index);
    const double scale = signed_scale(&step->options, group);

    stats->elements = tensor->grad ? (double)tensor->count : 0;
    for (; slot < end; slot++) {
        add_slot(stats, slot);
        if (step->variant == LRF_TRACED)
            add_rest(stats, slot);
    }
    if (stats->elements > 0 && step->variant == LRF_TRACED) { /* otherwise 0 might become -0 */
        stats->grad_max *= fabs(scale);
        stats->grad_update *= scale;
        stats->grad_last *= scale;
        if (!lrf_outputs_at(group, index)->last)
            stats->grad_last = stats->turned = NAN;
    }
}

/* Adds up what overflowed, and says where the first of it is. */
static void count_overflowed(lrf_step_state *step)
{
    size_t tile = 0;

    for (size_t i = 0; i < step->group_count; i++) {
        const lrf_group *group = lrf_group_at(step->groups, i);
        for (size_t j = 0; j < group->count; j++) {
            const size_t end = tile + lrf_tiles_of(group, j);
            const int watched = is_watched(step, group, lrf_formats_at(group, j));
            double overflowed = 0;
            for (; tile < end; tile++)
                if (watched && group->tensors[j].grad)
                    overflowed += *(const double *)slot_at(step, tile);
            if (overflowed > 0 && step->overflowed == 0) {
                step->bad_group = i;
                step->bad_tensor = j;
            }
            step->overflowed += (uint64_t)overflowed;
        }
    }
}

/* Fills the lrf_stats of all outputs. */
static void fill_statistics(const lrf_step_state *step)
{
    static const lrf_slot none;
    const lrf_slot *slot = step->tiles > 0 ? step->options.work : &none;

    for (size_t i = 0; i < step->group_count; i++) {
        const lrf_group *group = lrf_group_at(step->groups, i);
        for (size_t j = 0; j < group->count; j++) {
            lrf_stats *const wanted = group->outputs ? lrf_outputs_at(group, j)->stats : NULL;
            if (wanted) {
                lrf_stats stats = {.struct_size = wanted->struct_size, .unused = wanted->unused};
                add_up(&stats, step, group, j, slot);
                if (wanted->struct_size == sizeof stats)
                    *wanted = stats;
                else
                    memcpy(wanted, &stats, wanted->struct_size);
            }
            slot += lrf_tiles_of(group, j);
        }
    }
}

static int finish_update(lrf_step_state *step)
{
    if (step->options.flags & LRF_REQUIRE_FINITE)
        count_overflowed(step);
    if (has_statistics(&step->options))
        fill_statistics(step);
    return LRF_GO_ON;
}

const lrf_phase lrf_update_phase = {1, slot_size, run_update, finish_update};

LRF_END_OF_SOURCE
