"""lrfast itself, bound."""

from __future__ import annotations

from contract import Arrays, Contender, Settings

import lrfast

NAMES = ["lrfast"]
CLASSES = {
    "sgd": lrfast.SGD,
    "momentum": lrfast.SGD,
    "adagrad": lrfast.Adagrad,
    "rmsprop": lrfast.RMSprop,
    "adam": lrfast.Adam,
    "adamw": lrfast.AdamW,
}


def make(name: str, rule: str, settings: Settings, params: Arrays, grads: Arrays, threads: int) -> Contender | None:
    lrfast.set_num_threads(threads)
    options: dict[str, object] = dict(settings)
    if "beta1" in options:
        options["betas"] = (options.pop("beta1"), options.pop("beta2"))
    optimizer = CLASSES[rule](params, grads=grads, **options)  # type: ignore[arg-type]
    return Contender(name, optimizer.step, lambda: params)
