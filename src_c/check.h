/* Validation: everything is checked before anything is written. */
#ifndef LRF_CHECK_H
#define LRF_CHECK_H

#include "compiler.h"
#include "lrfast.h"

/* Checks options and every group and tensor; on refusal says in *report what and where. report may not be NULL. */
LRF_HIDDEN lrf_status lrf_check(const lrf_group *groups, size_t group_count, const lrf_options *options,
                                lrf_report *report);

/* Row of the table by id; NULL if there is none. */
LRF_HIDDEN const lrf_rule_info *lrf_find_rule(uint32_t id);

/* Bytes of an element; 0 if there is no such type. */
static inline size_t lrf_dtype_size(uint32_t dtype)
{
    switch (dtype) {
    case LRF_FLOAT64: return 8;
    case LRF_FLOAT32: return 4;
    case LRF_FLOAT16:
    case LRF_BFLOAT16: return 2;
    default: return 0;
    }
}

static inline size_t lrf_element_size(const lrf_group *group)
{
    return group->dtype == LRF_FLOAT64 ? sizeof(double) : sizeof(float);
}

#endif
