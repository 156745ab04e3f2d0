/* Prints `case hash` for every rule and variant: a hash of parameter and states after some hundred updates;
 * then the same for steps with options, whose outputs are hashed as well. tests/golden.txt has the same hashes from the
 * NumPy reference (tests/golden.py, which also writes what is included below). `golden adam sgd` does this for these
 * cases alone; `golden isas` prints the instruction sets that run here. */
#include "harness.h"

enum {
    COUNT = 3109,
    UPDATES = 300,
    OPTION_UPDATES = 30,
    BUFFERS = 4,
    STATISTICS = (offsetof(lrf_stats, dead) - offsetof(lrf_stats, elements)) / sizeof(double)
}; /* COUNT: three tiles, a row of lanes, and a rest */

/* After these come single updates far into a training. */
static const uint64_t late_steps[] = {5000, 123456789, UINT64_C(1) << 40};

typedef struct variant {
    const char *name;
    lrf_group group;
    double initial[4]; /* what states start at */
    double grad_scale, clip_norm;
    int with_options, with_formats;
} variant;

/* From tests/variants.py: rules, flags and numbers as the Python package passes them. */
static const variant variants[] = {
#include "golden_variants.inc"
};

static double memory[2 + BUFFERS][COUNT];

/* 64-bit FNV-1a, continued over the bytes of elements, lowest first on every machine. */
static uint64_t hash_elements(uint64_t hash, const void *elements, size_t size, size_t count)
{
    static const uint16_t one = 1;
    const int lowest_first = *(const unsigned char *)&one;
    const unsigned char *bytes = elements;

    for (size_t i = 0; i < count; i++, bytes += size)
        for (size_t k = 0; k < size; k++)
            hash = (hash ^ bytes[lowest_first ? k : size - 1 - k]) * 0x100000001b3u;
    return hash;
}

static void run(const variant *chosen, uint32_t dtype)
{
    const lrf_rule_info *rule = find_rule((lrf_rule)chosen->group.rule);
    double work[4 * (COUNT / 1024 + 1)];
    lrf_tensor tensor = {.param = memory[0], .grad = memory[1], .count = COUNT};
    lrf_storage storage;
    lrf_group group = chosen->group;
    lrf_options options;
    uint64_t hash = 0xcbf29ce484222325u;

    group.struct_size = sizeof group;
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    give_storage(&group, &storage);
    lrf_options_init(&options, sizeof options);
    options.grad_scale = chosen->grad_scale;
    options.clip_norm = chosen->clip_norm;
    options.work = work;
    options.work_size = sizeof work;
    for (size_t slot = 0; slot < BUFFERS; slot++)
        tensor.state[slot] = rule->state[slot] ? memory[2 + slot] : NULL;
    for (size_t i = 0; i < COUNT; i++) {
        put(tensor.param, dtype, i, number_at(dtype, 0, i));
        for (size_t slot = 0; slot < BUFFERS; slot++)
            put(memory[2 + slot], dtype, i, chosen->initial[slot]);
    }

    for (uint64_t t = 1; t <= UPDATES + sizeof late_steps / sizeof late_steps[0]; t++) {
        if (t > UPDATES)
            tensor.step = late_steps[t - UPDATES - 1] - 1;
        for (size_t i = 0; i < COUNT; i++)
            put(tensor.grad, dtype, i, gradient_at(dtype, t, i));
        CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    }
    hash = hash_elements(hash, tensor.param, element_size(dtype), COUNT);
    for (size_t slot = 0; slot < BUFFERS; slot++)
        if (tensor.state[slot])
            hash = hash_elements(hash, tensor.state[slot], element_size(dtype), COUNT);
    printf("%s-%s %016llx\n", chosen->name, dtype == LRF_FLOAT64 ? "f64" : "f32", (unsigned long long)hash);
}

/* ---- with options ---------------------------------------------------------------------------------------- */

