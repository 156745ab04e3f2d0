#include "check.h"

#include <float.h>

enum { STATE_SLOTS = 4, BUFFERS = 2 + STATE_SLOTS + 3 }; /* param, grad, states, outputs */

/* Elements of a tensor, whatever their type: no division per tensor. */
static const uint64_t MAX_COUNT = PTRDIFF_MAX / sizeof(double);

/* A buffer of a tensor. */
typedef struct buffer {
    const void *address;
    size_t element_size;
    const char *name;
    int written;
} buffer;

/* The bytes begin .. end of a buffer, and where it belongs. */
typedef struct span {
    uintptr_t begin, end;
    size_t group, tensor;
    const char *what;
    int written;
} span;

static lrf_status refuse(lrf_report *report, const char *what, lrf_status status)
{
    report->what = what;
    return status;
}

/* ---- numbers and flags ----------------------------------------------------------------------------------- */

static int finite_from_zero(double x)
{
    return x >= 0 && x <= DBL_MAX; /* false for NaN */
}

static int below_one(double x)
{
    return x >= 0 && x < 1;
}

static int is_finite(double x)
{
    return x >= -DBL_MAX && x <= DBL_MAX;
}

static lrf_status check_flags(const lrf_group *group, lrf_report *report)
{
    const uint32_t flags = group->flags, rule = group->rule;
    const int is_rmsprop = rule == LRF_RMSPROP || rule == LRF_RMSPROP_MOMENTUM;

    if (flags & ~(uint32_t)(LRF_MAXIMIZE | LRF_NESTEROV | LRF_FIRST_GRADIENT | LRF_MEAN))
        return refuse(report, "flags", LRF_BAD_FLAGS);
    if ((flags & LRF_NESTEROV) && (rule != LRF_MOMENTUM || !(group->momentum > 0) || group->dampening != 0))
        return refuse(report, "flags: LRF_NESTEROV", LRF_BAD_FLAGS);
    if ((flags & LRF_FIRST_GRADIENT) && (!is_rmsprop || (flags & LRF_MEAN)))
        return refuse(report, "flags: LRF_FIRST_GRADIENT", LRF_BAD_FLAGS);
    if ((flags & LRF_MEAN) && rule != LRF_RMSPROP)
        return refuse(report, "flags: LRF_MEAN", LRF_BAD_FLAGS);
    return LRF_OK;
}

static lrf_status check_group(const lrf_group *group, lrf_report *report)
{
    if (group->struct_size != sizeof *group)
        return refuse(report, "struct_size", LRF_BAD_STRUCT);
    if (!lrf_find_rule(group->rule))
        return refuse(report, "rule", LRF_BAD_RULE);
    if (group->dtype != LRF_FLOAT32 && group->dtype != LRF_FLOAT64)
        return refuse(report, "dtype", LRF_BAD_DTYPE);
    if (!finite_from_zero(group->lr))
        return refuse(report, "lr", LRF_BAD_NUMBER);
    if (!finite_from_zero(group->weight_decay))
        return refuse(report, "weight_decay", LRF_BAD_NUMBER);
    if (!finite_from_zero(group->decoupled_weight_decay))
        return refuse(report, "decoupled_weight_decay", LRF_BAD_NUMBER);
    if (!finite_from_zero(group->momentum))
        return refuse(report, "momentum", LRF_BAD_NUMBER);
    if (!is_finite(group->dampening))
        return refuse(report, "dampening", LRF_BAD_NUMBER);
    if (!below_one(group->alpha))
        return refuse(report, "alpha", LRF_BAD_NUMBER);
    if (!below_one(group->beta1))
        return refuse(report, "beta1", LRF_BAD_NUMBER);
    if (!below_one(group->beta2))
        return refuse(report, "beta2", LRF_BAD_NUMBER);
    if (!finite_from_zero(group->eps))
        return refuse(report, "eps", LRF_BAD_NUMBER);
    if (!finite_from_zero(group->lr_decay))
        return refuse(report, "lr_decay", LRF_BAD_NUMBER);
    if (!finite_from_zero(group->last_lr))
        return refuse(report, "last_lr", LRF_BAD_NUMBER);
    if (group->count > 0 && !group->tensors)
        return refuse(report, "tensors", LRF_NULL_POINTER);
    return check_flags(group, report);
}

