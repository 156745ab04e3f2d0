/* Structs that grow: those of earlier versions go on working, those of later ones are refused before anything is
 * written, and so is what a lrf_storage of float32 cannot have. */
#include "harness.h"

enum { COUNT = 5, GROUP_0_1_0 = 128 };

/* lrf_group as version 0.1.0 had it. */
typedef struct old_group {
    uint32_t struct_size, rule, dtype, flags;
    lrf_tensor *tensors;
    size_t count;
    const void *outputs;
    double lr, weight_decay, decoupled_weight_decay, momentum, dampening, alpha, beta1, beta2, eps, lr_decay, last_lr;
} old_group;
_Static_assert(sizeof(old_group) == GROUP_0_1_0 && sizeof(old_group) < sizeof(lrf_group), "0.1.0");

static float params[2][COUNT], grads[2][COUNT], states[2][4][COUNT];
static lrf_tensor tensors[2];

static void start(void)
{
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < COUNT; k++) {
            params[i][k] = (float)number_at(LRF_FLOAT32, i, k);
            grads[i][k] = (float)number_at(LRF_FLOAT32, i + 2, k);
            for (size_t slot = 0; slot < 4; slot++)
                states[i][slot][k] = 0;
        }
        tensors[i] = (lrf_tensor){.param = params[i],
                                  .grad = grads[i],
                                  .state = {states[i][0], states[i][1], states[i][2], states[i][3]},
                                  .count = COUNT};
    }
}

static void groups_of_version_0_1_0(void)
{
    float expected[2][COUNT];
    double scratch[1024], work[8];
    lrf_group new_groups[2];
    old_group groups[2];
    lrf_options options;
    lrf_report report = {.struct_size = sizeof report};

    describe("groups of 0.1.0");
    start();
    memset(groups, 0x55, sizeof groups);
    for (size_t i = 0; i < 2; i++) {
        CHECK(lrf_group_init((lrf_group *)&groups[i], sizeof groups[i], LRF_ADAM) == LRF_OK);
        CHECK(groups[i].struct_size == GROUP_0_1_0 && groups[i].beta2 == 0.999 && !groups[i].outputs);
        CHECK(i == 1 || groups[1].struct_size == 0x55555555); /* nothing beyond the size was written */
        lrf_group_init(&new_groups[i], sizeof new_groups[i], LRF_ADAM);
        groups[i].tensors = new_groups[i].tensors = &tensors[i];
        groups[i].count = new_groups[i].count = 1;
        groups[i].lr = new_groups[i].lr = i == 0 ? 0.1 : 0.3;
    }
    lrf_options_init(&options, sizeof options);
    options.clip_norm = 0.5;
    options.work = work;
    options.work_size = sizeof work;
    CHECK(lrf_step(new_groups, 2, &options, &report) == LRF_OK && report.updated == 2);
    memcpy(expected, params, sizeof params);
    start();
    CHECK(lrf_work_size((lrf_group *)groups, 2, &options) == lrf_work_size(new_groups, 2, &options));
    CHECK(lrf_step((lrf_group *)groups, 2, &options, &report) == LRF_OK && report.updated == 2);
    CHECK(memcmp(expected, params, sizeof params) == 0);
    CHECK(tensors[0].step == 1 && tensors[1].step == 1);
    CHECK(lrf_overlap_scratch_size((lrf_group *)groups, 2) == lrf_overlap_scratch_size(new_groups, 2));
    CHECK(lrf_check_overlap((lrf_group *)groups, 2, NULL, scratch, sizeof scratch, &report) == LRF_OK);
    tensors[1].param = params[0] + 1;
    CHECK(lrf_check_overlap((lrf_group *)groups, 2, NULL, scratch, sizeof scratch, &report) == LRF_OVERLAP);
    tensors[1].param = params[1];

    describe("of which one is refused");
    groups[1].lr = -1;
    CHECK(lrf_step((lrf_group *)groups, 2, NULL, &report) == LRF_BAD_NUMBER && report.group == 1);
    groups[1].lr = 0.1;
    groups[1].struct_size = sizeof(lrf_group);
    CHECK(lrf_step((lrf_group *)groups, 2, NULL, &report) == LRF_BAD_STRUCT && report.group == 1);
    groups[1].struct_size = GROUP_0_1_0;

    describe("whose outputs had no size");
    groups[1].outputs = scratch;
    CHECK(lrf_step((lrf_group *)groups, 2, NULL, &report) == LRF_BAD_STRUCT);
    CHECK(report.group == 1 && strcmp(report.what, "outputs") == 0);
    CHECK(memcmp(expected, params, sizeof params) == 0);

    describe("sizes that no version has, where nothing can be refused");
    groups[0].struct_size = 0;
    CHECK(lrf_work_size((lrf_group *)groups, 2, &options) == 0);
    CHECK(lrf_overlap_scratch_size((lrf_group *)groups, 2) == 0);
    CHECK(lrf_check_overlap((lrf_group *)groups, 2, NULL, scratch, sizeof scratch, &report) == LRF_BAD_STRUCT);
}

