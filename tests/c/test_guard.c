/* No byte outside the buffers is touched: each buffer ends at a page that cannot be accessed, or begins behind one,
 * and what lies on its other side stays as it is. The gradient may only be read. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "harness.h"

#include <sys/mman.h>
#include <unistd.h>

enum { PARAM, GRAD, STATES, BUFFERS = STATES + 4, SMALL = 258, CAPACITY = 2049 };

static const size_t longer[] = {1023, 1024, 1025, 2047, 2048, 2049};

/* Accessible bytes between two guard pages, and what they should hold. */
typedef struct region {
    unsigned char *bytes, *expected;
    size_t size;
} region;

static region buffers[BUFFERS], work;

static region make_region(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    region made = {.size = (bytes + page - 1) / page * page};
    unsigned char *memory = mmap(NULL, made.size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED || mprotect(memory + page, made.size, PROT_READ | PROT_WRITE) != 0) {
        perror("mmap");
        exit(2);
    }
    made.bytes = memory + page;
    made.expected = malloc(made.size);
    return made;
}

/* Numbers everywhere, so that whatever is read or written wrongly makes a difference; not negative in states. */
static void fill(const region *place, uint32_t dtype, uint64_t stream)
{
    for (size_t i = 0; i < place->size / element_size(dtype); i++)
        put(place->bytes, dtype, i, stream < STATES ? number_at(dtype, stream, i) : fabs(number_at(dtype, stream, i)));
    memcpy(place->expected, place->bytes, place->size);
}

/* Whether all is as it was but `bytes` from `start` on, which are then taken as the new truth. */
static int unchanged_outside(const region *place, const void *start, size_t bytes)
{
    const size_t before = (size_t)((const unsigned char *)start - place->bytes), after = before + bytes;
    const int unchanged = memcmp(place->bytes, place->expected, before) == 0 &&
                          memcmp(place->bytes + after, place->expected + after, place->size - after) == 0;
    memcpy(place->expected + before, start, bytes);
    return unchanged;
}

static void step(const lrf_rule_info *rule, uint32_t dtype, size_t n, int at_end)
{
    const size_t size = n * element_size(dtype);
    lrf_tensor tensor = {.count = n};
    lrf_storage storage;
    lrf_group group;
    lrf_options options;
    void *start[BUFFERS];

    for (size_t i = 0; i < BUFFERS; i++)
        start[i] = buffers[i].bytes + (at_end ? buffers[i].size - size : 0);
    tensor.param = start[PARAM];
    tensor.grad = start[GRAD];
    for (size_t slot = 0; slot < 4; slot++)
        tensor.state[slot] = rule->state[slot] ? start[STATES + slot] : NULL;
    lrf_group_init(&group, sizeof group, (lrf_rule)rule->id);
    group.dtype = dtype;
    group.tensors = &tensor;
    group.count = 1;
    give_storage(&group, &storage);
    lrf_options_init(&options, sizeof options);
    options.clip_norm = 0.1;
    options.work_size = lrf_work_size(&group, 1, &options);
    options.work = work.bytes + (at_end ? work.size - options.work_size : 0);

    CHECK(lrf_step(&group, 1, &options, NULL) == LRF_OK);
    for (size_t i = 0; i < BUFFERS; i++)
        CHECK(unchanged_outside(&buffers[i], start[i], i == GRAD ? 0 : size));
    CHECK(unchanged_outside(&work, options.work, options.work_size));
}

static void every_length(const char *isa, const lrf_rule_info *rule, uint32_t dtype)
{
    for (int at_end = 0; at_end < 2; at_end++) {
        for (size_t i = 0; i < BUFFERS; i++)
            fill(&buffers[i], dtype, i);
        fill(&work, LRF_FLOAT64, BUFFERS);
        mprotect(buffers[GRAD].bytes, buffers[GRAD].size, PROT_READ);
        for (size_t i = 0; i < SMALL + sizeof longer / sizeof longer[0]; i++) {
            const size_t n = i < SMALL ? i : longer[i - SMALL];
            describe("%s, %s, dtype %u, %zu elements %s", isa, rule->name, dtype, n,
                     at_end ? "before the guard page" : "behind the guard page");
            step(rule, dtype, n, at_end);
        }
        mprotect(buffers[GRAD].bytes, buffers[GRAD].size, PROT_READ | PROT_WRITE);
    }
}

int main(void)
{
    for (size_t i = 0; i < BUFFERS; i++)
        buffers[i] = make_region(CAPACITY * sizeof(double));
    work = make_region(1);
    for (size_t isa = 0; lrf_isa_name(isa); isa++) {
        CHECK(lrf_set_isa(lrf_isa_name(isa)) == LRF_OK);
        for (size_t i = 0; lrf_rule_at(i); i++) {
            every_length(lrf_isa_name(isa), lrf_rule_at(i), LRF_FLOAT32);
            every_length(lrf_isa_name(isa), lrf_rule_at(i), LRF_FLOAT64);
        }
    }
    return result();
}
