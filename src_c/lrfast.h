/* lrfast: fused, in-place optimizer steps. This header is the public C API and its manual; pool.h adds an optional
 * thread pool.
 *
 * A step updates parameters from gradients in one pass over memory: each parameter, gradient and state is read
 * once and written once (gradients are only read, unless they are to be zeroed), and what surrounds an update happens
 * in the same pass: scaling, clipping, zeroing, averaging, copies of low precision, statistics. A tensor is pointers, a
 * group is numbers, a call is policy:
 *
 *     float w[3] = {1, 2, 3}, g[3] = {.1f, .2f, .3f}, m[3] = {0}, v[3] = {0};
 *     lrf_tensor tensor = {.param = w, .grad = g, .state = {m, v}, .count = 3};
 *     lrf_group group;
 *     lrf_group_init(&group, sizeof group, LRF_ADAM);
 *     group.tensors = &tensor;
 *     group.count = 1;
 *     group.lr = 1e-2;
 *     lrf_status status = lrf_step(&group, 1, NULL, NULL);     // call it again whenever g holds a new gradient
 *     if (status != LRF_OK) fprintf(stderr, "%s\n", lrf_status_text(status));
 *
 * Build by hand from the sources, every instruction set included, or link the archive of the Python package:
 *
 *     cd src_c && cc -O3 -fno-math-errno -fno-trapping-math -c *.c
 *     cc app.c -I$(python3 -c 'import lrfast; print(lrfast.get_include())') \
 *              -L$(python3 -c 'import lrfast; print(lrfast.get_library_dir())') -llrfast -lm
 *
 * These flags are for speed. With others, none and any -march included, the bits are the same, on every processor of
 * the architecture, or the compiler stops and says which flag has to go (-ffast-math and its parts).
 *
 * Promises: the same bits on every instruction set, compiler, alignment and number of parts (only sign and payload
 * of NaNs are open); all or nothing: whatever is refused is refused before anything is written; no heap, no errno,
 * no output, no thread of its own; the floating-point environment is left as it was. Callers own all memory. Different
 * jobs may run at once on different threads. Needs C99 or C++11 to include, C11 with gcc or clang to build.
 *
 * A struct that can grow begins with its size, which its owner sets to sizeof (lrf_group_init and lrf_options_init do
 * it for him). A program that was compiled with the header of an earlier version, from 0.2.0 on, goes on working with a
 * later library: what its smaller structs lack has its default, and an array is walked by the size of its first
 * element, which all others share. A size below the first version's or above this library's is LRF_BAD_STRUCT.
 * Programs of 0.1.0 have to be compiled anew if they use reports, outputs, statistics or jobs. */
#ifndef LRFAST_H
#define LRFAST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LRF_VERSION_STRING "0.2.0"

/* Version of the library that was linked; compare with LRF_VERSION_STRING of the header that was included. */
const char *lrf_version(void);

/* ---- status ---------------------------------------------------------------------------------------------- */

/* Values are pinned for ever; 0 is success. After an error nothing has been written. */
typedef enum lrf_status {
    LRF_OK = 0,
    LRF_BAD_STRUCT = 1, /* a struct_size that this library does not know, or something in it that has to be 0 is not */
    LRF_BAD_RULE = 2,   /* not a rule of the table */
    LRF_BAD_DTYPE = 3,  /* neither LRF_FLOAT32 nor LRF_FLOAT64, or a storage format that there is not */
    LRF_BAD_NUMBER = 4, /* a hyper-parameter or option is out of range or NaN, or the group's dtype does not hold it:
                           infinite there, or 0 without being 0 (options), or an eps above 0 and below 1e-16 (float64:
                           1e-150). "lr" also where what the update makes of several is infinite: lr / (1 - beta1^t) */
    LRF_BAD_FLAGS = 5,  /* an unknown flag, or flags that contradict each other or the rule */
    LRF_NULL_POINTER = 6, /* a pointer that the rule needs is NULL */
    LRF_MISALIGNED = 7,   /* a pointer is not aligned to its element size */
    LRF_BAD_COUNT = 8,    /* count elements do not fit into the address space, or step is at its end */
    LRF_OVERLAP = 9,      /* buffers overlap of which at least one is written */
    LRF_BAD_WORK = 10,    /* work memory is missing, misaligned or smaller than lrf_work_size */
    LRF_BAD_ISA = 11,     /* LRFAST_ISA or lrf_set_isa names what this machine or build lacks */
    LRF_UNFINISHED = 12,  /* lrf_end before lrf_next returned 0, or twice; counters were not advanced */
    LRF_NOT_FINITE = 13,  /* LRF_REQUIRE_FINITE, and a gradient, or its square, is not: the step was skipped */
    LRF_BAD_BUILD = 14    /* no kernels of this build, or not those asked for, give the promised bits: it was compiled
                             with flags that change arithmetic (-ffast-math, its parts, -ffp-contract=fast) */
} lrf_status;

