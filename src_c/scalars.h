/* The numbers of one update, computed in float64 from a group and the update t of a tensor, once for all tensors
 * that share both. The loops in rules/ cast each of them once to the element type. */
#ifndef LRF_SCALARS_H
#define LRF_SCALARS_H

#include "compiler.h"
#include "lrfast.h"

typedef struct lrf_scalars {
    double grad_scale;   /* factor of the gradient: scale, clip factor, sign (maximize) */
    double weight_decay; /* coupled */
    double keep;         /* factor of the parameter: decoupled weight decay */
    double lr;           /* factor of the direction, bias correction included */
    double grad_lr;      /* Nesterov: factor of the gradient beside the buffer */
    double momentum;     /* buffer = momentum * buffer + grad_weight * gradient */
    double grad_weight;
    double weight1;        /* first moment: m += weight1 * (x - m) */
    double beta2, weight2; /* second moment: v = beta2 * v + weight2 * x * x */
    double correction2;    /* 1 / sqrt(1 - beta2^t) */
    double eps;
    /* For statistics only: the learning rate alone, and what lr, correction2 and eps were in the update before. */
    double rate;
    double last_lr, last_correction2, last_eps;
} lrf_scalars;

/* step: number of this update, >= 1. grad_scale: factor of the gradients before their sign. */
LRF_HIDDEN void lrf_compute_scalars(lrf_scalars *scalars, const lrf_group *group, uint64_t step, double grad_scale);

/* Adds what statistics need to the scalars of update `step`. */
LRF_HIDDEN void lrf_add_trace_scalars(lrf_scalars *scalars, const lrf_group *group, uint64_t step);

/* 1 - base^exponent for base in [0, 1) and exponent >= 1, correctly rounded in every case tried (tests/), without
 * libm, whose pow differs between processors. */
LRF_HIDDEN double lrf_one_minus_power(double base, uint64_t exponent);

#endif
