/* Formats of tensors: a tile as the kernels take it, in the group's dtype, and how it goes back. Native buffers are
 * used where they are, others are decoded before and encoded after. */
#include "tiles.h"

#include <string.h>

static int is_decoded(uint8_t format)
{
    return format == LRF_FLOAT16 || format == LRF_BFLOAT16;
}

/* Elements begin .. begin + n of a buffer. */
static void *decode(const lrf_kernels *kernels, const void *buffer, uint8_t format, size_t begin, size_t n,
                    float *memory)
{
    kernels->decode[format](memory, (const uint16_t *)buffer + begin, n);
    return memory;
}

void *lrf_decode_grad(const lrf_kernels *kernels, const lrf_tile_run *run, size_t begin, size_t n, float *memory)
{
    void *const grad = run->tensor->grad;

    if (run->storage && is_decoded(run->storage->grad_format))
        return decode(kernels, grad, run->storage->grad_format, begin, n, memory);
    return lrf_element_address(grad, begin, lrf_element_size(run->group));
}

void *lrf_decode_param(const lrf_kernels *kernels, const lrf_tile_run *run, size_t begin, size_t n, float *memory)
{
    const lrf_storage *storage = run->storage;
    const uint16_t *const codes = (const uint16_t *)run->tensor->param + begin;

    if (!storage || !is_decoded(storage->param_format))
        return lrf_element_address(run->tensor->param, begin, lrf_element_size(run->group));
    if (storage->master_format == LRF_FLOAT32) {
        memcpy(memory, (const float *)storage->more[0] + begin, n * sizeof *memory);
        kernels->settle[storage->param_format](memory, codes, n);
    } else if (storage->master_format == LRF_SPLIT) {
        kernels->join(memory, codes, (const uint16_t *)storage->more[0] + begin, n);
    } else {
        kernels->decode[storage->param_format](memory, codes, n);
    }
    return memory;
}

/* The same for an update: a master is used where it is. */
static void *open_param(const lrf_kernels *kernels, const lrf_tile_run *run, size_t begin, size_t n, float *memory)
{
    const lrf_storage *storage = run->storage;
    float *master;

    if (!storage || storage->master_format != LRF_FLOAT32)
        return lrf_decode_param(kernels, run, begin, n, memory);
    master = (float *)storage->more[0] + begin;
    kernels->settle[storage->param_format](master, (const uint16_t *)run->tensor->param + begin, n);
    return master;
}

lrf_tensor lrf_open_tile(const lrf_kernels *kernels, const lrf_tile_run *run, size_t begin, size_t n,
                         lrf_decoded *memory)
{
    const size_t element_size = lrf_element_size(run->group);
    const lrf_storage *storage = run->storage;
    lrf_tensor tile = {
        .param = open_param(kernels, run, begin, n, memory->param),
        .grad = lrf_decode_grad(kernels, run, begin, n, memory->grad),
        .count = n,
        .step = run->tensor->step,
    };

    for (size_t slot = 0; slot < LRF_STATE_SLOTS; slot++) {
        void *const state = run->tensor->state[slot];
        tile.state[slot] = storage && state && is_decoded(storage->state_format[slot])
                               ? decode(kernels, state, storage->state_format[slot], begin, n, memory->states[slot])
                               : lrf_element_address(state, begin, element_size);
    }
    return tile;
}

/* x becomes codes, and with read_back what these say. */
static void encode(const lrf_kernels *kernels, void *buffer, uint8_t format, size_t begin, float *x, size_t n,
                   int read_back)
{
    uint16_t *const codes = (uint16_t *)buffer + begin;

    kernels->copy[format][0](codes, x, n);
    if (read_back)
        kernels->decode[format](x, codes, n);
}

void lrf_close_tile(const lrf_kernels *kernels, const lrf_tile_run *run, size_t begin, const lrf_tensor *tile,
                    int read_back)
{
    const lrf_storage *storage = run->storage;
    const lrf_tensor *tensor = run->tensor;
    const size_t n = (size_t)tile->count;

    if (!storage)
        return;
    if (storage->master_format == LRF_SPLIT)
        kernels->split((uint16_t *)tensor->param + begin, (uint16_t *)storage->more[0] + begin, tile->param, n);
    else if (is_decoded(storage->param_format))
        encode(kernels, tensor->param, storage->param_format, begin, tile->param, n,
               read_back && storage->master_format == LRF_NATIVE);
    for (size_t slot = 0; slot < LRF_STATE_SLOTS; slot++)
        if (tile->state[slot] && is_decoded(storage->state_format[slot]))
            encode(kernels, tensor->state[slot], storage->state_format[slot], begin, tile->state[slot], n, read_back);
}

LRF_END_OF_SOURCE
