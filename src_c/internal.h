/* What the files of the core call of each other. */
#ifndef LRF_INTERNAL_H
#define LRF_INTERNAL_H

#include "compiler.h"

#include <math.h>
#include <string.h>

#include "kernels/types.h"
#include "lrfast.h"

/* ---- check.c: validation, before anything is written --------------------------------------------------------- */

/* Checks options and every group and tensor; on refusal says in *report what and where. */
LRF_HIDDEN lrf_status lrf_check(const lrf_group *groups, size_t group_count, const lrf_options *options,
                                lrf_report *report);

/* Checks what has to be known of groups before their tensors are looked at: sizes, rule, dtype, pointers. */
LRF_HIDDEN lrf_status lrf_check_group_head(const lrf_group *group, size_t struct_size, lrf_report *report);

/* Says what is refused, and returns the status. */
static inline lrf_status lrf_refuse(lrf_report *report, const char *what, lrf_status status)
{
    report->what = what;
    return status;
}

/* ---- buffers.c ----------------------------------------------------------------------------------------------- */

/* A buffer of a tensor. */
typedef struct lrf_buffer {
    const void *address;
    size_t element_size;
    const char *name;
    int written;
} lrf_buffer;

/* The buffers that a step of a tensor needs, in the order param, master, grad, states, outputs; returns how many. */
enum { LRF_STATE_SLOTS = 4, LRF_MOST_BUFFERS = 3 + LRF_STATE_SLOTS + 3 };
LRF_HIDDEN size_t lrf_list_buffers(const lrf_group *group, size_t index, int grad_is_written,
                                   lrf_buffer buffers[LRF_MOST_BUFFERS]);

/* Of these the first, and the second if there is a master. */
LRF_HIDDEN size_t lrf_list_param_and_master(const lrf_group *group, size_t index, lrf_buffer buffers[LRF_MOST_BUFFERS]);

/* Checks one lrf_storage. */
LRF_HIDDEN lrf_status lrf_check_storage(const lrf_group *group, const lrf_storage *storage, size_t struct_size,
                                        lrf_report *report);

/* Checks that buffers of a tensor of `count` elements are there, aligned, and each for itself. */
LRF_HIDDEN lrf_status lrf_check_memory(const lrf_buffer *buffers, size_t n, size_t count, lrf_report *report);

/* Elements of a tensor, whatever their type: no division per tensor. */
static const uint64_t LRF_MOST_ELEMENTS = PTRDIFF_MAX / sizeof(double);

/* ---- structs of earlier versions --------------------------------------------------------------------------- */

/* Sizes that a struct had when it first had one. */
enum {
    LRF_FIRST_GROUP = 128,  /* 0.1.0 */
    LRF_FIRST_OPTIONS = 56, /* 0.1.0 */
    LRF_FIRST_REPORT = 64,
    LRF_FIRST_OUTPUTS = 40,
    LRF_FIRST_STATS = 640,
    LRF_FIRST_STORAGE = 96
};

/* Whether some version of a struct has this size. All fields but 4-byte pairs at the beginning have 8 bytes. */
static inline int lrf_knows_size(size_t struct_size, size_t first, size_t current)
{
    return struct_size >= first && struct_size <= current && struct_size % 8 == 0;
}

/* Elements of arrays, walked by the size of the first. */
static inline const lrf_group *lrf_group_at(const lrf_group *groups, size_t i)
{
    return (const lrf_group *)((const char *)groups + i * groups->struct_size);
}

/* NULL: the group has no outputs. */
static inline const lrf_outputs *lrf_outputs_at(const lrf_group *group, size_t i)
{
    return group->outputs ? (const lrf_outputs *)((const char *)group->outputs + i * group->outputs->struct_size)
                          : NULL;
}

/* Whether something follows the parameter in every step, with or without a gradient. NULL: no outputs. */
static inline int lrf_is_followed(const lrf_outputs *outputs)
{
    return outputs && (outputs->ema || outputs->copy);
}

/* NULL: the group has no storage. It has to be complete. */
static inline const lrf_storage *lrf_storage_at(const lrf_group *group, size_t i)
{
    return group->storage ? (const lrf_storage *)((const char *)group->storage + i * group->storage->struct_size)
                          : NULL;
}

/* NULL: all that the tensor has is native. Of groups of every version. */
static inline const lrf_storage *lrf_formats_at(const lrf_group *group, size_t i)
{
    const int has_storage = group->struct_size > offsetof(lrf_group, storage) && group->storage;
    const lrf_storage *const storage = has_storage ? lrf_storage_at(group, i) : NULL;
    return storage && (storage->param_format | storage->grad_format | storage->state_format[0] |
                       storage->state_format[1] | storage->state_format[2] | storage->state_format[3])
               ? storage
               : NULL;
}

enum { LRF_CARRIED_SLOTS = 4 };

/* Whether tensors of a rule carry numbers from step to step. */
static inline int lrf_carries(LRF_UNUSED uint32_t rule)
{
    return 0
#define LRF_CARRIED(RULE, slot, name, RANGE) || rule == LRF_##RULE
#include "optimizers.def"
#undef LRF_CARRIED
        ;
}

