/* Averages and copies: defined from a first step without gradients on, following every parameter whether it has a
 * gradient or not, in the group's dtype or in float64, in parts, beside norms and statistics. */
#include "harness.h"

enum { COUNT = 2600, TENSORS = 4, ARENA = 1 << 20, OLD_OUTPUTS = 40 };

static _Alignas(64) unsigned char bytes[ARENA];
static double work[16 * 1024];

/* Four tensors, of which one has no gradient and another no elements. */
typedef struct model {
    lrf_group group;
    lrf_tensor tensors[TENSORS];
    lrf_outputs outputs[TENSORS];
    uint32_t dtype, ema_dtype, copy_dtype;
} model;

static void make(model *m, const lrf_rule_info *rule, uint32_t dtype, uint32_t ema_dtype, uint32_t copy_dtype)
{
    static const size_t counts[TENSORS] = {COUNT, 7, 0, COUNT / 2};
    arena memory = {.bytes = bytes, .size = ARENA};

    memset(bytes, 0, sizeof bytes);
    m->dtype = dtype;
    m->ema_dtype = ema_dtype ? ema_dtype : dtype;
    m->copy_dtype = copy_dtype;
    lrf_group_init(&m->group, sizeof m->group, (lrf_rule)rule->id);
    m->group.dtype = dtype;
    m->group.tensors = m->tensors;
    m->group.count = TENSORS;
    m->group.outputs = m->outputs;
    give_storage(&m->group, take(&memory, TENSORS * sizeof(lrf_storage)));
    for (size_t i = 0; i < TENSORS; i++) {
        m->tensors[i] = make_tensor(&memory, rule, dtype, counts[i], i);
        m->outputs[i] = (lrf_outputs){.struct_size = sizeof m->outputs[i], .copy_dtype = copy_dtype};
        m->outputs[i].ema_dtype = ema_dtype;
        m->outputs[i].ema = take(&memory, counts[i] * sizeof(double));
        m->outputs[i].copy = take(&memory, counts[i] * sizeof(float));
        m->outputs[i].stats = take_stats(&memory);
        memset(m->outputs[i].ema, 0xff, counts[i] * sizeof(double)); /* NaN */
        memset(m->outputs[i].copy, 0xff, counts[i] * sizeof(float));
    }
}

static lrf_options options_with(double ema_decay, uint32_t flags)
{
    lrf_options options;
    lrf_options_init(&options, sizeof options);
    options.ema_decay = ema_decay;
    options.flags = flags;
    options.work = work;
    options.work_size = sizeof work;
    memset(work, 0xff, sizeof work);
    return options;
}

static lrf_status step_in_parts(const model *m, const lrf_options *options, size_t parts)
{
    lrf_job job;
    const lrf_status status = lrf_begin(&job, &m->group, 1, options, NULL);

    if (status != LRF_OK)
        return status;
    while (lrf_next(&job))
        for (size_t part = 0; part < parts; part++)
            lrf_run(&job, part, parts);
    return lrf_end(&job, NULL);
}

/* Whether an element of a copy is p rounded: exact in float32, otherwise within half a unit of its last digit. */
static int is_rounded(const model *m, size_t i, size_t k)
{
    const double p = get(m->tensors[i].param, m->dtype, k);
    const int digits = m->copy_dtype == LRF_BFLOAT16 ? 8 : 11;
    double copied;

    if (m->copy_dtype == LRF_FLOAT32)
        return ((float *)m->outputs[i].copy)[k] == (float)p;
    const uint16_t half = ((uint16_t *)m->outputs[i].copy)[k];
    if (m->copy_dtype == LRF_BFLOAT16) {
        const uint32_t word = (uint32_t)half << 16;
        float single;
        memcpy(&single, &word, sizeof single);
        copied = (double)single;
    } else {
        const int exponent = half >> 10 & 31;
        if (exponent == 31)
            return fabs(p) >= 65520;
        const double size = exponent ? ldexp(1024 + (half & 1023), exponent - 25) : ldexp(half & 1023, -24);
        copied = half & 0x8000 ? -size : size;
    }
    return fabs(copied - p) <= ldexp(fabs(p), -digits) + (m->copy_dtype == LRF_FLOAT16 ? ldexp(1, -25) : 0);
}

static void check_copies(const model *m)
{
    for (size_t i = 0; i < TENSORS; i++)
        for (size_t k = 0; k < m->tensors[i].count; k++)
            CHECK(is_rounded(m, i, k));
}

