/* Which kernels run: the processor probe, LRFAST_ISA, lrf_set_isa. */
#define _POSIX_C_SOURCE 200809L /* setenv */
#include "harness.h"
#include "internal.h"

static const uint32_t AVX2_LEAF7 = 1u << 5;
static const uint32_t AVX512_LEAF7[] = {1u << 16, 1u << 17, 1u << 30, 1u << 31}; /* f, dq, bw, vl */
static const uint32_t OSXSAVE = 1u << 27, AVX = 1u << 28;
static const uint64_t XMM = 1u << 1, YMM = 1u << 2;
static const uint64_t ZMM[] = {1u << 5, 1u << 6, 1u << 7}; /* masks, upper halves, upper registers */

/* A machine has what processor and operating system both have, and AVX-512 includes AVX2. */
static void probe(void)
{
    const uint32_t leaf1 = OSXSAVE | AVX;
    const uint32_t leaf7 = AVX2_LEAF7 | AVX512_LEAF7[0] | AVX512_LEAF7[1] | AVX512_LEAF7[2] | AVX512_LEAF7[3];
    const uint64_t avx_state = XMM | YMM, state = avx_state | ZMM[0] | ZMM[1] | ZMM[2];

    describe("complete machines");
    CHECK(lrf_x86_features(leaf1, leaf7, state) == (LRF_HAS_AVX2 | LRF_HAS_AVX512));
    CHECK(lrf_x86_features(UINT32_MAX, UINT32_MAX, UINT64_MAX) == (LRF_HAS_AVX2 | LRF_HAS_AVX512));
    CHECK(lrf_x86_features(leaf1, AVX2_LEAF7, state) == LRF_HAS_AVX2);
    CHECK(lrf_x86_features(0, 0, 0) == 0);

    describe("no AVX2");
    CHECK(lrf_x86_features(AVX, leaf7, state) == 0);
    CHECK(lrf_x86_features(OSXSAVE, leaf7, state) == 0);
    CHECK(lrf_x86_features(leaf1, leaf7 & ~AVX2_LEAF7, state) == 0);
    CHECK(lrf_x86_features(leaf1, leaf7, 0) == 0);
    CHECK(lrf_x86_features(leaf1, leaf7, state & ~XMM) == 0);
    CHECK(lrf_x86_features(leaf1, leaf7, state & ~YMM) == 0);
    CHECK(lrf_x86_features(leaf1, leaf7, 1 | XMM) == 0);

    describe("AVX2, but not AVX-512");
    CHECK(lrf_x86_features(leaf1, leaf7, avx_state) == LRF_HAS_AVX2);
    CHECK(lrf_x86_features(leaf1, leaf7, 1 | avx_state) == LRF_HAS_AVX2);
    for (size_t i = 0; i < 3; i++)
        CHECK(lrf_x86_features(leaf1, leaf7, state & ~ZMM[i]) == LRF_HAS_AVX2);
    for (size_t i = 0; i < 4; i++)
        CHECK(lrf_x86_features(leaf1, leaf7 & ~AVX512_LEAF7[i], state) == LRF_HAS_AVX2);
}

static lrf_status begin(lrf_report *report)
{
    lrf_job job;
    return lrf_begin(&job, NULL, 0, NULL, report);
}

/* Has to come before anything else asks for kernels: they are chosen once. */
static void the_environment_chooses(void)
{
    static const char *const wrong[] = {"nonsense", "numpy", "AVX2", "avx", "avx512 "};
    size_t available = 0;
    const char *last;
    lrf_report report = {.struct_size = sizeof report};

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        describe("LRFAST_ISA=%s", wrong[i]);
        setenv("LRFAST_ISA", wrong[i], 1);
        CHECK(begin(&report) == LRF_BAD_ISA);
        CHECK(strcmp(report.what, "LRFAST_ISA") == 0);
        CHECK(!lrf_isa());
    }
    while (lrf_isa_name(available))
        available++;
    describe("the last of %zu", available);
    CHECK(available > 0);
    last = lrf_isa_name(available - 1);
    setenv("LRFAST_ISA", last, 1);
    CHECK(begin(&report) == LRF_OK);
    CHECK(strcmp(lrf_isa(), last) == 0);

    describe("it is read once");
    setenv("LRFAST_ISA", "nonsense", 1);
    CHECK(begin(&report) == LRF_OK);
    CHECK(strcmp(lrf_isa(), last) == 0);
}

static void the_program_chooses(void)
{
    for (size_t i = 0; lrf_isa_name(i); i++) {
        const char *name = lrf_isa_name(i);
        describe("lrf_set_isa %s", name);
        CHECK(lrf_set_isa(name) == LRF_OK && strcmp(lrf_isa(), name) == 0);
        CHECK(lrf_set_isa("nonsense") == LRF_BAD_ISA && lrf_set_isa("") == LRF_BAD_ISA);
        CHECK(lrf_set_isa("numpy") == LRF_BAD_ISA);
        CHECK(strcmp(lrf_isa(), name) == 0);
        for (size_t j = 0; j < i; j++)
            CHECK(strcmp(name, lrf_isa_name(j)) != 0);
    }
    describe("back to the best");
    CHECK(lrf_set_isa(NULL) == LRF_OK && strcmp(lrf_isa(), lrf_isa_name(0)) == 0);
}

int main(void)
{
    probe();
    the_environment_chooses();
    the_program_chooses();
    return result();
}

LRF_END_OF_SOURCE
