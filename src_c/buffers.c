/* The buffers of a tensor: which there are, in which formats, and where they may be. */
#include "tiles.h"

/* Bytes of an element. storage: NULL, all native. */
#define SIZE_OF(field) (storage ? lrf_format_size(group, storage->field) : native_size)

static size_t list_param_and_master(const lrf_group *group, const lrf_storage *storage, void *param,
                                    lrf_buffer buffers[LRF_MOST_BUFFERS])
{
    const size_t native_size = lrf_element_size(group);

    buffers[0] = (lrf_buffer){param, SIZE_OF(param_format), "param", 1};
    if (!storage || storage->master_format == LRF_NATIVE)
        return 1;
    buffers[1] = storage->master_format == LRF_FLOAT32
                     ? (lrf_buffer){storage->more[0], sizeof(float), "master", 1}
                     : (lrf_buffer){storage->more[0], sizeof(uint16_t), "remainder", 1};
    return 2;
}

size_t lrf_list_param_and_master(const lrf_group *group, size_t index, lrf_buffer buffers[LRF_MOST_BUFFERS])
{
    return list_param_and_master(group, lrf_formats_at(group, index), group->tensors[index].param, buffers);
}

size_t lrf_list_buffers(const lrf_group *group, size_t index, int grad_is_written, lrf_buffer buffers[LRF_MOST_BUFFERS])
{
    const lrf_rule_info *rule = lrf_find_rule(group->rule);
    const lrf_tensor *tensor = &group->tensors[index];
    const lrf_outputs *outputs = lrf_outputs_at(group, index);
    const lrf_storage *storage = lrf_formats_at(group, index);
    const size_t native_size = lrf_element_size(group);
    size_t n = list_param_and_master(group, storage, tensor->param, buffers);

    if (tensor->grad)
        buffers[n++] = (lrf_buffer){tensor->grad, SIZE_OF(grad_format), "grad", grad_is_written};
    for (size_t slot = 0; slot < LRF_STATE_SLOTS; slot++)
        if (rule->state[slot] && (tensor->grad || tensor->state[slot])) /* without a gradient no state is needed */
            buffers[n++] = (lrf_buffer){tensor->state[slot], SIZE_OF(state_format[slot]), rule->state[slot], 1};
    if (outputs) {
        const size_t copy_size = lrf_dtype_size(outputs->copy_dtype);
        const size_t ema_size = lrf_dtype_size(lrf_ema_dtype(group, outputs));
        if (outputs->ema && ema_size > 0)
            buffers[n++] = (lrf_buffer){outputs->ema, ema_size, "ema", 1};
        if (outputs->copy && copy_size > 0)
            buffers[n++] = (lrf_buffer){outputs->copy, copy_size, "copy", 1};
        if (outputs->last)
            buffers[n++] = (lrf_buffer){outputs->last, native_size, "last", 1};
    }
    return n;
}

/* Whether tensors of a group may have a format. */
static int is_format(const lrf_group *group, uint8_t format)
{
    return format == LRF_NATIVE || format == group->dtype ||
           (group->dtype == LRF_FLOAT32 && (format == LRF_FLOAT16 || format == LRF_BFLOAT16));
}

static int is_master_format(uint8_t master_format, uint8_t param_format)
{
    switch (master_format) {
    case LRF_NATIVE: return 1;
    case LRF_FLOAT32: return param_format == LRF_FLOAT16 || param_format == LRF_BFLOAT16;
    case LRF_SPLIT: return param_format == LRF_BFLOAT16;
    default: return 0;
    }
}

lrf_status lrf_check_storage(const lrf_group *group, const lrf_storage *storage, size_t struct_size, lrf_report *report)
{
    if (storage->struct_size != struct_size)
        return lrf_refuse(report, "storage.struct_size", LRF_BAD_STRUCT);
    if (!is_format(group, storage->param_format))
        return lrf_refuse(report, "storage.param_format", LRF_BAD_DTYPE);
    if (!is_format(group, storage->grad_format))
        return lrf_refuse(report, "storage.grad_format", LRF_BAD_DTYPE);
    for (size_t slot = 0; slot < LRF_STATE_SLOTS; slot++) {
        if (!is_format(group, storage->state_format[slot]))
            return lrf_refuse(report, "storage.state_format", LRF_BAD_DTYPE);
        if (storage->more[slot] && (slot > 0 || storage->master_format == LRF_NATIVE))
            return lrf_refuse(report, "storage.more", LRF_BAD_STRUCT);
    }
    if (!is_master_format(storage->master_format, storage->param_format))
        return lrf_refuse(report, "storage.master_format", LRF_BAD_DTYPE);
    for (size_t i = 0; i < sizeof storage->unused; i++)
        if (storage->unused[i])
            return lrf_refuse(report, "storage.unused", LRF_BAD_STRUCT);
    return LRF_OK;
}

lrf_status lrf_check_memory(const lrf_buffer *buffers, size_t n, size_t count, lrf_report *report)
{
    for (size_t i = 0; i < n; i++) {
        const uintptr_t address = (uintptr_t)buffers[i].address;
        const size_t bytes = count * buffers[i].element_size;
        if (!address)
            return lrf_refuse(report, buffers[i].name, LRF_NULL_POINTER);
        if (address & (buffers[i].element_size - 1))
            return lrf_refuse(report, buffers[i].name, LRF_MISALIGNED);
        if (address > UINTPTR_MAX - bytes)
            return lrf_refuse(report, "count", LRF_BAD_COUNT);
        for (size_t j = 0; j < i; j++) {
            const uintptr_t other = (uintptr_t)buffers[j].address;
            if (address < other + count * buffers[j].element_size && other < address + bytes)
                return lrf_refuse(report, buffers[i].name, LRF_OVERLAP);
        }
    }
    return LRF_OK;
}

LRF_END_OF_SOURCE
