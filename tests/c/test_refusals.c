/* Every refusal: its status, what the report names, and that no byte of any buffer, counter or struct changed. */
#include "harness.h"

#include <float.h>

enum { COUNT = 8, GAP = 3 * COUNT, BUFFERS = 5 };

/* All that a step might write, in one piece. Group 0 is fine, so that group 1 is refused after much was read; in it
 * tensor 1 has all the buffers that there are: param, grad, three states; and one more for other rules. */
static struct scene {
    double memory[4][(BUFFERS + 1) * GAP];
    double work[24];
    lrf_tensor tensors[2][2];
    lrf_group groups[2];
    lrf_options options;
} scene, before;

static lrf_tensor *const tensor = &scene.tensors[1][1];
static lrf_group *const group = &scene.groups[1];

static void **buffer(size_t i)
{
    return i == 0 ? &tensor->param : i == 1 ? &tensor->grad : &tensor->state[i - 2];
}

static const char *const buffer_names[BUFFERS] = {"param", "grad", "momentum_buffer", "square_avg", "grad_avg"};

static void set_scene(uint32_t dtype)
{
    const lrf_rule rules[2] = {LRF_ADAM, LRF_RMSPROP_CENTERED_MOMENTUM};

    memset(&scene, 0, sizeof scene);
    for (size_t i = 0; i < 2; i++) {
        lrf_group_init(&scene.groups[i], sizeof scene.groups[i], rules[i]);
        scene.groups[i].dtype = dtype;
        scene.groups[i].tensors = scene.tensors[i];
        scene.groups[i].count = 2;
        for (size_t j = 0; j < 2; j++) {
            double *const memory = scene.memory[2 * i + j];
            scene.tensors[i][j] = (lrf_tensor){.param = memory + COUNT,
                                               .grad = memory + GAP + COUNT,
                                               .state = {memory + 2 * GAP + COUNT, memory + 3 * GAP + COUNT},
                                               .count = COUNT,
                                               .step = 3};
            for (size_t slot = 2; i == 1 && slot < 4; slot++)
                scene.tensors[i][j].state[slot] = memory + (2 + slot) * GAP + COUNT;
            for (size_t k = 0; k < (BUFFERS + 1) * GAP * sizeof(double) / element_size(dtype); k++)
                put(memory, dtype, k, fabs(number_at(dtype, 2 * i + j, k)));
        }
    }
    lrf_options_init(&scene.options, sizeof scene.options);
    scene.options.clip_norm = 1;
    scene.options.work = scene.work;
    scene.options.work_size = sizeof scene.work;
    memcpy(&before, &scene, sizeof scene);
}

/* Both ways to step refuse the scene and leave it as it is; then a new one is set. */
static void expect_at(lrf_status status, const char *what, size_t group_index, size_t tensor_index)
{
    lrf_job job;
    lrf_report report = {.struct_size = sizeof report};
    const uint32_t dtype = before.groups[0].dtype;

    describe("%s, expecting %s", what, lrf_status_text(status));
    memcpy(&before, &scene, sizeof scene);
    CHECK(lrf_step(scene.groups, 2, &scene.options, NULL) == status);
    CHECK(lrf_step(scene.groups, 2, &scene.options, &report) == status);
    CHECK(report.what && strcmp(report.what, what) == 0);
    CHECK(report.group == group_index && report.tensor == tensor_index);
    CHECK(isnan(report.grad_norm) && report.clip_factor == 1 && report.updated == 0);
    CHECK(lrf_begin(&job, scene.groups, 2, &scene.options, &report) == status);
    CHECK(lrf_next(&job) == 0);
    lrf_run(&job, 0, 1);
    CHECK(lrf_end(&job, &report) == LRF_UNFINISHED);
    CHECK(memcmp(&before, &scene, sizeof scene) == 0);
    set_scene(dtype);
}

static void expect(lrf_status status, const char *what)
{
    expect_at(status, what, 1, 1);
}

static void accept(const char *what)
{
    const uint32_t dtype = before.groups[0].dtype;
    describe("%s, expecting success", what);
    CHECK(lrf_step(scene.groups, 2, &scene.options, NULL) == LRF_OK);
    CHECK(memcmp(&before, &scene, sizeof scene) != 0);
    set_scene(dtype);
}

