/* The numbers of one update, in float64, once for all tensors of a group that are at the same step. */
#include "internal.h"

#include <float.h>
#include <math.h>

/* Learning rate of update t under lr_decay. */
static double decayed_lr(const lrf_group *group, uint64_t t)
{
    return group->lr / (1 + (double)(t - 1) * group->lr_decay);
}

/* What is added to roots: eps, but the root of the smallest normal number for 0, so that 0 / 0 is 0. Beside roots of
 * ordinary gradients it is lost. */
static double eps_of(const lrf_group *group)
{
    return group->eps != 0 ? group->eps : sqrt(group->dtype == LRF_FLOAT32 ? FLT_MIN : DBL_MIN);
}

#define real double
#define LRF_TYPED(name) name

/* Opens the function that fills the scalars *k of a family for update t of a group and returns the rate of statistics:
 * the learning rate alone. grad_scale, with which each struct begins, is filled already. carried[]: the numbers that a
 * tensor carries as they were before the update, which leaves there what they are after it; those before update 1 mean
 * nothing. */
#define LRF_COMPUTE(family)                                                                                            \
    static double family##_compute(family##_scalars *k, const lrf_group *group, uint64_t t, double *carried);          \
    static double family##_fill(double values[LRF_MOST_SCALARS], const lrf_group *group, uint64_t t, double *carried)  \
    {                                                                                                                  \
        _Static_assert(sizeof(family##_scalars) <= LRF_MOST_SCALARS * sizeof(double), "LRF_MOST_SCALARS");             \
        return family##_compute((void *)values, group, t, carried);                                                    \
    }                                                                                                                  \
    static double family##_compute(family##_scalars *k, const lrf_group *group, LRF_UNUSED uint64_t t,                 \
                                   LRF_UNUSED double *carried)

#define LRF_RULE_FILES
#include "optimizers.def"
#undef LRF_RULE_FILES

/* The scalars that a family has, of all its rules. */
static const uint8_t scalar_counts[] = {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults)                                                      \
    [LRF_##NAME] = sizeof(family##_scalars) / sizeof(double),
#include "optimizers.def"
#undef LRF_RULE
};

lrf_factors lrf_split_factor(double scale, double clip_factor, double lifted_factor, uint32_t dtype)
{
    const double smallest = dtype == LRF_FLOAT64 ? DBL_MIN : (double)FLT_MIN;
    const double lifted = scale * lifted_factor;
    const double whole = clip_factor < DBL_MIN ? lifted * DBL_MIN : scale * clip_factor;

    if (!(fabs(whole) < smallest) || lifted == 0)
        return (lrf_factors){1, whole};
    return (lrf_factors){lifted * (DBL_MIN / smallest), smallest};
}

static void compute(lrf_scalars *scalars, const lrf_group *group, uint64_t t, double grad_scale, double *carried)
{
    typedef double fill(double values[LRF_MOST_SCALARS], const lrf_group *, uint64_t, double *);
    static fill *const fills[] = {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) [LRF_##NAME] = family##_fill,
#include "optimizers.def"
#undef LRF_RULE
    };
    double *const values = scalars->values.doubles;
    lrf_group completed;

    group = lrf_complete(group, &completed);
    values[0] = group->flags & LRF_MAXIMIZE ? -grad_scale : grad_scale;
    scalars->rate = fills[group->rule](values, group, t, carried);
    if (group->dtype == LRF_FLOAT32)
        /* One by one: a vector of them would wait for the stores that have just made its parts (10 ns). */
        for (size_t i = 0; i < scalar_counts[group->rule]; i++)
            scalars->values.singles[i] = (float)*(volatile double *)&values[i];
}

void lrf_compute_scalars(lrf_latest *latest, const lrf_group *group, const lrf_tensor *tensor, const double *carried,
                         double grad_scale)
{
    latest->group = group;
    latest->step = tensor->step;
    if (carried) {
        memcpy(latest->before, carried, sizeof latest->before);
        memcpy(latest->after, carried, sizeof latest->after);
    }
    compute(&latest->scalars, group, tensor->step + 1, grad_scale, latest->after);
}

int lrf_scalars_fit(lrf_latest *latest, const lrf_group *group, const lrf_tensor *tensor, const double *carried)
{
    const lrf_scalars *const scalars = &latest->scalars;
    int fit = 1;

    lrf_compute_scalars(latest, group, tensor, carried, 1);
    for (size_t i = 1; i < scalar_counts[group->rule]; i++)
        fit &= group->dtype == LRF_FLOAT32 ? fabsf(scalars->values.singles[i]) <= FLT_MAX
                                           : fabs(scalars->values.doubles[i]) <= DBL_MAX;
    return fit;
}

LRF_END_OF_SOURCE
