/* Masters after somebody has written parameters: the parameter wins. */
#include "tiles.h"

#include <math.h>
#include <string.h>

static int has_master(const lrf_group *group, size_t index)
{
    const lrf_storage *const storage = lrf_formats_at(group, index);
    return storage && storage->master_format != LRF_NATIVE;
}

static lrf_status check_master(const lrf_group *group, size_t index, lrf_report *report)
{
    const uint64_t count = group->tensors[index].count;
    lrf_buffer buffers[LRF_MOST_BUFFERS];
    lrf_status status = LRF_OK;

    if (group->storage)
        status = lrf_check_storage(group, lrf_storage_at(group, index), group->storage->struct_size, report);
    if (status != LRF_OK || count == 0 || !has_master(group, index))
        return status;
    if (count > LRF_MOST_ELEMENTS)
        return lrf_refuse(report, "count", LRF_BAD_COUNT);
    return lrf_check_memory(buffers, lrf_list_param_and_master(group, index, buffers), (size_t)count, report);
}

static lrf_status check_masters(const lrf_group *groups, size_t group_count, lrf_report *report)
{
    lrf_status status = LRF_OK;

    if (group_count > 0 && !groups)
        return lrf_refuse(report, "groups", LRF_NULL_POINTER);
    for (size_t i = 0; status == LRF_OK && i < group_count; i++) {
        const lrf_group *group = lrf_group_at(groups, i);
        lrf_group completed;
        report->group = i;
        report->tensor = 0;
        status = lrf_check_group_head(group, groups->struct_size, report);
        if (status != LRF_OK)
            return status;
        group = lrf_complete(group, &completed);
        for (size_t j = 0; status == LRF_OK && j < group->count; j++) {
            report->tensor = j;
            status = check_master(group, j, report);
        }
    }
    if (status == LRF_OK)
        report->group = report->tensor = 0;
    return status;
}

/* Not inlined, so that no arithmetic moves out of the default floating-point environment. */
static LRF_NOINLINE lrf_status reset(const lrf_group *groups, size_t group_count, lrf_report *report)
{
    lrf_status status = check_masters(groups, group_count, report);
    const lrf_kernels *kernels;

    if (status != LRF_OK)
        return status;
    kernels = lrf_active_kernels(&status);
    if (!kernels)
        return lrf_refuse(report, status == LRF_BAD_ISA ? "LRFAST_ISA" : "kernels", status);
    for (size_t i = 0; i < group_count; i++) {
        const lrf_group *group = lrf_group_at(groups, i);
        for (size_t j = 0; j < group->count; j++) {
            const lrf_storage *storage = lrf_formats_at(group, j);
            const size_t count = (size_t)group->tensors[j].count;
            if (count == 0 || !has_master(group, j))
                continue;
            if (storage->master_format == LRF_SPLIT)
                memset(storage->more[0], 0, count * sizeof(uint16_t));
            else
                kernels->settle[storage->param_format](storage->more[0], group->tensors[j].param, count);
        }
    }
    return LRF_OK;
}

lrf_status lrf_reset_master(const lrf_group *groups, size_t group_count, lrf_report *report)
{
    lrf_report news = {.grad_norm = NAN, .clip_factor = 1, .limited_norm = NAN};
    lrf_fpenv saved;
    lrf_status status;

    if (!lrf_is_report(report))
        return LRF_BAD_STRUCT;
    saved = lrf_fpenv_enter();
    status = reset(groups, group_count, &news);
    lrf_fpenv_leave(saved);
    lrf_write_report(report, &news);
    return status;
}

LRF_END_OF_SOURCE