static void structs(void)
{
    static const uint32_t wrong_groups[] = {0, 120, 129, sizeof(lrf_group) + 8, UINT32_MAX};
    static const uint32_t wrong_options[] = {0, 48, 57, sizeof(lrf_options) + 8, UINT32_MAX};
    lrf_group fresh_group;
    lrf_options fresh_options;

    for (size_t i = 0; i < sizeof wrong_groups / sizeof wrong_groups[0]; i++) {
        group->struct_size = wrong_groups[i];
        expect_at(LRF_BAD_STRUCT, "struct_size", 1, 0);
        scene.groups[0].struct_size = wrong_groups[i];
        expect_at(LRF_BAD_STRUCT, "struct_size", 0, 0);
        scene.options.struct_size = wrong_options[i];
        expect_at(LRF_BAD_STRUCT, "options.struct_size", 0, 0);
        describe("init with sizes %u, %u", wrong_groups[i], wrong_options[i]);
        memset(&fresh_group, 0x55, sizeof fresh_group);
        memset(&fresh_options, 0x55, sizeof fresh_options);
        CHECK(lrf_group_init(&fresh_group, wrong_groups[i], LRF_ADAM) == LRF_BAD_STRUCT);
        CHECK(lrf_options_init(&fresh_options, wrong_options[i]) == LRF_BAD_STRUCT);
        CHECK(fresh_group.struct_size == 0x55555555 && fresh_options.struct_size == 0x55555555);
    }
    describe("init");
    CHECK(lrf_group_init(&fresh_group, sizeof fresh_group, LRF_NO_RULE) == LRF_BAD_RULE);
    CHECK(lrf_group_init(&fresh_group, sizeof fresh_group, (lrf_rule)1000) == LRF_BAD_RULE);
    CHECK(fresh_group.struct_size == 0x55555555);
    CHECK(lrf_group_init(NULL, sizeof fresh_group, LRF_ADAM) == LRF_NULL_POINTER);
    CHECK(lrf_options_init(NULL, sizeof fresh_options) == LRF_NULL_POINTER);
}

static void rules_and_dtypes(void)
{
    static const uint32_t wrong[] = {0, 1000, UINT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        group->rule = wrong[i];
        expect_at(LRF_BAD_RULE, "rule", 1, 0);
        group->dtype = wrong[i];
        expect_at(LRF_BAD_DTYPE, "dtype", 1, 0);
    }
    group->dtype = 3;
    expect_at(LRF_BAD_DTYPE, "dtype", 1, 0);
}

static void set_number(const char *name, double x)
{
    memcpy((char *)group + lrf_number_offset(name), &x, sizeof x);
}

static void numbers(void)
{
    static const struct {
        double least, largest;
    } ranges[] = {
#define LRF_RANGE(NAME, words, least, largest) {least, largest},
#include "optimizers.def"
#undef LRF_RANGE
    };
    enum {
#define LRF_RANGE(NAME, words, least, largest) NAME,
#include "optimizers.def"
#undef LRF_RANGE
        RANGES
    };
    static const struct {
        const char *name;
        int range;
    } numbers_of_table[] = {
#define LRF_NUMBER(name, RANGE, schedule, setting) {#name, RANGE},
#include "optimizers.def"
#undef LRF_NUMBER
    };
    static const double never[] = {NAN, INFINITY, -INFINITY};
    const double most = group->dtype == LRF_FLOAT32 ? 0x1.fffffefffffffp+127 : DBL_MAX; /* that the type holds */

    for (size_t k = 0; k < sizeof never / sizeof never[0]; k++) {
        scene.options.grad_scale = never[k];
        expect_at(LRF_BAD_NUMBER, "options.grad_scale", 0, 0);
        scene.options.clip_norm = never[k];
        expect_at(LRF_BAD_NUMBER, "options.clip_norm", 0, 0);
        scene.options.clip_value = never[k];
        expect_at(LRF_BAD_NUMBER, "options.clip_value", 0, 0);
        scene.options.ema_decay = never[k];
        expect_at(LRF_BAD_NUMBER, "options.ema_decay", 0, 0);
    }
    for (size_t i = 0; i < sizeof numbers_of_table / sizeof numbers_of_table[0]; i++) {
        const char *const name = numbers_of_table[i].name;
        const double least = ranges[numbers_of_table[i].range].least;
        const double largest = ranges[numbers_of_table[i].range].largest;
        const double wrong[] = {NAN, INFINITY, -INFINITY, nextafter(least, -INFINITY), nextafter(largest, INFINITY)};
        for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; k++)
            if (wrong[k] != 0) { /* which is the default of numbers that the rule does not read */
                set_number(name, wrong[k]);
                expect_at(LRF_BAD_NUMBER, name, 1, 0);
            }
        set_number(name, fmax(least, -most));
        accept(name);
        set_number(name, fmin(largest, most));
        accept(name);
        if (most < largest) {
            set_number(name, nextafter(most, INFINITY));
            expect_at(LRF_BAD_NUMBER, name, 1, 0);
        }
    }
    scene.options.clip_norm = -1;
    expect_at(LRF_BAD_NUMBER, "options.clip_norm", 0, 0);
    scene.options.clip_value = -1;
    expect_at(LRF_BAD_NUMBER, "options.clip_value", 0, 0);
    scene.options.ema_decay = 1;
    expect_at(LRF_BAD_NUMBER, "options.ema_decay", 0, 0);
    scene.options.grad_scale = -3;
    accept("options.grad_scale");
}

