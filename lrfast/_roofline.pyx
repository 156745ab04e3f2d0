# cython: language_level=3, boundscheck=False, wraparound=False
"""The yardstick of the benchmark: how fast this machine streams what an update reads and writes."""

cimport numpy as cnp

cnp.import_array()

cdef extern from "_roofline.h" nogil:
    ctypedef void lrf_stream(size_t, const float *, float *, float *, float *, float *)
    lrf_stream *lrf_find_stream(const char *, size_t)


cdef class Stream:
    """A call reads grad once, and reads and writes each of 1 to 4 written arrays once, with one instruction set.

    All are C-contiguous float32 arrays of one size.
    """
    cdef size_t n
    cdef const float *grad
    cdef float *buffers[4]
    cdef lrf_stream *loop
    cdef object arrays

    def __init__(self, str isa, grad, list written):
        cdef Py_ssize_t i
        if not 1 <= len(written) <= 4:
            raise ValueError(f"written: expected 1 to 4 arrays, got {len(written)}")
        for array in (grad, *written):
            if array.dtype != "float32" or array.size != grad.size or not array.flags.carray:
                raise ValueError("expected C-contiguous float32 arrays of one size")
        self.arrays = (grad, *written)
        self.n = grad.size
        self.grad = <const float *>cnp.PyArray_DATA(<cnp.ndarray>grad)
        for i in range(4):
            self.buffers[i] = <float *>cnp.PyArray_DATA(<cnp.ndarray>written[min(i, len(written) - 1)])
        self.loop = lrf_find_stream(isa.encode(), len(written))

    def __call__(self):
        with nogil:
            self.loop(self.n, self.grad, self.buffers[0], self.buffers[1], self.buffers[2], self.buffers[3])
