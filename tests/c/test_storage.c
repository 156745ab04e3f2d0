/* Steps of tensors that are not native: the same bits as when everything is decoded, updated as float32, and encoded;
 * with everything that surrounds an update, on every instruction set, in any number of parts. And what is refused. */
#include "harness.h"
#include "internal.h"

enum { MOST = 3000, STEPS = 3, TENSORS = 3, MASTERS = 3 };

static const size_t sizes[TENSORS] = {MOST, 1, 1025};
static const lrf_kernels *kernels;

/* Formats of a tensor: parameter, gradient, states, master. */
typedef struct formats {
    uint8_t param, grad, state[4], master;
} formats;

static const formats combinations[] = {
    {LRF_NATIVE, LRF_BFLOAT16, {0}, 0},
    {LRF_NATIVE, LRF_FLOAT16, {LRF_BFLOAT16, 0, LRF_FLOAT16, 0}, 0},
    {LRF_FLOAT32, LRF_FLOAT32, {LRF_FLOAT32, LRF_FLOAT32, LRF_FLOAT32, LRF_FLOAT32}, 0},
    {LRF_BFLOAT16, LRF_BFLOAT16, {LRF_BFLOAT16, LRF_BFLOAT16, LRF_BFLOAT16, LRF_BFLOAT16}, 0},
    {LRF_FLOAT16, LRF_FLOAT16, {LRF_FLOAT16, LRF_FLOAT16, LRF_FLOAT16, LRF_FLOAT16}, 0},
    {LRF_BFLOAT16, LRF_NATIVE, {0, LRF_BFLOAT16, 0, 0}, 0},
    {LRF_BFLOAT16, LRF_BFLOAT16, {0}, LRF_FLOAT32},
    {LRF_FLOAT16, LRF_FLOAT16, {LRF_BFLOAT16, LRF_BFLOAT16, 0, 0}, LRF_FLOAT32},
    {LRF_BFLOAT16, LRF_BFLOAT16, {0}, LRF_SPLIT},
    {LRF_BFLOAT16, LRF_NATIVE, {LRF_BFLOAT16, LRF_FLOAT16, 0, 0}, LRF_SPLIT},
};
enum { COMBINATIONS = sizeof combinations / sizeof combinations[0] };

/* ---- conversions of buffers ------------------------------------------------------------------------------ */

static int is_16_bits(uint8_t format)
{
    return format == LRF_FLOAT16 || format == LRF_BFLOAT16;
}

static void store(void *buffer, uint8_t format, const float *x, size_t n)
{
    if (is_16_bits(format))
        kernels->copy[format][0](buffer, x, n);
    else
        memcpy(buffer, x, n * sizeof *x);
}

static void load(float *x, const void *buffer, uint8_t format, size_t n)
{
    if (is_16_bits(format))
        kernels->decode[format](x, buffer, n);
    else
        memcpy(x, buffer, n * sizeof *x);
}

/* ---- two trainings, side by side ------------------------------------------------------------------------- */

/* Buffers of a tensor. */
typedef struct buffers {
    float param[MOST], grad[MOST], states[4][MOST], master[MOST], ema[MOST], copy[MOST], last[MOST];
    lrf_stats stats;
} buffers;

/* Stored in formats, and as float32. */
static buffers stored[TENSORS], native[TENSORS];
static float started[TENSORS][MOST]; /* parameters before a step */

typedef struct training {
    lrf_tensor tensors[TENSORS];
    lrf_storage storage[TENSORS];
    lrf_outputs outputs[TENSORS];
    lrf_group group;
} training;

