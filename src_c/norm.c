/* Phase 1, which only reads: norm of the gradients, whether they are finite, and the clip factor. */
#include "tiles.h"

#include <math.h>

static const double CLIP_EPS = 1e-6; /* as in PyTorch's clip_grad_norm_ */

/* What a tile leaves. */
typedef struct norm_slot {
    double sum;         /* of g^2 */
    double clamped_sum; /* of the squares after clip_value */
    double nonfinite;   /* elements */
} norm_slot;

static size_t slot_size(const lrf_options *options)
{
    const int is_needed = (options->flags & (LRF_GRAD_NORM | LRF_REQUIRE_FINITE)) || options->clip_norm > 0;
    return is_needed ? sizeof(norm_slot) : 0;
}

static void run_norm(const lrf_step_state *step, const lrf_tile_run *run, lrf_latest *latest)
{
    const lrf_kernels *kernels = step->kernels;
    const lrf_options *options = &step->options;
    const size_t type = run->group->dtype - LRF_FLOAT32, element_size = lrf_element_size(run->group);
    const double half_of_largest = (type == 0 ? (double)FLT_MAX : DBL_MAX) / 2;
    const double scale = type == 0 ? (double)(float)options->grad_scale : options->grad_scale;
    norm_slot *slot = (norm_slot *)options->work + run->index;
    lrf_tile clamped;

    (void)latest;
    for (size_t i = run->first; i < run->end; i++, slot++) {
        const size_t n = lrf_elements_of(run->tensor, i, i + 1);
        const void *const g = lrf_element_address(run->tensor->grad, i * LRF_TILE, element_size);

        *slot = (norm_slot){.sum = kernels->sum_squares[type](g, n)};
        /* If the norm of the tile is in range, so is each of its elements. */
        if ((options->flags & LRF_REQUIRE_FINITE) && !(fabs(scale) * sqrt(slot->sum) <= half_of_largest))
            slot->nonfinite = (double)kernels->count_nonfinite[type](g, n, options->grad_scale);
        if (options->clip_value > 0 && options->clip_norm > 0) {
            kernels->clamp[type](&clamped, g, n, options->grad_scale, options->clip_value);
            slot->clamped_sum = kernels->sum_squares[type](&clamped, n);
        }
    }
}

/* Sets grad_norm, clip_factor, nonfinite and where the first of these is. */
static int finish_norm(lrf_step_state *step)
{
    const lrf_options *options = &step->options;
    const norm_slot *slot = options->work;
    double sum = 0, clamped_sum = 0;

    step->grad_norm = 0;
    if (step->tiles == 0)
        return 1;
    for (size_t i = 0; i < step->group_count; i++) {
        const lrf_group *group = lrf_group_at(step->groups, i);
        for (size_t j = 0; j < group->count; j++) {
            const norm_slot *const end = slot + lrf_tiles_of(&group->tensors[j]);
            norm_slot tensor = {0};
            for (; slot < end; slot++) {
                tensor.sum += slot->sum;
                tensor.clamped_sum += slot->clamped_sum;
                tensor.nonfinite += slot->nonfinite;
            }
            sum += tensor.sum;
            clamped_sum += tensor.clamped_sum;
            if (tensor.nonfinite > 0 && step->nonfinite == 0) {
                step->bad_group = i;
                step->bad_tensor = j;
            }
            step->nonfinite += (uint64_t)tensor.nonfinite;
        }
    }
    step->grad_norm = fabs(options->grad_scale) * sqrt(sum);
    if (options->clip_norm > 0 && step->nonfinite == 0) {
        const double norm = options->clip_value > 0 ? sqrt(clamped_sum) : step->grad_norm;
        const double factor = options->clip_norm / (norm + CLIP_EPS);
        step->clip_factor = factor < 1 || factor != factor ? factor : 1;
    }
    return step->nonfinite == 0;
}

const lrf_phase lrf_norm_phase = {0, slot_size, run_norm, finish_norm};