/* Rules that are younger, and read numbers which come behind those that the host has. */
static void younger_rules(void)
{
    static const uint32_t rules[] = {LRF_ADADELTA, LRF_RPROP};
    lrf_report report = {.struct_size = sizeof report};

    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        float expected[2][COUNT];
        old_group groups[2];
        lrf_group new_group;
        describe("a group of 0.1.0 with rule %u", rules[i]);
        memset(groups, 0x55, sizeof groups);
        CHECK(lrf_group_init((lrf_group *)groups, sizeof groups[0], rules[i]) == LRF_OK);
        lrf_group_init(&new_group, sizeof new_group, rules[i]);
        groups[0].tensors = new_group.tensors = tensors;
        groups[0].count = new_group.count = 2;
        start();
        CHECK(lrf_step(&new_group, 1, NULL, &report) == LRF_OK && lrf_step(&new_group, 1, NULL, &report) == LRF_OK);
        memcpy(expected, params, sizeof params);
        start();
        for (size_t k = 0; k < 2; k++)
            CHECK(lrf_step((lrf_group *)groups, 1, NULL, &report) == LRF_OK);
        CHECK(memcmp(expected, params, sizeof params) == 0);
    }
}

static void reports(void)
{
    static const uint32_t wrong[] = {0, 56, sizeof(lrf_report) + 8, UINT32_MAX};
    float expected[2][COUNT];
    double scratch[256];
    lrf_group group;
    lrf_job job;

    lrf_group_init(&group, sizeof group, LRF_ADAM);
    group.tensors = tensors;
    group.count = 2;
    start();
    memcpy(expected, params, sizeof params);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        lrf_report report, before;
        describe("a report of %u bytes", wrong[i]);
        memset(&report, 0x55, sizeof report);
        report.struct_size = wrong[i];
        memcpy(&before, &report, sizeof report);
        CHECK(lrf_step(&group, 1, NULL, &report) == LRF_BAD_STRUCT);
        CHECK(lrf_begin(&job, &group, 1, NULL, &report) == LRF_BAD_STRUCT && lrf_next(&job) == 0);
        CHECK(lrf_check_overlap(&group, 1, NULL, scratch, sizeof scratch, &report) == LRF_BAD_STRUCT);
        CHECK(memcmp(&before, &report, sizeof report) == 0 && memcmp(expected, params, sizeof params) == 0);

        describe("a report of %u bytes at the end", wrong[i]);
        start();
        CHECK(lrf_begin(&job, &group, 1, NULL, NULL) == LRF_OK);
        while (lrf_next(&job))
            lrf_run(&job, 0, 1);
        CHECK(lrf_end(&job, &report) == LRF_BAD_STRUCT && tensors[0].step == 0);
        CHECK(memcmp(&before, &report, sizeof report) == 0);
        report.struct_size = sizeof report;
        CHECK(lrf_end(&job, &report) == LRF_OK && tensors[0].step == 1 && report.updated == 2);
        CHECK(report.struct_size == sizeof report);
        start();
    }
}

