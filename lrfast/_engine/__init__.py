"""How a step runs: optimizer > settings, backend > plan (``_core`` in C, ``numpy_plan``) > buffers, stages, checks."""