static void run_with_options(const variant *chosen, uint32_t dtype, uint32_t copy_dtype)
{
    static double ema[COUNT], last[COUNT], copy[COUNT];
    static const char *const names[] = {[LRF_FLOAT32] = "f32", [LRF_FLOAT16] = "f16", [LRF_BFLOAT16] = "bf16"};
    const lrf_rule_info *rule = find_rule((lrf_rule)chosen->group.rule);
    double work[18 * (COUNT / 1024 + 1)];
    lrf_tensor tensor = {.param = memory[0], .grad = memory[1], .count = COUNT};
    lrf_stats stats = {.struct_size = sizeof stats};
    const lrf_outputs outputs = {.struct_size = sizeof outputs,
                                 .copy_dtype = copy_dtype,
                                 .ema = ema,
                                 .copy = copy,
                                 .last = last,
                                 .stats = &stats};
    lrf_storage storage;
    lrf_group group = chosen->group;
    lrf_options options;
    uint64_t hash = 0xcbf29ce484222325u;

    group.struct_size = sizeof group;
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    give_storage(&group, &storage);
    group.outputs = &outputs;
    lrf_options_init(&options, sizeof options);
    options.flags = LRF_STATS | LRF_ZERO_GRADS | LRF_REQUIRE_FINITE;
    options.grad_scale = chosen->grad_scale;
    options.clip_value = 0.4;
    options.clip_norm = 5;
    options.ema_decay = 0.9;
    options.work = work;
    options.work_size = sizeof work;
    memset(last, 0, sizeof last);
    for (size_t slot = 0; slot < BUFFERS; slot++)
        tensor.state[slot] = rule->state[slot] ? memory[2 + slot] : NULL;
    for (size_t i = 0; i < COUNT; i++) {
        put(tensor.param, dtype, i, number_at(dtype, 0, i));
        put(ema, dtype, i, number_at(dtype, 0, i));
        for (size_t slot = 0; slot < BUFFERS; slot++)
            put(memory[2 + slot], dtype, i, chosen->initial[slot]);
    }
    for (uint64_t t = 1; t <= OPTION_UPDATES; t++) {
        for (size_t i = 0; i < COUNT; i++)
            put(tensor.grad, dtype, i, gradient_at(dtype, t, i));
        CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    }
    hash = hash_elements(hash, tensor.param, element_size(dtype), COUNT);
    hash = hash_elements(hash, tensor.grad, element_size(dtype), COUNT);
    hash = hash_elements(hash, ema, element_size(dtype), COUNT);
    hash = hash_elements(hash, copy, copy_dtype == LRF_FLOAT32 ? 4 : 2, COUNT);
    hash = hash_elements(hash, &stats.elements, sizeof(double), STATISTICS);
    printf("%s-%s-%s %016llx\n", chosen->name, dtype == LRF_FLOAT64 ? "f64" : "f32", names[copy_dtype],
           (unsigned long long)hash);
}

/* ---- with formats ---------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint8_t param, grad, states, master;
} kinds[] = {
    {"bf16", LRF_BFLOAT16, LRF_BFLOAT16, LRF_BFLOAT16, LRF_NATIVE},
    {"f16", LRF_FLOAT16, LRF_FLOAT16, LRF_FLOAT16, LRF_NATIVE},
    {"grad", LRF_NATIVE, LRF_BFLOAT16, LRF_NATIVE, LRF_NATIVE},
    {"master", LRF_BFLOAT16, LRF_BFLOAT16, LRF_NATIVE, LRF_FLOAT32},
    {"split", LRF_BFLOAT16, LRF_BFLOAT16, LRF_NATIVE, LRF_SPLIT},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static size_t format_size(uint8_t format)
{
    return format == LRF_NATIVE ? sizeof(float) : sizeof(uint16_t);
}

/* By way of the copies that a step makes. */
static void encode(void *codes, uint8_t format, float *x)
{
    lrf_tensor tensor = {.param = x, .count = COUNT};
    const lrf_outputs outputs = {.struct_size = sizeof outputs, .copy = codes, .copy_dtype = format};
    lrf_group group;

    if (format == LRF_NATIVE) {
        memcpy(codes, x, COUNT * sizeof *x);
        return;
    }
    lrf_group_init(&group, sizeof group, LRF_SGD);
    group.tensors = &tensor;
    group.count = 1;
    group.outputs = &outputs;
    CHECK(lrf_step(&group, 1, NULL, NULL) == LRF_OK);
}

