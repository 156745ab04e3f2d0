/* lrf_check_overlap: across all tensors of all groups a parameter or state shares memory with nothing, a gradient
 * with other gradients. */
#include "harness.h"

enum { TENSORS = 4, WORDS = 48, ROUNDS = 20000 };

static float memory[WORDS];
static lrf_tensor tensors[TENSORS];
static lrf_group groups[2];
static uint64_t scratch[9 * TENSORS * 8];

static void set_groups(lrf_rule first, lrf_rule second)
{
    memset(tensors, 0, sizeof tensors);
    lrf_group_init(&groups[0], sizeof groups[0], first);
    lrf_group_init(&groups[1], sizeof groups[1], second);
    groups[0].tensors = tensors;
    groups[1].tensors = tensors + TENSORS / 2;
    groups[0].count = groups[1].count = TENSORS / 2;
}

static lrf_status check_overlap(lrf_report *report)
{
    return lrf_check_overlap(groups, 2, NULL, scratch, sizeof scratch, report);
}

static void named_cases(void)
{
    lrf_report report = {.struct_size = sizeof report};

    set_groups(LRF_SGD, LRF_SGD);
    for (size_t i = 0; i < TENSORS; i++)
        tensors[i] = (lrf_tensor){.param = memory + 4 * i, .grad = memory + 20, .count = 4};
    describe("a gradient shared by all, in part by one");
    tensors[3].grad = memory + 22;
    CHECK(check_overlap(&report) == LRF_OK && !report.what && report.group == 0 && report.tensor == 0);
    CHECK(check_overlap(NULL) == LRF_OK);

    describe("a parameter on another one of another group");
    tensors[3].param = memory + 3;
    CHECK(check_overlap(&report) == LRF_OVERLAP && strcmp(report.what, "param") == 0);
    CHECK((report.group == 1 && report.tensor == 1) || (report.group == 0 && report.tensor == 0));
    CHECK(lrf_step(groups, 2, NULL, NULL) == LRF_OK); /* a step looks within each tensor only */

    describe("an empty tensor lies anywhere");
    tensors[3].count = 0;
    CHECK(check_overlap(&report) == LRF_OK);

    describe("a skipped tensor still owns its parameter");
    tensors[3] = (lrf_tensor){.param = memory + 11, .count = 4};
    CHECK(check_overlap(&report) == LRF_OVERLAP);

    describe("a parameter inside a long gradient, behind a short one");
    tensors[0] = (lrf_tensor){.param = memory, .grad = memory + 8, .count = 8};
    tensors[1] = (lrf_tensor){.param = memory + 20, .grad = memory + 9, .count = 2};
    tensors[2] = (lrf_tensor){.param = memory + 13, .grad = memory + 30, .count = 2};
    tensors[3] = (lrf_tensor){.count = 0};
    CHECK(check_overlap(&report) == LRF_OVERLAP);
    tensors[2].param = memory + 16;
    CHECK(check_overlap(&report) == LRF_OK);
}

static void refusals(void)
{
    lrf_report report = {.struct_size = sizeof report};
    const size_t needed = lrf_overlap_scratch_size(groups, 2);

    describe("scratch");
    CHECK(needed > 0 && needed <= sizeof scratch);
    CHECK(lrf_overlap_scratch_size(NULL, 0) == 0);
    CHECK(lrf_check_overlap(groups, 2, NULL, scratch, needed, &report) == LRF_OK);
    CHECK(lrf_check_overlap(groups, 2, NULL, scratch, needed - 1, &report) == LRF_BAD_WORK);
    CHECK(strcmp(report.what, "scratch") == 0);
    CHECK(lrf_check_overlap(groups, 2, NULL, (char *)scratch + 4, needed, &report) == LRF_BAD_WORK);
    CHECK(lrf_check_overlap(groups, 2, NULL, NULL, needed, &report) == LRF_BAD_WORK);
    CHECK(lrf_check_overlap(NULL, 0, NULL, NULL, 0, NULL) == LRF_OK);

    describe("groups");
    CHECK(lrf_check_overlap(NULL, 1, NULL, scratch, sizeof scratch, &report) == LRF_NULL_POINTER);
    groups[1].tensors = NULL;
    CHECK(check_overlap(&report) == LRF_NULL_POINTER && report.group == 1);
    groups[1].rule = 0;
    CHECK(check_overlap(&report) == LRF_BAD_RULE && report.group == 1);
}

/* Who uses which word: 1 reads, 2 writes; returns whether that is allowed. */
static int claim(unsigned char *users, const void *start, uint64_t count, int writes)
{
    int allowed = 1;
    for (size_t k = 0; start && k < count; k++) {
        unsigned char *const user = &users[(const float *)start - memory + (ptrdiff_t)k];
        allowed = allowed && (writes ? *user == 0 : *user != 2);
        *user = writes ? 2 : 1;
    }
    return allowed;
}

static void like_painting_every_word(void)
{
    size_t overlapping = 0;

    for (uint64_t round = 0; round < ROUNDS; round++) {
        unsigned char users[2 * WORDS] = {0};
        int allowed = 1;
        uint64_t next = 0;

        set_groups(LRF_MOMENTUM, LRF_SGD);
        for (size_t i = 0; i < TENSORS; i++) {
            void *places[3];
            tensors[i].count = bits_at(round, next++) % 6;
            for (size_t k = 0; k < 3; k++)
                places[k] = memory + bits_at(round, next++) % (WORDS - 6);
            tensors[i].param = places[0];
            tensors[i].grad = bits_at(round, next++) % 8 ? places[1] : NULL;
            tensors[i].state[0] = i < TENSORS / 2 ? places[2] : NULL;
        }
        for (size_t i = 0; i < TENSORS; i++)
            allowed &= claim(users, tensors[i].grad, tensors[i].count, 0);
        for (size_t i = 0; i < TENSORS; i++) {
            allowed &= claim(users, tensors[i].param, tensors[i].count, 1);
            allowed &= claim(users, tensors[i].state[0], tensors[i].count, 1);
        }
        describe("round %llu", (unsigned long long)round);
        CHECK(check_overlap(NULL) == (allowed ? LRF_OK : LRF_OVERLAP));
        overlapping += !allowed;
    }
    describe("both outcomes occur");
    CHECK(overlapping > ROUNDS / 20 && overlapping < ROUNDS - ROUNDS / 20);
}

int main(void)
{
    named_cases();
    refusals();
    like_painting_every_word();
    return result();
}
