/* What surrounds the update in a step: norm and finiteness before it; zeroing, averages, copies and statistics after
 * it, tile by tile. */
#ifndef LRF_TAIL_H
#define LRF_TAIL_H

#include "dispatch.h"

/* Slot of a tile in the pass over the gradients. */
typedef struct lrf_norm_slot {
    double sum;         /* of g^2 */
    double clamped_sum; /* of the squares after clip_value */
    double nonfinite;   /* elements */
} lrf_norm_slot;

/* Tiles first .. end of a tensor; `index` is the index of its tile `first` in the whole step. */
typedef struct lrf_tile_run {
    const lrf_group *group;
    const lrf_tensor *tensor;
    const lrf_outputs *outputs; /* NULL: none */
    size_t first, end, index;
} lrf_tile_run;

/* Elements of a run. */
LRF_HIDDEN size_t lrf_elements_of(const lrf_tile_run *run);

/* Number of tiles of a tensor; 0 if it has no gradient. */
LRF_HIDDEN size_t lrf_tiles_of(const lrf_tensor *tensor);

/* Whether a step needs the pass over the gradients alone. */
LRF_HIDDEN int lrf_needs_norm(const lrf_options *options);

/* Bytes of work memory per tile. */
LRF_HIDDEN size_t lrf_slot_size(const lrf_options *options);

/* The pass over the gradients: a run, and what follows from all slots. Afterwards job->grad_norm, clip_factor,
 * nonfinite and where the first of these is are set. */
LRF_HIDDEN void lrf_norm_run(const lrf_job *job, const lrf_tile_run *run);
LRF_HIDDEN void lrf_finish_norm(lrf_job *job);

/* Whether updates of this group have to go tile by tile through lrf_staged_run. */
LRF_HIDDEN int lrf_has_stages(const lrf_job *job, const lrf_group *group);

/* The update of a run and everything that rides along. */
LRF_HIDDEN void lrf_staged_run(const lrf_job *job, const lrf_tile_run *run, const lrf_scalars *scalars);

/* Fills the lrf_stats of all outputs from the slots. */
LRF_HIDDEN void lrf_finish_statistics(const lrf_job *job);

/* Elements before the first whole cache line of the parameter, where it pays to begin there: vectors as wide as a line
 * would otherwise all straddle two (measured at 40 M elements: SGD 20 % slower). */
LRF_HIDDEN size_t lrf_elements_to_cache_line(const lrf_tensor *tensor, size_t begin, size_t n, size_t element_size);

#endif
