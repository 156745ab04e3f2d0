/* Whether a build gives the promised bits: a small training of five rules in both types with everything that surrounds
 * an update, beside hashes that the specification wrote (tests/selftest.py). Runs once per kernels, in 50 us.
 *
 * Flags that the compiler tells nobody of are found here: contraction, another order of sums, reciprocals, square roots
 * that are estimated, comparisons that believe that there is no NaN, denormals taken for zero. */
#include "tiles.h"

#include <math.h>
#include <string.h>

enum {
    COUNT = 67, /* whole vectors of every width, and a rest */
    UPDATES = 2,
    DENORMAL = 5, /* parameter without a gradient */
    STATISTICS = (offsetof(lrf_stats, rates) - offsetof(lrf_stats, elements)) / sizeof(double) + LRF_RATE_BINS
};

typedef struct expected {
    lrf_group group;
    uint64_t hashes[2]; /* [dtype - LRF_FLOAT32] */
} expected;

static const expected trainings[] = {
#include "selftest.def"
};

/* ---- numbers --------------------------------------------------------------------------------------------- */

/* Between -1 and 1, over 8 binary orders of magnitude, exact in the type; bits by splitmix64. */
static double number_at(uint32_t dtype, uint64_t stream, uint64_t index)
{
    const int digits = dtype == LRF_FLOAT64 ? 52 : 23;
    uint64_t z = ((stream << 32 | index) + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)((int64_t)(z >> (63 - digits)) - ((int64_t)1 << digits)) /
           (double)(UINT64_C(1) << (digits + (int)(z & 7)));
}

static void put(void *buffer, uint32_t dtype, size_t i, double x)
{
    if (dtype == LRF_FLOAT64)
        ((double *)buffer)[i] = x;
    else
        ((float *)buffer)[i] = (float)x;
}

/* The parameters, and the gradients of each update: parameter DENORMAL is what it says, without a gradient. */
typedef struct numbers {
    double arrays[1 + UPDATES][COUNT]; /* of either type */
} numbers;

static void fill(numbers *all, uint32_t dtype)
{
    for (size_t stream = 0; stream <= UPDATES; stream++) {
        for (size_t i = 0; i < COUNT; i++)
            put(all->arrays[stream], dtype, i, number_at(dtype, stream, i));
        put(all->arrays[stream], dtype, DENORMAL, stream > 0 ? 0 : dtype == LRF_FLOAT64 ? 0x1.8p-1060 : 0x1.8p-140);
    }
}

/* Word by word, so that it takes microseconds; the rotation spreads what stands in the highest bits. */
static uint64_t add_words(uint64_t hash, const void *buffer, size_t size, size_t count)
{
    const unsigned char *bytes = buffer;

    for (size_t i = 0; i < count; i++, bytes += size) {
        uint64_t word;
        uint32_t single;
        uint16_t half;
        if (size == sizeof word) {
            memcpy(&word, bytes, sizeof word);
        } else if (size == sizeof single) {
            memcpy(&single, bytes, sizeof single);
            word = single;
        } else {
            memcpy(&half, bytes, sizeof half);
            word = half;
        }
        hash = ((hash << 5 | hash >> 59) ^ word) * 0x517cc1b727220a95u;
    }
    return hash;
}

/* ---- the training ---------------------------------------------------------------------------------------- */

typedef struct buffers {
    double param[COUNT], grad[COUNT], states[LRF_STATE_SLOTS][COUNT], ema[COUNT], last[COUNT], copy[COUNT];
    double work[sizeof(lrf_slot) / sizeof(double) + 1];
} buffers;

/* Both phases of a step of one tile. */
static int run_phases(lrf_step_state *step)
{
    static const lrf_phase *const phases[] = {&lrf_norm_phase, &lrf_update_phase};
    const lrf_group *group = step->groups;
    const lrf_tile_run run = {.group = group, .tensor = group->tensors, .outputs = group->outputs, .end = 1};

    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++) {
        int next;
        do {
            lrf_latest latest = {.group = NULL};
            phases[i]->run(step, &run, &latest);
            next = phases[i]->finish(step);
        } while (next == LRF_ONCE_MORE);
        if (next == LRF_STOP)
            return 0;
    }
    return 1;
}

