"""Statistics of steps: ``optimizer.stats``.

With the keyword ``stats`` of an optimizer they come out of the pass that updates. ``optimizer.stats["total"]`` covers
all parameters, ``optimizer.stats[i]`` the i-th. Each is a dict; s is the gradient times ``grad_scale`` and the sign of
``maximize``, before clipping and decay, p the parameter before the step, d its update (p moves by d beside decoupled
weight decay), eta/sigma the effective rate; s' and d' belong to the step before.

=================== ===================================================================================================
``elements``        elements that had a gradient
``grad_norm``       |s|
``param_norm``      |p|
``update_norm``     |d|
``update_ratio``    |d| / |p|
``grad_max``        largest magnitude in s
``update_max``      largest magnitude in d
``nan, inf, zero``  elements of the gradient that are so
``dead``            elements that do not move, though their gradient is finite: sigma is infinite or NaN, mostly since
                    the square of a gradient was beyond the floating-point type
``lost``            elements whose update changed nothing: d != 0, but p + d == p, as p is stored
``dot``             <s, d>: the change of the loss that the gradient predicts
``cosine``          of s and d'; above 0 the last step went too far
``bounce``          share of elements in which s and d' have the same sign: the gradient has turned around
``sharpness``       <d', s - s'> / |d'|^2: curvature of the loss along the last update; decoupled decay, which is not
                    part of d', leaks into it
``sharpness_limit`` where that update would just not have lowered the loss: -2 <s', d'> / |d'|^2, for gradient descent
                    2 / lr; with heavy-ball momentum and no clipping
                    2 (1 + momentum) / ((1 - dampening) lr)
``minimum``         <s', d'> / <d', s' - s>: where along d' the loss is least; 1 is its end, less than 1/2 means that
                    the loss rose
``rates``           64 counts: elements with 2^(k-32) <= eta/sigma < 2^(k-31), the outer bins open. Of each 1,024
                    elements at most 16, evenly spaced, are counted
``rate_median``     middle of the bin in which the median of these lies; for the outer bins, which have none,
                    ``rate_max`` if that lies there, too, otherwise 0
``rate_max``        largest eta/sigma of all elements
``eps_dominates``   share of elements with eps > sigma
``n_eff``           gradients that sigma has effectively seen, (1+b)/(1-b) (1-b^t)/(1+b^t) with b = beta2 or alpha; t
                    for sums and means; in the total the smallest of all tensors
=================== ===================================================================================================

What is not known is NaN: whatever compares with the step before, until two have been seen; with ``stats="norms"`` all
but the first lines up to ``update_ratio``. d' is the update that was made, whatever was edited since. After loading
(``load_state_dict``, pickle, deepcopy) it is unknown for one record: NaN. With ``stats=k`` every k-th update is
measured, and the one before it stored for d'.
"""

from ._engine.recorder import Recorder as Recorder  # where pickles of 0.1.0 look for it
from ._engine.statistics import Stats

__all__ = ["Stats"]
