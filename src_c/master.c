/* Masters after somebody has written parameters: the parameter wins. */
#include "tiles.h"

#include <string.h>

/* Not inlined, so that no arithmetic moves out of the default floating-point environment. */
static LRF_NOINLINE lrf_status reset(const lrf_group *groups, size_t group_count, lrf_report *report)
{
    lrf_status status = lrf_check_masters(groups, group_count, report);
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
            if (!storage || storage->master_format == LRF_NATIVE || count == 0)
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
