/* Validation of a step: everything is checked before anything is written. */
#include "tiles.h"

#include <math.h>

/* ---- numbers and flags ----------------------------------------------------------------------------------- */

/* Where numbers may lie: the ranges of the table. */
enum {
#define LRF_RANGE(NAME, words, least, largest) NAME,
#include "optimizers.def"
#undef LRF_RANGE
    RANGES
};

/* False for NaN. */
static int lies_in(int range, double x)
{
    static const struct {
        double least, largest;
    } ranges[RANGES] = {
#define LRF_RANGE(NAME, words, least, largest) [NAME] = {least, largest},
#include "optimizers.def"
#undef LRF_RANGE
    };
    return x >= ranges[range].least && x <= ranges[range].largest;
}

/* What element types hold: the rows of the table, [dtype - LRF_FLOAT32]. */
static const struct {
    double largest, smallest, least_eps;
} elements[] = {
#define LRF_ELEMENT(NAME, name, largest, smallest, least_eps)                                                          \
    [LRF_##NAME - LRF_FLOAT32] = {largest, smallest, least_eps},
#include "optimizers.def"
#undef LRF_ELEMENT
};

/* Numbers of which some are large, and those of the next updates that are made of them, in the element type. */
static lrf_status check_fit_of_numbers(const lrf_group *group, lrf_report *report)
{
    const double largest = elements[group->dtype - LRF_FLOAT32].largest;
    lrf_latest latest;

#define LRF_NUMBER(name, RANGE, schedule, setting)                                                                     \
    if (fabs(group->name) > largest)                                                                                   \
        return lrf_refuse(report, #name, LRF_BAD_NUMBER);
#include "optimizers.def"
#undef LRF_NUMBER
    latest.group = NULL;
    for (size_t i = 0; i < group->count; i++) {
        const lrf_tensor *const tensor = &group->tensors[i];
        const double *const carried = lrf_carried_at(group, i);
        if (tensor->grad && !lrf_is_latest(&latest, group, tensor, carried)) {
            report->tensor = i;
            if (!lrf_scalars_fit(&latest, group, tensor, carried))
                return lrf_refuse(report, "lr", LRF_BAD_NUMBER);
        }
    }
    return LRF_OK;
}

/* Whether a factor or bound in its range is 0 or rounds to neither infinity nor 0. */
static int fits(uint32_t dtype, double x)
{
    const double size = fabs(x);
    return dtype == LRF_FLOAT64 || size == 0 || (size >= elements[0].smallest && size <= elements[0].largest);
}

/* Options that multiply or bound the elements of a group. */
static lrf_status check_fit(const lrf_options *options, uint32_t dtype, lrf_report *report)
{
    if (!fits(dtype, options->grad_scale))
        return lrf_refuse(report, "options.grad_scale", LRF_BAD_NUMBER);
    if (!fits(dtype, options->clip_value))
        return lrf_refuse(report, "options.clip_value", LRF_BAD_NUMBER);
    if (!fits(dtype, options->clip_norm))
        return lrf_refuse(report, "options.clip_norm", LRF_BAD_NUMBER);
    return LRF_OK;
}

/* Numbers below it in size fit every type, and so does what is made of two: the largest factor beside them is
 * 1 / (1 - beta1), 2^53. */
#define LARGE 0x1p+32

/* False for NaN, and for large numbers in whatever range. */
static int lies_in_and_is_small(int range, double x)
{
    static const struct {
        double least, largest;
    } ranges[RANGES] = {
#define LRF_RANGE(NAME, words, least, largest)                                                                         \
    [NAME] = {(least) > -LARGE ? (least) : -LARGE, (largest) < LARGE ? (largest) : LARGE},
#include "optimizers.def"
#undef LRF_RANGE
    };
    return x >= ranges[range].least && x <= ranges[range].largest;
}

/* A number that a rule does not read may stay at its default there, 0, wherever others may lie. Says whether some are
 * large. */
static lrf_status check_numbers(const lrf_group *group, int *large, lrf_report *report)
{
    const lrf_group *const defaults = lrf_defaults_of(group->rule);

    *large = 0;
#define LRF_NUMBER(name, RANGE, schedule, setting)                                                                     \
    if (!lies_in_and_is_small(RANGE, group->name) && group->name != defaults->name) {                                  \
        if (!lies_in(RANGE, group->name))                                                                              \
            return lrf_refuse(report, #name, LRF_BAD_NUMBER);                                                          \
        *large = 1;                                                                                                    \
    }
#include "optimizers.def"
#undef LRF_NUMBER
    if (group->eps > 0 && group->eps < elements[group->dtype - LRF_FLOAT32].least_eps)
        return lrf_refuse(report, "eps", LRF_BAD_NUMBER);
    return LRF_OK;
}

static lrf_status check_flags(const lrf_group *group, lrf_report *report)
{
    static const struct {
        uint32_t bit;
        const char *what;
    } flags[] = {
#define LRF_FLAG(bit, NAME, setting, value) {bit, "flags: LRF_" #NAME},
#include "optimizers.def"
#undef LRF_FLAG
    };
    const uint32_t allowed = lrf_find_rule(group->rule)->flags;
    uint32_t unknown = group->flags;

    for (size_t i = 0; unknown && i < sizeof flags / sizeof flags[0]; i++)
        unknown &= ~flags[i].bit;
    if (unknown)
        return lrf_refuse(report, "flags", LRF_BAD_FLAGS);
    if ((group->flags & LRF_NESTEROV) && (!(group->momentum > 0) || group->dampening != 0))
        return lrf_refuse(report, "flags: LRF_NESTEROV", LRF_BAD_FLAGS);
    if ((group->flags & LRF_FIRST_GRADIENT) && (group->flags & LRF_MEAN))
        return lrf_refuse(report, "flags: LRF_FIRST_GRADIENT", LRF_BAD_FLAGS);
    for (size_t i = 0; (group->flags & ~allowed) && i < sizeof flags / sizeof flags[0]; i++)
        if (group->flags & ~allowed & flags[i].bit)
            return lrf_refuse(report, flags[i].what, LRF_BAD_FLAGS);
    return LRF_OK;
}

static lrf_status check_options(const lrf_options *options, lrf_report *report)
{
    const uint32_t known = LRF_GRAD_NORM | LRF_REQUIRE_FINITE | LRF_ZERO_GRADS | LRF_NORMS | LRF_STATS | LRF_KEEP_LAST;

    if ((options->flags & ~known) || ((options->flags & LRF_KEEP_LAST) && !(options->flags & LRF_STATS)))
        return lrf_refuse(report, "options.flags", LRF_BAD_FLAGS);
    if (!lies_in(FINITE, options->grad_scale))
        return lrf_refuse(report, "options.grad_scale", LRF_BAD_NUMBER);
    if (!lies_in(AT_LEAST_0, options->clip_value))
        return lrf_refuse(report, "options.clip_value", LRF_BAD_NUMBER);
    if (!lies_in(AT_LEAST_0, options->clip_norm))
        return lrf_refuse(report, "options.clip_norm", LRF_BAD_NUMBER);
    if (!lies_in(BELOW_1, options->ema_decay))
        return lrf_refuse(report, "options.ema_decay", LRF_BAD_NUMBER);
    return LRF_OK;
}

/* ---- groups ---------------------------------------------------------------------------------------------- */

lrf_status lrf_check_group_head(const lrf_group *group, size_t struct_size, lrf_report *report)
{
    if (group->struct_size != struct_size || !lrf_knows_size(struct_size, LRF_FIRST_GROUP, sizeof *group))
        return lrf_refuse(report, "struct_size", LRF_BAD_STRUCT);
    if (!lrf_find_rule(group->rule))
        return lrf_refuse(report, "rule", LRF_BAD_RULE);
    if (group->dtype != LRF_FLOAT32 && group->dtype != LRF_FLOAT64)
        return lrf_refuse(report, "dtype", LRF_BAD_DTYPE);
    if (group->count > 0 && !group->tensors)
        return lrf_refuse(report, "tensors", LRF_NULL_POINTER);
    if (group->count > 0 && group->outputs) {
        if (struct_size == LRF_FIRST_GROUP) /* its outputs had no size */
            return lrf_refuse(report, "outputs", LRF_BAD_STRUCT);
        if (!lrf_knows_size(group->outputs->struct_size, LRF_FIRST_OUTPUTS, sizeof *group->outputs))
            return lrf_refuse(report, "outputs.struct_size", LRF_BAD_STRUCT);
    }
    if (group->count > 0 && struct_size > offsetof(lrf_group, storage) && group->storage &&
        !lrf_knows_size(group->storage->struct_size, LRF_FIRST_STORAGE, sizeof *group->storage))
        return lrf_refuse(report, "storage.struct_size", LRF_BAD_STRUCT);
    return LRF_OK;
}

/* ---- tensors --------------------------------------------------------------------------------------------- */

/* statistics: whether the step writes lrf_stats. */
static lrf_status check_outputs(const lrf_outputs *outputs, size_t struct_size, int statistics, lrf_report *report)
{
    if (outputs->struct_size != struct_size)
        return lrf_refuse(report, "outputs.struct_size", LRF_BAD_STRUCT);
    if (struct_size > offsetof(lrf_outputs, unused) && outputs->unused != 0)
        return lrf_refuse(report, "outputs.unused", LRF_BAD_STRUCT);
    if (statistics && outputs->stats &&
        !lrf_knows_size(outputs->stats->struct_size, LRF_FIRST_STATS, sizeof *outputs->stats))
        return lrf_refuse(report, "stats.struct_size", LRF_BAD_STRUCT);
    return LRF_OK;
}

static int is_ema_dtype(uint32_t dtype, uint32_t group_dtype)
{
    return dtype == group_dtype || dtype == LRF_FLOAT64;
}

static lrf_status check_carried(const lrf_group *group, size_t index, lrf_report *report)
{
    if (!group->storage)
        return lrf_refuse(report, "storage", LRF_NULL_POINTER);
    if (!group->tensors[index].grad)
        return LRF_OK;
#define LRF_CARRIED(RULE, slot, name, RANGE)                                                                           \
    if (group->rule == LRF_##RULE && !lies_in(RANGE, lrf_carried_at(group, index)[slot]))                              \
        return lrf_refuse(report, "storage.scalar: " #name, LRF_BAD_NUMBER);
#include "optimizers.def"
#undef LRF_CARRIED
    return LRF_OK;
}

static lrf_status check_buffers(const lrf_group *group, size_t index, lrf_report *report)
{
    const lrf_tensor *tensor = &group->tensors[index];
    const lrf_outputs *outputs = lrf_outputs_at(group, index);
    lrf_buffer buffers[LRF_MOST_BUFFERS];
    size_t n;

    if (tensor->count == 0 || (!tensor->grad && !lrf_is_followed(outputs)))
        return LRF_OK;
    if (tensor->count > LRF_MOST_ELEMENTS)
        return lrf_refuse(report, "count", LRF_BAD_COUNT);
    if (tensor->grad && tensor->step == UINT64_MAX)
        return lrf_refuse(report, "step", LRF_BAD_COUNT);
    if (outputs && outputs->copy && (lrf_dtype_size(outputs->copy_dtype) == 0 || outputs->copy_dtype == LRF_FLOAT64))
        return lrf_refuse(report, "copy_dtype", LRF_BAD_DTYPE);
    if (outputs && outputs->ema && !is_ema_dtype(lrf_ema_dtype(group, outputs), group->dtype))
        return lrf_refuse(report, "ema_dtype", LRF_BAD_DTYPE);

    n = lrf_list_buffers(group, index, 1, buffers);
    return lrf_check_memory(buffers, n, (size_t)tensor->count, report);
}

/* ---- a step ---------------------------------------------------------------------------------------------- */

static lrf_status check_tensors(const lrf_group *group, int statistics, lrf_report *report)
{
    const int carries = lrf_carries(group->rule);
    lrf_status status = LRF_OK;

    for (size_t i = 0; status == LRF_OK && i < group->count; i++) {
        report->tensor = i;
        if (group->outputs)
            status = check_outputs(lrf_outputs_at(group, i), group->outputs->struct_size, statistics, report);
        if (status == LRF_OK && group->storage)
            status = lrf_check_storage(group, lrf_storage_at(group, i), group->storage->struct_size, report);
        if (status == LRF_OK && carries)
            status = check_carried(group, i, report);
        if (status == LRF_OK)
            status = check_buffers(group, i, report);
    }
    return status;
}

lrf_status lrf_check(const lrf_group *groups, size_t group_count, const lrf_options *options, lrf_report *report)
{
    const int statistics = (options->flags & (LRF_NORMS | LRF_STATS)) != 0;
    lrf_status status = check_options(options, report);

    if (status == LRF_OK && group_count > 0 && !groups)
        return lrf_refuse(report, "groups", LRF_NULL_POINTER);
    for (size_t i = 0; status == LRF_OK && i < group_count; i++) {
        const lrf_group *group = lrf_group_at(groups, i);
        lrf_group completed;
        int large;
        report->group = i;
        report->tensor = 0;
        status = lrf_check_group_head(group, groups->struct_size, report);
        if (status != LRF_OK)
            return status;
        group = lrf_complete(group, &completed);
        status = check_numbers(group, &large, report);
        if (status == LRF_OK)
            status = check_flags(group, report);
        if (status == LRF_OK)
            status = check_fit(options, group->dtype, report);
        if (status == LRF_OK)
            status = check_tensors(group, statistics, report);
        if (status == LRF_OK && (large || lrf_carries(group->rule))) {
            report->tensor = 0;
            status = check_fit_of_numbers(group, report);
        }
    }
    if (status == LRF_OK)
        report->group = report->tensor = 0;
    return status;
}

LRF_END_OF_SOURCE