static void outputs(void)
{
    static const uint32_t wrong[] = {0, 32, sizeof(lrf_outputs) + 8, sizeof(lrf_stats) + 8};
    float expected[2][COUNT];
    double work[64];
    lrf_stats stats[2] = {{.struct_size = sizeof stats[0]}, {.struct_size = sizeof stats[0]}};
    lrf_outputs both[2] = {{.struct_size = sizeof both[0], .stats = &stats[0]},
                           {.struct_size = sizeof both[0], .stats = &stats[1]}};
    lrf_group group;
    lrf_options options;
    lrf_report report = {.struct_size = sizeof report};

    lrf_group_init(&group, sizeof group, LRF_ADAM);
    group.tensors = tensors;
    group.count = 2;
    group.outputs = both;
    lrf_options_init(&options, sizeof options);
    options.flags = LRF_STATS;
    options.work = work;
    options.work_size = sizeof work;
    start();
    memcpy(expected, params, sizeof params);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        for (size_t k = 0; k < 2; k++) {
            describe("outputs %zu of %u bytes", k, wrong[i]);
            both[k].struct_size = wrong[i];
            CHECK(lrf_step(&group, 1, &options, &report) == LRF_BAD_STRUCT && report.tensor == k);
            CHECK(strcmp(report.what, "outputs.struct_size") == 0);
            both[k].struct_size = sizeof both[k];

            describe("stats %zu of %u bytes", k, wrong[i]);
            stats[k].struct_size = wrong[i];
            CHECK(lrf_step(&group, 1, &options, &report) == LRF_BAD_STRUCT && report.tensor == k);
            CHECK(strcmp(report.what, "stats.struct_size") == 0);
            stats[k].struct_size = sizeof stats[k];
        }
    CHECK(memcmp(expected, params, sizeof params) == 0 && stats[0].elements == 0);
    describe("stats that are not written need no size");
    stats[1].struct_size = 0;
    CHECK(lrf_step(&group, 1, NULL, &report) == LRF_OK);
    stats[1].struct_size = sizeof stats[1];
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OK && stats[1].elements == COUNT);
    CHECK(stats[0].struct_size == sizeof stats[0]);
}

/* What lrf_report, lrf_outputs and lrf_stats had when they first had a size; nothing beyond that is read or written. */
static void structs_as_they_first_were(void)
{
    enum { REPORT = 64, OUTPUTS = 40, STATS = 640 };
    double work[64], ema[2][COUNT];
    _Alignas(8) unsigned char report_bytes[sizeof(lrf_report)];
    _Alignas(8) unsigned char stats_bytes[2][sizeof(lrf_stats)], outputs_bytes[2][OUTPUTS];
    lrf_report *const report = (void *)memset(report_bytes, 0x55, sizeof report_bytes);
    lrf_group group;
    lrf_options options;

    describe("structs as they first were");
    start();
    memset(stats_bytes, 0x55, sizeof stats_bytes);
    for (size_t i = 0; i < 2; i++) {
        lrf_outputs outputs = {.struct_size = OUTPUTS, .ema = ema[i], .stats = (void *)stats_bytes[i]};
        outputs.stats->struct_size = STATS;
        memcpy(outputs_bytes[i], &outputs, OUTPUTS);
    }
    report->struct_size = REPORT;
    lrf_group_init(&group, sizeof group, LRF_ADAM);
    group.tensors = tensors;
    group.count = 2;
    group.outputs = (void *)outputs_bytes;
    lrf_options_init(&options, sizeof options);
    options.flags = LRF_STATS;
    options.work = work;
    options.work_size = sizeof work;
    CHECK(lrf_step(&group, 1, &options, report) == LRF_OK && report->updated == 2);
    for (size_t i = REPORT; i < sizeof report_bytes; i++)
        CHECK(report_bytes[i] == 0x55);
    for (size_t i = 0; i < 2; i++) {
        CHECK(memcmp(ema[i], params[i], sizeof params[i]) == 0);
        CHECK(((const lrf_stats *)stats_bytes[i])->elements == COUNT);
        for (size_t k = STATS; k < sizeof stats_bytes[i]; k++)
            CHECK(stats_bytes[i][k] == 0x55);
    }
}