/* What the element type does not hold. */
static void numbers_that_do_not_fit(void)
{
    const int single = group->dtype == LRF_FLOAT32;
    const double most = single ? 0x1.fffffefffffffp+127 : DBL_MAX, least_eps = single ? 1e-16 : 1e-150;
    const double lost[] = {0x1p-150, 0x1.fffffffffffffp+127 * (1 + 0x1p-52)};
    static const char *const options[] = {"options.grad_scale", "options.clip_value", "options.clip_norm"};

    group->eps = nextafter(least_eps, 0);
    expect_at(LRF_BAD_NUMBER, "eps", 1, 0);
    group->eps = least_eps;
    accept("the least eps");
    group->eps = 0;
    accept("no eps");
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < sizeof lost / sizeof lost[0]; k++) {
            double *const numbers_of_options[] = {&scene.options.grad_scale, &scene.options.clip_value,
                                                  &scene.options.clip_norm};
            *numbers_of_options[i] = lost[k];
            if (single)
                expect_at(LRF_BAD_NUMBER, options[i], 0, 0);
            else
                accept(options[i]);
        }

    /* What is made of several: lr / (1 - beta1^t), which depends on the step, and lr * decoupled_weight_decay. */
    scene.groups[0].lr = most / 2;
    expect_at(LRF_BAD_NUMBER, "lr", 0, 0);
    scene.groups[0].lr = most / 2;
    scene.tensors[0][0].step = scene.tensors[0][1].step = 1000;
    accept("lr without its bias correction");
    scene.groups[0].lr = most / 2;
    scene.tensors[0][0].step = 1000;
    expect_at(LRF_BAD_NUMBER, "lr", 0, 1);
    scene.groups[0].lr = most / 2;
    scene.tensors[0][0].grad = scene.tensors[0][1].grad = NULL;
    accept("lr of no update");
    scene.groups[0].lr = 1e2;
    scene.groups[0].decoupled_weight_decay = most / 10;
    expect_at(LRF_BAD_NUMBER, "lr", 0, 0);
}

static lrf_storage storage[2];

/* Every rule that carries numbers from step to step needs a place for them, and numbers in it. */
static void carried(void)
{
    const double wrong[] = {NAN, INFINITY, -INFINITY, -1};

    for (size_t i = 0; lrf_rule_at(i); i++) {
        const lrf_rule_info *row = lrf_rule_at(i);
        for (size_t slot = 0; slot < 4; slot++)
            for (size_t k = 0; row->scalar[slot] && k < sizeof wrong / sizeof wrong[0]; k++) {
                char what[64];
                group->rule = row->id;
                give_storage(group, storage);
                storage[1].scalar[slot] = wrong[k];
                snprintf(what, sizeof what, "storage.scalar: %s", row->scalar[slot]);
                expect(LRF_BAD_NUMBER, what);
                group->rule = row->id;
                give_storage(group, storage);
                accept(what);
                group->rule = row->id;
                expect_at(LRF_NULL_POINTER, "storage", 1, 0);
                group->rule = row->id;
                scene.tensors[1][0].grad = scene.tensors[1][1].grad = NULL;
                expect_at(LRF_NULL_POINTER, "storage", 1, 0);
            }
    }
    if (group->dtype == LRF_FLOAT32) { /* what is carried is a float64 */
        group->rule = LRF_ASGD;
        give_storage(group, storage);
        storage[1].scalar[0] = 0x1p+128;
        expect(LRF_BAD_NUMBER, "lr");
    }
}

