/* The update before: read from lrf_outputs.last by every rule alike, stored there for the next step, kept with
 * LRF_KEEP_LAST, and unknown, not 0, to a host that gives none. */
#include "harness.h"

enum { COUNT = 1500, ARENA = 1 << 18, STEPS = 4 };

static _Alignas(64) unsigned char bytes[ARENA];
static double work[18 * 2], before[COUNT], update[COUNT], last_update[COUNT];

static lrf_stats step(lrf_group *group, lrf_outputs *outputs, uint32_t flags)
{
    lrf_stats stats = {.struct_size = sizeof stats};
    lrf_options options;

    lrf_options_init(&options, sizeof options);
    options.flags = flags;
    options.work = work;
    options.work_size = sizeof work;
    outputs->stats = &stats;
    group->outputs = outputs;
    CHECK(lrf_step(group, 1, &options, NULL) == LRF_OK);
    return stats;
}

static double sum_of_products(const lrf_tensor *tensor, uint32_t dtype, const double *w)
{
    double sum = 0;
    for (size_t i = 0; i < COUNT; i++)
        sum += get(tensor->grad, dtype, i) * w[i];
    return sum;
}

/* As far as p shows it: parameters are near 1 and updates are small. */
static int is_near(double x, double y, uint32_t dtype)
{
    return fabs(x - y) <= (dtype == LRF_FLOAT64 ? 1e-9 : 1e-2) * (1 + fabs(y));
}

static void train(const lrf_rule_info *rule, uint32_t dtype)
{
    arena memory = {.bytes = bytes, .size = ARENA};
    lrf_tensor tensor;
    lrf_outputs outputs = {.struct_size = sizeof outputs};
    lrf_group group;

    memset(bytes, 0, sizeof bytes);
    tensor = make_tensor(&memory, rule, dtype, COUNT, 1);
    outputs.last = take(&memory, COUNT * element_size(dtype));
    lrf_group_init(&group, sizeof group, (lrf_rule)rule->id);
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    give_storage(&group, take(&memory, sizeof(lrf_storage)));
    group.lr = 0.01;
    group.lambd = 0; /* parameters move by the update alone */
    for (uint64_t t = 1; t <= STEPS; t++) {
        lrf_stats stats;
        describe("%s, dtype %u, step %llu", rule->name, dtype, (unsigned long long)t);
        for (size_t i = 0; i < COUNT; i++) {
            put(tensor.grad, dtype, i, number_at(dtype, t, i));
            before[i] = get(tensor.param, dtype, i);
        }
        memcpy(last_update, update, sizeof update);
        stats = step(&group, &outputs, LRF_STATS);
        for (size_t i = 0; i < COUNT; i++)
            update[i] = before[i] - get(tensor.param, dtype, i);
        for (size_t i = 0; i < COUNT; i++)
            CHECK(is_near(get(outputs.last, dtype, i), update[i], dtype));
        CHECK(t == 1 ? stats.grad_last == 0 && stats.turned == 0 : stats.turned > 0);
        if (t > 1)
            CHECK(is_near(stats.grad_last, sum_of_products(&tensor, dtype, last_update), dtype));
    }
}

static void kept_or_missing(const lrf_rule_info *rule, uint32_t dtype)
{
    static double kept[COUNT];
    arena memory = {.bytes = bytes, .size = ARENA};
    lrf_tensor tensor;
    lrf_outputs outputs = {.struct_size = sizeof outputs};
    lrf_group group;
    lrf_stats stats;
    const size_t size = COUNT * element_size(dtype);

    memset(bytes, 0, sizeof bytes);
    tensor = make_tensor(&memory, rule, dtype, COUNT, 1);
    outputs.last = take(&memory, size);
    for (size_t i = 0; i < COUNT; i++)
        put(outputs.last, dtype, i, number_at(dtype, 9, i));
    memcpy(kept, outputs.last, size);
    lrf_group_init(&group, sizeof group, (lrf_rule)rule->id);
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    give_storage(&group, take(&memory, sizeof(lrf_storage)));

    describe("%s, dtype %u, LRF_KEEP_LAST", rule->name, dtype);
    stats = step(&group, &outputs, LRF_STATS | LRF_KEEP_LAST);
    CHECK(memcmp(kept, outputs.last, size) == 0);
    CHECK(stats.grad_last != 0 && stats.turned > 0);
    describe("%s, dtype %u, norms only", rule->name, dtype);
    stats = step(&group, &outputs, LRF_NORMS);
    CHECK(memcmp(kept, outputs.last, size) == 0);
    CHECK(stats.grad_last == 0 && stats.turned == 0 && stats.grad_sq > 0);

    describe("%s, dtype %u, without last", rule->name, dtype);
    outputs.last = NULL;
    stats = step(&group, &outputs, LRF_STATS);
    CHECK(isnan(stats.grad_last) && isnan(stats.turned));
    CHECK(stats.elements == COUNT && stats.grad_update != 0 && stats.lost >= 0 && stats.update_sq > 0);
    tensor.grad = NULL;
    stats = step(&group, &outputs, LRF_STATS);
    CHECK(stats.elements == 0 && stats.grad_last == 0 && stats.turned == 0);
}

int main(void)
{
    for (size_t i = 0; lrf_rule_at(i); i++)
        for (uint32_t dtype = LRF_FLOAT32; dtype <= LRF_FLOAT64; dtype++) {
            train(lrf_rule_at(i), dtype);
            kept_or_missing(lrf_rule_at(i), dtype);
        }
    return result();
}