/* A storage with nothing in it is the same as none; whatever is in it is refused, by name. */
static void storage(void)
{
    float expected[2][COUNT], native[2][COUNT];
    const lrf_storage empty = {.struct_size = sizeof empty};
    lrf_storage both[2] = {empty, empty};
    lrf_group group;
    lrf_report report = {.struct_size = sizeof report};
    int something = 0;

    lrf_group_init(&group, sizeof group, LRF_ADAM);
    group.tensors = tensors;
    group.count = 2;
    start();
    CHECK(lrf_step(&group, 1, NULL, NULL) == LRF_OK);
    memcpy(native, params, sizeof params);
    start();
    memcpy(expected, params, sizeof params);
    group.storage = both;

#define REFUSED(field, value, status, name)                                                                            \
    describe("storage.%s", #field);                                                                                    \
    both[1].field = value;                                                                                             \
    CHECK(lrf_step(&group, 1, NULL, &report) == (status) && report.tensor == 1 && strcmp(report.what, name) == 0);     \
    both[1] = empty
    REFUSED(struct_size, 0, LRF_BAD_STRUCT, "storage.struct_size");
    REFUSED(struct_size, sizeof empty + 8, LRF_BAD_STRUCT, "storage.struct_size");
    REFUSED(param_format, LRF_FLOAT64, LRF_BAD_DTYPE, "storage.param_format");
    REFUSED(grad_format, LRF_SPLIT, LRF_BAD_DTYPE, "storage.grad_format");
    REFUSED(state_format[0], 255, LRF_BAD_DTYPE, "storage.state_format");
    REFUSED(state_format[3], 6, LRF_BAD_DTYPE, "storage.state_format");
    REFUSED(unused[0], 1, LRF_BAD_STRUCT, "storage.unused");
    REFUSED(unused[4], 1, LRF_BAD_STRUCT, "storage.unused");
    REFUSED(more[0], &something, LRF_BAD_STRUCT, "storage.more");
    REFUSED(more[3], &something, LRF_BAD_STRUCT, "storage.more");
#undef REFUSED
    describe("of a tensor without gradient");
    tensors[1].grad = NULL;
    both[1].param_format = LRF_FLOAT64;
    CHECK(lrf_step(&group, 1, NULL, &report) == LRF_BAD_DTYPE);
    tensors[1].grad = grads[1];
    both[1] = empty;
    both[0].struct_size = 8;
    CHECK(lrf_step(&group, 1, NULL, &report) == LRF_BAD_STRUCT && report.tensor == 0);
    both[0] = empty;
    CHECK(memcmp(expected, params, sizeof params) == 0);

    describe("a storage with nothing in it");
    both[1].id = 7;
    both[1].param_format = both[1].state_format[1] = LRF_FLOAT32;
    both[1].scalar[2] = 3;
    CHECK(lrf_step(&group, 1, NULL, &report) == LRF_OK);
    CHECK(memcmp(native, params, sizeof params) == 0 && both[1].scalar[2] == 3);
}

static void the_job_is_opaque(void)
{
    describe("lrf_job");
    CHECK(sizeof(lrf_job) == 64 * sizeof(uint64_t) && sizeof(((lrf_job *)NULL)->opaque) == sizeof(lrf_job));
}

int main(void)
{
    groups_of_version_0_1_0();
    younger_rules();
    reports();
    outputs();
    structs_as_they_first_were();
    storage();
    the_job_is_opaque();
    return result();
}