/* Every rule with every single flag, and the pairs that contradict each other. */
static void flags(void)
{
    for (size_t i = 0; lrf_rule_at(i); i++) {
        const lrf_rule_info *row = lrf_rule_at(i);
        const uint32_t rule = row->id;
        const struct {
            uint32_t flags;
            int allowed;
            const char *what;
        } cases[] = {
            {LRF_MAXIMIZE, 1, "flags"},
            {LRF_NESTEROV, rule == LRF_MOMENTUM, "flags: LRF_NESTEROV"},
            {LRF_NESTEROV | LRF_MAXIMIZE, rule == LRF_MOMENTUM, "flags: LRF_NESTEROV"},
            {LRF_FIRST_GRADIENT, rule == LRF_RMSPROP || rule == LRF_RMSPROP_MOMENTUM, "flags: LRF_FIRST_GRADIENT"},
            {LRF_MEAN, rule == LRF_RMSPROP, "flags: LRF_MEAN"},
            {LRF_MEAN | LRF_FIRST_GRADIENT, 0, "flags: LRF_FIRST_GRADIENT"},
            {16, 0, "flags"},
            {1u << 31, 0, "flags"},
        };
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            lrf_group_init(group, sizeof *group, (lrf_rule)rule);
            group->dtype = before.groups[1].dtype;
            group->tensors = scene.tensors[1];
            group->count = 2;
            group->momentum = 0.9;
            group->flags = cases[k].flags;
            give_storage(group, storage);
            if (cases[k].allowed)
                accept(cases[k].what);
            else
                expect_at(LRF_BAD_FLAGS, cases[k].what, 1, 0);
        }
    }
    group->rule = LRF_MOMENTUM;
    group->flags = LRF_NESTEROV;
    group->momentum = 0;
    expect_at(LRF_BAD_FLAGS, "flags: LRF_NESTEROV", 1, 0);
    group->rule = LRF_MOMENTUM;
    group->flags = LRF_NESTEROV;
    group->dampening = 0.1;
    expect_at(LRF_BAD_FLAGS, "flags: LRF_NESTEROV", 1, 0);
    scene.options.flags = 64;
    expect_at(LRF_BAD_FLAGS, "options.flags", 0, 0);
    scene.options.flags = LRF_KEEP_LAST;
    expect_at(LRF_BAD_FLAGS, "options.flags", 0, 0);
    scene.options.flags = LRF_KEEP_LAST | LRF_NORMS;
    expect_at(LRF_BAD_FLAGS, "options.flags", 0, 0);
}

static void pointers(void)
{
    lrf_report report = {.struct_size = sizeof report};

    group->tensors = NULL;
    expect_at(LRF_NULL_POINTER, "tensors", 1, 0);
    for (size_t i = 0; i < BUFFERS; i++) {
        for (size_t shift = 1; shift < element_size(group->dtype); shift++) {
            *buffer(i) = (char *)*buffer(i) + shift;
            expect(LRF_MISALIGNED, buffer_names[i]);
        }
        if (i != 1) {
            *buffer(i) = NULL;
            expect(LRF_NULL_POINTER, buffer_names[i]);
        }
    }
    tensor->grad = NULL;
    accept("a skipped tensor");
    tensor->grad = tensor->param = NULL;
    accept("a skipped tensor without parameter");
    group->tensors = NULL;
    group->count = 0;
    accept("an empty group");

    describe("no groups, no job");
    CHECK(lrf_step(NULL, 1, &scene.options, &report) == LRF_NULL_POINTER && strcmp(report.what, "groups") == 0);
    CHECK(lrf_begin(NULL, scene.groups, 2, &scene.options, &report) == LRF_NULL_POINTER);
    CHECK(strcmp(report.what, "job") == 0);
}

static void counts(void)
{
    const size_t size = element_size(group->dtype);
    const uint64_t wrong[] = {UINT64_MAX, UINT64_MAX / size + 1, (uint64_t)PTRDIFF_MAX / size + 1};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        tensor->count = wrong[i];
        expect(LRF_BAD_COUNT, "count");
    }
    /* It would fit anywhere but here: buffers end beyond the last address. */
    for (size_t i = 0; i < BUFFERS; i++)
        *buffer(i) = (void *)(UINTPTR_MAX - (uintptr_t)(8 * COUNT) * (i + 1) + 1);
    tensor->count = 8 * (BUFFERS + 1) * COUNT / size;
    expect(LRF_BAD_COUNT, "count");
}

