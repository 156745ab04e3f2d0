/* The loops of all families and, per rule and variant, their entry in the kernel table; included by typed.h.
 *
 * A family has one loop, which asks LRF_HAS(state) for what not all of its rules have. It is inlined into one function
 * per rule and variant, for which that is a constant, as is what the variant traces. */

/* Opens the loop of a family over n elements, which names its states by slot. k: its scalars, rounded to the element
 * type. Inside, u is the update: p moves by -u beside its decoupled decay. */
#define LRF_UPDATE(family, state0, state1, state2, state3)                                                             \
    LRF_KERNELS_TARGET static LRF_ALWAYS_INLINE void LRF_TYPED(family##_update)(                                       \
        const size_t n, const LRF_TYPED(family##_scalars) k, real *const p, const real *const g,                       \
        LRF_UNUSED real *const state0, LRF_UNUSED real *const state1, LRF_UNUSED real *const state2,                   \
        LRF_UNUSED real *const state3, real *const traced_update, real *const traced_denominator,                      \
        LRF_UNUSED const int has_##state0, LRF_UNUSED const int has_##state1, LRF_UNUSED const int has_##state2,       \
        LRF_UNUSED const int has_##state3, const int traces_update, const int traces_denominator)
#define LRF_HAS(state) (has_##state)

/* The loop of another family, for one that differs in its scalars alone. */
#define LRF_CALL(family, k, state0, state1, state2, state3)                                                            \
    LRF_TYPED(family##_update)(n, k, p, g, state0, state1, state2, state3, traced_update, traced_denominator,          \
                               has_##state0, has_##state1, has_##state2, has_##state3, traces_update,                  \
                               traces_denominator)

/* What a rule traces of element i: update, u; denominator, what u was divided by, or 1. */
#define LRF_TRACE(array, value)                                                                                        \
    if (traces_##array)                                                                                                \
    traced_##array[i] = (value)

#define LRF_RULE_FILES
#include "../optimizers.def"
#undef LRF_RULE_FILES
#undef LRF_UPDATE
#undef LRF_HAS
#undef LRF_CALL
#undef LRF_TRACE

/* The loop of a rule in a variant, and its entry: elements first .. first + n of a tensor. The pointers do not overlap,
 * which spares the compiler every check at run time; gcc believes that of parameters only. */
#define STATES(name0, name1, name2, name3)                                                                             \
    lrf_is_there(name0), lrf_is_there(name1), lrf_is_there(name2), lrf_is_there(name3)
#define LRF_ENTRY(entry, family, traces_update, traces_denominator, ...)                                               \
    LRF_KERNELS_TARGET static void LRF_TYPED(entry##_loop)(                                                            \
        size_t n, const lrf_scalars *scalars, real *restrict p, const real *restrict g, real *restrict state0,         \
        real *restrict state1, real *restrict state2, real *restrict state3, real *restrict traced_update,             \
        real *restrict traced_denominator)                                                                             \
    {                                                                                                                  \
        const LRF_TYPED(family##_scalars) *const k = (const void *)&scalars->values;                                   \
        LRF_TYPED(family##_update)(n, *k, p, g, state0, state1, state2, state3, traced_update, traced_denominator,     \
                                   __VA_ARGS__, traces_update, traces_denominator);                                    \
    }                                                                                                                  \
    LRF_KERNELS_TARGET static void LRF_TYPED(entry)(const lrf_tensor *tensor, size_t first, size_t n,                  \
                                                    const lrf_scalars *scalars, const lrf_trace *trace)                \
    {                                                                                                                  \
        LRF_TYPED(entry##_loop)(n, scalars, at(tensor->param, first), at(tensor->grad, first),                         \
                                at(tensor->state[0], first), at(tensor->state[1], first), at(tensor->state[2], first), \
                                at(tensor->state[3], first), trace->update, trace->denominator);                       \
    }
#define LRF_RULE(id, NAME, name, family, states, flags, defaults)                                                      \
    LRF_ENTRY(name, family, 0, 0, states)                                                                              \
    LRF_ENTRY(name##_norms, family, 1, 0, states)                                                                      \
    LRF_ENTRY(name##_traced, family, 1, 1, states)
#include "../optimizers.def"
#undef LRF_RULE
#undef LRF_ENTRY
#undef STATES
