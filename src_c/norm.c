/* Phase 1, which only reads: norm of the gradients, whether they and their squares are finite, and the clip factor.
 * Where a plain sum of squares has overflowed, or is so small that squares have lost bits, it runs once more in units
 * of 2^600 or 2^-600. */
#include "tiles.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const double CLIP_EPS = 1e-6; /* as in PyTorch's clip_grad_norm_ */

/* Units of norms. A square that counts in a sum from 2^-900 on is a normal number; in these units all that count are,
 * and none overflows, also of 2^60 elements. */
static const double LARGE = 0x1p+600, SMALL = 0x1p-600, FEWEST_SQUARES = 0x1p-900;

/* What a tile leaves. */
typedef struct norm_slot {
    double sum;         /* of g^2 */
    double clamped_sum; /* of the squares after clip_value */
    double nonfinite;   /* elements */
    double largest;     /* |g|, where its square may be too large for a rule; otherwise 0 */
} norm_slot;

static size_t slot_size(const lrf_options *options)
{
    const int is_needed = (options->flags & (LRF_GRAD_NORM | LRF_REQUIRE_FINITE)) || options->clip_norm > 0;
    return is_needed ? sizeof(norm_slot) : 0;
}

static double largest_of(size_t type)
{
    return type == 0 ? (double)FLT_MAX : DBL_MAX;
}

static int is_repeated(const lrf_step_state *step)
{
    return step->unit != 1 || step->limited_unit != 1;
}

static double sum_of_squares(const lrf_step_state *step, size_t type, const void *x, size_t n, double unit)
{
    return unit == 1 ? step->kernels->sum_squares[type](x, n) : step->kernels->sum_scaled_squares[type](x, n, 1 / unit);
}

static void run_norm(const lrf_step_state *step, const lrf_tile_run *run, lrf_latest *latest)
{
    const lrf_options *options = &step->options;
    const size_t type = run->group->dtype - LRF_FLOAT32;
    const double largest = largest_of(type), safe_to_square = type == 0 ? 0x1p+63 : 0x1p+511;
    const int requires_finite = (options->flags & LRF_REQUIRE_FINITE) != 0;
    const int keeps_squares = requires_finite && lrf_keeps_squares(run->group);
    const double scale = type == 0 ? (double)(float)options->grad_scale : options->grad_scale;
    norm_slot *slot = (norm_slot *)options->work + run->index;
    lrf_limit_memory memory;
    float decoded[LRF_TILE];

    (void)latest;
    if (!run->tensor->grad) {
        memset(slot, 0, (run->end - run->first) * sizeof *slot);
        return;
    }
    for (size_t i = run->first; i < run->end; i++, slot++) {
        const size_t n = lrf_elements_of(run->tensor, i, i + 1);
        const void *const g = lrf_decode_grad(step->kernels, run, i * LRF_TILE, n, decoded);

        slot->sum = sum_of_squares(step, type, g, n, step->unit);
        slot->clamped_sum = 0;
        if (options->clip_value > 0 && options->clip_norm > 0)
            slot->clamped_sum =
                sum_of_squares(step, type, lrf_limit(step, run->group->dtype, g, n, &memory), n, step->limited_unit);
        if (is_repeated(step))
            continue;
        slot->nonfinite = slot->largest = 0;
        if (!requires_finite)
            continue;
        /* If the norm of the tile is in range, so is each of its elements. */
        const double bound = fabs(scale) * sqrt(slot->sum);
        if (!(bound <= largest))
            slot->nonfinite = (double)step->kernels->count_nonfinite[type](g, n, options->grad_scale);
        if (keeps_squares && !(bound <= safe_to_square))
            slot->largest = step->kernels->largest[type](g, n);
    }
}

/* ---- what the sums say ----------------------------------------------------------------------------------- */

/* The unit in which a sum of squares should have been made. */
static double better_unit(double sum)
{
    return sum > DBL_MAX ? LARGE : sum < FEWEST_SQUARES ? SMALL : 1;
}

/* |scale| unit root, without overflow or underflow on the way. */
static double norm_of(double root, double scale, double unit)
{
    const double size = fabs(scale);
    return (size < 1) == (unit < 1) ? root * unit * size : size * unit * root;
}

/* The factor min(1, clip_norm / (norm + CLIP_EPS)) twice, of which one may be denormal, or 0. Half way up, by 2^511,
 * numbers of any size have room in both directions. */
static void set_clip_factor(lrf_step_state *step, double root, double scale, double unit)
{
    const double half = 0x1p+511, clip_norm = step->options.clip_norm, norm = step->limited_norm;
    /* Of finite gradients, a norm may be too large for float64. */
    const double lowered = norm > DBL_MAX ? norm_of(root, scale, unit / half) : norm / half;
    const double divisor = lowered + CLIP_EPS / half;
    const double factor = norm > DBL_MAX ? clip_norm / divisor / half : clip_norm / (norm + CLIP_EPS);

    step->clip_factor = factor < 1 || factor != factor ? factor : 1;
    if (step->clip_factor != 1)
        step->lifted_factor = clip_norm * half / divisor;
}