static void overlap_within_a_tensor(void)
{
    const int n = COUNT;
    const int shifts[] = {0, 1, -1, n / 2, n - 1, 1 - n};

    for (size_t i = 0; i < BUFFERS; i++)
        for (size_t j = 0; j < BUFFERS; j++) {
            const char *later = buffer_names[i > j ? i : j];
            const ptrdiff_t size = (ptrdiff_t)element_size(group->dtype);
            if (i == j)
                continue;
            for (size_t k = 0; k < sizeof shifts / sizeof shifts[0]; k++) {
                *buffer(j) = (char *)*buffer(i) + shifts[k] * size;
                expect(LRF_OVERLAP, later);
            }
            *buffer(j) = (char *)*buffer(i) + n * size;
            accept("neighbours behind each other");
            *buffer(j) = (char *)*buffer(i) - n * size;
            accept("neighbours before each other");
        }
}

static void work_memory(void)
{
    const size_t needed = lrf_work_size(scene.groups, 2, &scene.options);

    describe("lrf_work_size");
    CHECK(needed == 4 * 4 * sizeof(double)); /* one tile per tensor */
    scene.options.work = NULL;
    expect_at(LRF_BAD_WORK, "options.work", 0, 0);
    scene.options.work = (char *)scene.work + 4;
    expect_at(LRF_BAD_WORK, "options.work", 0, 0);
    scene.options.work_size = needed - 1;
    expect_at(LRF_BAD_WORK, "options.work", 0, 0);
    scene.options.work_size = 0;
    expect_at(LRF_BAD_WORK, "options.work", 0, 0);
    scene.options.work_size = needed;
    accept("just enough work memory");
    scene.options.clip_norm = 0;
    scene.options.work = NULL;
    accept("no work memory where none is needed");
    scene.options.clip_norm = 0;
    scene.options.flags = LRF_GRAD_NORM;
    scene.options.work_size = needed - 1;
    expect_at(LRF_BAD_WORK, "options.work", 0, 0);
}

/* Nothing is written before the last phase, and counters move once. */
static void unfinished(void)
{
    lrf_job job;
    lrf_report report = {.struct_size = sizeof report, .updated = 77};

    describe("lrf_end too early");
    CHECK(lrf_begin(&job, scene.groups, 2, &scene.options, NULL) == LRF_OK);
    CHECK(lrf_end(&job, &report) == LRF_UNFINISHED);
    CHECK(lrf_next(&job) == 1);
    CHECK(lrf_end(&job, &report) == LRF_UNFINISHED);
    lrf_run(&job, 0, 1);
    CHECK(lrf_end(&job, &report) == LRF_UNFINISHED && report.updated == 77);
    memcpy(before.work, scene.work, sizeof scene.work);
    CHECK(memcmp(&before, &scene, sizeof scene) == 0);
    CHECK(lrf_next(&job) == 1);
    CHECK(lrf_end(&job, &report) == LRF_UNFINISHED);
    CHECK(memcmp(&before, &scene, sizeof scene) == 0);
    lrf_run(&job, 0, 1);
    CHECK(lrf_end(&job, &report) == LRF_UNFINISHED);
    CHECK(memcmp(before.tensors, scene.tensors, sizeof scene.tensors) == 0);
    CHECK(memcmp(before.memory, scene.memory, sizeof scene.memory) != 0);
    CHECK(lrf_next(&job) == 0);
    CHECK(lrf_next(&job) == 0);

    describe("lrf_end, and again");
    memcpy(&before, &scene, sizeof scene);
    lrf_run(&job, 0, 1);
    CHECK(memcmp(&before, &scene, sizeof scene) == 0);
    CHECK(lrf_end(&job, &report) == LRF_OK && report.updated == 4);
    CHECK(tensor->step == 4);
    CHECK(lrf_end(&job, &report) == LRF_UNFINISHED);
    CHECK(tensor->step == 4);
    set_scene(before.groups[0].dtype);
}

int main(void)
{
    static const uint32_t dtypes[] = {LRF_FLOAT32, LRF_FLOAT64};
    for (size_t i = 0; i < 2; i++) {
        set_scene(dtypes[i]);
        accept("the scene as it is");
        structs();
        rules_and_dtypes();
        numbers();
        numbers_that_do_not_fit();
        flags();
        carried();
        pointers();
        counts();
        overlap_within_a_tensor();
        work_memory();
        unfinished();
    }
    return result();
}
