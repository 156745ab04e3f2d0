"""NumPy as people write it: naive and in place. A loop over the tensors, one thread."""

from __future__ import annotations

from contract import Arrays, Contender, Settings

from lrfast.lab.bench.numpy_steps import Kind, make_step

NAMES = ["numpy naive", "numpy in place"]


def make(name: str, rule: str, settings: Settings, params: Arrays, grads: Arrays, threads: int) -> Contender | None:
    kind: Kind = "naive" if name == "numpy naive" else "inplace"
    options = {key: x for key, x in settings.items() if key not in ("beta1", "beta2", "momentum")}
    steps = [make_step(kind, rule, p, g, options) for p, g in zip(params, grads, strict=True)]

    def step() -> None:
        for update in steps:
            update()

    return Contender(name, step, lambda: params)