/* One English sentence, never NULL, static. */
const char *lrf_status_text(lrf_status status);

/* ---- what to update -------------------------------------------------------------------------------------- */

/* Groups compute in one of the first two; the last two are formats of tensors (lrf_storage) and of copies
 * (lrf_outputs).
 */
typedef enum lrf_dtype { LRF_FLOAT32 = 1, LRF_FLOAT64 = 2, LRF_FLOAT16 = 3, LRF_BFLOAT16 = 4 } lrf_dtype;

/* Rules and numbers are rows of optimizers.def, which is installed beside this file. For readers whose editor does not
 * look into it, as of version 0.2.0:
 *     LRF_SGD = 1            LRF_RMSPROP = 4                     LRF_ADAM = 8
 *     LRF_MOMENTUM = 2       LRF_RMSPROP_MOMENTUM = 5            LRF_AMSGRAD = 9
 *     LRF_ADAGRAD = 3        LRF_RMSPROP_CENTERED = 6            LRF_RADAM = 10
 *     LRF_ADADELTA = 11      LRF_RMSPROP_CENTERED_MOMENTUM = 7   LRF_ADAMAX = 12
 *     LRF_RPROP = 13         LRF_LION = 14                       LRF_NADAM = 15
 *     LRF_ASGD = 16
 *     lr, weight_decay, decoupled_weight_decay, momentum, dampening, alpha, beta1, beta2, eps, lr_decay; after
 *     `storage`: rho, etaminus, etaplus, step_size_min, step_size_max, momentum_decay, lambd, t0 */
typedef enum lrf_rule {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) LRF_##NAME = id,
#include "optimizers.def"
#undef LRF_RULE
    LRF_NO_RULE = 0
} lrf_rule;

/* One parameter tensor: 64 bytes, frozen; an array of these is the plan of a step. All buffers hold `count`
 * contiguous elements of the group's dtype, or of their format in lrf_storage, aligned to the element. States start at
 * 0 unless the rule says otherwise (Adagrad's sum may start at any value >= 0). */
typedef struct lrf_tensor {
    void *param;    /* read and written */
    void *grad;     /* read, and zeroed with LRF_ZERO_GRADS; NULL: this tensor is not updated and its step stays */
    void *state[4]; /* slots as in optimizers.def; NULL where the rule has no state */
    uint64_t count; /* elements; 0 is valid */
    uint64_t step;  /* completed updates of this tensor, advanced by lrf_end; bias correction depends on it */
} lrf_tensor;

/* What the statistics of a step say of one tensor, or of several added up. g: the gradient as it was given; s: with
 * grad_scale and the sign of LRF_MAXIMIZE; p: the parameter before the step; u: its update, p -= u, without
 * decoupled decay; w: the update before this one, from lrf_outputs.last; d: the denominator of the rule, 1 where it has
 * none. */
enum { LRF_RATE_BINS = 64, LRF_FIRST_RATE = -32 };
typedef struct lrf_stats {
    uint32_t struct_size;                /* sizeof(lrf_stats), set by the caller and kept */
    uint32_t unused;                     /* so that doubles follow without a gap */
    double elements;                     /* with a gradient in this step; 0: nothing else is meant */
    double grad_sq, param_sq, update_sq; /* sum g^2, sum p^2, sum u^2 */
    double grad_update, grad_last;       /* sum s u, sum s w; without lrf_outputs.last, grad_last is NaN */
    double grad_max, update_max;         /* max |s|, max |u| */
    double rate_max;                     /* max lr / d */
    double nan, inf, zero;               /* elements of g */
    double lost;                         /* u != 0 and yet p - u == p */
    double turned;                       /* s and w have opposite signs: the gradient has turned around; without
                                            lrf_outputs.last, NaN */
    double eps_dominates;                /* d < 2 eps */
    double rates[LRF_RATE_BINS];         /* bin k: elements with 2^(k-32) <= lr / d < 2^(k-31), outer bins open;
                                            at most 16 elements of each 1,024 are looked at */
    double dead;                         /* d is infinite or NaN, and g is not: mostly, g^2 once was beyond the type */
} lrf_stats;

/* What else a step writes of one tensor; each pointer may be NULL. Averages and copies follow their parameter in every
 * step, also where grad is NULL. They are yours to begin: a step in which every grad is NULL and ema_decay is 0 updates
 * nothing and makes all of them the parameters. Call it, too, for copies after you wrote parameters yourself. */