/* NULL: the rule carries nothing. The group has been checked: one that does has storage. */
static inline double *lrf_carried_at(const lrf_group *group, size_t i)
{
    return lrf_carries(group->rule) ? (double *)lrf_storage_at(group, i)->scalar : NULL;
}

/* table.c: the caller's options, NULL or of a known size, with every field that this version has. */
LRF_HIDDEN void lrf_complete_options(lrf_options *completed, const lrf_options *options);

/* table.c: whether a report can be written (NULL is none), and writing as much of it as the caller's struct has. */
LRF_HIDDEN int lrf_is_report(const lrf_report *report);
LRF_HIDDEN void lrf_write_report(lrf_report *report, const lrf_report *news);

/* table.c: fills *completed with a group, the defaults of its rule where its own version lacks a field. */
LRF_HIDDEN void lrf_fill_group(lrf_group *completed, const lrf_group *group);

/* The group with every field that this version has: itself, or *completed. */
static inline const lrf_group *lrf_complete(const lrf_group *group, lrf_group *completed)
{
    if (group->struct_size == sizeof *group)
        return group;
    lrf_fill_group(completed, group);
    return completed;
}

/* table.c: the numbers of a group that lrf_group_init fills in for a rule of the table. */
LRF_HIDDEN const lrf_group *lrf_defaults_of(uint32_t rule);

/* Row of the table by id; NULL if there is none. */
LRF_HIDDEN const lrf_rule_info *lrf_find_rule(uint32_t id);

/* The slot of sums or averages of squares. */
enum { LRF_SQUARES = 1 };

/* Whether a rule keeps squares, of whose overflow an element never recovers. */
static inline int lrf_keeps_squares(const lrf_group *group)
{
    return lrf_find_rule(group->rule)->state[LRF_SQUARES] != NULL;
}

/* ---- scalars.c, elementary.c: numbers of one update -------------------------------------------------------- */

/* The latest scalars of a thread: tensors of a group share them that are at the same step and carry the same. */
typedef struct lrf_latest {
    const lrf_group *group; /* NULL: none yet */
    uint64_t step;
    double before[LRF_CARRIED_SLOTS], after[LRF_CARRIED_SLOTS]; /* what the tensor carries */
    lrf_scalars scalars;
} lrf_latest;

/* Whether *latest is right for the next update of a tensor. carried: of lrf_carried_at. */
static inline int lrf_is_latest(const lrf_latest *latest, const lrf_group *group, const lrf_tensor *tensor,
                                const double *carried)
{
    return latest->group == group && latest->step == tensor->step &&
           (!carried || memcmp(latest->before, carried, sizeof latest->before) == 0);
}

/* Makes it right. grad_scale: factor of the gradients before their sign. */
LRF_HIDDEN void lrf_compute_scalars(lrf_latest *latest, const lrf_group *group, const lrf_tensor *tensor,
                                    const double *carried, double grad_scale);

/* scale * clip_factor in two parts, which multiply gradients one after the other; first is 1 but where the whole would
 * be denormal in the element type, or 0 without being that. */
typedef struct lrf_factors {
    double first, last;
} lrf_factors;

/* lifted_factor: clip_factor / DBL_MIN, also where that itself is denormal or 0. */
LRF_HIDDEN LRF_PURE lrf_factors lrf_split_factor(double scale, double clip_factor, double lifted_factor,
                                                 uint32_t dtype);

/* The same; whether they are finite in the element type, the gradient's factor aside. */
LRF_HIDDEN int lrf_scalars_fit(lrf_latest *latest, const lrf_group *group, const lrf_tensor *tensor,
                               const double *carried);

/* 1 - base^exponent for base in [0, 1) and exponent >= 1, correctly rounded in every case tried (tests/). Like the
 * next four without libm, which differs between processors. */
LRF_HIDDEN LRF_PURE double lrf_one_minus_power(double base, uint64_t exponent);

/* e^x, ln x, x^y and cos x of every x and y, with the special values of C; at most 1 ulp off. */
LRF_HIDDEN LRF_PURE double lrf_exp(double x);
LRF_HIDDEN LRF_PURE double lrf_log(double x);
LRF_HIDDEN LRF_PURE double lrf_power(double x, double y);
LRF_HIDDEN LRF_PURE double lrf_cos(double x);

/* ---- step.c, norm.c, update.c: phases ---------------------------------------------------------------------- */

/* What an lrf_job holds. */
typedef struct __attribute__((may_alias)) lrf_step_state {
    const lrf_group *groups;
    size_t group_count;
    lrf_options options;
    const lrf_kernels *kernels;
    size_t tiles, bad_group, bad_tensor;
    double grad_norm, limited_norm, clip_factor, lifted_factor; /* the last two: one, lifted by 1 / DBL_MIN */
    double largest_used;       /* no gradient is larger once scaled and clipped; known with LRF_REQUIRE_FINITE */
    double unit, limited_unit; /* of the sums that norms are made of */
    uint64_t nonfinite, overflowed;
    uint32_t progress, phase, variant, with_slots;
} lrf_step_state;
_Static_assert(sizeof(lrf_step_state) <= sizeof(lrf_job), "lrf_job is too small");