static void run_with_formats(const variant *chosen, size_t kind)
{
    static float x[COUNT];
    static uint32_t master[COUNT];
    const lrf_rule_info *rule = find_rule((lrf_rule)chosen->group.rule);
    const uint8_t param = kinds[kind].param, states = kinds[kind].states;
    lrf_tensor tensor = {.param = memory[0], .grad = memory[1], .count = COUNT};
    lrf_storage storage;
    lrf_group group = chosen->group;
    lrf_options options;
    uint64_t hash = 0xcbf29ce484222325u;

    group.struct_size = sizeof group;
    group.dtype = LRF_FLOAT32;
    group.tensors = &tensor;
    group.count = 1;
    give_storage(&group, &storage);
    storage.param_format = param;
    storage.grad_format = kinds[kind].grad;
    memset(storage.state_format, states, sizeof storage.state_format);
    storage.master_format = kinds[kind].master;
    storage.more[0] = kinds[kind].master ? master : NULL;
    lrf_options_init(&options, sizeof options);
    options.grad_scale = chosen->grad_scale;
    for (size_t slot = 0; slot < BUFFERS; slot++) {
        tensor.state[slot] = rule->state[slot] ? memory[2 + slot] : NULL;
        for (size_t i = 0; i < COUNT; i++)
            x[i] = (float)chosen->initial[slot];
        encode(memory[2 + slot], states, x);
    }
    for (size_t i = 0; i < COUNT; i++)
        x[i] = (float)number_at(LRF_FLOAT32, 0, i);
    encode(memory[0], param, x);
    memset(master, 0, sizeof master);
    CHECK(lrf_reset_master(&group, 1, NULL) == LRF_OK);
    for (uint64_t t = 1; t <= OPTION_UPDATES; t++) {
        for (size_t i = 0; i < COUNT; i++)
            x[i] = (float)gradient_at(LRF_FLOAT32, t, i);
        encode(memory[1], kinds[kind].grad, x);
        CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    }
    hash = hash_elements(hash, tensor.param, format_size(param), COUNT);
    for (size_t slot = 0; slot < BUFFERS; slot++)
        if (tensor.state[slot])
            hash = hash_elements(hash, tensor.state[slot], format_size(states), COUNT);
    if (kinds[kind].master)
        hash = hash_elements(hash, master, kinds[kind].master == LRF_SPLIT ? 2 : 4, COUNT);
    printf("%s-%s %016llx\n", chosen->name, kinds[kind].name, (unsigned long long)hash);
}

static int is_chosen(const variant *candidate, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], candidate->name) == 0)
            return 1;
    return argc == 1;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "isas") == 0) {
        for (size_t i = 0; lrf_isa_name(i); i++)
            puts(lrf_isa_name(i));
        return 0;
    }
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        for (size_t kind = 0; kind < KINDS && variants[i].with_formats && is_chosen(&variants[i], argc, argv); kind++)
            run_with_formats(&variants[i], kind);
        if (variants[i].with_formats)
            continue;
        for (uint32_t dtype = LRF_FLOAT32; dtype <= LRF_FLOAT64 && is_chosen(&variants[i], argc, argv); dtype++) {
            describe("%s", variants[i].name);
            if (variants[i].with_options) {
                run_with_options(&variants[i], dtype, LRF_FLOAT32);
                run_with_options(&variants[i], dtype, LRF_FLOAT16);
                run_with_options(&variants[i], dtype, LRF_BFLOAT16);
            } else
                run(&variants[i], dtype);
        }
    }
    return result();
}