/* What averages ought to be: e + weight (p - e), weight < 1/2, in the type of the average. */
static double averaged(uint32_t dtype, double e, double p, double weight)
{
    if (dtype == LRF_FLOAT64)
        return e + weight * (p - e);
    return (double)((float)e + (float)weight * ((float)p - (float)e));
}

static void follow(const lrf_rule_info *rule, uint32_t dtype, uint32_t ema_dtype, uint32_t copy_dtype)
{
    static double before[TENSORS][COUNT], params[TENSORS][COUNT];
    static const uint32_t flags[] = {0, LRF_STATS | LRF_REQUIRE_FINITE, LRF_NORMS | LRF_GRAD_NORM};
    model m;
    lrf_options options = options_with(0, LRF_STATS | LRF_REQUIRE_FINITE);
    void *grads[TENSORS];

    describe("%s, dtype %u, ema_dtype %u, copy_dtype %u", rule->name, dtype, ema_dtype, copy_dtype);
    make(&m, rule, dtype, ema_dtype, copy_dtype);
    for (size_t i = 0; i < TENSORS; i++) {
        grads[i] = m.tensors[i].grad;
        m.tensors[i].grad = NULL;
        for (size_t k = 0; k < m.tensors[i].count; k++)
            params[i][k] = get(m.tensors[i].param, dtype, k);
    }
    CHECK(lrf_work_size(&m.group, 1, &options) <= sizeof work);
    CHECK(step_in_parts(&m, &options, 3) == LRF_OK);
    for (size_t i = 0; i < TENSORS; i++) {
        CHECK(m.tensors[i].step == 0 && m.outputs[i].stats->elements == 0 && m.outputs[i].stats->grad_sq == 0);
        for (size_t k = 0; k < m.tensors[i].count; k++) {
            CHECK(get(m.tensors[i].param, dtype, k) == params[i][k]);
            CHECK(get(m.outputs[i].ema, m.ema_dtype, k) == params[i][k]);
        }
    }
    check_copies(&m);

    for (size_t t = 0; t < 3; t++) {
        options = options_with(0.9, flags[t]);
        for (size_t i = 0; i < TENSORS; i++) {
            m.tensors[i].grad = i % 2 == t % 2 ? grads[i] : NULL;
            for (size_t k = 0; k < m.tensors[i].count; k++) {
                if (!m.tensors[i].grad) /* written from outside */
                    put(m.tensors[i].param, dtype, k, get(m.tensors[i].param, dtype, k) + 0.25);
                before[i][k] = get(m.outputs[i].ema, m.ema_dtype, k);
            }
        }
        CHECK(step_in_parts(&m, &options, 1 + 2 * t) == LRF_OK);
        for (size_t i = 0; i < TENSORS; i++)
            for (size_t k = 0; k < m.tensors[i].count; k++)
                CHECK(get(m.outputs[i].ema, m.ema_dtype, k) ==
                      averaged(m.ema_dtype, before[i][k], get(m.tensors[i].param, dtype, k), 1 - 0.9));
        check_copies(&m);
        CHECK(flags[t] == 0 || (m.outputs[t % 2 ? 1 : 0].stats->grad_sq > 0));
        CHECK(flags[t] == 0 || (m.outputs[t % 2 ? 0 : 1].stats->grad_sq == 0));
    }
}

/* A float64 average goes on where one of float32 stands still. */
static void averages_that_stop(uint32_t dtype)
{
    float p = 1, single = 0.9998f;
    double q = 1, wide = 0.9998;
    lrf_tensor tensor = {.param = dtype == LRF_FLOAT32 ? (void *)&p : (void *)&q, .count = 1};
    lrf_outputs output = {.struct_size = sizeof output, .ema = &wide, .ema_dtype = LRF_FLOAT64};
    lrf_options options = options_with(0.9999, 0);
    lrf_group group;

    describe("averages that stop, dtype %u", dtype);
    lrf_group_init(&group, sizeof group, LRF_SGD);
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    group.outputs = &output;
    for (int t = 0; t < 100000; t++)
        CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    CHECK(fabs(wide - (1 - 2e-4 * exp(100000 * log(0.9999)))) < 1e-12);
    if (dtype == LRF_FLOAT32) {
        output.ema = &single;
        output.ema_dtype = 0;
        for (int t = 0; t < 100000; t++)
            CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
        CHECK(single < 0.9999f);
    }
}

