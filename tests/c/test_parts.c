/* The same bits for any number of parts, in any order of parts, on every instruction set; and what norms are. */
#include "harness.h"

enum { TENSORS = 7, SKIPPED = 5, LARGEST = 6, ARENA = 1 << 23, MAX_GROUPS = 64, MAX_TILES = 1024 };

static const size_t sizes[TENSORS] = {0, 1, 5, 1024, 1025, 700, 3000};
static const size_t part_counts[] = {1, 2, 3, 4, 7, 16};
enum { PART_COUNTS = sizeof part_counts / sizeof part_counts[0] };

static _Alignas(64) unsigned char bytes[ARENA], fresh[ARENA], expected[ARENA];
static lrf_tensor tensors[MAX_GROUPS][TENSORS];
static lrf_group groups[MAX_GROUPS];
static size_t all_groups;
static lrf_outputs outputs[MAX_GROUPS][TENSORS];
static double work[18 * MAX_TILES];

/* One group per rule and dtype; in each, tensors of every size and one without gradient. */
static void make_groups(void)
{
    arena memory = {.bytes = bytes, .size = ARENA};

    for (size_t i = 0; lrf_rule_at(i); i++)
        for (uint32_t dtype = LRF_FLOAT32; dtype <= LRF_FLOAT64; dtype++, all_groups++) {
            lrf_group *group = &groups[all_groups];
            lrf_group_init(group, sizeof *group, (lrf_rule)lrf_rule_at(i)->id);
            group->dtype = dtype;
            group->tensors = tensors[all_groups];
            group->count = TENSORS;
            give_storage(group, take(&memory, TENSORS * sizeof(lrf_storage)));
            group->flags = i % 2 ? LRF_MAXIMIZE : 0;
            for (size_t k = 0; k < TENSORS; k++)
                group->tensors[k] = make_tensor(&memory, lrf_rule_at(i), dtype, sizes[k], 10 * (all_groups + k));
            group->tensors[SKIPPED].grad = NULL;
            for (size_t k = 0; k < TENSORS; k++)
                outputs[all_groups][k] = (lrf_outputs){
                    .struct_size = sizeof outputs[all_groups][k],
                    .ema = take(&memory, sizes[k] * element_size(dtype)),
                    .copy = take(&memory, sizes[k] * sizeof(float)),
                    .last = i % 3 ? take(&memory, sizes[k] * element_size(dtype)) : NULL,
                    .stats = take_stats(&memory),
                    .copy_dtype = i % 3 == 0   ? LRF_FLOAT32
                                  : i % 3 == 1 ? LRF_FLOAT16
                                               : LRF_BFLOAT16,
                };
        }
    memcpy(fresh, bytes, sizeof bytes);
}

static uint64_t first_step(size_t k)
{
    return k % 2 ? 0 : 9;
}

static void start_anew(void)
{
    memcpy(bytes, fresh, sizeof bytes);
    for (size_t i = 0; i < all_groups; i++)
        for (size_t k = 0; k < TENSORS; k++)
            tensors[i][k].step = first_step(k);
}

static lrf_options make_options(uint32_t flags, double clip_norm)
{
    lrf_options options;
    lrf_options_init(&options, sizeof options);
    options.flags = flags;
    options.clip_norm = clip_norm;
    options.grad_scale = -0.7;
    options.work = work;
    options.work_size = sizeof work;
    return options;
}

/* One step in parts, first to last or the other way round. */
static lrf_report step(size_t group_count, const lrf_options *options, size_t parts, int reversed)
{
    lrf_job job;
    lrf_report report = {.struct_size = sizeof report};
    CHECK(lrf_begin(&job, groups, group_count, options, &report) == LRF_OK);
    while (lrf_next(&job))
        for (size_t part = 0; part < parts; part++)
            lrf_run(&job, reversed ? parts - 1 - part : part, parts);
    CHECK(lrf_end(&job, &report) == LRF_OK);
    return report;
}

static void same_bits_for_all_parts_and_isas(const char *name, const lrf_options *options, size_t count)
{
    lrf_report first = {.struct_size = sizeof first};

    for (size_t isa = 0; lrf_isa_name(isa); isa++)
        for (size_t k = 0; k < PART_COUNTS; k++)
            for (int reversed = 0; reversed < 2; reversed++) {
                lrf_report report = {.struct_size = sizeof report};
                describe("%s, %s, %zu parts%s", name, lrf_isa_name(isa), part_counts[k], reversed ? " reversed" : "");
                CHECK(lrf_set_isa(lrf_isa_name(isa)) == LRF_OK);
                start_anew();
                for (int t = 0; t < 3; t++)
                    report = step(count, options, part_counts[k], reversed);
                for (size_t i = 0; i < count; i++)
                    for (size_t j = 0; j < TENSORS; j++)
                        CHECK(tensors[i][j].step == first_step(j) + (j == SKIPPED ? 0 : 3));
                if (isa == 0 && k == 0 && !reversed) {
                    memcpy(expected, bytes, sizeof bytes);
                    first = report;
                }
                CHECK(memcmp(bytes, expected, sizeof bytes) == 0);
                CHECK(report.updated == first.updated && report.updated == count * (TENSORS - 1));
                CHECK(memcmp(&report.grad_norm, &first.grad_norm, sizeof first.grad_norm) == 0);
                CHECK(memcmp(&report.clip_factor, &first.clip_factor, sizeof first.clip_factor) == 0);
            }
    lrf_set_isa(NULL);
}

