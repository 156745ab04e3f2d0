# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=False
"""Looks at tensors through the exchange API of DLPack, by which PyTorch says in C where their memory lies: with calls of
Python in its place a step of small tensors takes three times as long. ``layout.PlainReader`` is the same in Python."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
cimport numpy as cnp

cnp.import_array()

cdef extern from *:
    """
    #include <stdint.h>
    /* As in dlpack.h, version 1. */
    typedef struct { int32_t device_type, device_id; } lrf_dl_device;
    typedef struct { uint8_t code, bits; uint16_t lanes; } lrf_dl_type;
    typedef struct {
        void *data; lrf_dl_device device; int32_t ndim; lrf_dl_type dtype; int64_t *shape, *strides; uint64_t byte_offset;
    } lrf_dl_tensor;
    typedef struct {
        uint32_t major, minor; void *previous; void *allocate, *export_managed, *import_managed;
        int (*describe)(void *, lrf_dl_tensor *); void *stream;
    } lrf_dl_api;
    """
    ctypedef struct lrf_dl_device:
        int32_t device_type
    ctypedef struct lrf_dl_type:
        uint8_t code, bits
    ctypedef struct lrf_dl_tensor:
        void *data
        lrf_dl_device device
        int32_t ndim
        lrf_dl_type dtype
        int64_t *shape
        int64_t *strides
        uint64_t byte_offset
    ctypedef struct lrf_dl_api:
        uint32_t major
        int (*describe)(void *, lrf_dl_tensor *) except -1

cdef enum: CPU = 1, FLOAT = 2

cdef struct Place:
    void *data
    int64_t *sizes           # then strides
    int64_t count
    int32_t ndim
    uint8_t bits


cdef struct Scalar:
    void *source             # what the engine counts: a double, or an unsigned integer
    void *shown              # the tensor in the state
    double value             # what was written there last
    bint whole, narrow


cdef class Reader:
    """The gradients of parameters, as long as everything lies where it was when it was bound.

    ``params`` are the bound ones, ``lists`` those of all groups, in which they stand in order among ``strangers``:
    positions of others, which are not looked at. ``plain``: types of tensors whose memory is their own.
    """
    cdef lrf_dl_api *api
    cdef Place *places
    cdef Scalar *scalars
    cdef list params, groups, lists, known_lists, entries, tensors
    cdef list states                 # values of each entry of the state, in order; None for a stranger's
    cdef void **addresses            # of the tensors among them
    cdef set plain
    cdef Py_ssize_t count, scalar_count

    def __cinit__(self, capsule, list params, list groups, set plain):
        cdef Py_ssize_t i
        cdef lrf_dl_tensor seen
        self.api = <lrf_dl_api *>PyCapsule_GetPointer(capsule, b"dlpack_exchange_api")
        if self.api.major != 1 or self.api.describe == NULL:
            raise NotImplementedError("another version of DLPack")
        self.params, self.groups, self.plain, self.count = params, groups, plain, len(params)
        self.lists = [group["params"] for group in groups]
        self.known_lists = [list(group["params"]) for group in groups]
        self.places = <Place *>calloc(max(1, self.count), sizeof(Place))
        if self.places == NULL:
            raise MemoryError()
        for i in range(self.count):
            self.api.describe(<void *>params[i], &seen)
            place = &self.places[i]
            place.data, place.ndim, place.bits, place.count = seen.data, seen.ndim, seen.dtype.bits, params[i].numel()
            place.sizes = <int64_t *>calloc(max(1, 2 * seen.ndim), sizeof(int64_t))
            if place.sizes == NULL:
                raise MemoryError()
            memcpy(place.sizes, seen.shape, seen.ndim * sizeof(int64_t))
            memcpy(place.sizes + seen.ndim, seen.strides, seen.ndim * sizeof(int64_t))
        self.entries, self.states, self.tensors = [], [], []

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.places != NULL:
            for i in range(self.count):
                free(self.places[i].sizes)
        free(self.places)
        free(self.scalars)
        free(self.addresses)

    def watch(self, list entries, list states, list tensors, list scalars):
        """What the state holds from now on: its dicts in order, their values (None where nothing is watched), the
        tensors among these, and (tensor, address of what it shows, whether that is an integer)."""
        cdef Py_ssize_t i
        cdef lrf_dl_tensor seen
        free(self.addresses)
        free(self.scalars)
        self.scalar_count = 0
        self.entries, self.states, self.tensors = entries, states, tensors
        self.addresses = <void **>calloc(max(1, len(tensors)), sizeof(void *))
        self.scalars = <Scalar *>calloc(max(1, len(scalars)), sizeof(Scalar))
        if self.addresses == NULL or self.scalars == NULL:
            raise MemoryError()
        for i in range(len(tensors)):
            self.api.describe(<void *>tensors[i], &seen)
            self.addresses[i] = seen.data
        for i, (tensor, source, whole) in enumerate(scalars):
            self.api.describe(<void *>tensor, &seen)
            self.scalars[i] = Scalar(<void *><uintptr_t>source, seen.data, 0, whole, seen.dtype.bits == 32)
        self.scalar_count = len(scalars)
        self.count_up()

    def count_up(self):
        """Shows in the state what the engine has counted."""
        cdef Py_ssize_t i
        cdef Scalar *x
        for i in range(self.scalar_count):
            x = &self.scalars[i]
            x.value = <double>(<uint64_t *>x.source)[0] if x.whole else (<double *>x.source)[0]
            if x.narrow:
                (<float *>x.shown)[0] = <float>x.value
                x.value = <float>x.value
            else:
                (<double *>x.shown)[0] = x.value

    def read(self, state):
        """An array over each gradient, in order, None where there is none; or None if anything is unusual."""
        cdef Py_ssize_t i
        cdef lrf_dl_tensor seen
        cdef Place *place
        cdef list grads
        cdef cnp.npy_intp size
        cdef cnp.ndarray array
        if not self.is_same_list() or not self.is_same_state(state):
            return None
        grads = []
        for i in range(self.count):
            place = &self.places[i]
            param = self.params[i]
            self.api.describe(<void *>param, &seen)
            if seen.data != place.data or not fits(&seen, place):
                return None
            grad = param.grad
            if grad is None:
                grads.append(None)
                continue
            # A view of negatives is the imaginary half of numbers that lie in pairs: others do not fit below.
            if type(grad) not in self.plain or (place.count == 1 and grad.is_neg()):
                return None
            try:
                self.api.describe(<void *>grad, &seen)
            except Exception:              # it has no memory of this kind: sparse, ...
                return None
            if not fits(&seen, place) or <uintptr_t>seen.data % (place.bits // 8) != 0:
                return None
            size = place.count
            array = cnp.PyArray_SimpleNewFromData(
                1, &size, cnp.NPY_DOUBLE if place.bits == 64 else cnp.NPY_FLOAT, seen.data)
            cnp.set_array_base(array, grad)
            grads.append(array)
        return grads

    cdef bint is_same_list(self):
        cdef Py_ssize_t i, k
        cdef list now, known
        for i in range(len(self.groups)):
            if (<dict>self.groups[i])["params"] is not self.lists[i]:
                return False
            now, known = <list>self.lists[i], <list>self.known_lists[i]
            if len(now) != len(known):
                return False
            for k in range(len(known)):
                if now[k] is not known[k]:
                    return False
        return True

    cdef bint is_same_state(self, state) except -1:
        cdef Py_ssize_t i = 0, k, at = 0, inner
        cdef PyObject *key
        cdef PyObject *value
        cdef lrf_dl_tensor seen
        cdef tuple known
        cdef Scalar *x
        if len(state) != len(self.entries):
            return False
        while PyDict_Next(state, &at, &key, &value):
            if <object>value is not self.entries[i]:
                return False
            if self.states[i] is not None:
                known, inner, k = <tuple>self.states[i], 0, 0
                if len(self.entries[i]) != len(known):
                    return False
                while PyDict_Next(self.entries[i], &inner, &key, &value):
                    if <object>value is not known[k]:
                        return False
                    k += 1
            i += 1
        for i in range(len(self.tensors)):
            self.api.describe(<void *>self.tensors[i], &seen)
            if seen.data != self.addresses[i]:
                return False
        for i in range(self.scalar_count):
            x = &self.scalars[i]
            if (<float *>x.shown)[0] != x.value if x.narrow else (<double *>x.shown)[0] != x.value:
                return False
        return True


cdef inline bint fits(const lrf_dl_tensor *seen, const Place *place) noexcept:
    """Whether a tensor lies in memory as the parameter does, element by element."""
    cdef int32_t i
    if (seen.device.device_type != CPU or seen.dtype.code != FLOAT or seen.dtype.bits != place.bits
            or seen.ndim != place.ndim):
        return False
    for i in range(place.ndim):
        if seen.shape[i] != place.sizes[i]:
            return False
        if seen.strides[i] != place.sizes[place.ndim + i] and place.sizes[i] != 1 and place.count != 0:
            return False
    return True