static inline lrf_step_state *lrf_open(lrf_job *job)
{
    return (lrf_step_state *)job;
}

/* A step of which only the groups are known. Field by field: to clear all of it first costs as much as the update of a
 * small tensor. */
static inline void lrf_open_step(lrf_step_state *step, const lrf_group *groups, size_t group_count)
{
    step->groups = groups;
    step->group_count = group_count;
    step->kernels = NULL;
    step->tiles = step->bad_group = step->bad_tensor = 0;
    step->grad_norm = step->limited_norm = NAN;
    step->clip_factor = 1;
    step->lifted_factor = 1 / DBL_MIN;
    step->largest_used = NAN;
    step->unit = step->limited_unit = 1;
    step->nonfinite = step->overflowed = 0;
    step->progress = 0;
    step->phase = step->variant = step->with_slots = 0;
}

/* Tiles first .. end of a tensor; `index` is the index of its tile `first` in the whole step. */
typedef struct lrf_tile_run {
    const lrf_group *group;
    const lrf_tensor *tensor;
    const lrf_outputs *outputs; /* NULL: none */
    const double *carried;      /* NULL: none */
    const lrf_storage *storage; /* NULL: all native */
    size_t first, end, index;
} lrf_tile_run;

/* ---- formats.c: tiles of tensors that are not native --------------------------------------------------------- */

/* Where a tile is decoded. Each begins a quarter page after the one before it: where a load has the page offset of a
 * store shortly before it, processors make it wait. */
enum { LRF_DECODED = LRF_TILE + 272 };
typedef struct lrf_decoded {
    float param[LRF_DECODED], grad[LRF_DECODED], states[LRF_STATE_SLOTS][LRF_DECODED];
} lrf_decoded;

/* Elements begin .. begin + n of the gradient, or of the parameter, for reading: where they are, or in memory. The
 * parameter is what its master says, if it has one. */
LRF_HIDDEN void *lrf_decode_grad(const lrf_kernels *kernels, const lrf_tile_run *run, size_t begin, size_t n,
                                 float *memory);
LRF_HIDDEN void *lrf_decode_param(const lrf_kernels *kernels, const lrf_tile_run *run, size_t begin, size_t n,
                                  float *memory);

/* Elements begin .. begin + n as a tensor of their own, for an update, all of it of the group's dtype. */
LRF_HIDDEN lrf_tensor lrf_open_tile(const lrf_kernels *kernels, const lrf_tile_run *run, size_t begin, size_t n,
                                    lrf_decoded *memory);

/* Encodes what the update has made of it. read_back: the tile becomes what is stored. */
LRF_HIDDEN void lrf_close_tile(const lrf_kernels *kernels, const lrf_tile_run *run, size_t begin,
                               const lrf_tensor *tile, int read_back);

/* ---- phases, continued ---------------------------------------------------------------------------------------- */

/* How it goes on after a phase: the step ends here, the next one comes, or the same once more. */
enum { LRF_STOP, LRF_GO_ON, LRF_ONCE_MORE };

/* A pass over all tiles, part by part on any thread. Each tile leaves slot_size bytes in the work memory, which the
 * next phase uses anew; finish, on one thread, adds them up and says how the step goes on. A phase that would leave
 * nothing is not run unless it always is, and not finished. */
typedef struct lrf_phase {
    int is_always_needed;
    size_t (*slot_size)(const lrf_options *options);
    void (*run)(const lrf_step_state *step, const lrf_tile_run *run, lrf_latest *latest);
    int (*finish)(lrf_step_state *step);
} lrf_phase;
LRF_HIDDEN extern const lrf_phase lrf_norm_phase, lrf_update_phase;

/* ---- dispatch.c, selftest.c: which kernels run --------------------------------------------------------------- */

#if defined(LRF_X86_64)
LRF_HIDDEN extern const lrf_kernels lrf_kernels_avx512;
LRF_HIDDEN extern const lrf_kernels lrf_kernels_avx2;
LRF_HIDDEN extern const lrf_kernels lrf_kernels_baseline;
#elif defined(LRF_AARCH64)
LRF_HIDDEN extern const lrf_kernels lrf_kernels_neon;
#else
LRF_HIDDEN extern const lrf_kernels lrf_kernels_baseline;
#endif

/* The kernels in use; NULL if there are none, and why. */
LRF_HIDDEN const lrf_kernels *lrf_active_kernels(lrf_status *why_none);

/* Whether they, and everything else of this build, give the bits of the specification. */
LRF_HIDDEN int lrf_gives_promised_bits(const lrf_kernels *kernels);

/* What the processor and the operating system offer, as bits; a pure function of what cpuid and xgetbv say.
 * leaf1_ecx: cpuid(1).ecx, leaf7_ebx: cpuid(7, 0).ebx, xcr0: register state that the system saves. */
enum { LRF_HAS_AVX2 = 1, LRF_HAS_AVX512 = 2 };
LRF_HIDDEN unsigned lrf_x86_features(uint32_t leaf1_ecx, uint32_t leaf7_ebx, uint64_t xcr0);

#endif