typedef struct lrf_outputs {
    uint32_t struct_size; /* sizeof(lrf_outputs), in each element of an array */
    uint32_t copy_dtype;  /* lrf_dtype */
    void *ema;            /* [count], ema_dtype: += (1 - ema_decay) (parameter - this), after the update */
    void *copy;           /* [count], copy_dtype: the parameter after the update, rounded to nearest even; float64 by
                             way of float32 */
    void *last;         /* [count], the group's dtype, with LRF_STATS: w, the update before, is read from here; then the
                           update itself is stored, for the next step (not with LRF_KEEP_LAST). Yours to begin with 0 */
    lrf_stats *stats;   /* [1], with LRF_STATS or LRF_NORMS: written when the step is finished */
    uint32_t ema_dtype; /* 0 or the group's dtype; LRF_FLOAT64 for either. A float32 average of a parameter that stays
                           where it is stops 2^-24 / (1 - ema_decay) of it short, at most: 6e-5 with 0.999, 6e-3 with
                           0.99999; a float64 one 2^-53 / (1 - ema_decay) */
    uint32_t unused;    /* 0 */
} lrf_outputs;

/* How a buffer holds its elements: LRF_NATIVE, as the group's dtype; in groups of LRF_FLOAT32 also LRF_BFLOAT16 and
 * LRF_FLOAT16, each of parameter, gradient and states as it likes. What is not native is computed with in float32: tile
 * by tile it is decoded, which is exact, and what the update made is rounded to nearest even, or to infinity where the
 * format ends. A NaN becomes the code 0x7fc0 or 0x7e00. Norms, statistics and outputs are of what is stored, and an
 * update that the parameter's format loses counts as lost.
 *
 * A parameter of 16 bits may have a master, in more[0], that holds it in float32 from step to step; outputs follow
 * that: LRF_FLOAT32   float [count]: the master itself; the parameter is rounded from it in each step. Where it is no
 * longer that, somebody has written it, and the step takes its value for the master's LRF_SPLIT     uint16_t [count],
 * for LRF_BFLOAT16: the lower half of the master. The parameter is the bfloat16 nearest to the master, *at ties the one
 * away from zero*, so that both together are the float32, bit for bit:
 *                   ((parameter - (remainder >> 15)) << 16) | remainder. After the parameter was written by somebody
 * else, call lrf_reset_master, or the old remainder is added to the new parameter To begin: a master that is the
 * parameter's value, remainders of 0 (lrf_reset_master makes either). */
enum { LRF_NATIVE = 0, LRF_SPLIT = 5 };

/* What one tensor may have beside its lrf_tensor; all 0 but struct_size is the same as no lrf_storage. */
typedef struct lrf_storage {
    uint32_t struct_size; /* sizeof(lrf_storage), in each element of an array */
    uint8_t param_format, grad_format, state_format[4];
    uint8_t master_format; /* 0 (none), LRF_FLOAT32 or LRF_SPLIT */
    uint8_t unused[5];     /* 0 */
    double scalar[4];      /* numbers of this tensor that its rule carries from step to step, as LRF_CARRIED in
                              optimizers.def names them; advanced by lrf_end like `step`, and before the first update of no
                              meaning: begin with 0. A rule that carries any needs storage */
    void *more[4];         /* further buffers of formats: [0] of the master, the others NULL */
    uint64_t id, first; /* of the tensor among all, and of its first element in the whole of it: for noise and shards,
                           which no format has yet */
} lrf_storage;

/* lrf_group.flags: LRF_MAXIMIZE = 1, LRF_NESTEROV = 2, LRF_FIRST_GRADIENT = 4, LRF_MEAN = 8. What they mean and which
 * rule takes which stands in optimizers.def; a rule refuses all others, and LRF_MEAN together with LRF_FIRST_GRADIENT.
 */
enum {
#define LRF_FLAG(bit, NAME, setting, value) LRF_##NAME = bit,
#include "optimizers.def"
#undef LRF_FLAG
    LRF_NO_FLAGS = 0
};

