/* Tiles of a tensor and elements of tiles. */
#ifndef LRF_TILES_H
#define LRF_TILES_H

#include "internal.h"

#include <float.h>

/* Elements of either type. */
typedef union lrf_tile {
    float singles[LRF_TILE];
    double doubles[LRF_TILE];
} lrf_tile;

/* Bytes of an element; 0 if there is no such type. */
static inline size_t lrf_dtype_size(uint32_t dtype)
{
    switch (dtype) {
    case LRF_FLOAT64: return 8;
    case LRF_FLOAT32: return 4;
    case LRF_FLOAT16:
    case LRF_BFLOAT16: return 2;
    default: return 0;
    }
}

/* The type of an average; outputs have to be there. */
static inline uint32_t lrf_ema_dtype(const lrf_group *group, const lrf_outputs *outputs)
{
    const int is_told = outputs->struct_size > offsetof(lrf_outputs, ema_dtype) && outputs->ema_dtype != 0;
    return is_told ? outputs->ema_dtype : group->dtype;
}

static inline size_t lrf_element_size(const lrf_group *group)
{
    return group->dtype == LRF_FLOAT64 ? sizeof(double) : sizeof(float);
}

/* Of a buffer in some format. */
static inline size_t lrf_format_size(const lrf_group *group, uint8_t format)
{
    return lrf_dtype_size(format == LRF_NATIVE ? group->dtype : format);
}

static inline void *lrf_element_address(void *buffer, size_t element, size_t element_size)
{
    return buffer ? (char *)buffer + element * element_size : NULL;
}

/* Number of tiles of a tensor; 0 if a step does nothing with it. */
static inline size_t lrf_tiles_of(const lrf_group *group, size_t index)
{
    const lrf_tensor *tensor = &group->tensors[index];
    const int is_visited = tensor->grad || lrf_is_followed(lrf_outputs_at(group, index));
    return is_visited ? (size_t)(tensor->count / LRF_TILE + (tensor->count % LRF_TILE != 0)) : 0;
}

/* Elements of the tiles first .. end of a tensor. */
static inline size_t lrf_elements_of(const lrf_tensor *tensor, size_t first, size_t end)
{
    const size_t rest = (size_t)tensor->count - first * LRF_TILE, whole = (end - first) * LRF_TILE;
    return whole < rest ? whole : rest;
}

/* What limited gradients are made in. */
typedef struct lrf_limit_memory {
    lrf_tile scaled, limited;
} lrf_limit_memory;

/* n gradients after grad_scale and clip_value: where they are in memory. */
static inline void *lrf_limit(const lrf_step_state *step, uint32_t dtype, const void *g, size_t n,
                              lrf_limit_memory *memory)
{
    const lrf_options *options = &step->options;
    const lrf_factors scale = lrf_split_factor(options->grad_scale, 1, 1 / DBL_MIN, dtype);

    if (scale.first != 1) {
        step->kernels->multiply[dtype - LRF_FLOAT32](&memory->scaled, g, n, scale.first);
        g = &memory->scaled;
    }
    step->kernels->clamp[dtype - LRF_FLOAT32](&memory->limited, g, n, scale.last, options->clip_value);
    return &memory->limited;
}

#endif