static void bind(training *made, buffers *memory, const lrf_rule_info *rule, int with_outputs)
{
    lrf_group_init(&made->group, sizeof made->group, (lrf_rule)rule->id);
    made->group.tensors = made->tensors;
    made->group.count = TENSORS;
    made->group.weight_decay = rule->id == LRF_LION ? 0 : 0.01;
    made->group.outputs = with_outputs ? made->outputs : NULL;
    give_storage(&made->group, made->storage);
    for (size_t i = 0; i < TENSORS; i++) {
        made->tensors[i] = (lrf_tensor){.param = memory[i].param, .grad = memory[i].grad, .count = sizes[i]};
        for (size_t slot = 0; slot < 4; slot++)
            made->tensors[i].state[slot] = rule->state[slot] ? memory[i].states[slot] : NULL;
        made->outputs[i] = (lrf_outputs){.struct_size = sizeof made->outputs[i],
                                         .ema = memory[i].ema,
                                         .copy = memory[i].copy,
                                         .copy_dtype = LRF_BFLOAT16,
                                         .last = memory[i].last,
                                         .stats = &memory[i].stats};
        memory[i].stats = (lrf_stats){.struct_size = sizeof memory[i].stats};
    }
}

static void set_formats(training *made, const formats *chosen)
{
    for (size_t i = 0; i < TENSORS; i++) {
        lrf_storage *const storage = &made->storage[i];
        storage->param_format = chosen->param;
        storage->grad_format = chosen->grad;
        memcpy(storage->state_format, chosen->state, sizeof chosen->state);
        storage->master_format = chosen->master;
        storage->more[0] = chosen->master ? stored[i].master : NULL;
    }
}

/* Both start from the same numbers, such as the formats hold. */
static void start(const formats *chosen)
{
    for (size_t i = 0; i < TENSORS; i++) {
        memset(&stored[i], 0, sizeof stored[i]);
        memset(&native[i], 0, sizeof native[i]);
        for (size_t k = 0; k < sizes[i]; k++) {
            native[i].param[k] = (float)number_at(LRF_FLOAT32, i, k);
            for (size_t slot = 0; slot < 4; slot++)
                native[i].states[slot][k] = (float)fabs(number_at(LRF_FLOAT32, 10 + slot, k)) / 16;
        }
        store(stored[i].param, chosen->param, native[i].param, sizes[i]);
        load(native[i].param, stored[i].param, chosen->param, sizes[i]);
        for (size_t slot = 0; slot < 4; slot++) {
            store(stored[i].states[slot], chosen->state[slot], native[i].states[slot], sizes[i]);
            load(native[i].states[slot], stored[i].states[slot], chosen->state[slot], sizes[i]);
        }
        if (chosen->master == LRF_FLOAT32)
            memcpy(stored[i].master, native[i].param, sizeof native[i].param);
    }
}

static void give_gradients(const formats *chosen, uint64_t t)
{
    for (size_t i = 0; i < TENSORS; i++) {
        for (size_t k = 0; k < sizes[i]; k++)
            native[i].grad[k] = (float)gradient_at(LRF_FLOAT32, t, k + i);
        store(stored[i].grad, chosen->grad, native[i].grad, sizes[i]);
        load(native[i].grad, stored[i].grad, chosen->grad, sizes[i]);
    }
}

/* What is stored of the native training after a step; without a master it goes on from there. */
static void round_native(const formats *chosen, int with_outputs, const lrf_options *options)
{
    static float before[MOST];

    for (size_t i = 0; i < TENSORS; i++) {
        uint16_t codes[MOST];
        for (size_t slot = 0; slot < 4; slot++)
            if (is_16_bits(chosen->state[slot])) {
                kernels->copy[chosen->state[slot]][0](codes, native[i].states[slot], sizes[i]);
                kernels->decode[chosen->state[slot]](native[i].states[slot], codes, sizes[i]);
            }
        if (is_16_bits(chosen->param) && !chosen->master) {
            kernels->copy[chosen->param][0](codes, native[i].param, sizes[i]);
            kernels->decode[chosen->param](native[i].param, codes, sizes[i]);
        }
        if (!with_outputs)
            continue;
        /* Averages and copies follow what is stored. */
        memcpy(before, native[i].ema, sizeof before);
        kernels->average[0][0](native[i].ema, native[i].param, sizes[i], 1 - options->ema_decay);
        kernels->copy[LRF_BFLOAT16][0](native[i].copy, native[i].param, sizes[i]);
    }
}

