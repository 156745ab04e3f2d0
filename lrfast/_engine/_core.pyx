# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=False
"""The binding to src_c: a plan of bound buffers, single updates, instruction sets. No arithmetic happens here."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t, SIZE_MAX
from libc.math cimport NAN, isfinite
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
cimport numpy as cnp
import numpy

from .capi cimport *

import os
from functools import partial

from . import checks, commit, fit
from .options import Options, Report

cnp.import_array()
cdef object memmap = numpy.memmap

cdef extern from *:
    """
    #define lrfast_compiler __VERSION__
    /* By this symbol threadpoolctl finds the library. */
    __attribute__((visibility("default"))) const int lrfast_has_a_thread_pool = 1;
    """
    const char *lrfast_compiler

# The pool of this process: no thread before the first large step, and none is ended before the process is.
cdef lrf_pool *pool = lrf_pool_create(1)
if pool == NULL:
    raise MemoryError()

# use_isa("numpy"): plans run on the reference.
cdef bint numpy_forced = False


# ---- instruction sets -------------------------------------------------------------------------------------------

def isa():
    """The kernels in use."""
    if numpy_forced:
        return "numpy"
    cdef const char *name = lrf_isa()
    return None if name == NULL else name.decode()


def has_kernels():
    """Whether any give the promised bits."""
    return lrf_isa_name(0) != NULL


def available_isas():
    """What this machine and build can run, best first."""
    names = []
    while lrf_isa_name(len(names)) != NULL:
        names.append(lrf_isa_name(len(names)).decode())
    return (*names, "numpy")


def set_isa(str name):
    """Forces kernels for the whole process."""
    global numpy_forced
    if name not in available_isas():
        raise ValueError(f"isa {name!r} is not available here; there are {', '.join(available_isas())}")
    numpy_forced = name == "numpy"
    if not numpy_forced:
        lrf_set_isa(name.encode())


def get_threads():
    """Threads that a large step may use."""
    return lrf_pool_threads(pool)


def set_threads(unsigned n):
    """Takes effect with the next step."""
    lrf_pool_set_threads(pool, n)


def version():
    """Version of the C library."""
    return lrf_version().decode()


def compiler():
    """What the extension was built with."""
    return lrfast_compiler.decode()


# ---- elementary functions ---------------------------------------------------------------------------------------

cdef extern from * nogil:
    """
    #include "internal.h"
    LRF_END_OF_SOURCE /* what Cython writes is no source of ours */
    """
    double lrf_exp(double x)
    double lrf_log(double x)
    double lrf_power(double x, double y)
    double lrf_cos(double x)


def exp(double x):
    """e**x; this and the next three are elementary.py, compiled."""
    return lrf_exp(x)


def log(double x):
    """The natural logarithm."""
    return lrf_log(x)


def power(double x, double y):
    """x**y."""
    return lrf_power(x, y)


def cos(double x):
    """The cosine."""
    return lrf_cos(x)


# ---- groups and tensors -----------------------------------------------------------------------------------------

cdef dict known_offsets = {}
cdef dict copy_dtypes = {"float32": LRF_FLOAT32, "float16": LRF_FLOAT16, "bfloat16": LRF_BFLOAT16}


cdef int bfloat16_type = -1   # the number that NumPy has given to the dtype of ml_dtypes; -1: nobody has used it yet


cdef uint8_t format_of(cnp.ndarray array) except? 255:
    """How an array holds its elements: LRF_NATIVE, or the format of 16 bits. It has been checked."""
    global bfloat16_type
    cdef int number = cnp.PyArray_TYPE(array)
    if number == cnp.NPY_FLOAT or number == cnp.NPY_DOUBLE:
        return LRF_NATIVE
    if number == cnp.NPY_FLOAT16:
        return LRF_FLOAT16
    if number != cnp.NPY_USHORT:
        bfloat16_type = number
    return LRF_BFLOAT16


cdef inline bint is_computed_in_float32(int number, bint has_bits) noexcept:
    """Whether it is the number of such a dtype, as far as they were seen; has_bits: uint16 is one."""
    return (number == cnp.NPY_FLOAT or number == cnp.NPY_FLOAT16 or number == bfloat16_type
            or (has_bits and number == cnp.NPY_USHORT))


cdef int set_number(lrf_group *group, str name, double value) except -1:
    offset = known_offsets.get(name)
    if offset is None:
        offset = lrf_number_offset(name.encode())
        if offset == SIZE_MAX:
            raise KeyError(name)
        known_offsets[name] = offset
    (<double *>(<char *>group + <size_t>offset))[0] = value
    return 0


cdef int init_group(lrf_group *group, rule, cnp.ndarray like, lrf_tensor *tensors, size_t count) except -1:
    if lrf_group_init(group, sizeof(lrf_group), rule.id) != LRF_OK:
        raise SystemError(f"the extension lacks the rule {rule.name}; rebuild it")
    group.dtype = LRF_FLOAT64 if cnp.PyArray_TYPE(like) == cnp.NPY_DOUBLE else LRF_FLOAT32
    group.tensors = tensors
    group.count = count
    return 0


cdef int set_numbers(lrf_group *group, dict numbers) except -1:
    for name, value in numbers.items():
        set_number(group, name, value)
    return 0


cdef int bind_tensor(lrf_tensor *tensor, cnp.ndarray param, dict states, rule) except -1:
    tensor.param = cnp.PyArray_DATA(param)
    tensor.count = <uint64_t>cnp.PyArray_SIZE(param)
    for slot, name in enumerate(rule.states):
        tensor.state[<size_t>slot] = cnp.PyArray_DATA(<cnp.ndarray>states[name]) if name else NULL
    return 0


cdef int bind_formats(lrf_storage *storage, cnp.ndarray param, dict states, rule) except -1:
    """How a tensor holds its parameter and states, and its master."""
    cdef cnp.ndarray master
    storage.param_format = format_of(param)
    for slot, name in enumerate(rule.states):
        if name:
            storage.state_format[<size_t>slot] = format_of(states[name])
    for name, kind in (("master", LRF_FLOAT32), ("remainder", LRF_SPLIT)):
        if name in states:
            master = states[name]
            storage.master_format, storage.more[0] = <uint8_t>kind, cnp.PyArray_DATA(master)
    return 0


cdef inline bint fits(object x, cnp.ndarray param) noexcept:
    """An array that the kernels can read as it is, like its parameter."""
    return is_shaped_like(x, param) and cnp.PyArray_TYPE(<cnp.ndarray>x) == cnp.PyArray_TYPE(param)


cdef inline bint fits_in_its_format(object x, cnp.ndarray param, bint has_bits) noexcept:
    """A gradient for which that is so once it is decoded."""
    if not is_shaped_like(x, param):
        return False
    cdef int number = cnp.PyArray_TYPE(<cnp.ndarray>x), other = cnp.PyArray_TYPE(param)
    return number == other or (is_computed_in_float32(number, has_bits) and is_computed_in_float32(other, has_bits))


cdef inline bint is_shaped_like(object x, cnp.ndarray param) noexcept:
    """A contiguous array of its shape."""
    if not (cnp.PyArray_CheckExact(x) or type(x) is memmap):  # isinstance may run code of the user
        return False
    cdef cnp.ndarray array = <cnp.ndarray>x
    cdef int n = cnp.PyArray_NDIM(array), i
    if not cnp.PyArray_ISCARRAY_RO(array):
        return False
    if n != cnp.PyArray_NDIM(param):
        return False
    for i in range(n):
        if cnp.PyArray_DIM(array, i) != cnp.PyArray_DIM(param, i):
            return False
    return True


cdef refused(lrf_status status, const lrf_report *report):
    """For what the checks in Python let through, which should be nothing."""
    what = "" if report.what == NULL else report.what.decode() + ": "
    return ValueError(f"{what}{lrf_status_text(status).decode()} (group {report.group}, tensor {report.tensor})")


# ---- the plan ---------------------------------------------------------------------------------------------------

cdef uint64_t NEVER = <uint64_t>-1
# Elements: up to here a step takes 1 us or less, and to release the GIL and take it again a tenth of that.
cdef enum: MOST_OF_SHORT = 1024
cdef uint64_t LAST_UPDATE = checks.LAST_UPDATE


cdef class Held:
    """A plan that is kept from others, in a with statement or for a call; in C, so that nothing comes between."""
    cdef Plan plan
    cdef object reason
    cdef object lending
    cdef list after
    cdef uint64_t turn

    def run(self, function, *arguments):
        """What the function returns, called while the plan is kept."""
        self.enter()
        try:
            return function(*arguments)
        finally:
            self.leave()

    def still(self):
        """Raises RuntimeError if anybody has had the plan since."""
        if self.plan.turns != self.turn:
            raise RuntimeError(commit.MOVED)

    def __enter__(self):
        self.enter()

    def __exit__(self, kind, error, trace):
        self.leave()

    cdef int enter(self) except -1:
        self.plan.take()
        self.turn = self.plan.turns
        self.plan.reason = self.reason
        try:
            if self.lending is not None:
                before, after = self.lending()
                after = list(after)
                make_all(before)
                self.after = after
        except BaseException:
            self.plan.reason = None
            self.plan.busy = False
            raise
        return 0

    cdef int leave(self) except -1:
        try:
            if self.after is not None:
                make_all(self.after)
                self.after = None
        finally:
            self.plan.reason = None
            self.plan.busy = False
        return 0


cdef int make_all(stages) except -1:
    """Prepared calls; what is only for want of memory is tried again."""
    cdef int tries
    for stage in stages:
        for tries in range(10):
            try:
                for call in stage:
                    call()
                break
            except MemoryError:
                if tries == 9:
                    raise
    return 0


cdef unsigned forks = 0


def _count_fork():
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


cdef class Plan:
    """Checked buffers bound once, and one call into C per step for all tensors of all groups.

    ``live`` are the dicts of settings: where one says something else than when its numbers were ``set``, a step writes
    nothing and says so, and it refuses a list ``groups`` that no longer holds just them. With ``scheduled`` numbers are
    set for one update at a time.
    """
    cdef lrf_group *groups        # one per run of equal dtype within a group
    cdef lrf_tensor *tensors
    cdef lrf_outputs *outputs     # one per tensor
    cdef lrf_storage *storage     # one per tensor, for groups that have anything to store there
    cdef int *types               # of parameters, as NumPy numbers them
    cdef lrf_stats *stats         # one per tensor
    cdef lrf_options options
    cdef lrf_report news          # of the step that is running, or was refused
    cdef lrf_report last_report   # of the latest that was not
    cdef lrf_job job
    cdef void *scratch
    cdef size_t scratch_size
    cdef Py_ssize_t group_count, tensor_count
    cdef list params, grads, copies, copy_types, param_groups, live, known_values, known_keys, runs_of_group, settings
    cdef object buffers, reason, recorder, step_options, stats_target, stats_after
    cdef bint busy, stepping, scheduled, zero_grads, has_work, recorded, last_skipped, has_scheduled_decay
    cdef bint is_short            # its steps keep the GIL
    cdef bint carries             # numbers of its rules, from step to step
    cdef bint has_bits            # uint16 is bfloat16
    cdef uint64_t set_at, decay_at, turns
    cdef unsigned taken_in        # forks of the process before it was taken
    cdef public uint64_t updates, skipped

    def __cinit__(self, buffers, list groups, list live, bint scheduled, steps, uint64_t updates, uint64_t skipped):
        cdef Py_ssize_t i, k
        runs = buffers.runs()
        self.buffers, self.scheduled, self.updates, self.skipped = buffers, scheduled, updates, skipped
        self.set_at = NEVER
        self.params, self.grads = buffers.params, buffers.grads
        self.param_groups, self.live = groups, list(live)
        self.known_values = [None for _ in live]
        self.known_keys = [None for _ in live]
        self.settings = [{} for _ in live]
        self.runs_of_group = [[] for _ in live]
        self.group_count = len(runs)
        self.tensor_count = len(self.params)
        self.outputs = <lrf_outputs *>calloc(max(1, self.tensor_count), sizeof(lrf_outputs))
        self.stats = <lrf_stats *>calloc(max(1, self.tensor_count), sizeof(lrf_stats))
        self.groups = <lrf_group *>calloc(max(1, self.group_count), sizeof(lrf_group))
        self.tensors = <lrf_tensor *>calloc(max(1, self.tensor_count), sizeof(lrf_tensor))
        self.storage = <lrf_storage *>calloc(max(1, self.tensor_count), sizeof(lrf_storage))
        self.types = <int *>calloc(max(1, self.tensor_count), sizeof(int))
        if (self.groups == NULL or self.tensors == NULL or self.outputs == NULL or self.stats == NULL
                or self.storage == NULL or self.types == NULL):
            raise MemoryError()
        self.has_bits = "uint16" in buffers.dtypes
        self.carries = any(group.rule.carried for group in buffers.groups)
        self.is_short = sum(param.size for param in self.params) <= MOST_OF_SHORT
        self.news.struct_size = self.last_report.struct_size = sizeof(lrf_report)
        for i in range(self.tensor_count):
            self.outputs[i].struct_size = sizeof(lrf_outputs)
            self.stats[i].struct_size = sizeof(lrf_stats)
            self.storage[i].struct_size = sizeof(lrf_storage)
        lrf_options_init(&self.options, sizeof(lrf_options))
        for i, (group, first, stop) in enumerate(runs):
            self.runs_of_group[group].append(i)
            rule = buffers.groups[group].rule
            init_group(&self.groups[i], rule, self.params[first], &self.tensors[<size_t>first], stop - first)
            if rule.carried:
                self.groups[i].storage = &self.storage[<size_t>first]
            for k in range(first, stop):
                bind_tensor(&self.tensors[k], self.params[k], buffers.states[k], rule)
                bind_formats(&self.storage[k], self.params[k], buffers.states[k], rule)
                self.types[k] = cnp.PyArray_TYPE(<cnp.ndarray>self.params[k])
                if self.storage[k].param_format != LRF_NATIVE:
                    self.groups[i].storage = &self.storage[<size_t>first]
                self.tensors[k].step = steps[k]
        self.scratch_size = lrf_overlap_scratch_size(self.groups, self.group_count)
        self.scratch = calloc(max(<size_t>1, self.scratch_size), 1)
        if self.scratch == NULL:
            raise MemoryError()
        self.last_report.grad_norm, self.last_report.clip_factor, self.last_report.limited_norm = NAN, 1, NAN
        self.configure(Options(), None)
        if self.grads is not None:
            self.bind_grads(self.grads)

    def __dealloc__(self):
        free(self.groups)
        free(self.tensors)
        free(self.outputs)
        free(self.storage)
        free(self.types)
        free(self.stats)
        free(self.options.work)
        free(self.scratch)

    # ---- what others tell it, and ask --------------------------------------------------------------------------

    def set(self, index, dict settings, dict numbers, flags=None, t=None):
        """Takes over the checked settings of a group, of which ``numbers`` have changed.

        With ``t`` they are those of schedules after t updates, and good for the next one alone. Index None: a number of
        the options that follows a schedule, ``ema_decay``.
        """
        cdef Py_ssize_t i, position = 0
        cdef list values, keys
        cdef PyObject *key
        cdef PyObject *value
        cdef bint anew
        if self.stepping:
            self.refuse_if_busy()
        if index is None:
            if self.has_scheduled_decay:      # nobody has made it a number meanwhile
                self.options.ema_decay, self.decay_at = numbers["ema_decay"], t
            return
        values, keys = <list>self.known_values[<Py_ssize_t>index], <list>self.known_keys[<Py_ssize_t>index]
        anew = flags is not None or values is None or len(values) != len(settings)
        if anew:                  # everything that needs memory comes first
            values, keys = list(settings.values()), list(settings)
        for i in <list>self.runs_of_group[index]:
            set_numbers(&self.groups[i], numbers)
            if flags is not None:
                self.groups[i].flags = flags
        self.settings[index] = settings
        if t is not None:
            self.set_at = t
        if anew:
            self.known_values[index] = values
            self.known_keys[index] = keys
            return
        i = 0
        while i < len(values) and PyDict_Next(settings, &position, &key, &value):
            if value != <PyObject *>values[i]:
                values[i] = <object>value
            i += 1

    def configure(self, options, recorder):
        """Takes over options, and buffers that come or go with them."""
        cdef Py_ssize_t i
        x = self.buffers
        self.step_options, self.recorder, self.copies = options, recorder, x.copies
        self.copy_types = None if x.copies is None else [copy.dtype.num for copy in x.copies]
        self.zero_grads = options.zero_grads
        self.options.clip_norm = options.clip_norm or 0
        self.options.clip_value = options.clip_value or 0
        self.has_scheduled_decay, self.decay_at = callable(options.ema), NEVER
        self.options.ema_decay = 0 if options.ema is None or self.has_scheduled_decay else options.ema
        self.options.flags = LRF_ZERO_GRADS if options.zero_grads else 0
        if options.nonfinite != "propagate":
            self.options.flags |= LRF_REQUIRE_FINITE
        self.has_work = recorder is not None or options.clip_norm or options.nonfinite != "propagate"
        for i in range(self.tensor_count):
            self.outputs[i].ema = cnp.PyArray_DATA(<cnp.ndarray>x.ema[i]) if x.ema else NULL
            self.outputs[i].ema_dtype = LRF_FLOAT64 if x.ema and x.ema[i].dtype == numpy.float64 else 0
            self.outputs[i].copy = cnp.PyArray_DATA(<cnp.ndarray>x.copies[i]) if x.copies else NULL
            self.outputs[i].copy_dtype = copy_dtypes[x.copy_dtypes[i]] if x.copies else 0
            self.outputs[i].last = cnp.PyArray_DATA(<cnp.ndarray>x.last[i]) if x.last else NULL
            self.outputs[i].stats = &self.stats[i]
            self.tensors[i].grad = NULL      # the next step looks for overlap anew
        for i in range(self.group_count):
            needed = x.ema or x.copies or recorder is not None
            self.groups[i].outputs = &self.outputs[self.groups[i].tensors - self.tensors] if needed else NULL

    def held(self, reason=commit.STEPPING, lending=None):
        """``with plan.held(): ...`` or ``plan.held().run(function, ...)``: meanwhile, steps and all others that want to
        hold the plan get a RuntimeError that says ``reason``.

        ``lending()``, called when nobody else has the plan, prepares two lists of stages: they are made on the way in,
        and on the way out, whatever happens.
        """
        cdef Held held = Held.__new__(Held)
        held.plan, held.reason, held.lending = self, reason, lending
        return held

    @property
    def progress(self):
        """Completed updates of each tensor, a live view; may be written."""
        cdef cnp.npy_intp count = self.tensor_count, stride = sizeof(lrf_tensor)
        cdef cnp.ndarray view = cnp.PyArray_New(
            numpy.ndarray, 1, &count, cnp.NPY_UINT64, &stride, &self.tensors[0].step, 0, cnp.NPY_ARRAY_WRITEABLE, None)
        cnp.set_array_base(view, self)
        return view

    @property
    def report(self):
        """What the latest step did."""
        cdef const lrf_report *r = &self.last_report
        return Report(r.grad_norm, r.clip_factor, self.last_skipped, r.updated, r.limited_norm, r.overflowed)

    # ---- a step ------------------------------------------------------------------------------------------------

    def step(self, list grads, grad_scale):
        """One update of every tensor that has a gradient; grads None: the bound ones.

        False: a setting was edited or belongs to another update; nothing was written.
        """
        cdef lrf_status status
        if self.busy:
            self.refuse_if_busy()
        if not self.is_current():
            return False
        self.take()
        self.stepping = True
        try:
            if numpy_forced:
                self.step_in_numpy(grads, grad_scale)
            else:
                grads = self.prepare(grads, grad_scale)
                if self.is_short:
                    status = lrf_pool_step(pool, self.groups, self.group_count, &self.options, &self.news)
                else:
                    with nogil:
                        status = lrf_pool_step(pool, self.groups, self.group_count, &self.options, &self.news)
                self.finish(status, grads)
        finally:
            self.busy = self.stepping = False
        return True

    def phases(self, list grads, grad_scale):
        """The same step on the caller's threads: phases, of which all parts are run before the next is asked for.

        Yields run(part, parts). Raises RuntimeError where ``step`` would return False. Leaving early is possible before
        the last phase begins.
        """
        cdef lrf_status status
        from . import numpy_plan
        with self.held():
            if not self.is_current():
                raise RuntimeError("phases: settings were edited since they were set")
            if numpy_forced:
                job = numpy_plan.Job(self.bound(), grads, grad_scale)
                yield from job.phases()
                self.finish_in_numpy(job)
                return
            grads = self.prepare(grads, grad_scale)
            status = lrf_begin(&self.job, self.groups, self.group_count, &self.options, &self.news)
            if status == LRF_OK:
                while lrf_next(&self.job):
                    yield self._run
                status = lrf_end(&self.job, &self.news)
            self.finish(status, grads)

    def _run(self, size_t part, size_t parts):
        """One part of the phase that ``phases`` is in."""
        if part >= parts:
            raise ValueError(f"part: expected a number below parts = {parts}, got {part}")
        with nogil:
            lrf_run(&self.job, part, parts)

    cdef int refuse_if_busy(self) except -1:
        if self.busy:
            raise RuntimeError(commit.FORKED if self.taken_in != forks else self.reason or commit.STEPPING)
        return 0

    cdef inline int take(self) except -1:
        if self.busy:
            self.refuse_if_busy()
        self.busy = True
        self.turns += 1
        self.taken_in = forks
        return 0

    cdef bint is_current(self) except -1:
        """Whether all groups say what they said when their numbers were set, which was for this update."""
        cdef Py_ssize_t index
        if len(self.param_groups) != len(self.live):
            checks.groups(self.param_groups, self.live)
        for index in range(len(self.live)):
            if self.param_groups[index] is not self.live[index]:
                checks.groups(self.param_groups, self.live)
            if not self.unchanged(index):
                return False
        if self.has_scheduled_decay and self.decay_at != self.updates:
            return False
        return not self.scheduled or self.set_at == self.updates

    cdef bint unchanged(self, Py_ssize_t index) noexcept:
        cdef list known = <list>self.known_values[index]
        cdef list keys = <list>self.known_keys[index]
        cdef dict settings = <dict>self.live[index]
        cdef Py_ssize_t position = 0, i = 0
        cdef PyObject *key
        cdef PyObject *value
        if known is None or keys is None or len(settings) != len(known):
            return False
        while PyDict_Next(settings, &position, &key, &value):
            if value != <PyObject *>known[i] or key != <PyObject *>keys[i]:
                return False
            i += 1
        return True

    cdef list prepare(self, list grads, grad_scale):
        """Everything that can be refused, and memory for norms and statistics; the gradients to use."""
        self.options.grad_scale = <double>grad_scale if type(grad_scale) is float else checks.number(
            "grad_scale", grad_scale)
        if not isfinite(self.options.grad_scale):
            checks.number("grad_scale", grad_scale)
        if (grads is None) == (self.grads is None):
            self.buffers.choose_grads(grads)
        if self.updates >= LAST_UPDATE:
            checks.another_update(self.updates)
        grads = self.grads if grads is None else list(grads)  # ours, whatever the caller does to his meanwhile
        if self.has_work:
            self.prepare_record()
        # From here on nothing runs but C, until the step is done: what is checked stays so.
        self.check_params()
        if self.copies is not None:
            self.check_copies()
        self.bind_grads(grads)
        if self.has_work:
            self.prepare_work()
        if self.carries:
            self.copy_carried(self.buffers.carried, True)
        return grads

    cdef int finish(self, lrf_status status, list grads) except -1:
        """Counts a step, or says why it wrote nothing."""
        cdef Py_ssize_t i = 0
        if status == LRF_OK or status == LRF_NOT_FINITE:
            self.last_report, self.last_skipped = self.news, status == LRF_NOT_FINITE
        if status == LRF_NOT_FINITE or self.news.overflowed > 0:
            i = self.groups[self.last_report.group].tensors + self.last_report.tensor - self.tensors
        if status == LRF_OK:
            if self.carries:
                self.copy_carried(self.buffers.carried, False)
            self.updates += 1
            if self.has_work and self.recorded:
                self.copy_stats()
            if self.last_report.overflowed > 0 and self.step_options.nonfinite == "raise":
                raise self.buffers.overflowed(i, self.last_report.overflowed)
        elif status != LRF_NOT_FINITE:
            if status == LRF_BAD_NUMBER:
                fit.step(self.buffers, self.settings, grads, self.progress.tolist(), self.options.grad_scale)
            raise refused(status, &self.news)
        elif self.step_options.nonfinite == "raise":
            self.last_skipped = False
            if self.last_report.nonfinite > 0:
                raise self.buffers.not_finite(i, self.last_report.nonfinite)
            raise self.buffers.square_not_finite(
                i, grads[i], self.options.grad_scale, self.step_options.clip_value, self.last_report.clip_factor)
        else:
            self.skipped += 1
            if self.zero_grads:   # or a sum of gradients would stay NaN for ever
                for i in range(self.tensor_count):
                    if grads[i] is not None:
                        memset(cnp.PyArray_DATA(<cnp.ndarray>grads[i]), 0, cnp.PyArray_NBYTES(<cnp.ndarray>grads[i]))
        return 0

    cdef int copy_carried(self, cnp.ndarray rows, bint into_c) except -1:
        """What tensors carry, from the rows of the buffers for a step, or back after it."""
        cdef Py_ssize_t i
        cdef size_t size = sizeof(self.storage[0].scalar)
        cdef char *row
        for i in range(self.tensor_count):
            row = <char *>cnp.PyArray_DATA(rows) + i * size
            memcpy(<char *>self.storage[i].scalar if into_c else row, row if into_c else <char *>self.storage[i].scalar,
                   size)
        return 0

    cdef object bound(self):
        from . import numpy_plan  # which nobody waits for at import
        return numpy_plan.Bound(self.buffers, self.settings, self.step_options, self.options.ema_decay, self.recorder,
                                self.progress, self.updates)

    cdef int step_in_numpy(self, list grads, grad_scale) except -1:
        from . import numpy_plan
        return self.finish_in_numpy(numpy_plan.run_step(self.bound(), grads, grad_scale))

    cdef int finish_in_numpy(self, job) except -1:
        """Writes what a step in NumPy came to, and counts it."""
        report, completed = job.report, job.completed
        count = partial(self._count, report.grad_norm, report.limited_norm, report.clip_factor, report.updated,
                        report.overflowed, report.skipped, self.skipped + report.skipped, self.updates + completed)
        commit.at_once([*job.calls, count])
        if job.failure is not None:
            raise job.failure()
        return 0

    def _count(self, double norm, double limited_norm, double factor, uint64_t updated,
               uint64_t overflowed, bint skipped, uint64_t all_skipped, uint64_t updates):
        self.last_report.grad_norm, self.last_report.limited_norm, self.last_report.clip_factor = (
            norm, limited_norm, factor)
        self.last_report.updated, self.last_report.overflowed, self.last_skipped = updated, overflowed, skipped
        self.skipped, self.updates = all_skipped, updates

    cdef int prepare_record(self) except -1:
        """What this step measures, and where to."""
        self.recorded = self.recorder is not None and self.recorder.wanted(self.updates)
        self.options.flags &= ~<uint32_t>(LRF_NORMS | LRF_STATS | LRF_KEEP_LAST)
        if self.recorded:
            copies = [dict(settings) for settings in self.settings]
            self.stats_target, self.stats_after = self.recorder.prepare(self.updates, self.options.grad_scale, copies)
            self.options.flags |= LRF_NORMS if self.recorder.norms else LRF_STATS
            if not self.recorder.norms and not self.recorder.is_followed(self.updates):
                self.options.flags |= LRF_KEEP_LAST
        return 0

    cdef int prepare_work(self) except -1:
        """Memory for norms and statistics of this step, whose gradients are bound."""
        cdef size_t size
        cdef void *work
        size = lrf_work_size(self.groups, self.group_count, &self.options)
        if size > self.options.work_size:
            work = realloc(self.options.work, size)
            if work == NULL:
                raise MemoryError()
            self.options.work = work
            self.options.work_size = size
        return 0

    cdef int copy_stats(self) except -1:
        """What follows the sizes of the C structs, into the rows of a contiguous array; and the recorder knows."""
        cdef Py_ssize_t i
        cdef size_t size = sizeof(lrf_stats) - (<char *>&self.stats[0].elements - <char *>&self.stats[0])
        cdef char *target = <char *>cnp.PyArray_DATA(<cnp.ndarray>self.stats_target)
        for i in range(self.tensor_count):
            memcpy(target + i * size, &self.stats[i].elements, size)
        for name, value in (<dict>self.stats_after).items():
            setattr(self.recorder, name, value)
        return 0

    # ---- checks of what may have changed since it was bound ----------------------------------------------------

    cdef int check_params(self) except -1:
        cdef Py_ssize_t i, k
        cdef lrf_tensor *tensor
        cdef cnp.ndarray param
        for i in range(self.group_count):
            for k in range(<Py_ssize_t>self.groups[i].count):
                tensor = &self.groups[i].tensors[k]
                param = <cnp.ndarray>self.params[tensor - self.tensors]
                if (cnp.PyArray_DATA(param) != tensor.param or not cnp.PyArray_ISCARRAY(param)
                        or cnp.PyArray_TYPE(param) != self.types[tensor - self.tensors]
                        or <uint64_t>cnp.PyArray_SIZE(param) != tensor.count):
                    self.buffers.check_params()
        return 0

    cdef int check_copies(self) except -1:
        cdef Py_ssize_t i
        cdef cnp.ndarray copy
        for i in range(self.tensor_count):
            copy = <cnp.ndarray>(<list>self.copies)[i]
            if (cnp.PyArray_DATA(copy) != self.outputs[i].copy or not cnp.PyArray_ISCARRAY(copy)
                    or cnp.PyArray_TYPE(copy) != <int>(<list>self.copy_types)[i]
                    or <uint64_t>cnp.PyArray_SIZE(copy) != self.tensors[i].count):
                self.buffers.check_copies()
        return 0

    cdef int bind_grads(self, list grads) except -1:
        cdef Py_ssize_t i
        cdef bint moved = False, coded = False
        cdef uint8_t format
        cdef void *data
        cdef lrf_report report
        report.struct_size = sizeof(report)
        if len(grads) != self.tensor_count:
            self.buffers.check_grads(grads, self.zero_grads)
        for i in range(self.tensor_count):
            if grads[i] is not None and not (fits_in_its_format(grads[i], <cnp.ndarray>self.params[i], self.has_bits)
                                             and (not self.zero_grads or cnp.PyArray_ISCARRAY(<cnp.ndarray>grads[i]))):
                self.buffers.check_grads(grads, self.zero_grads)  # of all: what is not seen here is right, or refused
                break
        for i in range(self.tensor_count):
            data = NULL if grads[i] is None else cnp.PyArray_DATA(<cnp.ndarray>grads[i])
            format = LRF_NATIVE if grads[i] is None else format_of(<cnp.ndarray>grads[i])
            if data != self.tensors[i].grad or format != self.storage[i].grad_format:
                self.tensors[i].grad = data
                self.storage[i].grad_format = format
                moved = moved or data != NULL
                coded = coded or format != LRF_NATIVE
        if coded:
            for i in range(self.group_count):
                self.groups[i].storage = &self.storage[self.groups[i].tensors - self.tensors]
        if moved and lrf_check_overlap(self.groups, self.group_count, &self.options, self.scratch, self.scratch_size,
                                       &report) != LRF_OK:
            for i in range(self.tensor_count):
                self.tensors[i].grad = NULL      # so that the next call looks again
            self.buffers.check_overlap(grads, self.zero_grads)
            raise refused(LRF_OVERLAP, &report)
        return 0


# ---- one tensor -------------------------------------------------------------------------------------------------

def update_once(rule, uint32_t flags, dict numbers, param, grad, dict states, uint64_t step, double grad_scale, check):
    """Update number `step` of one tensor. Numbers are checked; check() raises for arrays that are refused here."""
    cdef lrf_group group
    cdef lrf_tensor tensor
    cdef lrf_storage storage
    cdef lrf_options options
    cdef lrf_report report
    cdef lrf_status status
    cdef tuple carried = rule.carried
    report.struct_size = sizeof(report)
    if not (cnp.PyArray_Check(param) and fits(param, param) and cnp.PyArray_ISCARRAY(<cnp.ndarray>param)
            and cnp.PyArray_TYPE(<cnp.ndarray>param) in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE) and fits(grad, param)):
        check()
    for name, state in states.items():
        if name in carried or not fits(state, param) or not cnp.PyArray_ISCARRAY(<cnp.ndarray>state):
            check()
    init_group(&group, rule, param, &tensor, 1)
    group.flags = flags
    set_numbers(&group, numbers)
    bind_tensor(&tensor, param, states, rule)
    tensor.grad = cnp.PyArray_DATA(<cnp.ndarray>grad)
    tensor.step = step - 1
    if carried:
        memset(&storage, 0, sizeof(storage))
        storage.struct_size = sizeof(storage)
        for slot, name in enumerate(carried):
            storage.scalar[<size_t>slot] = states[name].item()
        group.storage = &storage
    lrf_options_init(&options, sizeof(options))
    options.grad_scale = grad_scale
    if cnp.PyArray_SIZE(<cnp.ndarray>param) <= MOST_OF_SHORT:
        status = lrf_pool_step(pool, &group, 1, &options, &report)
    else:
        with nogil:
            status = lrf_pool_step(pool, &group, 1, &options, &report)
    if status != LRF_OK:
        check()
        raise refused(status, &report)
    for slot, name in enumerate(carried):
        states[name].fill(storage.scalar[<size_t>slot])
