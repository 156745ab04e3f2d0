/* Norms and clip factors of gradients of any finite size: neither overflow nor underflow on the way, and what is left
 * of the gradients is right, for any number of parts. */
#include "harness.h"

enum { COUNT = 2500, MOST_PARTS = 3 };

static double param[COUNT], grad[COUNT], first[COUNT], work[8 * (COUNT / 1024 + 1)];

static const double sizes[] = {5e-324, 1e-310, 1e-200, 1e-155, 1e-45, 1e-20,  1,
                               1e19,   3e38,   1e150,  1e154,  1e200, 1.7e308};
static const double bounds[] = {1e-300, 1e-40, 1e-6, 1, 1e30};
static const double scales[] = {1, 1e-30, -8};

/* A step of plain gradient descent from 0 with lr = 1, in parts: param = -(what is left of the gradient). */
static lrf_report descend(uint32_t dtype, const lrf_options *options, size_t parts)
{
    lrf_report report = {.struct_size = sizeof report};
    lrf_tensor tensor = {.param = param, .grad = grad, .count = COUNT};
    lrf_group group;
    lrf_job job;

    memset(param, 0, sizeof param);
    lrf_group_init(&group, sizeof group, LRF_SGD);
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    group.lr = 1;
    CHECK(lrf_begin(&job, &group, 1, options, &report) == LRF_OK);
    while (lrf_next(&job))
        for (size_t part = 0; part < parts; part++)
            lrf_run(&job, part, parts);
    CHECK(lrf_end(&job, &report) == LRF_OK);
    return report;
}

/* In long double, which has more exponents; in units of `size`, as not all have. */
static void clips(uint32_t dtype, double size, double bound, double scale)
{
    const double smallest = dtype == LRF_FLOAT64 ? 5e-324 : 0x1p-149, largest = dtype == LRF_FLOAT64 ? 1e308 : 3e38;
    const double error = dtype == LRF_FLOAT64 ? 1e-14 : 1e-6;
    lrf_report report = {.struct_size = sizeof report};
    lrf_options options;
    long double sum = 0, norm, factor;

    for (size_t i = 0; i < COUNT; i++) {
        put(grad, dtype, i, size * (0.5 + 0.5 * number_at(dtype, 1, i)));
        sum += (long double)get(grad, dtype, i) / size * ((long double)get(grad, dtype, i) / size);
    }
    lrf_options_init(&options, sizeof options);
    options.clip_norm = bound;
    options.grad_scale = scale;
    options.work = work;
    options.work_size = sizeof work;
    norm = sqrtl(sum) * size * fabs(scale);
    factor = bound / (norm + 1e-6L) < 1 ? bound / (norm + 1e-6L) : 1;
    for (size_t parts = 1; parts <= MOST_PARTS; parts++) {
        report = descend(dtype, &options, parts);
        if (parts == 1)
            memcpy(first, param, sizeof param);
        CHECK(memcmp(first, param, sizeof param) == 0);
        if (norm < 1e308L)
            CHECK(fabsl(report.grad_norm - norm) <= error * norm + 2 * smallest);
        CHECK(report.limited_norm == report.grad_norm);
        for (size_t i = 0; i < COUNT; i++) {
            const long double expected = -factor * scale * (long double)get(grad, dtype, i);
            if (fabsl(expected) < largest)
                CHECK(fabsl(get(param, dtype, i) - expected) <= error * fabsl(expected) + 3 * smallest);
        }
    }
}

/* clip_value, then clip_norm: the report has both norms, and the factor comes from the second. */
static void limited(uint32_t dtype, double bound)
{
    lrf_report report = {.struct_size = sizeof report};
    lrf_options options;

    describe("dtype %u, clip_value %g", dtype, bound);
    for (size_t i = 0; i < COUNT; i++)
        put(grad, dtype, i, i % 2 ? 3 : -4);
    lrf_options_init(&options, sizeof options);
    options.clip_value = bound;
    options.clip_norm = bound;
    options.work = work;
    options.work_size = sizeof work;
    report = descend(dtype, &options, 2);
    CHECK(fabs(report.grad_norm - sqrt(12.5 * COUNT)) < 1e-10);
    CHECK(fabs(report.limited_norm / bound - sqrt(COUNT)) < 1e-5);
    CHECK(report.clip_factor == bound / (report.limited_norm + 1e-6));
    for (size_t i = 0; i < COUNT; i++)
        CHECK(fabs(get(param, dtype, i) / (report.clip_factor * bound) - (i % 2 ? -1 : 1)) < 1e-5);
    options.clip_norm = 0;
    options.flags = LRF_GRAD_NORM;
    CHECK(isnan(descend(dtype, &options, 1).limited_norm));
}

int main(void)
{
    for (uint32_t dtype = LRF_FLOAT32; dtype <= LRF_FLOAT64; dtype++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            for (size_t j = 0; j < sizeof bounds / sizeof bounds[0]; j++)
                for (size_t k = 0; k < sizeof scales / sizeof scales[0]; k++) {
                    describe("dtype %u, gradients of %g, clip_norm %g, scale %g", dtype, sizes[i], bounds[j],
                             scales[k]);
                    if (dtype == LRF_FLOAT64 ? sizes[i] < 1.7e308 || fabs(scales[k]) <= 1
                                             : sizes[i] >= 1e-45 && sizes[i] < 1e39 && bounds[j] > 1e-45)
                        clips(dtype, sizes[i], bounds[j], scales[k]);
                }
        limited(dtype, 0.25);
        limited(dtype, 1e-15);
    }
    return result();
}