/* Updates that the parameter's format loses; p: before the step. */
static double count_lost(uint8_t format, const float *p, const float *u, size_t n)
{
    float moved[MOST];
    uint16_t codes[MOST];
    double lost = 0;

    for (size_t i = 0; i < n; i++)
        moved[i] = p[i] - u[i];
    store(codes, format, moved, n);
    load(moved, codes, format, n);
    for (size_t i = 0; i < n; i++)
        lost += u[i] != 0 && moved[i] == p[i];
    return lost;
}

/* ---- comparison ------------------------------------------------------------------------------------------ */

static int holds(const void *buffer, uint8_t format, const float *expected, size_t n)
{
    float codes[MOST];
    store(codes, format, expected, n);
    return memcmp(buffer, codes, n * (is_16_bits(format) ? sizeof(uint16_t) : sizeof(float))) == 0;
}

static void compare(const formats *chosen, int with_outputs)
{
    for (size_t i = 0; i < TENSORS; i++) {
        const size_t n = sizes[i];
        if (chosen->master == LRF_SPLIT) {
            float joined[MOST];
            kernels->join(joined, (uint16_t *)(void *)stored[i].param, (uint16_t *)(void *)stored[i].master, n);
            CHECK(memcmp(joined, native[i].param, n * sizeof(float)) == 0);
        } else {
            CHECK(holds(stored[i].param, chosen->param, native[i].param, n));
        }
        if (chosen->master == LRF_FLOAT32)
            CHECK(memcmp(stored[i].master, native[i].param, n * sizeof(float)) == 0);
        for (size_t slot = 0; slot < 4; slot++)
            CHECK(holds(stored[i].states[slot], chosen->state[slot], native[i].states[slot], n));
        CHECK(holds(stored[i].grad, chosen->grad, native[i].grad, n));
        if (!with_outputs)
            continue;
        CHECK(memcmp(stored[i].ema, native[i].ema, n * sizeof(float)) == 0);
        CHECK(memcmp(stored[i].copy, native[i].copy, n * sizeof(uint16_t)) == 0);
        CHECK(memcmp(stored[i].last, native[i].last, n * sizeof(float)) == 0);
        if (is_16_bits(chosen->param) && !chosen->master) {
            CHECK(stored[i].stats.lost == count_lost(chosen->param, started[i], native[i].last, n));
            stored[i].stats.lost = native[i].stats.lost;
        }
        CHECK(memcmp(&stored[i].stats, &native[i].stats, sizeof native[i].stats) == 0);
    }
}

static lrf_report step_in_parts(const lrf_group *group, const lrf_options *options, size_t parts)
{
    lrf_report report = {.struct_size = sizeof report};
    lrf_job job;

    CHECK(lrf_begin(&job, group, 1, options, &report) == LRF_OK);
    while (lrf_next(&job))
        for (size_t part = parts; part > 0; part--)
            lrf_run(&job, part - 1, parts);
    CHECK(lrf_end(&job, &report) == LRF_OK);
    return report;
}