/* All that options write is in the memory that is compared. */
static void with_everything(void)
{
    const uint32_t everything = LRF_STATS | LRF_ZERO_GRADS | LRF_REQUIRE_FINITE;
    lrf_options options = make_options(everything, 0.5);

    for (size_t i = 0; i < all_groups; i++)
        groups[i].outputs = outputs[i];
    options.clip_value = 0.3;
    options.ema_decay = 0.9;
    same_bits_for_all_parts_and_isas("everything", &options, all_groups);
    options.flags = LRF_NORMS;
    same_bits_for_all_parts_and_isas("norms of everything", &options, all_groups);
    for (size_t i = 0; i < all_groups; i++)
        groups[i].outputs = NULL;
}

/* ---- norms ----------------------------------------------------------------------------------------------- */

static long double exact_norm(size_t group_count, double grad_scale)
{
    long double sum = 0;
    for (size_t i = 0; i < group_count; i++)
        for (size_t j = 0; j < groups[i].count; j++)
            for (size_t k = 0; groups[i].tensors[j].grad && k < groups[i].tensors[j].count; k++) {
                const long double g = get(groups[i].tensors[j].grad, groups[i].dtype, k);
                sum += g * g;
            }
    return fabsl((long double)grad_scale) * sqrtl(sum);
}

static void norms(void)
{
    lrf_options options = make_options(LRF_GRAD_NORM, 0);

    for (size_t count = 0; count <= all_groups; count++) {
        const long double exact = exact_norm(count, options.grad_scale);
        lrf_report report = {.struct_size = sizeof report};
        describe("norm of %zu groups", count);
        report = step(count, &options, 3, 0);
        CHECK(fabsl(report.grad_norm - exact) <= 1e-14L * exact);
        CHECK(report.clip_factor == 1);
    }
    options = make_options(0, 1e6);
    describe("a norm below clip_norm");
    CHECK(step(2, &options, 2, 0).clip_factor == 1);
}

/* Clipping is nothing but another grad_scale. */
static void clipping(void)
{
    lrf_options options = make_options(0, 0.5);
    lrf_report report = {.struct_size = sizeof report};

    describe("clipping");
    start_anew();
    report = step(all_groups, &options, 2, 0);
    CHECK(report.clip_factor == 0.5 / (report.grad_norm + 1e-6) && report.clip_factor < 1);
    memcpy(expected, bytes, sizeof bytes);
    options = make_options(0, 0);
    options.grad_scale *= report.clip_factor;
    start_anew();
    CHECK(isnan(step(all_groups, &options, 1, 0).grad_norm));
    CHECK(memcmp(bytes, expected, sizeof bytes) == 0);
}

/* At every place of a tile, also in the tail. */
static void not_finite(void)
{
    static const size_t places[] = {0, 1, 31, 32, 1023, 1024, 2047, 2048, 2975, 2999};
    const lrf_options options = make_options(0, 0.5);
    lrf_report report = {.struct_size = sizeof report};

    for (size_t isa = 0; lrf_isa_name(isa); isa++)
        for (uint32_t dtype = LRF_FLOAT32; dtype <= LRF_FLOAT64; dtype++)
            for (size_t k = 0; k < sizeof places / sizeof places[0]; k++) {
                void *grad;
                describe("%s, dtype %u, element %zu", lrf_isa_name(isa), dtype, places[k]);
                lrf_set_isa(lrf_isa_name(isa));
                start_anew();
                grad = tensors[dtype - LRF_FLOAT32][LARGEST].grad;
                put(grad, dtype, places[k], (double)INFINITY);
                report = step(2, &options, 2, 0);
                CHECK(report.grad_norm == (double)INFINITY && report.clip_factor == 0);
                put(grad, dtype, places[k], (double)NAN);
                report = step(2, &options, 2, 0);
                CHECK(isnan(report.grad_norm) && isnan(report.clip_factor));
                put(grad, dtype, places[k], 0);
                report = step(2, &options, 2, 0);
                CHECK(isfinite(report.grad_norm) && report.clip_factor > 0 && report.clip_factor <= 1);
            }
    lrf_set_isa(NULL);
}

int main(void)
{
    const lrf_options plain = make_options(0, 0), norm = make_options(LRF_GRAD_NORM, 0), clip = make_options(0, 0.5);

    make_groups();
    same_bits_for_all_parts_and_isas("plain", &plain, all_groups);
    same_bits_for_all_parts_and_isas("norm", &norm, all_groups);
    same_bits_for_all_parts_and_isas("clip", &clip, all_groups);
    same_bits_for_all_parts_and_isas("one group", &clip, 1);
    with_everything();
    norms();
    clipping();
    not_finite();
    return result();
}
