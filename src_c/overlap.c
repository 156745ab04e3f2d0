/* Overlap across tensors: looked for once, when a plan is made. */
#include "tiles.h"

/* The bytes begin .. end of a buffer, and where it belongs. */
typedef struct span {
    uintptr_t begin, end;
    size_t group, tensor;
    const char *what;
    int written;
} span;

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

    if (!groups || group_count == 0 || !lrf_knows_size(groups->struct_size, LRF_FIRST_GROUP, sizeof *groups))
        return 0;
    for (size_t i = 0; i < group_count; i++)
        tensors += lrf_group_at(groups, i)->count;
    return tensors * LRF_MOST_BUFFERS * sizeof(span);
}

/* Adds the buffers of a tensor; returns how many there are then. */
static size_t add_spans(span *spans, size_t n, const lrf_group *group, size_t group_index, size_t index,
                        int grads_are_written)
{
    const size_t count = (size_t)group->tensors[index].count;
    lrf_buffer buffers[LRF_MOST_BUFFERS];
    const size_t buffer_count = lrf_list_buffers(group, index, grads_are_written, buffers);

    for (size_t i = 0; i < buffer_count && count > 0; i++)
        if (buffers[i].address)
            spans[n++] = (span){
                .begin = (uintptr_t)buffers[i].address,
                .end = (uintptr_t)buffers[i].address + count * buffers[i].element_size,
                .group = group_index,
                .tensor = index,
                .what = buffers[i].name,
                .written = buffers[i].written,
            };
    return n;
}

/* The first of sorted spans that meets one before it, of which one is written; NULL if there is none. */
static const span *find_overlap(const span *spans, size_t n)
{
    uintptr_t end = 0, written_end = 0;

    for (size_t i = 0; i < n; i++) {
        if (spans[i].begin < written_end || (spans[i].written && spans[i].begin < end))
            return &spans[i];
        if (spans[i].end > end)
            end = spans[i].end;
        if (spans[i].written && spans[i].end > written_end)
            written_end = spans[i].end;
    }
    return NULL;
}

static lrf_status check_overlap(const lrf_group *groups, size_t group_count, int grads_are_written, void *scratch,
                                size_t scratch_size, lrf_report *report)
{
    span *const spans = scratch;
    const span *found;
    size_t n = 0;

    if (group_count > 0 && !groups)
        return lrf_refuse(report, "groups", LRF_NULL_POINTER);
    for (size_t i = 0; i < group_count; i++) {
        const lrf_status status = lrf_check_group_head(lrf_group_at(groups, i), groups->struct_size, report);
        report->group = i;
        if (status != LRF_OK)
            return status;
    }
    report->group = 0;
    if (scratch_size < lrf_overlap_scratch_size(groups, group_count) || (scratch_size && !scratch) ||
        (uintptr_t)scratch % sizeof(uintptr_t))
        return lrf_refuse(report, "scratch", LRF_BAD_WORK);

    for (size_t i = 0; i < group_count; i++) {
        const lrf_group *group = lrf_group_at(groups, i);
        for (size_t j = 0; j < group->count; j++) {
            if (group->tensors[j].count > LRF_MOST_ELEMENTS) {
                report->group = i;
                report->tensor = j;
                return lrf_refuse(report, "count", LRF_BAD_COUNT);
            }
            n = add_spans(spans, n, group, i, j, grads_are_written);
        }
    }
    sort_spans(spans, n);
    found = find_overlap(spans, n);
    if (!found)
        return LRF_OK;
    report->group = found->group;
    report->tensor = found->tensor;
    return lrf_refuse(report, found->what, LRF_OVERLAP);
}

lrf_status lrf_check_overlap(const lrf_group *groups, size_t group_count, const lrf_options *options, void *scratch,
                             size_t scratch_size, lrf_report *report)
{
    const int grads_are_written = options && (options->flags & LRF_ZERO_GRADS);
    lrf_report news = {0};
    lrf_status status;

    if (!lrf_is_report(report))
        return LRF_BAD_STRUCT;
    status = check_overlap(groups, group_count, grads_are_written, scratch, scratch_size, &news);
    lrf_write_report(report, &news);
    return status;
}

LRF_END_OF_SOURCE