static void train(const lrf_rule_info *rule, const formats *chosen, int with_outputs, size_t parts)
{
    static double work[18 * 8];
    training in_formats, in_float32;
    lrf_options options;

    lrf_options_init(&options, sizeof options);
    options.work = work;
    options.work_size = sizeof work;
    if (with_outputs) {
        options.flags = LRF_REQUIRE_FINITE | LRF_ZERO_GRADS | LRF_STATS;
        options.grad_scale = 0.7;
        options.clip_norm = 3;
        options.clip_value = 0.4;
        options.ema_decay = 0.9;
    }
    start(chosen);
    bind(&in_formats, stored, rule, with_outputs);
    bind(&in_float32, native, rule, with_outputs);
    set_formats(&in_formats, chosen);
    for (size_t i = 0; i < TENSORS; i++)
        in_float32.outputs[i].ema = in_float32.outputs[i].copy = NULL;
    for (uint64_t t = 1; t <= STEPS; t++) {
        lrf_report first, second;
        give_gradients(chosen, t);
        for (size_t i = 0; i < TENSORS; i++)
            memcpy(started[i], native[i].param, sizeof started[i]);
        first = step_in_parts(&in_formats.group, &options, parts);
        second = step_in_parts(&in_float32.group, &options, 1);
        if (chosen->state[1] == LRF_FLOAT16 &&
            first.overflowed > 0) { /* where the variance of centered RMSprop is lost */
            CHECK(rule->state[2] && strncmp(rule->name, "rmsprop_centered", 16) == 0);
            first.overflowed = second.overflowed;
            first.tensor = second.tensor;
        }
        CHECK(memcmp(&first, &second, sizeof first) == 0);
        round_native(chosen, with_outputs, &options);
        compare(chosen, with_outputs);
    }
}

/* ---- what a step without a gradient, and somebody else, write --------------------------------------------- */

/* 1 + 2^-9 is a tie between two bfloat16. */
static void written_by_others(uint8_t master_format)
{
    uint16_t param[2] = {0x3f80, 0x3f80};
    float masters[2] = {1 + 0x1p-10f, 1 + 0x1p-10f}, ema[2] = {0, 0};
    uint16_t remainders[2] = {0x2000, 0x2000};
    lrf_tensor tensor = {.param = param, .count = 2};
    lrf_storage storage = {.struct_size = sizeof storage,
                           .param_format = LRF_BFLOAT16,
                           .master_format = master_format,
                           .more = {master_format == LRF_SPLIT ? (void *)remainders : (void *)masters}};
    const lrf_outputs outputs = {.struct_size = sizeof outputs, .ema = ema};
    lrf_options options;
    lrf_group group;

    describe("written by others, master %u", master_format);
    lrf_group_init(&group, sizeof group, LRF_SGD);
    lrf_options_init(&options, sizeof options);
    group.tensors = &tensor;
    group.count = 1;
    group.storage = &storage;
    group.outputs = &outputs;
    CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    CHECK(ema[0] == 1 + 0x1p-10f && ema[1] == 1 + 0x1p-10f);
    param[1] = 0x4000; /* 2 */
    if (master_format == LRF_FLOAT32) {
        CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
        CHECK(ema[0] == 1 + 0x1p-10f && ema[1] == 2 && masters[1] == 1 + 0x1p-10f);
    }
    CHECK(lrf_reset_master(&group, 1, NULL) == LRF_OK);
    CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    CHECK(ema[0] == (master_format == LRF_SPLIT ? 1 : 1 + 0x1p-10f) && ema[1] == 2 && param[1] == 0x4000);
    CHECK(master_format == LRF_SPLIT ? remainders[0] == 0 && remainders[1] == 0 : masters[1] == 2);
}

/* A step takes what somebody wrote for the master's value. */
static void written_before_a_step(void)
{
    uint16_t param[2] = {0x3f80, 0x4000};
    float masters[2] = {1 + 0x1p-10f, 1 + 0x1p-10f}, grad[2] = {0x1p-10f, 0x1p-10f};
    lrf_tensor tensor = {.param = param, .grad = grad, .count = 2};
    lrf_storage storage = {
        .struct_size = sizeof storage, .param_format = LRF_BFLOAT16, .master_format = LRF_FLOAT32, .more = {masters}};
    lrf_group group;

    describe("written before a step");
    lrf_group_init(&group, sizeof group, LRF_SGD);
    group.tensors = &tensor;
    group.count = 1;
    group.lr = 1;
    group.storage = &storage;
    CHECK(lrf_step(&group, 1, NULL, NULL) == LRF_OK);
    CHECK(masters[0] == 1 && masters[1] == 2 - 0x1p-10f && param[0] == 0x3f80 && param[1] == 0x4000);
}

