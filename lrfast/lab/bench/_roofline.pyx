# cython: language_level=3, boundscheck=False, wraparound=False
"""The yardstick of the benchmark: how fast this machine streams what an update reads and writes."""

from libc.stdlib cimport calloc, free
cimport numpy as cnp

cnp.import_array()

cdef extern from "_roofline.h" nogil:
    ctypedef void lrf_stream(size_t, const float *, float *, float *, float *, float *)
    lrf_stream *lrf_find_stream(const char *, size_t)

cdef struct tensor:
    size_t n
    const float *grad
    float *written[4]


cdef class Stream:
    """For each tensor, a call reads a gradient once, and reads and writes 0 to 4 other arrays once.

    tensors: pairs (grad, written) of C-contiguous float32 arrays, with equally many written ones in each pair; those
    of a pair have one size. isa: the instruction set.
    """
    cdef tensor *tensors
    cdef Py_ssize_t count
    cdef lrf_stream *loop
    cdef object arrays

    def __init__(self, str isa, list tensors):
        cdef Py_ssize_t i, k
        self.arrays = tensors
        self.count = len(tensors)
        self.tensors = <tensor *>calloc(max(1, self.count), sizeof(tensor))
        if self.tensors == NULL:
            raise MemoryError()
        counts = {len(written) for _, written in tensors}
        if len(counts) != 1 or not counts <= {0, 1, 2, 3, 4}:
            raise ValueError(f"written: expected 0 to 4 arrays for every tensor, got {sorted(counts)}")
        self.loop = lrf_find_stream(isa.encode(), counts.pop())
        for i, (grad, written) in enumerate(tensors):
            for array in (grad, *written):
                if array.dtype != "float32" or array.size != grad.size or not array.flags.carray:
                    raise ValueError("expected C-contiguous float32 arrays of one size")
            self.tensors[i].n = grad.size
            self.tensors[i].grad = <const float *>cnp.PyArray_DATA(<cnp.ndarray>grad)
            for k in range(len(written)):
                self.tensors[i].written[k] = <float *>cnp.PyArray_DATA(<cnp.ndarray>written[k])

    def __dealloc__(self):
        free(self.tensors)

    def __call__(self):
        cdef Py_ssize_t i
        cdef tensor *t
        with nogil:
            for i in range(self.count):
                t = &self.tensors[i]
                self.loop(t.n, t.grad, t.written[0], t.written[1], t.written[2], t.written[3])