static lrf_status check_options(const lrf_options *options, lrf_report *report)
{
    const uint32_t known = LRF_GRAD_NORM | LRF_REQUIRE_FINITE | LRF_ZERO_GRADS | LRF_NORMS | LRF_STATS;

    if (options->struct_size != sizeof *options)
        return refuse(report, "options.struct_size", LRF_BAD_STRUCT);
    if (options->flags & ~known)
        return refuse(report, "options.flags", LRF_BAD_FLAGS);
    if (!is_finite(options->grad_scale))
        return refuse(report, "options.grad_scale", LRF_BAD_NUMBER);
    if (!finite_from_zero(options->clip_value))
        return refuse(report, "options.clip_value", LRF_BAD_NUMBER);
    if (!finite_from_zero(options->clip_norm))
        return refuse(report, "options.clip_norm", LRF_BAD_NUMBER);
    if (!below_one(options->ema_decay))
        return refuse(report, "options.ema_decay", LRF_BAD_NUMBER);
    return LRF_OK;
}

/* ---- buffers --------------------------------------------------------------------------------------------- */

/* The buffers of a tensor in the order param, grad, states, outputs; returns how many. */
static size_t list_buffers(const lrf_rule_info *rule, const lrf_group *group, size_t index, int grad_is_written,
                           buffer buffers[BUFFERS])
{
    const lrf_tensor *tensor = &group->tensors[index];
    const size_t size = lrf_element_size(group);
    size_t n = 0;

    buffers[n++] = (buffer){tensor->param, size, "param", 1};
    buffers[n++] = (buffer){tensor->grad, size, "grad", grad_is_written};
    for (size_t slot = 0; slot < STATE_SLOTS; slot++)
        if (rule->state[slot])
            buffers[n++] = (buffer){tensor->state[slot], size, rule->state[slot], 1};
    if (group->outputs) {
        const lrf_outputs *outputs = &group->outputs[index];
        const size_t copy_size = lrf_dtype_size(outputs->copy_dtype);
        if (outputs->ema)
            buffers[n++] = (buffer){outputs->ema, size, "ema", 1};
        if (outputs->copy && copy_size > 0)
            buffers[n++] = (buffer){outputs->copy, copy_size, "copy", 1};
        if (outputs->last)
            buffers[n++] = (buffer){outputs->last, size, "last", 1};
    }
    return n;
}

static lrf_status check_tensor(const lrf_rule_info *rule, const lrf_group *group, size_t index, lrf_report *report)
{
    const lrf_tensor *tensor = &group->tensors[index];
    const lrf_outputs *outputs = group->outputs ? &group->outputs[index] : NULL;
    buffer buffers[BUFFERS];
    size_t n;

    if (!tensor->grad || tensor->count == 0)
        return LRF_OK;
    if (tensor->count > MAX_COUNT)
        return refuse(report, "count", LRF_BAD_COUNT);
    if (tensor->step == UINT64_MAX)
        return refuse(report, "step", LRF_BAD_COUNT);
    if (outputs && outputs->copy && (lrf_dtype_size(outputs->copy_dtype) == 0 || outputs->copy_dtype == LRF_FLOAT64))
        return refuse(report, "copy_dtype", LRF_BAD_DTYPE);

    n = list_buffers(rule, group, index, 1, buffers);
    for (size_t i = 0; i < n; i++) {
        const uintptr_t address = (uintptr_t)buffers[i].address;
        const size_t bytes = (size_t)tensor->count * buffers[i].element_size;
        if (!address)
            return refuse(report, buffers[i].name, LRF_NULL_POINTER);
        if (address & (buffers[i].element_size - 1))
            return refuse(report, buffers[i].name, LRF_MISALIGNED);
        if (address > UINTPTR_MAX - bytes)
            return refuse(report, "count", LRF_BAD_COUNT);
        for (size_t j = 0; j < i; j++) {
            const uintptr_t other = (uintptr_t)buffers[j].address;
            if (address < other + (size_t)tensor->count * buffers[j].element_size && other < address + bytes)
                return refuse(report, buffers[i].name, LRF_OVERLAP);
        }
    }
    return LRF_OK;
}

lrf_status lrf_check(const lrf_group *groups, size_t group_count, const lrf_options *options, lrf_report *report)
{
    lrf_status status = check_options(options, report);

    if (status == LRF_OK && group_count > 0 && !groups)
        return refuse(report, "groups", LRF_NULL_POINTER);
    for (size_t i = 0; status == LRF_OK && i < group_count; i++) {
        const lrf_group *group = &groups[i];
        report->group = i;
        report->tensor = 0;
        status = check_group(group, report);
        if (status == LRF_OK) {
            const lrf_rule_info *rule = lrf_find_rule(group->rule);
            for (size_t j = 0; status == LRF_OK && j < group->count; j++) {
                report->tensor = j;
                status = check_tensor(rule, group, j, report);
            }
        }
    }
    if (status == LRF_OK)
        report->group = report->tensor = 0;
    return status;
}