/* Squares that float32 holds and float16 does not. */
static void overflow(void)
{
    static double work[18];
    float param[3] = {1, 1, 1}, grad[3] = {300, 1, 2000};
    uint16_t squares[3] = {0, 0x7c00, 0};
    lrf_tensor tensor = {.param = param, .grad = grad, .state = {NULL, squares}, .count = 3};
    lrf_storage storage = {.struct_size = sizeof storage, .state_format = {0, LRF_FLOAT16}};
    lrf_report report = {.struct_size = sizeof report};
    lrf_options options;
    lrf_group group;

    describe("squares beyond float16");
    lrf_group_init(&group, sizeof group, LRF_ADAGRAD);
    lrf_options_init(&options, sizeof options);
    options.flags = LRF_REQUIRE_FINITE;
    options.work = work;
    options.work_size = sizeof work;
    group.tensors = &tensor;
    group.count = 1;
    group.storage = &storage;
    CHECK(lrf_step(&group, 1, &options, &report) == LRF_OK);
    CHECK(report.overflowed == 2 && squares[0] == 0x7c00 && squares[1] == 0x7c00 && squares[2] == 0x7c00);
}

/* ---- refusals -------------------------------------------------------------------------------------------- */

static _Alignas(64) unsigned char memory[4096], before[4096];
static lrf_tensor tensor;
static lrf_storage storage;
static lrf_group group;

static void reset_group(void)
{
    memset(memory, 0, sizeof memory);
    lrf_group_init(&group, sizeof group, LRF_MOMENTUM);
    tensor = (lrf_tensor){.param = memory, .grad = memory + 512, .state = {memory + 1024}, .count = 4};
    storage = (lrf_storage){.struct_size = sizeof storage, .param_format = LRF_BFLOAT16, .grad_format = LRF_BFLOAT16};
    group.tensors = &tensor;
    group.count = 1;
    group.storage = &storage;
    memcpy(before, memory, sizeof memory);
}

static void expect(lrf_status status, const char *what)
{
    static double scratch[512];
    lrf_report report = {.struct_size = sizeof report};

    describe("%s", what);
    CHECK(lrf_step(&group, 1, NULL, &report) == status && report.what && strcmp(report.what, what) == 0);
    CHECK(memcmp(before, memory, sizeof memory) == 0 && tensor.step == 0);
    if (status == LRF_OVERLAP)
        CHECK(lrf_check_overlap(&group, 1, NULL, scratch, sizeof scratch, &report) == LRF_OVERLAP);
    if (strcmp(what, "master") == 0 || strcmp(what, "remainder") == 0 || strncmp(what, "storage", 7) == 0)
        CHECK(lrf_reset_master(&group, 1, &report) == status && report.what && strcmp(report.what, what) == 0);
    CHECK(memcmp(before, memory, sizeof memory) == 0);
    reset_group();
}

