/* What the table says, for programs: rows, defaults, numbers by name; structs of every version; status texts. */
#include "internal.h"

#include <string.h>

enum {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) ROW_OF_##NAME,
#include "optimizers.def"
#undef LRF_RULE
    ROWS
};

#define STATES(...) {__VA_ARGS__}
#define FLAGS(bits) bits
#define DEFAULTS(...) __VA_ARGS__

static const lrf_group defaults_of_rule[] = {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) [id] = {defaults},
#include "optimizers.def"
#undef LRF_RULE
};

#undef DEFAULTS
#define DEFAULTS(...) #__VA_ARGS__

/* By id. */
static const char *const carried_names[][LRF_CARRIED_SLOTS] = {
#define LRF_CARRIED(RULE, slot, name, RANGE) [LRF_##RULE][slot] = #name,
#include "optimizers.def"
#undef LRF_CARRIED
    [256] = {NULL},
};

static const lrf_rule_info rows[] = {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults)                                                      \
    {id, #name, #family, states, defaults, flags, carried_names[id]},
#include "optimizers.def"
#undef LRF_RULE
};
/* Index into rows by id, plus one; a step asks several times per group. */
static const uint8_t row_of_rule[] = {
#define LRF_RULE(id, NAME, name, family, states, flags, defaults) [id] = 1 + ROW_OF_##NAME,
#include "optimizers.def"
#undef LRF_RULE
};

const lrf_rule_info *lrf_rule_at(size_t index)
{
    return index < ROWS ? &rows[index] : NULL;
}

const lrf_rule_info *lrf_find_rule(uint32_t id)
{
    const size_t row = id < sizeof row_of_rule ? row_of_rule[id] : 0;
    return row > 0 ? &rows[row - 1] : NULL;
}

size_t lrf_number_offset(const char *name)
{
    static const struct {
        const char *name;
        size_t offset;
    } numbers[] = {
#define LRF_NUMBER(name, range, schedule, setting) {#name, offsetof(lrf_group, name)},
#include "optimizers.def"
#undef LRF_NUMBER
    };
    for (size_t i = 0; name && i < sizeof numbers / sizeof numbers[0]; i++)
        if (strcmp(name, numbers[i].name) == 0)
            return numbers[i].offset;
    return SIZE_MAX;
}

const lrf_group *lrf_defaults_of(uint32_t rule)
{
    return &defaults_of_rule[rule];
}

/* ---- structs of every version ---------------------------------------------------------------------------- */

lrf_status lrf_group_init(lrf_group *group, size_t struct_size, lrf_rule rule)
{
    lrf_group fresh;

    if (!group)
        return LRF_NULL_POINTER;
    if (!lrf_knows_size(struct_size, LRF_FIRST_GROUP, sizeof *group))
        return LRF_BAD_STRUCT;
    if (!lrf_find_rule((uint32_t)rule))
        return LRF_BAD_RULE;
    fresh = defaults_of_rule[rule];
    fresh.struct_size = (uint32_t)struct_size;
    fresh.rule = (uint32_t)rule;
    fresh.dtype = LRF_FLOAT32;
    memcpy(group, &fresh, struct_size);
    return LRF_OK;
}

void lrf_fill_group(lrf_group *completed, const lrf_group *group)
{
    *completed = defaults_of_rule[group->rule];
    memcpy(completed, group, group->struct_size);
}

lrf_status lrf_options_init(lrf_options *options, size_t struct_size)
{
    const lrf_options fresh = {.struct_size = (uint32_t)struct_size, .grad_scale = 1};

    if (!options)
        return LRF_NULL_POINTER;
    if (!lrf_knows_size(struct_size, LRF_FIRST_OPTIONS, sizeof *options))
        return LRF_BAD_STRUCT;
    memcpy(options, &fresh, struct_size);
    return LRF_OK;
}

void lrf_complete_options(lrf_options *completed, const lrf_options *options)
{
    if (options && options->struct_size == sizeof *options) {
        *completed = *options;
        return;
    }
    lrf_options_init(completed, sizeof *completed);
    if (options)
        memcpy(completed, options, options->struct_size);
    completed->struct_size = sizeof *completed;
}

int lrf_is_report(const lrf_report *report)
{
    return !report || lrf_knows_size(report->struct_size, LRF_FIRST_REPORT, sizeof *report);
}

void lrf_write_report(lrf_report *report, const lrf_report *news)
{
    lrf_report written = *news;

    if (!report)
        return;
    written.struct_size = report->struct_size;
    written.unused = report->unused;
    if (report->struct_size == sizeof written)
        *report = written;
    else
        memcpy(report, &written, report->struct_size);
}

/* ---- words ----------------------------------------------------------------------------------------------- */

const char *lrf_status_text(lrf_status status)
{
    switch (status) {
    case LRF_OK: return "success";
    case LRF_BAD_STRUCT: return "a struct_size that this library does not know, or a field that has to be 0";
    case LRF_BAD_RULE: return "unknown rule";
    case LRF_BAD_DTYPE: return "dtype is neither LRF_FLOAT32 nor LRF_FLOAT64, or an unknown format";
    case LRF_BAD_NUMBER: return "a hyper-parameter or option is out of range or not a number";
    case LRF_BAD_FLAGS: return "unknown or contradictory flags";
    case LRF_NULL_POINTER: return "a required pointer is NULL";
    case LRF_MISALIGNED: return "a buffer is not aligned to its element size";
    case LRF_BAD_COUNT: return "count is larger than the address space";
    case LRF_OVERLAP: return "buffers overlap of which at least one is written";
    case LRF_BAD_WORK: return "work memory is missing, misaligned or too small";
    case LRF_BAD_ISA: return "the instruction set asked for is not available here";
    case LRF_UNFINISHED: return "lrf_end was called before lrf_next returned 0";
    case LRF_NOT_FINITE: return "a gradient, or its square, is not finite, and the step was skipped";
    case LRF_BAD_BUILD:
        return "this build does not give the promised bits: compile lrfast anew, without -ffast-math, its parts, and "
               "-ffp-contract=fast";
    }
    return "unknown status";
}

const char *lrf_version(void)
{
    return LRF_VERSION_STRING;
}

LRF_END_OF_SOURCE
