"""The C API, lrfast.h and pool.h, as far as the binding uses it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "lrfast.h" nogil:
    ctypedef int lrf_status
    ctypedef struct lrf_tensor:
        void *param
        void *grad
        void *state[4]
        uint64_t count
        uint64_t step
    ctypedef struct lrf_stats:
        uint32_t struct_size
        double elements
    ctypedef struct lrf_outputs:
        uint32_t struct_size
        void *ema
        void *copy
        void *last
        lrf_stats *stats
        uint32_t copy_dtype, ema_dtype
    ctypedef struct lrf_storage:
        uint32_t struct_size
        uint8_t param_format, grad_format, master_format
        uint8_t state_format[4]
        double scalar[4]
        void *more[4]
    ctypedef struct lrf_group:
        uint32_t struct_size, rule, dtype, flags
        lrf_tensor *tensors
        size_t count
        const lrf_outputs *outputs
        lrf_storage *storage
    ctypedef struct lrf_options:
        uint32_t flags
        double grad_scale, clip_value, clip_norm, ema_decay
        void *work
        size_t work_size
    ctypedef struct lrf_report:
        uint32_t struct_size
        const char *what
        size_t group, tensor
        double grad_norm, clip_factor
        uint64_t updated, nonfinite
        double limited_norm
        uint64_t overflowed
    enum:
        LRF_OK, LRF_BAD_NUMBER, LRF_OVERLAP, LRF_NOT_FINITE, LRF_FLOAT32, LRF_FLOAT64, LRF_FLOAT16, LRF_BFLOAT16
        LRF_NATIVE, LRF_SPLIT
        LRF_REQUIRE_FINITE, LRF_ZERO_GRADS, LRF_NORMS, LRF_STATS, LRF_KEEP_LAST
    ctypedef struct lrf_job:
        pass
    size_t lrf_work_size(const lrf_group *, size_t, const lrf_options *)
    lrf_status lrf_group_init(lrf_group *, size_t, int)
    lrf_status lrf_options_init(lrf_options *, size_t)
    size_t lrf_overlap_scratch_size(const lrf_group *, size_t)
    lrf_status lrf_check_overlap(const lrf_group *, size_t, const lrf_options *, void *, size_t, lrf_report *)
    lrf_status lrf_begin(lrf_job *, const lrf_group *, size_t, const lrf_options *, lrf_report *)
    int lrf_next(lrf_job *)
    void lrf_run(lrf_job *, size_t, size_t)
    lrf_status lrf_end(lrf_job *, lrf_report *)
    const char *lrf_status_text(lrf_status)
    const char *lrf_isa()
    const char *lrf_isa_name(size_t)
    lrf_status lrf_set_isa(const char *)
    size_t lrf_number_offset(const char *)
    const char *lrf_version()

cdef extern from "pool.h" nogil:
    ctypedef struct lrf_pool:
        pass
    lrf_pool *lrf_pool_create(unsigned)
    int lrf_pool_set_threads(lrf_pool *, unsigned)
    unsigned lrf_pool_threads(const lrf_pool *)
    lrf_status lrf_pool_step(lrf_pool *, const lrf_group *, size_t, const lrf_options *, lrf_report *)
