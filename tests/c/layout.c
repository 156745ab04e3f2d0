/* Prints the layout of the public API, a line per thing: `name value` of enums and constants, `struct size`,
 * `struct.field offset size`. What a release prints is kept in tests/layouts/; tests/test_layout.py compares. */
#include <stddef.h>
#include <stdio.h>

#include "lrfast.h"
#include "pool.h"

#define VALUE(name) printf(#name " %ld\n", (long)(name));
#define STRUCT(type) printf(#type " %zu\n", sizeof(type));
#define FIELD(type, field) printf(#type "." #field " %zu %zu\n", offsetof(type, field), sizeof(((type *)0)->field));

static void values(void)
{
    VALUE(LRF_OK)
    VALUE(LRF_BAD_STRUCT)
    VALUE(LRF_BAD_RULE)
    VALUE(LRF_BAD_DTYPE)
    VALUE(LRF_BAD_NUMBER)
    VALUE(LRF_BAD_FLAGS)
    VALUE(LRF_NULL_POINTER)
    VALUE(LRF_MISALIGNED)
    VALUE(LRF_BAD_COUNT)
    VALUE(LRF_OVERLAP)
    VALUE(LRF_BAD_WORK)
    VALUE(LRF_BAD_ISA)
    VALUE(LRF_UNFINISHED)
    VALUE(LRF_NOT_FINITE)
    VALUE(LRF_FLOAT32)
    VALUE(LRF_FLOAT64)
    VALUE(LRF_FLOAT16)
    VALUE(LRF_BFLOAT16)
    VALUE(LRF_NATIVE)
    VALUE(LRF_GRAD_NORM)
    VALUE(LRF_REQUIRE_FINITE)
    VALUE(LRF_ZERO_GRADS)
    VALUE(LRF_NORMS)
    VALUE(LRF_STATS)
    VALUE(LRF_KEEP_LAST)
    VALUE(LRF_RATE_BINS)
    VALUE(LRF_FIRST_RATE)
    VALUE(LRF_POOL_MAX_THREADS)
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) VALUE(LRF_##NAME)
#define LRF_FLAG(bit, NAME, setting, value) VALUE(LRF_##NAME)
#include "optimizers.def"
#undef LRF_RULE
#undef LRF_FLAG
}

static void structs(void)
{
    STRUCT(lrf_tensor)
    FIELD(lrf_tensor, param)
    FIELD(lrf_tensor, grad)
    FIELD(lrf_tensor, state)
    FIELD(lrf_tensor, count)
    FIELD(lrf_tensor, step)
    STRUCT(lrf_stats)
    FIELD(lrf_stats, struct_size)
    FIELD(lrf_stats, unused)
    FIELD(lrf_stats, elements)
    FIELD(lrf_stats, grad_sq)
    FIELD(lrf_stats, param_sq)
    FIELD(lrf_stats, update_sq)
    FIELD(lrf_stats, grad_update)
    FIELD(lrf_stats, grad_last)
    FIELD(lrf_stats, grad_max)
    FIELD(lrf_stats, update_max)
    FIELD(lrf_stats, rate_max)
    FIELD(lrf_stats, nan)
    FIELD(lrf_stats, inf)
    FIELD(lrf_stats, zero)
    FIELD(lrf_stats, lost)
    FIELD(lrf_stats, turned)
    FIELD(lrf_stats, eps_dominates)
    FIELD(lrf_stats, rates)
    STRUCT(lrf_outputs)
    FIELD(lrf_outputs, struct_size)
    FIELD(lrf_outputs, copy_dtype)
    FIELD(lrf_outputs, ema)
    FIELD(lrf_outputs, copy)
    FIELD(lrf_outputs, last)
    FIELD(lrf_outputs, stats)
    STRUCT(lrf_storage)
    FIELD(lrf_storage, struct_size)
    FIELD(lrf_storage, param_format)
    FIELD(lrf_storage, grad_format)
    FIELD(lrf_storage, state_format)
    FIELD(lrf_storage, unused)
    FIELD(lrf_storage, scalar)
    FIELD(lrf_storage, more)
    FIELD(lrf_storage, id)
    FIELD(lrf_storage, first)
    STRUCT(lrf_group)
    FIELD(lrf_group, struct_size)
    FIELD(lrf_group, rule)
    FIELD(lrf_group, dtype)
    FIELD(lrf_group, flags)
    FIELD(lrf_group, tensors)
    FIELD(lrf_group, count)
    FIELD(lrf_group, outputs)
    FIELD(lrf_group, unused)
    FIELD(lrf_group, storage)
#define LRF_NUMBER(name, range, schedule, setting) FIELD(lrf_group, name)
#include "optimizers.def"
#undef LRF_NUMBER
    STRUCT(lrf_options)
    FIELD(lrf_options, struct_size)
    FIELD(lrf_options, flags)
    FIELD(lrf_options, grad_scale)
    FIELD(lrf_options, clip_value)
    FIELD(lrf_options, clip_norm)
    FIELD(lrf_options, ema_decay)
    FIELD(lrf_options, work)
    FIELD(lrf_options, work_size)
    STRUCT(lrf_report)
    FIELD(lrf_report, struct_size)
    FIELD(lrf_report, unused)
    FIELD(lrf_report, what)
    FIELD(lrf_report, group)
    FIELD(lrf_report, tensor)
    FIELD(lrf_report, grad_norm)
    FIELD(lrf_report, clip_factor)
    FIELD(lrf_report, updated)
    FIELD(lrf_report, nonfinite)
    FIELD(lrf_report, limited_norm)
    STRUCT(lrf_job)
    FIELD(lrf_job, opaque)
    STRUCT(lrf_rule_info)
    FIELD(lrf_rule_info, id)
    FIELD(lrf_rule_info, name)
    FIELD(lrf_rule_info, family)
    FIELD(lrf_rule_info, state)
    FIELD(lrf_rule_info, defaults)
    FIELD(lrf_rule_info, flags)
}

int main(void)
{
    values();
    structs();
    return 0;
}
