/* Prints `case hash` for every rule and variant: a hash of the bytes of parameter and states after some hundred
 * updates; then the same for steps with everything that rides along, whose outputs are hashed as well. tests/golden.txt
 * has the same lines from the NumPy reference (tests/golden.py). `golden isas` prints the instruction sets that run
 * here. */
#include "check.h"

enum {
    COUNT = 3109,
    UPDATES = 300,
    TAIL_UPDATES = 30,
    BUFFERS = 4,
    STATISTICS = (sizeof(lrf_stats) - offsetof(lrf_stats, elements)) / sizeof(double)
}; /* COUNT: three tiles, a row of lanes, and a rest */

/* After these come single updates far into a training. */
static const uint64_t late_steps[] = {5000, 123456789, UINT64_C(1) << 40};

typedef struct variant {
    const char *name;
    lrf_group group;
    double initial;               /* what states start at */
    double grad_scale, clip_norm; /* grad_scale 0: 1 */
} variant;

static const variant variants[] = {
    {.name = "sgd", .group = {.rule = LRF_SGD, .lr = 1e-2}},
    {.name = "sgd-decay-maximize", .group = {.rule = LRF_SGD, .flags = LRF_MAXIMIZE, .lr = 1e-2, .weight_decay = 0.1}},
    {.name = "momentum", .group = {.rule = LRF_MOMENTUM, .lr = 1e-2, .momentum = 0.9}},
    {.name = "momentum-low",
     .group = {.rule = LRF_MOMENTUM, .lr = 1e-2, .momentum = 0.3, .dampening = 0.5, .weight_decay = 0.01}},
    {.name = "nesterov", .group = {.rule = LRF_MOMENTUM, .flags = LRF_NESTEROV, .lr = 1e-2, .momentum = 0.9}},
    {.name = "nesterov-maximize",
     .group = {.rule = LRF_MOMENTUM,
               .flags = LRF_NESTEROV | LRF_MAXIMIZE,
               .lr = 1e-2,
               .momentum = 0.4,
               .weight_decay = 0.1}},
    {.name = "adagrad", .group = {.rule = LRF_ADAGRAD, .lr = 1e-2, .eps = 1e-10}},
    {.name = "adagrad-decay",
     .group = {.rule = LRF_ADAGRAD, .lr = 1e-2, .eps = 1e-10, .lr_decay = 0.1, .weight_decay = 0.01},
     .initial = 0.1},
    {.name = "adagrad-mean",
     .group = {.rule = LRF_RMSPROP, .flags = LRF_MEAN | LRF_MAXIMIZE, .lr = 1e-2, .eps = 1e-10, .lr_decay = 0.01}},
    {.name = "rmsprop", .group = {.rule = LRF_RMSPROP, .lr = 1e-2, .alpha = 0.99, .eps = 1e-8, .weight_decay = 0.01}},
    {.name = "rmsprop-low", .group = {.rule = LRF_RMSPROP, .lr = 1e-2, .alpha = 0.3, .eps = 1e-8}},
    {.name = "rmsprop-first",
     .group = {.rule = LRF_RMSPROP, .flags = LRF_FIRST_GRADIENT, .lr = 1e-2, .alpha = 0.9, .eps = 1e-8}},
    {.name = "rmsprop-momentum",
     .group = {.rule = LRF_RMSPROP_MOMENTUM,
               .flags = LRF_MAXIMIZE,
               .lr = 1e-2,
               .alpha = 0.99,
               .momentum = 0.9,
               .eps = 1e-8}},
    {.name = "rmsprop-momentum-first",
     .group = {.rule = LRF_RMSPROP_MOMENTUM,
               .flags = LRF_FIRST_GRADIENT,
               .lr = 1e-2,
               .alpha = 0.9,
               .momentum = 0.5,
               .eps = 1e-8}},
    {.name = "rmsprop-centered", .group = {.rule = LRF_RMSPROP_CENTERED, .lr = 1e-2, .alpha = 0.9, .eps = 1e-8}},
    {.name = "rmsprop-centered-low", .group = {.rule = LRF_RMSPROP_CENTERED, .lr = 1e-2, .alpha = 0.2, .eps = 1e-8}},
    {.name = "rmsprop-centered-momentum",
     .group = {.rule = LRF_RMSPROP_CENTERED_MOMENTUM,
               .lr = 1e-2,
               .alpha = 0.99,
               .momentum = 0.5,
               .eps = 1e-8,
               .weight_decay = 0.01}},
    {.name = "adam", .group = {.rule = LRF_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}},
    {.name = "adam-low", .group = {.rule = LRF_ADAM, .lr = 1e-3, .beta1 = 0.3, .beta2 = 0.4, .eps = 1e-8}},
    {.name = "adam-decay-maximize",
     .group = {.rule = LRF_ADAM,
               .flags = LRF_MAXIMIZE,
               .lr = 1e-3,
               .beta1 = 0.9,
               .beta2 = 0.999,
               .eps = 1e-8,
               .weight_decay = 0.1}},
    {.name = "adam-scaled",
     .group = {.rule = LRF_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
     .grad_scale = -1.0 / 3},
    {.name = "adam-clipped",
     .group = {.rule = LRF_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
     .grad_scale = 0.7,
     .clip_norm = 0.5},
    {.name = "adamw",
     .group = {.rule = LRF_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .decoupled_weight_decay = 0.1}},
    {.name = "amsgrad",
     .group = {.rule = LRF_AMSGRAD, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.01}},
    {.name = "amsgrad-low-decoupled",
     .group =
         {.rule = LRF_AMSGRAD, .lr = 1e-3, .beta1 = 0.4, .beta2 = 0.5, .eps = 1e-8, .decoupled_weight_decay = 0.01}},
    {.name = "radam",
     .group = {.rule = LRF_RADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1}},
    {.name = "radam-low-decoupled",
     .group = {.rule = LRF_RADAM, .lr = 1e-3, .beta1 = 0.3, .beta2 = 0.6, .eps = 1e-8, .decoupled_weight_decay = 0.1}},
};

static double memory[2 + BUFFERS][COUNT];

/* 64-bit FNV-1a of words of 2, 4 or 8 bytes, lowest byte first on every machine; continued. */
static uint64_t hash_words(uint64_t hash, const void *words, size_t size, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t word = 0;
        if (size == 8)
            memcpy(&word, (const char *)words + 8 * i, 8);
        if (size == 4) {
            uint32_t half;
            memcpy(&half, (const char *)words + 4 * i, 4);
            word = half;
        }
        if (size == 2) {
            uint16_t quarter;
            memcpy(&quarter, (const char *)words + 2 * i, 2);
            word = quarter;
        }
        for (size_t k = 0; k < size; k++, word >>= 8)
            hash = (hash ^ (word & 0xff)) * 0x100000001b3u;
    }
    return hash;
}

static void run(const variant *chosen, uint32_t dtype)
{
    const lrf_rule_info *rule = find_rule((lrf_rule)chosen->group.rule);
    const size_t size = element_size(dtype);
    double work[3 * (COUNT / 1024 + 1)];
    lrf_tensor tensor = {.param = memory[0], .grad = memory[1], .count = COUNT};
    lrf_group group = chosen->group;
    lrf_options options;
    uint64_t hash = 0xcbf29ce484222325u;

    group.struct_size = sizeof group;
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    lrf_options_init(&options, sizeof options);
    options.grad_scale = chosen->grad_scale == 0 ? 1 : chosen->grad_scale;
    options.clip_norm = chosen->clip_norm;
    options.work = work;
    options.work_size = sizeof work;
    for (size_t slot = 0; slot < BUFFERS; slot++)
        tensor.state[slot] = rule->state[slot] ? memory[2 + slot] : NULL;
    for (size_t i = 0; i < COUNT; i++) {
        put(tensor.param, dtype, i, number_at(dtype, 0, i));
        for (size_t slot = 0; slot < BUFFERS; slot++)
            put(memory[2 + slot], dtype, i, chosen->initial);
    }

    for (uint64_t t = 1; t <= UPDATES + sizeof late_steps / sizeof late_steps[0]; t++) {
        if (t > UPDATES)
            tensor.step = late_steps[t - UPDATES - 1] - 1;
        for (size_t i = 0; i < COUNT; i++)
            put(tensor.grad, dtype, i, gradient_at(dtype, t, i));
        CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    }
    hash = hash_words(hash, tensor.param, size, COUNT);
    for (size_t slot = 0; slot < BUFFERS; slot++)
        if (tensor.state[slot])
            hash = hash_words(hash, tensor.state[slot], size, COUNT);
    printf("%s-%s %016llx\n", chosen->name, dtype == LRF_FLOAT64 ? "f64" : "f32", (unsigned long long)hash);
}

/* ---- with all that rides along --------------------------------------------------------------------------- */

typedef struct tail_variant {
    const char *name;
    lrf_group group;
} tail_variant;

static const tail_variant tail_variants[] = {
    {.name = "sgd-tail", .group = {.rule = LRF_SGD, .flags = LRF_MAXIMIZE, .lr = 1e-2}},
    {.name = "momentum-tail", .group = {.rule = LRF_MOMENTUM, .lr = 1e-2, .momentum = 0.9}},
    {.name = "nesterov-tail", .group = {.rule = LRF_MOMENTUM, .flags = LRF_NESTEROV, .lr = 1e-2, .momentum = 0.9}},
    {.name = "adagrad-tail", .group = {.rule = LRF_ADAGRAD, .lr = 1e-2, .eps = 1e-10}},
    {.name = "rmsprop-centered-tail", .group = {.rule = LRF_RMSPROP_CENTERED, .lr = 1e-2, .alpha = 0.9, .eps = 1e-8}},
    {.name = "rmsprop-momentum-tail",
     .group = {.rule = LRF_RMSPROP_MOMENTUM, .lr = 1e-2, .alpha = 0.9, .momentum = 0.5, .eps = 1e-8}},
    {.name = "adamw-tail",
     .group = {.rule = LRF_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .decoupled_weight_decay = 0.1}},
    {.name = "amsgrad-tail", .group = {.rule = LRF_AMSGRAD, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8}},
    {.name = "radam-tail", .group = {.rule = LRF_RADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.9, .eps = 1e-8}},
};

static void run_tail(const tail_variant *chosen, uint32_t dtype, uint32_t copy_dtype)
{
    static double ema[COUNT], last[COUNT], copy[COUNT];
    static const char *const names[] = {[LRF_FLOAT32] = "f32", [LRF_FLOAT16] = "f16", [LRF_BFLOAT16] = "bf16"};
    const lrf_rule_info *rule = find_rule((lrf_rule)chosen->group.rule);
    const size_t size = element_size(dtype);
    double work[16 * (COUNT / 1024 + 1)];
    lrf_tensor tensor = {.param = memory[0], .grad = memory[1], .count = COUNT};
    lrf_stats stats = {.struct_size = sizeof stats};
    const lrf_outputs outputs = {.struct_size = sizeof outputs,
                                 .copy_dtype = copy_dtype,
                                 .ema = ema,
                                 .copy = copy,
                                 .last = last,
                                 .stats = &stats};
    lrf_group group = chosen->group;
    lrf_options options;
    uint64_t hash = 0xcbf29ce484222325u;

    group.struct_size = sizeof group;
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    group.outputs = &outputs;
    lrf_options_init(&options, sizeof options);
    options.flags = LRF_STATS | LRF_ZERO_GRADS | LRF_REQUIRE_FINITE;
    options.grad_scale = 0.7;
    options.clip_value = 0.4;
    options.clip_norm = 5;
    options.ema_decay = 0.9;
    options.work = work;
    options.work_size = sizeof work;
    memset(memory, 0, sizeof memory);
    memset(last, 0, sizeof last);
    for (size_t slot = 0; slot < BUFFERS; slot++)
        tensor.state[slot] = rule->state[slot] ? memory[2 + slot] : NULL;
    for (size_t i = 0; i < COUNT; i++) {
        put(tensor.param, dtype, i, number_at(dtype, 0, i));
        put(ema, dtype, i, number_at(dtype, 0, i));
    }
    for (uint64_t t = 1; t <= TAIL_UPDATES; t++) {
        for (size_t i = 0; i < COUNT; i++)
            put(tensor.grad, dtype, i, gradient_at(dtype, t, i));
        CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    }
    hash = hash_words(hash, tensor.param, size, COUNT);
    hash = hash_words(hash, tensor.grad, size, COUNT);
    hash = hash_words(hash, ema, size, COUNT);
    hash = hash_words(hash, copy, copy_dtype == LRF_FLOAT32 ? 4 : 2, COUNT);
    hash = hash_words(hash, &stats.elements, sizeof(double), STATISTICS);
    printf("%s-%s-%s %016llx\n", chosen->name, dtype == LRF_FLOAT64 ? "f64" : "f32", names[copy_dtype],
           (unsigned long long)hash);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "isas") == 0) {
        for (size_t i = 0; lrf_isa_name(i); i++)
            puts(lrf_isa_name(i));
        return 0;
    }
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        describe("%s", variants[i].name);
        run(&variants[i], LRF_FLOAT32);
        run(&variants[i], LRF_FLOAT64);
    }
    for (size_t i = 0; i < sizeof tail_variants / sizeof tail_variants[0]; i++)
        for (uint32_t copy_dtype = LRF_FLOAT32; copy_dtype <= LRF_BFLOAT16; copy_dtype++) {
            describe("%s", tail_variants[i].name);
            if (copy_dtype == LRF_FLOAT64)
                continue;
            run_tail(&tail_variants[i], LRF_FLOAT32, copy_dtype);
            run_tail(&tail_variants[i], LRF_FLOAT64, copy_dtype);
        }
    return result();
}