/* Tensors that share a rule, a dtype and numbers. Initialise with lrf_group_init. */
typedef struct lrf_group {
    uint32_t struct_size; /* sizeof(lrf_group), in each element of an array */
    uint32_t rule;        /* lrf_rule */
    uint32_t dtype;       /* lrf_dtype; LRF_FLOAT32 after lrf_group_init */
    uint32_t flags;
    lrf_tensor *tensors; /* [count] */
    size_t count;
    const lrf_outputs *outputs; /* [count], or NULL: nothing but the update. In a struct of version 0.1.0: NULL */
/* The numbers: double lr, weight_decay, ... in the order of optimizers.def, where their ranges and meanings stand.
 * After those that version 0.1.0 had: `storage` is [count], or NULL: all native. */
#define LRF_NUMBER(name, range, schedule, setting) double name;
#define LRF_AFTER_0_1_0                                                                                                \
    double unused;                                                                                                     \
    lrf_storage *storage;
#include "optimizers.def"
#undef LRF_NUMBER
#undef LRF_AFTER_0_1_0
} lrf_group;

/* Fills the first struct_size bytes of *group with the defaults of the rule (PyTorch's). struct_size: sizeof(lrf_group)
 * of the header that you compile with. */
lrf_status lrf_group_init(lrf_group *group, size_t struct_size, lrf_rule rule);

/* ---- how to step ----------------------------------------------------------------------------------------- */

/* lrf_options.flags */
enum {
    LRF_GRAD_NORM = 1,      /* report the norm of all gradients (implied by clip_norm > 0) */
    LRF_REQUIRE_FINITE = 2, /* a gradient that is NaN or infinite, or whose square is, where the rule keeps squares:
                               write nothing, lrf_end returns LRF_NOT_FINITE; what overflows later is counted */
    LRF_ZERO_GRADS = 4,     /* gradients are 0 after the step; they must be writable and not shared */
    LRF_NORMS = 8,          /* of lrf_stats: elements, grad_sq, param_sq, update_sq; the rest is 0 */
    LRF_STATS = 16,         /* all of lrf_stats */
    LRF_KEEP_LAST = 32 /* with LRF_STATS: lrf_outputs.last is only read, as no statistics of the next step are wanted */
};

/* Policy of one call. Initialise with lrf_options_init. Order of operations: gradient * grad_scale, sign
 * (maximize), norm, finiteness, clip_value, clip_norm, coupled decay, rule; then statistics, ema, copy, zeroing. A norm
 * or a check for finiteness costs one more pass, which only reads gradients. */
typedef struct lrf_options {
    uint32_t struct_size; /* sizeof(lrf_options) */
    uint32_t flags;
    double grad_scale; /* multiplies every gradient; finite; default 1 */
    double clip_value; /* 0: off; otherwise each scaled gradient is limited to -clip_value .. clip_value */
    double clip_norm;  /* 0: off; otherwise scale gradients by min(1, clip_norm / (norm + 1e-6)), where norm is that of
                          the gradients limited by clip_value */
    double ema_decay;  /* in [0, 1), for lrf_outputs.ema; 0 makes it the parameter. Yours to vary from step to step:
                          min(decay, (1 + t) / (10 + t)) as a warm-up, t / (t + 1) for the mean since t = 0 */
    void *work;        /* lrf_work_size bytes, aligned to 8; may be NULL if that is 0 */
    size_t work_size;
} lrf_options;

/* Fills the first struct_size bytes, sizeof(lrf_options) of the header that you compile with. */
lrf_status lrf_options_init(lrf_options *options, size_t struct_size);

/* What happened, or which thing was refused: lrf_report report = {.struct_size = sizeof report}; one of another size is
 * LRF_BAD_STRUCT, and nothing is written to it. */
typedef struct lrf_report {
    uint32_t struct_size; /* sizeof(lrf_report), set by the caller and kept */
    uint32_t unused;
    const char *what;     /* refused: static name of the field or buffer, "grad" or "grad squared"; otherwise NULL */
    size_t group, tensor; /* refused: where (tensor is 0 if the group itself was refused) */
    double grad_norm;     /* sqrt(sum of squares of all grad_scale * gradients); NaN if it was not computed */
    double clip_factor;   /* what clip_norm multiplied gradients with, min(1, clip_norm / (limited_norm + 1e-6)); 1
                             without clipping */
    uint64_t updated;     /* tensors updated */
    uint64_t nonfinite;   /* gradients that are NaN or infinite once scaled; counted with LRF_REQUIRE_FINITE only */
    double limited_norm;  /* of the gradients once clip_value has limited them: the norm that clip_norm limits, without
                             clip_value grad_norm; NaN without clip_norm */
    uint64_t overflowed;  /* elements whose sum or average of squares the update has made infinite: they will not move
                             again. Counted with LRF_REQUIRE_FINITE only, which refuses where the square of a gradient
                             is to blame; what is left is weight decay, and sums. The first stands in group, tensor */
} lrf_report;

