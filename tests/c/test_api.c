/* What the API says about itself, its defaults, and what a step reports. Refusals are in test_refusals.c. */
#include "harness.h"

enum { COUNT = 5 };

static void versions_agree(void)
{
    describe("version");
    CHECK(strcmp(lrf_version(), LRF_VERSION_STRING) == 0);
}

static void every_status_has_its_own_text(void)
{
    for (int i = LRF_OK; i <= LRF_BAD_BUILD; i++) {
        const char *text = lrf_status_text((lrf_status)i);
        describe("status %d", i);
        CHECK(text && *text);
        for (int j = LRF_OK; text && j < i; j++)
            CHECK(strcmp(text, lrf_status_text((lrf_status)j)) != 0);
    }
    describe("status beyond all");
    CHECK(lrf_status_text((lrf_status)1000) != NULL);
}

static void values_are_pinned(void)
{
    describe("pinned values");
    CHECK(LRF_OK == 0 && LRF_BAD_STRUCT == 1 && LRF_BAD_RULE == 2 && LRF_BAD_DTYPE == 3 && LRF_BAD_NUMBER == 4);
    CHECK(LRF_BAD_FLAGS == 5 && LRF_NULL_POINTER == 6 && LRF_MISALIGNED == 7 && LRF_BAD_COUNT == 8);
    CHECK(LRF_OVERLAP == 9 && LRF_BAD_WORK == 10 && LRF_BAD_ISA == 11 && LRF_UNFINISHED == 12);
    CHECK(LRF_NOT_FINITE == 13 && LRF_BAD_BUILD == 14 && LRF_RADAM == 10);
    CHECK(LRF_SGD == 1 && LRF_MOMENTUM == 2 && LRF_ADAGRAD == 3 && LRF_RMSPROP == 4 && LRF_RMSPROP_MOMENTUM == 5);
    CHECK(LRF_RMSPROP_CENTERED == 6 && LRF_RMSPROP_CENTERED_MOMENTUM == 7 && LRF_ADAM == 8 && LRF_AMSGRAD == 9);
    CHECK(LRF_FLOAT32 == 1 && LRF_FLOAT64 == 2);
    CHECK(LRF_MAXIMIZE == 1 && LRF_NESTEROV == 2 && LRF_FIRST_GRADIENT == 4 && LRF_MEAN == 8 && LRF_GRAD_NORM == 1);
    CHECK(LRF_REQUIRE_FINITE == 2 && LRF_ZERO_GRADS == 4 && LRF_NORMS == 8 && LRF_STATS == 16 && LRF_KEEP_LAST == 32);
    CHECK(LRF_NATIVE == 0);
    CHECK(sizeof(lrf_tensor) == 64);
    CHECK(offsetof(lrf_tensor, grad) == 8 && offsetof(lrf_tensor, state) == 16);
    CHECK(offsetof(lrf_tensor, count) == 48 && offsetof(lrf_tensor, step) == 56);
}

/* The default that a row's text gives to a number; 0 if it gives none. */
static double default_of(const lrf_rule_info *row, const char *name)
{
    const size_t length = strlen(name);
    for (const char *at = strchr(row->defaults, '.'); at; at = strchr(at + 1, '.'))
        if (strncmp(at + 1, name, length) == 0 && strncmp(at + 1 + length, " = ", 3) == 0)
            return strtod(at + 1 + length + 3, NULL);
    return 0;
}

static void groups_start_with_the_defaults_of_the_table(void)
{
    static const char *const numbers[] = {
#define LRF_NUMBER(name, range, schedule, setting) #name,
#include "optimizers.def"
#undef LRF_NUMBER
    };
    size_t rows = 0;

    for (; lrf_rule_at(rows); rows++) {
        const lrf_rule_info *row = lrf_rule_at(rows);
        lrf_group group;

        describe("defaults of %s", row->name);
        memset(&group, 0xff, sizeof group);
        CHECK(lrf_group_init(&group, sizeof group, (lrf_rule)row->id) == LRF_OK);
        CHECK(group.struct_size == sizeof group && group.rule == row->id && group.dtype == LRF_FLOAT32);
        CHECK(group.flags == 0 && !group.tensors && group.count == 0 && !group.outputs && !group.storage);
        CHECK(row->flags & LRF_MAXIMIZE);
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
            const size_t offset = lrf_number_offset(numbers[i]);
            double value = NAN;
            describe("default %s of %s", numbers[i], row->name);
            CHECK(offset % sizeof(double) == 0 && offset <= sizeof group - sizeof(double));
            if (offset <= sizeof group - sizeof(double))
                memcpy(&value, (const char *)&group + offset, sizeof value);
            CHECK(value == default_of(row, numbers[i]));
        }
    }
    describe("rows");
    CHECK(rows > 0 && !lrf_rule_at(rows + 1) && !lrf_rule_at(SIZE_MAX));
    CHECK(lrf_number_offset("lr") == offsetof(lrf_group, lr));
    CHECK(lrf_number_offset("beta2") == offsetof(lrf_group, beta2));
    CHECK(lrf_number_offset("rule") == SIZE_MAX && lrf_number_offset("") == SIZE_MAX);
    CHECK(lrf_number_offset(NULL) == SIZE_MAX);
}