/* Whether some gradients are float64, whose squares may be out of range. */
static int has_doubles(const lrf_step_state *step)
{
    for (size_t i = 0; i < step->group_count; i++)
        if (lrf_group_at(step->groups, i)->dtype == LRF_FLOAT64)
            return 1;
    return 0;
}

static double rounded(size_t type, double x)
{
    return type == 0 ? (double)(float)x : x;
}

/* Whether the square of what the rule gets of a gradient is finite, rounded as kernels do: in float64, the product of
 * two float32 is exact. */
static int has_finite_square(const lrf_step_state *step, size_t type, double gradient)
{
    const lrf_options *options = &step->options;
    double x = rounded(type, options->grad_scale);

    if (options->clip_value > 0) {
        const double bound = rounded(type, options->clip_value);
        x = fabs(rounded(type, x * gradient));
        x = rounded(type, rounded(type, step->clip_factor) * (x > bound ? bound : x));
    } else {
        x = rounded(type, rounded(type, options->grad_scale * step->clip_factor) * gradient);
    }
    return rounded(type, x * x) <= largest_of(type);
}

/* Whether all squares that rules keep are finite; otherwise says where the first is that is not. */
static int has_finite_squares(lrf_step_state *step)
{
    const norm_slot *slot = step->options.work;

    for (size_t i = 0; i < step->group_count; i++) {
        const lrf_group *group = lrf_group_at(step->groups, i);
        for (size_t j = 0; j < group->count; j++)
            for (size_t k = lrf_tiles_of(group, j); k > 0; k--, slot++)
                if (slot->largest > 0 && !has_finite_square(step, group->dtype - LRF_FLOAT32, slot->largest)) {
                    step->bad_group = i;
                    step->bad_tensor = j;
                    return 0;
                }
    }
    return 1;
}

/* The largest that a gradient can be after everything. */
static double largest_used(const lrf_step_state *step)
{
    const lrf_options *options = &step->options;
    const double norm = options->clip_norm > 0 ? step->limited_norm : step->grad_norm;
    const double bound = options->clip_norm > 0 ? options->clip_norm : options->clip_value;
    return bound > 0 && bound < norm ? bound : norm;
}

/* Sets norms, clip factor, nonfinite and where the first of these is. */
static int finish_norm(lrf_step_state *step)
{
    const lrf_options *options = &step->options;
    const int is_limited = options->clip_value > 0 && options->clip_norm > 0;
    const norm_slot *slot = options->work;
    double sum = 0, clamped_sum = 0, largest = 0;

    step->grad_norm = 0;
    step->nonfinite = 0;
    if (step->tiles == 0) {
        step->limited_norm = options->clip_norm > 0 ? 0 : NAN;
        return LRF_GO_ON;
    }
    for (size_t i = 0; i < step->group_count; i++) {
        const lrf_group *group = lrf_group_at(step->groups, i);
        for (size_t j = 0; j < group->count; j++) {
            const norm_slot *const end = slot + lrf_tiles_of(group, j);
            norm_slot tensor = {0};
            for (; slot < end; slot++) {
                tensor.sum += slot->sum;
                tensor.clamped_sum += slot->clamped_sum;
                tensor.nonfinite += slot->nonfinite;
                if (slot->largest != 0)
                    largest = lrf_larger(largest, slot->largest);
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
    if (!is_repeated(step) && has_doubles(step)) {
        step->unit = better_unit(sum);
        step->limited_unit = is_limited ? better_unit(clamped_sum) : 1;
        if (is_repeated(step))
            return LRF_ONCE_MORE;
    }
    step->grad_norm = norm_of(sqrt(sum), options->grad_scale, step->unit);
    if (step->nonfinite > 0)
        return LRF_STOP;
    if (is_limited) {
        step->limited_norm = norm_of(sqrt(clamped_sum), 1, step->limited_unit);
        set_clip_factor(step, sqrt(clamped_sum), 1, step->limited_unit);
    } else if (options->clip_norm > 0) {
        step->limited_norm = step->grad_norm;
        set_clip_factor(step, sqrt(sum), options->grad_scale, step->unit);
    }
    if (options->flags & LRF_REQUIRE_FINITE) {
        step->largest_used = largest_used(step);
        if (largest > 0 && !has_finite_squares(step))
            return LRF_STOP;
    }
    return LRF_GO_ON;
}

const lrf_phase lrf_norm_phase = {0, slot_size, run_norm, finish_norm};

LRF_END_OF_SOURCE
