/* What the table says, for programs: rows, defaults, numbers by name; status texts and version. */
#include "check.h"

#include <string.h>

#define STATES(...) {__VA_ARGS__}
#define DEFAULTS(...) __VA_ARGS__

static const lrf_group defaults_of_rule[] = {
#define LRF_RULE(id, NAME, name, family, states, defaults) [id] = {defaults},
#include "optimizers.def"
#undef LRF_RULE
};

#undef DEFAULTS
#define DEFAULTS(...) #__VA_ARGS__

static const lrf_rule_info rows[] = {
#define LRF_RULE(id, NAME, name, family, states, defaults) {id, #name, #family, states, defaults},
#include "optimizers.def"
#undef LRF_RULE
};
enum { ROWS = sizeof rows / sizeof rows[0] };

const lrf_rule_info *lrf_rule_at(size_t index)
{
    return index < ROWS ? &rows[index] : NULL;
}

const lrf_rule_info *lrf_find_rule(uint32_t id)
{
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].id == id)
            return &rows[i];
    return NULL;
}

lrf_status lrf_group_init(lrf_group *group, size_t struct_size, lrf_rule rule)
{
    if (!group)
        return LRF_NULL_POINTER;
    if (struct_size != sizeof *group)
        return LRF_BAD_STRUCT;
    if (!lrf_find_rule((uint32_t)rule))
        return LRF_BAD_RULE;
    *group = defaults_of_rule[rule];
    group->struct_size = (uint32_t)struct_size;
    group->rule = (uint32_t)rule;
    group->dtype = LRF_FLOAT32;
    return LRF_OK;
}

lrf_status lrf_options_init(lrf_options *options, size_t struct_size)
{
    if (!options)
        return LRF_NULL_POINTER;
    if (struct_size != sizeof *options)
        return LRF_BAD_STRUCT;
    *options = (lrf_options){.struct_size = (uint32_t)struct_size, .grad_scale = 1};
    return LRF_OK;
}

size_t lrf_number_offset(const char *name)
{
    static const struct {
        const char *name;
        size_t offset;
    } numbers[] = {
#define NUMBER(name) {#name, offsetof(lrf_group, name)}
        NUMBER(lr),       NUMBER(weight_decay), NUMBER(decoupled_weight_decay),
        NUMBER(momentum), NUMBER(dampening),    NUMBER(alpha),
        NUMBER(beta1),    NUMBER(beta2),        NUMBER(eps),
        NUMBER(lr_decay), NUMBER(last_lr),
#undef NUMBER
    };
    for (size_t i = 0; name && i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(name, numbers[i].name) == 0)
            return numbers[i].offset;
    return SIZE_MAX;
}

const char *lrf_status_text(lrf_status status)
{
    switch (status) {
    case LRF_OK: return "success";
    case LRF_BAD_STRUCT: return "struct_size differs from this library's: header and archive do not belong together";
    case LRF_BAD_RULE: return "unknown rule";
    case LRF_BAD_DTYPE: return "dtype is neither LRF_FLOAT32 nor LRF_FLOAT64";
    case LRF_BAD_NUMBER: return "a hyper-parameter or option is out of range or not a number";
    case LRF_BAD_FLAGS: return "unknown or contradictory flags";
    case LRF_NULL_POINTER: return "a required pointer is NULL";
    case LRF_MISALIGNED: return "a buffer is not aligned to its element size";
    case LRF_BAD_COUNT: return "count is larger than the address space";
    case LRF_OVERLAP: return "buffers overlap of which at least one is written";
    case LRF_BAD_WORK: return "work memory is missing, misaligned or too small";
    case LRF_BAD_ISA: return "the instruction set asked for is not available here";
    case LRF_UNFINISHED: return "lrf_end was called before lrf_next returned 0";
    case LRF_NOT_FINITE: return "a gradient is not finite, and the step was skipped";
    }
    return "unknown status";
}

const char *lrf_version(void)
{
    return LRF_VERSION_STRING;
}