static void options_start_neutral(void)
{
    lrf_options options;
    describe("lrf_options_init");
    memset(&options, 0xff, sizeof options);
    CHECK(lrf_options_init(&options, sizeof options) == LRF_OK);
    CHECK(options.struct_size == sizeof options && options.flags == 0 && options.grad_scale == 1);
    CHECK(options.clip_norm == 0 && !options.work && options.work_size == 0);
}

static void a_step_updates_counts_and_reports(void)
{
    float p[2][COUNT] = {{1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}};
    const float before[COUNT] = {1, 2, 3, 4, 5};
    float g[COUNT] = {3, 0, 0, -4, 0};
    double work[6];
    lrf_tensor tensors[3] = {{.param = p[0], .grad = g, .count = COUNT, .step = 7},
                             {.param = p[1], .grad = NULL, .count = COUNT, .step = 7},
                             {.param = NULL, .grad = g, .count = 0, .step = 7}};
    lrf_group group;
    lrf_options options;
    lrf_report report = {.struct_size = sizeof report};

    describe("a plain step");
    lrf_group_init(&group, sizeof group, LRF_SGD);
    lrf_options_init(&options, sizeof options);
    group.tensors = tensors;
    group.count = 3;
    group.lr = 0.5;
    CHECK(lrf_step(&group, 1, NULL, &report) == LRF_OK);
    CHECK(p[0][0] == -0.5f && p[0][1] == 2 && p[0][3] == 6);
    CHECK(memcmp(p[1], before, sizeof before) == 0);
    CHECK(tensors[0].step == 8 && tensors[1].step == 7 && tensors[2].step == 8);
    CHECK(!report.what && report.updated == 2 && isnan(report.grad_norm) && report.clip_factor == 1);

    describe("norm and clipping");
    CHECK(lrf_work_size(&group, 1, NULL) == 0 && lrf_work_size(&group, 1, &options) == 0);
    options.flags = LRF_GRAD_NORM;
    options.grad_scale = -2;
    options.work = work;
    options.work_size = lrf_work_size(&group, 1, &options);
    CHECK(options.work_size == 4 * sizeof(double));
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OK);
    CHECK(report.grad_norm == 10 && report.clip_factor == 1);
    CHECK(p[0][0] == 2.5f && p[0][3] == 2);
    options.flags = 0;
    options.clip_norm = 5;
    CHECK(lrf_work_size(&group, 1, &options) == 4 * sizeof(double));
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OK);
    CHECK(report.grad_norm == 10 && report.clip_factor == 5 / (10 + 1e-6) && report.updated == 2);
    CHECK(p[0][0] == 2.5f - 0.5f * ((float)(-2 * report.clip_factor) * 3));

    describe("work of groups that will be refused");
    group.tensors = NULL;
    CHECK(lrf_work_size(&group, 1, &options) == 0);
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_NULL_POINTER);
    group.tensors = tensors;

    describe("no tiles at all");
    group.count = 0;
    options.flags = LRF_STATS | LRF_REQUIRE_FINITE;
    options.work = NULL;
    options.work_size = 0;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OK && report.grad_norm == 0);
    group.count = 3;
    options.flags = 0;

    describe("nothing to do");
    CHECK(lrf_step(NULL, 0, NULL, NULL) == LRF_OK);
    CHECK(lrf_step(&group, 0, &options, &report) == LRF_OK);
    CHECK(report.updated == 0 && report.grad_norm == 0 && report.clip_factor == 1);
}

int main(void)
{
    versions_agree();
    every_status_has_its_own_text();
    values_are_pinned();
    groups_start_with_the_defaults_of_the_table();
    options_start_neutral();
    a_step_updates_counts_and_reports();
    return result();
}