/* Bytes of work memory that a step with these groups and options needs; 0 if none. */
size_t lrf_work_size(const lrf_group *groups, size_t group_count, const lrf_options *options);

/* Validates everything, then updates every tensor that has a gradient, on the calling thread. options NULL: the
 * defaults; report may be NULL. Costs about 0.1 us beside the arithmetic. Overlap is checked within each tensor;
 * across tensors call lrf_check_overlap once, when the plan is made. */
lrf_status lrf_step(const lrf_group *groups, size_t group_count, const lrf_options *options, lrf_report *report);

/* Looks for overlap across all tensors of all groups: what is written may share memory with nothing, a gradient that
 * is only read with other gradients. options NULL: the defaults. scratch: lrf_overlap_scratch_size bytes, aligned to 8.
 * O(n log n). */
size_t lrf_overlap_scratch_size(const lrf_group *groups, size_t group_count);
lrf_status lrf_check_overlap(const lrf_group *groups, size_t group_count, const lrf_options *options, void *scratch,
                             size_t scratch_size, lrf_report *report);

/* After parameters were written by anybody but a step (a checkpoint was loaded, an average swapped in): masters become
 * what their parameters say, also without a gradient. LRF_FLOAT32: where the parameter is no longer what its master
 * rounds to; LRF_SPLIT: all remainders become 0. States stay. On the calling thread; report may be NULL. */
lrf_status lrf_reset_master(const lrf_group *groups, size_t group_count, lrf_report *report);

/* ---- the same on your own threads ------------------------------------------------------------------------ */

/* Memory of a step in flight: yours to place, private in content. */
typedef struct lrf_job {
    uint64_t opaque[64];
} lrf_job;

/*     lrf_status status = lrf_begin(&job, groups, group_count, &options, &report);      // one thread
 *     if (status == LRF_OK) {
 *         while (lrf_next(&job))                                            // one thread
 *             on N threads: lrf_run(&job, part, N);  then wait for all      // each part 0..N-1 exactly once
 *         lrf_end(&job, &report);                                           // one thread
 *     }
 * The result is the same for every N, bit for bit. Groups, tensors and buffers must not change in between.
 * Leaving the loop early is possible only before the first lrf_run of the last phase. */
lrf_status lrf_begin(lrf_job *job, const lrf_group *groups, size_t group_count, const lrf_options *options,
                     lrf_report *report);
int lrf_next(lrf_job *job);                            /* 1: another phase has to run; 0: finished */
void lrf_run(lrf_job *job, size_t part, size_t parts); /* needs part < parts */
lrf_status lrf_end(lrf_job *job, lrf_report *report);  /* advances the step of every updated tensor */

/* ---- instruction sets ------------------------------------------------------------------------------------ */

/* Kernels are tried before they are used, once, in 50 us: a training in small gives the bits of the specification, or
 * they are passed over as if they were not there. Asking for them is LRF_BAD_BUILD, and so is any step if none is left.
 */

/* The kernels in use: "avx512", "avx2", "baseline" (x86-64), "neon" (aarch64), "baseline" (others). Chosen at the
 * first use: LRFAST_ISA of the environment, otherwise the best that this machine runs. NULL: there are none, and
 * lrf_begin says why (LRF_BAD_ISA: LRFAST_ISA names what this machine lacks; or LRF_BAD_BUILD). */
const char *lrf_isa(void);

/* The runnable ones, best first: lrf_isa_name(0), lrf_isa_name(1), ... until NULL. */
const char *lrf_isa_name(size_t index);

/* Forces one for the whole process, also while other threads step (a step keeps the kernels it began with).
 * NULL: back to the best. LRF_BAD_ISA if this machine or build lacks it; or LRF_BAD_BUILD. */
lrf_status lrf_set_isa(const char *name);

/* ---- introspection of the table -------------------------------------------------------------------------- */

/* The library's own; later versions append to it. */
typedef struct lrf_rule_info {
    uint32_t id; /* lrf_rule */
    const char *name, *family;
    const char *state[4];      /* state names by slot, NULL where there is none */
    const char *defaults;      /* the numbers that the rule reads and their defaults, ".lr = 1e-3, .eps = ..." */
    uint32_t flags;            /* those that it takes */
    const char *const *scalar; /* [4]: names of lrf_storage.scalar, NULL where there is none */
} lrf_rule_info;

/* Rows of the table: index 0, 1, ... until NULL. */
const lrf_rule_info *lrf_rule_at(size_t index);

/* Offset of a number in lrf_group by its name, for bindings that set numbers by name; SIZE_MAX if unknown. */
size_t lrf_number_offset(const char *name);

#ifdef __cplusplus
}
#endif
#endif
