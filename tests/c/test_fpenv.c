/* A hostile floating-point environment changes no bit of the result, and no call leaves a trace in it. */
#include "harness.h"

enum { COUNT = 1061, ARENA = 1 << 16 };

/* ---- control and status of the processor ----------------------------------------------------------------- */

#if defined(__x86_64__)
#include <xmmintrin.h>

typedef unsigned environment;

static environment read_environment(void)
{
    return _mm_getcsr();
}

static void write_environment(environment e)
{
    _mm_setcsr(e);
}

/* The last one lets every exception trap. */
static const environment hostile[] = {
    0x1f80 | 0x8040,          /* flush to zero, denormals are zero */
    0x1f80 | 0x4000,          /* round up */
    0x1f80 | 0x2000 | 0x8040, /* round down, flush */
    0x1f80 | 0x6000 | 0x3f,   /* round to zero, all flags raised */
    0x4000 | 0x8040,          /* round up, flush, traps */
};
static const environment clean = 0x1f80;
#elif defined(__aarch64__)
typedef struct environment {
    uint64_t control, status;
} environment;

static environment read_environment(void)
{
    environment e;
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(e.control), "=r"(e.status) : : "memory");
    return e;
}

static void write_environment(environment e)
{
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(e.control), "r"(e.status) : "memory");
}

static const environment hostile[] = {
    {UINT64_C(1) << 24, 0},                     /* flush to zero */
    {UINT64_C(1) << 22, 0},                     /* round up */
    {UINT64_C(2) << 22 | UINT64_C(1) << 24, 0}, /* round down, flush */
    {UINT64_C(3) << 22, 0x9f},                  /* round to zero, all flags raised */
};
static const environment clean = {0, 0};
#else
#error "this test knows x86-64 and aarch64"
#endif

static int same_environment(environment e)
{
    const environment now = read_environment();
    return memcmp(&now, &e, sizeof e) == 0;
}

/* ---- the test -------------------------------------------------------------------------------------------- */

static _Alignas(64) unsigned char bytes[ARENA], expected[ARENA];
static double work[64];

/* Three updates, call by call; with `check`, none of the calls may leave a trace in the environment. */
static void train(uint32_t rule, uint32_t dtype, environment e, int check)
{
    arena memory = {.bytes = bytes, .size = ARENA};
    lrf_tensor tensor;
    lrf_outputs outputs;
    lrf_group group;
    lrf_options options;
    lrf_job job;
    lrf_report report = {.struct_size = sizeof report};
    lrf_status status;
    int unchanged = 1;

    memset(bytes, 0, sizeof bytes);
    tensor = make_tensor(&memory, find_rule((lrf_rule)rule), dtype, COUNT, 1);
    put(tensor.param, dtype, 5, dtype == LRF_FLOAT64 ? 1e-310 : 1e-40);
    put(tensor.grad, dtype, 6, dtype == LRF_FLOAT64 ? 1e-310 : 1e-40);
    lrf_group_init(&group, sizeof group, (lrf_rule)rule);
    lrf_options_init(&options, sizeof options);
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    give_storage(&group, take(&memory, sizeof(lrf_storage)));
    group.weight_decay = 0.01;
    outputs = (lrf_outputs){.struct_size = sizeof outputs,
                            .ema = take(&memory, COUNT * element_size(dtype)),
                            .copy = take(&memory, COUNT * sizeof(uint16_t)),
                            .last = take(&memory, COUNT * element_size(dtype)),
                            .stats = take_stats(&memory),
                            .copy_dtype = LRF_FLOAT16};
    group.outputs = &outputs;
    options.flags = LRF_STATS | LRF_REQUIRE_FINITE;
    options.ema_decay = 0.9;
    options.grad_scale = 1.0 / 3;
    options.clip_norm = 0.7;
    options.work = work;
    options.work_size = sizeof work;

    for (int step = 0; step < 3; step++) {
        write_environment(e);
        status = lrf_begin(&job, &group, 1, &options, &report);
        unchanged &= same_environment(e);
        while (lrf_next(&job)) {
            unchanged &= same_environment(e);
            lrf_run(&job, 1, 2);
            lrf_run(&job, 0, 2);
            unchanged &= same_environment(e);
        }
        unchanged &= same_environment(e);
        if (status == LRF_OK)
            status = lrf_end(&job, &report);
        unchanged &= same_environment(e);
        write_environment(clean);
        CHECK(status == LRF_OK);
    }
    write_environment(e);
    status = lrf_step(&group, 1, &options, &report);
    unchanged &= same_environment(e);
    write_environment(clean);
    CHECK(status == LRF_OK);
    CHECK(unchanged || !check);
    memcpy(bytes + ARENA - sizeof report.grad_norm, &report.grad_norm, sizeof report.grad_norm);
}

static void same_bits_in_every_environment(void)
{
    for (size_t i = 0; lrf_rule_at(i); i++)
        for (uint32_t dtype = LRF_FLOAT32; dtype <= LRF_FLOAT64; dtype++) {
            const lrf_rule_info *rule = lrf_rule_at(i);
            train(rule->id, dtype, clean, 0);
            memcpy(expected, bytes, sizeof bytes);
            for (size_t k = 0; k < sizeof hostile / sizeof hostile[0]; k++) {
                describe("%s, dtype %u, environment %zu", rule->name, dtype, k);
                train(rule->id, dtype, hostile[k], 1);
                CHECK(memcmp(bytes, expected, sizeof bytes) == 0);
            }
        }
}

/* Comparing raises flags, which are traps to those who asked for them. */
static void difficult_numbers_leave_no_flag(void)
{
    static const struct {
        double lr, weight_decay, clip_norm;
        lrf_status status;
    } cases[] = {
        {NAN, 0, 0, LRF_BAD_NUMBER},
        {1, 0, NAN, LRF_BAD_NUMBER},
        {1, 1e-310, 0, LRF_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float p = 1, g = 1;
        lrf_tensor tensor = {.param = &p, .grad = &g, .count = 1};
        lrf_group group;
        lrf_options options;
        lrf_status status;

        lrf_group_init(&group, sizeof group, LRF_SGD);
        lrf_options_init(&options, sizeof options);
        group.tensors = &tensor;
        group.count = 1;
        group.lr = cases[i].lr;
        group.weight_decay = cases[i].weight_decay;
        options.clip_norm = cases[i].clip_norm;
        write_environment(clean);
        status = lrf_step(&group, 1, &options, NULL);
        describe("difficult numbers %zu", i);
        CHECK(same_environment(clean));
        CHECK(status == cases[i].status);
    }
}

/* Otherwise the rest proves nothing. */
static void these_environments_do_change_arithmetic(void)
{
    volatile float one = 1, tiny = 1e-40f, sum, product;
    describe("the environments take effect");
    write_environment(hostile[0]);
    product = tiny * one;
    write_environment(hostile[1]);
    sum = one + tiny;
    write_environment(clean);
    CHECK(product == 0);
    CHECK(sum > 1);
}

int main(void)
{
    these_environments_do_change_arithmetic();
    same_bits_in_every_environment();
    difficult_numbers_leave_no_flag();
    return result();
}
