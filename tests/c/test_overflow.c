/* LRF_REQUIRE_FINITE and squares: for every rule that keeps them, a gradient whose square is beyond the type is refused
 * before anything is written; what weight decay or a sum makes infinite is counted, in any number of parts. */
#include "harness.h"

enum { COUNT = 2500, ARENA = 1 << 20, LARGE = 1100, FIRST = 5, LAST = 2400, MOST_PARTS = 3 };

static _Alignas(64) unsigned char bytes[ARENA], before[ARENA];
static double work[18 * (COUNT / 1024 + 2)];
static lrf_tensor tensors[2];
static lrf_group group;

static double largest_number(uint32_t dtype)
{
    return dtype == LRF_FLOAT64 ? 1.7976931348623157e308 : 3.4028234663852886e38;
}

/* A small tensor and one of three tiles, whose states are 0 but for what Rprop divides by. */
static void start(const lrf_rule_info *rule, uint32_t dtype)
{
    arena memory = {.bytes = bytes, .size = ARENA};

    memset(bytes, 0, sizeof bytes);
    lrf_group_init(&group, sizeof group, (lrf_rule)rule->id);
    group.dtype = dtype;
    group.tensors = tensors;
    group.count = 2;
    give_storage(&group, take(&memory, 2 * sizeof(lrf_storage)));
    for (size_t i = 0; i < 2; i++) {
        tensors[i] = make_tensor(&memory, rule, dtype, i ? COUNT : 3, 10 * i);
        for (size_t slot = 0; slot < 4; slot++)
            if (tensors[i].state[slot])
                memset(tensors[i].state[slot], 0, (i ? COUNT : 3) * element_size(dtype));
    }
}

static lrf_status step(lrf_report *report, uint32_t flags, double clip_norm, size_t parts)
{
    lrf_options options;
    lrf_job job;

    lrf_options_init(&options, sizeof options);
    options.flags = LRF_REQUIRE_FINITE | flags;
    options.clip_norm = clip_norm;
    options.work = work;
    options.work_size = sizeof work;
    memset(work, 0x7f, sizeof work);
    CHECK(lrf_work_size(&group, 1, &options) <= sizeof work);
    CHECK(lrf_begin(&job, &group, 1, &options, report) == LRF_OK);
    while (lrf_next(&job))
        for (size_t part = 0; part < parts; part++)
            lrf_run(&job, part, parts);
    return lrf_end(&job, report);
}

static void refuses(const lrf_rule_info *rule, uint32_t dtype, double size)
{
    const int squares = rule->state[1] != NULL;
    const int refused = squares && size > sqrt(largest_number(dtype));

    for (size_t parts = 1; parts <= MOST_PARTS; parts++) {
        lrf_report report = {.struct_size = sizeof report};
        lrf_status status;
        describe("%s, dtype %u, a gradient of %g, %zu parts", rule->name, dtype, size, parts);
        start(rule, dtype);
        put(tensors[1].grad, dtype, LARGE, -size);
        memcpy(before, bytes, sizeof bytes);
        status = step(&report, 0, 0, parts);
        CHECK(status == (refused ? LRF_NOT_FINITE : LRF_OK));
        CHECK((memcmp(before, bytes, sizeof bytes) == 0) == refused);
        CHECK(report.nonfinite == 0 && report.overflowed == 0 && report.updated == (refused ? 0 : 2));
        CHECK(!refused || (strcmp(report.what, "grad squared") == 0 && report.group == 0 && report.tensor == 1));
        CHECK(fabs(report.grad_norm / size - 1) < 1e-6);
        CHECK(tensors[1].step == (refused ? 0 : 1));
        CHECK(!squares || isfinite(get(tensors[1].state[1], dtype, LARGE)));
        start(rule, dtype);
        put(tensors[1].grad, dtype, LARGE, -size);
        CHECK(step(&report, 0, 1, parts) == LRF_OK && report.what == NULL);
    }
}

static void counts(const lrf_rule_info *rule, uint32_t dtype, uint32_t flags)
{
    for (size_t parts = 1; parts <= MOST_PARTS; parts++) {
        lrf_report report = {.struct_size = sizeof report};
        describe("%s, dtype %u, flags %u, weight decay, %zu parts", rule->name, dtype, flags, parts);
        start(rule, dtype);
        group.weight_decay = 1;
        put(tensors[1].param, dtype, FIRST, largest_number(dtype) / 8);
        put(tensors[1].param, dtype, LAST, -largest_number(dtype) / 8);
        CHECK(step(&report, flags, 0, parts) == LRF_OK);
        CHECK(report.overflowed == 2 && report.group == 0 && report.tensor == 1 && report.updated == 2);
        CHECK(isinf(get(tensors[1].state[1], dtype, FIRST)) && isinf(get(tensors[1].state[1], dtype, LAST)));
        CHECK(step(&report, flags, 0, parts) == LRF_OK && report.overflowed == 0);
    }
}

/* A report as large as the first that had a size gets as much as it has room for. */
static void small_report(void)
{
    lrf_report report = {.struct_size = 64, .overflowed = 77};

    start(find_rule(LRF_ADAM), LRF_FLOAT32);
    group.weight_decay = 1;
    put(tensors[1].param, LRF_FLOAT32, FIRST, 1e38);
    CHECK(step(&report, 0, 0, 1) == LRF_OK && report.updated == 2 && report.overflowed == 77);
}

int main(void)
{
    static const double sizes[][5] = {{1e15, 1.8e19, 1.9e19, 1e30, 3e38}, {1e150, 1.3e154, 1.4e154, 1e200, 1.7e308}};

    for (size_t i = 0; lrf_rule_at(i); i++)
        for (uint32_t dtype = LRF_FLOAT32; dtype <= LRF_FLOAT64; dtype++) {
            for (size_t k = 0; k < 5; k++)
                refuses(lrf_rule_at(i), dtype, sizes[dtype - LRF_FLOAT32][k]);
            if (lrf_rule_at(i)->state[1]) {
                counts(lrf_rule_at(i), dtype, 0);
                counts(lrf_rule_at(i), dtype, LRF_NORMS);
                counts(lrf_rule_at(i), dtype, LRF_STATS);
            }
        }
    small_report();
    return result();
}