/* ---- overlap across tensors ------------------------------------------------------------------------------ */

/* Heapsort by begin: in place, O(n log n) in the worst case, and unlike qsort it never allocates. */
static void sift_down(span *spans, size_t root, size_t n)
{
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && spans[child].begin < spans[child + 1].begin)
            child++;
        if (spans[root].begin >= spans[child].begin)
            return;
        const span swapped = spans[root];
        spans[root] = spans[child];
        spans[child] = swapped;
    }
}

static void sort_spans(span *spans, size_t n)
{
    for (size_t i = n / 2; i > 0; i--)
        sift_down(spans, i - 1, n);
    for (size_t last = n; last > 1; last--) {
        const span swapped = spans[0];
        spans[0] = spans[last - 1];
        spans[last - 1] = swapped;
        sift_down(spans, 0, last - 1);
    }
}

size_t lrf_overlap_scratch_size(const lrf_group *groups, size_t group_count)
{
    size_t tensors = 0;
    for (size_t i = 0; i < group_count; i++)
        tensors += groups[i].count;
    return tensors * BUFFERS * sizeof(span);
}

lrf_status lrf_check_overlap(const lrf_group *groups, size_t group_count, const lrf_options *options, void *scratch,
                             size_t scratch_size, lrf_report *report)
{
    const int grads_are_written = options && (options->flags & LRF_ZERO_GRADS);
    lrf_report unused;
    span *const spans = scratch;
    size_t n = 0;
    uintptr_t end = 0, written_end = 0;

    report = report ? report : &unused;
    *report = (lrf_report){0};
    if (group_count > 0 && !groups)
        return refuse(report, "groups", LRF_NULL_POINTER);
    for (size_t i = 0; i < group_count; i++) {
        report->group = i;
        if (groups[i].struct_size != sizeof groups[i])
            return refuse(report, "struct_size", LRF_BAD_STRUCT);
        if (!lrf_find_rule(groups[i].rule))
            return refuse(report, "rule", LRF_BAD_RULE);
        if (groups[i].dtype != LRF_FLOAT32 && groups[i].dtype != LRF_FLOAT64)
            return refuse(report, "dtype", LRF_BAD_DTYPE);
        if (groups[i].count > 0 && !groups[i].tensors)
            return refuse(report, "tensors", LRF_NULL_POINTER);
    }
    if (scratch_size < lrf_overlap_scratch_size(groups, group_count) || (scratch_size && !scratch) ||
        (uintptr_t)scratch % sizeof(uintptr_t))
        return refuse(report, "scratch", LRF_BAD_WORK);

    for (size_t i = 0; i < group_count; i++) {
        const lrf_rule_info *rule = lrf_find_rule(groups[i].rule);
        for (size_t j = 0; j < groups[i].count; j++) {
            const lrf_tensor *tensor = &groups[i].tensors[j];
            buffer buffers[BUFFERS];
            const size_t buffer_count = list_buffers(rule, &groups[i], j, grads_are_written, buffers);
            if (tensor->count > MAX_COUNT) {
                report->group = i;
                report->tensor = j;
                return refuse(report, "count", LRF_BAD_COUNT);
            }
            for (size_t k = 0; k < buffer_count && tensor->count > 0; k++)
                if (buffers[k].address)
                    spans[n++] = (span){
                        .begin = (uintptr_t)buffers[k].address,
                        .end = (uintptr_t)buffers[k].address + (size_t)tensor->count * buffers[k].element_size,
                        .group = i,
                        .tensor = j,
                        .what = buffers[k].name,
                        .written = buffers[k].written,
                    };
        }
    }
    sort_spans(spans, n);
    for (size_t i = 0; i < n; i++) {
        if (spans[i].begin < written_end || (spans[i].written && spans[i].begin < end)) {
            report->group = spans[i].group;
            report->tensor = spans[i].tensor;
            return refuse(report, spans[i].what, LRF_OVERLAP);
        }
        if (spans[i].end > end)
            end = spans[i].end;
        if (spans[i].written && spans[i].end > written_end)
            written_end = spans[i].end;
    }
    report->group = report->tensor = 0;
    return LRF_OK;
}