static uint64_t hash_of(const lrf_kernels *kernels, const lrf_group *settings, uint32_t dtype, const numbers *given,
                        buffers *memory)
{
    const size_t size = dtype == LRF_FLOAT64 ? sizeof(double) : sizeof(float);
    const uint32_t copy_dtype = dtype == LRF_FLOAT64 ? LRF_FLOAT16 : LRF_BFLOAT16;
    const lrf_rule_info *const rule = lrf_find_rule(settings->rule);
    lrf_tensor tensor = {.param = memory->param, .grad = memory->grad, .count = COUNT};
    lrf_stats stats = {.struct_size = sizeof stats};
    const lrf_outputs outputs = {.struct_size = sizeof outputs,
                                 .copy_dtype = copy_dtype,
                                 .ema = memory->ema,
                                 .copy = memory->copy,
                                 .last = memory->last,
                                 .stats = &stats};
    lrf_group group = *settings;
    lrf_step_state step;
    uint64_t hash = 0;

    memset(memory, 0, sizeof *memory);
    group.struct_size = sizeof group;
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    group.outputs = &outputs;
    for (size_t slot = 0; slot < LRF_STATE_SLOTS; slot++)
        tensor.state[slot] = rule->state[slot] ? memory->states[slot] : NULL;
    memcpy(memory->param, given->arrays[0], sizeof memory->param);
    memcpy(memory->ema, given->arrays[0], sizeof memory->ema);
    lrf_open_step(&step, &group, 1);
    lrf_complete_options(&step.options, NULL);
    step.options.flags = LRF_REQUIRE_FINITE | LRF_STATS;
    step.options.grad_scale = 1.0 / 3;
    step.options.clip_value = 0.25;
    step.options.clip_norm = 0.75;
    step.options.ema_decay = 0.9;
    step.options.work = memory->work;
    step.options.work_size = sizeof memory->work;
    step.kernels = kernels;
    step.tiles = 1;
    step.variant = LRF_TRACED;
    for (uint64_t t = 1; t <= UPDATES; t++, tensor.step++) {
        memcpy(memory->grad, given->arrays[t], sizeof memory->grad);
        if (!run_phases(&step))
            return 0;
    }
    hash = add_words(hash, memory->param, size, COUNT);
    for (size_t slot = 0; slot < LRF_STATE_SLOTS; slot++)
        if (tensor.state[slot])
            hash = add_words(hash, tensor.state[slot], size, COUNT);
    hash = add_words(hash, memory->ema, size, COUNT);
    hash = add_words(hash, memory->copy, lrf_dtype_size(copy_dtype), COUNT);
    hash = add_words(hash, &stats.elements, sizeof(double), STATISTICS);

    put(memory->grad, dtype, COUNT / 2, (double)NAN);
    put(memory->grad, dtype, COUNT - 1, (double)INFINITY);
    return !run_phases(&step) && step.nonfinite == 2 ? hash : 0;
}

/* Not inlined, so that no arithmetic moves out of the default floating-point environment. */
static LRF_NOINLINE int all_are_as_expected(const lrf_kernels *kernels)
{
    numbers given;
    buffers memory;

    for (uint32_t dtype = LRF_FLOAT32; dtype <= LRF_FLOAT64; dtype++) {
        fill(&given, dtype);
        for (size_t i = 0; i < sizeof trainings / sizeof trainings[0]; i++) {
            const uint64_t expected_hash = trainings[i].hashes[dtype - LRF_FLOAT32];
            if (hash_of(kernels, &trainings[i].group, dtype, &given, &memory) != expected_hash)
                return 0;
        }
    }
    return 1;
}

int lrf_gives_promised_bits(const lrf_kernels *kernels)
{
    const lrf_fpenv saved = lrf_fpenv_enter();
    const int result = all_are_as_expected(kernels);
    lrf_fpenv_leave(saved);
    return result;
}

LRF_END_OF_SOURCE