static void refusals(void)
{
    double memory[8] = {0}, scratch[256];
    float p[4] = {1, 2, 3, 4}, half[4];
    lrf_tensor tensor = {.param = p, .count = 4};
    lrf_outputs output = {.struct_size = sizeof output, .ema = memory, .ema_dtype = LRF_FLOAT64};
    lrf_report report = {.struct_size = sizeof report};
    lrf_options options = options_with(0, 0);
    lrf_group group;

    lrf_group_init(&group, sizeof group, LRF_ADAM);
    group.tensors = &tensor;
    group.count = 1;
    group.outputs = &output;

    describe("a float64 average of a tensor without gradient and states");
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OK && report.updated == 0 && memory[3] == 4);
    describe("types that an average cannot have");
    output.ema_dtype = LRF_FLOAT16;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_BAD_DTYPE && strcmp(report.what, "ema_dtype") == 0);
    output.ema_dtype = 99;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_BAD_DTYPE && strcmp(report.what, "ema_dtype") == 0);
    group.dtype = LRF_FLOAT64;
    output.ema_dtype = LRF_FLOAT32;
    tensor.param = memory + 4;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_BAD_DTYPE && strcmp(report.what, "ema_dtype") == 0);
    group.dtype = LRF_FLOAT32;
    tensor.param = p;
    output.ema_dtype = LRF_FLOAT64;
    describe("what has to be 0");
    output.unused = 1;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_BAD_STRUCT && strcmp(report.what, "outputs.unused") == 0);
    output.unused = 0;
    describe("without gradient, too: no parameter, misaligned, overlapping, too many");
    tensor.param = NULL;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_NULL_POINTER && strcmp(report.what, "param") == 0);
    tensor.param = p;
    output.ema = (float *)(void *)memory + 1;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_MISALIGNED && strcmp(report.what, "ema") == 0);
    tensor.param = (float *)(void *)memory + 7; /* the last bytes of a float64 average, which float32 would not have */
    tensor.count = 4;
    output.ema = memory;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OVERLAP && strcmp(report.what, "ema") == 0);
    CHECK(lrf_check_overlap(&group, 1, &options, scratch, sizeof scratch, &report) == LRF_OVERLAP);
    output.ema_dtype = 0;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OK);
    tensor.param = p;
    tensor.count = UINT64_MAX;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_BAD_COUNT);
    tensor.count = 4;
    tensor.step = UINT64_MAX; /* which will not be advanced */
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OK);
    output.ema = NULL;
    output.copy = half;
    output.copy_dtype = LRF_FLOAT64;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_BAD_DTYPE && strcmp(report.what, "copy_dtype") == 0);

    describe("nothing to do: a count that nobody looks at");
    output.copy = NULL;
    tensor.count = UINT64_MAX;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OK);

    describe("work memory for what will be refused");
    options = options_with(0, LRF_STATS);
    output.struct_size = 1 << 30;
    group.count = 1000;
    CHECK(lrf_work_size(&group, 1, &options) == 0);
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_BAD_STRUCT);
}

/* An array of the first outputs with a size, whose averages are of the group's dtype. */
static void outputs_of_40_bytes(void)
{
    float p[2][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}}, ema[2][4];
    _Alignas(8) unsigned char old[2 * OLD_OUTPUTS];
    lrf_tensor tensors[2] = {{.param = p[0], .count = 4}, {.param = p[1], .count = 4}};
    lrf_options options = options_with(0, 0);
    lrf_group group;

    describe("outputs of 40 bytes");
    for (size_t i = 0; i < 2; i++) {
        const lrf_outputs output = {.struct_size = OLD_OUTPUTS, .ema = ema[i]};
        memcpy(old + i * OLD_OUTPUTS, &output, OLD_OUTPUTS);
    }
    lrf_group_init(&group, sizeof group, LRF_ADAM);
    group.tensors = tensors;
    group.count = 2;
    group.outputs = (const lrf_outputs *)(const void *)old;
    CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    CHECK(memcmp(ema, p, sizeof p) == 0);
}

int main(void)
{
    static const uint32_t copies[] = {LRF_FLOAT32, LRF_FLOAT16, LRF_BFLOAT16};

    for (size_t i = 0; lrf_rule_at(i); i++)
        for (uint32_t dtype = LRF_FLOAT32; dtype <= LRF_FLOAT64; dtype++)
            for (size_t k = 0; k < 3; k++) {
                follow(lrf_rule_at(i), dtype, k == 0 ? 0 : k == 1 ? dtype : LRF_FLOAT64, copies[(i + k) % 3]);
            }
    averages_that_stop(LRF_FLOAT32);
    averages_that_stop(LRF_FLOAT64);
    refusals();
    outputs_of_40_bytes();
    return result();
}