static void refusals(void)
{
    lrf_report report = {.struct_size = sizeof report};

    reset_group();
    group.dtype = LRF_FLOAT64;
    expect(LRF_BAD_DTYPE, "storage.param_format");
    group.dtype = LRF_FLOAT64;
    storage.param_format = LRF_FLOAT64;
    expect(LRF_BAD_DTYPE, "storage.grad_format");
    storage.param_format = LRF_FLOAT64;
    expect(LRF_BAD_DTYPE, "storage.param_format");
    storage.state_format[2] = 6;
    expect(LRF_BAD_DTYPE, "storage.state_format");
    storage.state_format[0] = LRF_SPLIT;
    expect(LRF_BAD_DTYPE, "storage.state_format");
    storage.more[0] = memory + 2048;
    expect(LRF_BAD_STRUCT, "storage.more");
    storage.master_format = LRF_FLOAT32;
    expect(LRF_NULL_POINTER, "master");
    storage.master_format = LRF_SPLIT;
    expect(LRF_NULL_POINTER, "remainder");
    storage.master_format = LRF_SPLIT;
    storage.more[0] = memory + 2049;
    expect(LRF_MISALIGNED, "remainder");
    storage.master_format = LRF_FLOAT32;
    storage.more[0] = memory + 2050;
    expect(LRF_MISALIGNED, "master");
    storage.master_format = LRF_FLOAT32;
    storage.more[0] = memory + 4; /* the parameter has 8 bytes */
    expect(LRF_OVERLAP, "master");
    storage.master_format = LRF_SPLIT;
    storage.more[0] = memory + 6;
    expect(LRF_OVERLAP, "remainder");
    storage.master_format = LRF_BFLOAT16;
    storage.more[0] = memory + 2048;
    expect(LRF_BAD_DTYPE, "storage.master_format");
    storage.master_format = LRF_FLOAT32;
    storage.param_format = LRF_NATIVE;
    storage.more[0] = memory + 2048;
    expect(LRF_BAD_DTYPE, "storage.master_format");
    storage.master_format = LRF_SPLIT;
    storage.param_format = LRF_FLOAT16;
    storage.more[0] = memory + 2048;
    expect(LRF_BAD_DTYPE, "storage.master_format");
    storage.master_format = LRF_FLOAT32;
    storage.more[0] = memory + 2048;
    storage.more[1] = memory + 3072;
    expect(LRF_BAD_STRUCT, "storage.more");
    storage.unused[4] = 1;
    expect(LRF_BAD_STRUCT, "storage.unused");
    tensor.grad = memory + 6; /* in the last element of the parameter */
    expect(LRF_OVERLAP, "grad");
    tensor.param = memory + 1;
    expect(LRF_MISALIGNED, "param");
    storage.state_format[0] = LRF_FLOAT16;
    tensor.state[0] = memory + 1025;
    expect(LRF_MISALIGNED, "momentum_buffer");

    describe("what fits");
    tensor.grad = memory + 8;
    tensor.state[0] = memory + 16;
    storage.master_format = LRF_SPLIT;
    storage.more[0] = memory + 2050;
    CHECK(lrf_step(&group, 1, NULL, &report) == LRF_OK && lrf_reset_master(&group, 1, &report) == LRF_OK);
    describe("groups before there were formats");
    reset_group();
    group.struct_size = offsetof(lrf_group, storage);
    CHECK(lrf_reset_master(&group, 1, &report) == LRF_OK);
    describe("no groups");
    CHECK(lrf_reset_master(NULL, 1, &report) == LRF_NULL_POINTER && strcmp(report.what, "groups") == 0);
    CHECK(lrf_reset_master(NULL, 0, NULL) == LRF_OK);
    report.struct_size = 1;
    CHECK(lrf_reset_master(NULL, 0, &report) == LRF_BAD_STRUCT);
}

int main(void)
{
    for (size_t isa = 0; lrf_isa_name(isa); isa++) {
        lrf_status why_none;
        CHECK(lrf_set_isa(lrf_isa_name(isa)) == LRF_OK);
        kernels = lrf_active_kernels(&why_none);
        for (size_t i = 0; lrf_rule_at(i); i++)
            for (size_t k = 0; k < COMBINATIONS; k++)
                for (int with_outputs = 0; with_outputs < 2; with_outputs++) {
                    describe("%s, combination %zu%s, %s", lrf_rule_at(i)->name, k, with_outputs ? " with outputs" : "",
                             lrf_isa_name(isa));
                    train(lrf_rule_at(i), &combinations[k], with_outputs, 1 + (i + k) % 4);
                }
        written_by_others(LRF_FLOAT32);
        written_by_others(LRF_SPLIT);
        written_before_a_step();
        overflow();
    }
    lrf_set_isa(NULL);
    refusals();
    return result();
}

LRF_END_OF_SOURCE
