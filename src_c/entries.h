/* The loops of all rules and their entries in the kernel table, in one variant; included by loops.h with
 *     LRF_VARIANT(name)          the name of a function of this type and variant
 *     LRF_TRACE(array, value)    stores value, of element i, in traced_<array>; or nothing */

/* Opens the loop of a rule over n elements; a rule names the states it uses by slot. The pointers do not overlap,
 * which spares the compiler every check at run time. Inside, u is the update: p moves by -u beside its decoupled decay.
 * What a rule traces: update, u; denominator, what u was divided by, or 1; last, the u of the update before if it
 * follows from the states, or 0. */
#define LRF_UPDATE(name, state0, state1, state2)                                                                       \
    LRF_KERNELS_TARGET static void LRF_VARIANT(name)(                                                                  \
        const size_t n, const lrf_scalars *const scalars, real *restrict const p, const real *restrict const g,        \
        LRF_UNUSED real *restrict const state0, LRF_UNUSED real *restrict const state1,                                \
        LRF_UNUSED real *restrict const state2, LRF_UNUSED real *restrict const traced_update,                         \
        LRF_UNUSED real *restrict const traced_denominator, LRF_UNUSED real *restrict const traced_last)

#define LRF_RULE_FILES
#include "optimizers.def"
#undef LRF_RULE_FILES
#undef LRF_UPDATE

/* Elements first .. first + n of a tensor. */
#define LRF_RULE(id, NAME, name, family, states, defaults)                                                             \
    LRF_KERNELS_TARGET static void LRF_VARIANT(name##_entry)(const lrf_tensor *tensor, size_t first, size_t n,         \
                                                             const lrf_scalars *scalars, const lrf_trace *trace)       \
    {                                                                                                                  \
        LRF_VARIANT(name)(n, scalars, at(tensor->param, first), at(tensor->grad, first), at(tensor->state[0], first),  \
                          at(tensor->state[1], first), at(tensor->state[2], first), at(trace->update, 0),              \
                          at(trace->denominator, 0), at(trace->last, 0));                                              \
    }
#include "optimizers.def"
#undef LRF_RULE
