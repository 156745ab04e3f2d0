"""The page of the demo, ``index.html``."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np

import lrfast

from ..frame import fill, what_ran
from ..training import BATCH, SIZES, Result
from .curves import FAMILIES

__all__ = ["write_page"]


def write_page(results: Sequence[Result], folder: Path) -> Path:
    """Write ``index.html`` into the folder of the pictures, those of the lecture included; returns its path."""
    body = _introduction(results) + _table(results) + _trainings() + _lecture()
    page = folder / "index.html"
    page.write_text(fill("lrfast: the demo", body), encoding="utf-8")
    return page


def _introduction(results: Sequence[Result]) -> str:
    processor = str((lrfast.show_config(mode="dicts") or {}).get("processor", "an unknown processor"))
    runs, epochs = len(results[0].histories), len(results[0].histories[0].loss) - 1
    parameters = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(SIZES))
    how_many = "one training" if runs == 1 else f"the mean of {runs} trainings"
    differing = "" if runs == 1 else ", each with its own start and its own split of the images"
    return f"""
<h1>lrfast: the demo</h1>
<p>Here {len(results)} optimizers train the same small network to read handwritten digits: 1,797 real images of
8 &times; 8 grey values (UCI, shipped with scikit-learn), 1,437 to learn from and 360 that the network never sees and is
tested with. The network, {" &ndash; ".join(str(size) for size in SIZES)} units with {parameters:,} parameters, and
its backward pass are plain NumPy; the step of the optimizer is a call of lrfast. Each result is {how_many} of {epochs}
epochs in batches of {BATCH}{differing}. The learning rate rises to its peak during the first tenth of the updates
(warm-up) and then falls to 0 along a cosine (decay).</p>
<p class="small">Computed by <code>lrfast demo</code>, lrfast {escape(lrfast.__version__)}, on {escape(processor)}:
{what_ran()}, NumPy {escape(np.__version__)}.</p>
"""


def _table(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        ours, theirs, ratio = result.step_time.columns()
        rows.append(
            f"<tr><th scope=row>{escape(result.contestant.name)}<code>{_breakable(result.contestant.code)}</code></th>"
            f"<td>{_percent(result.final('train_accuracy'))}</td>"
            f"<td><b>{_percent(result.final('test_accuracy'))}</b></td>"
            f"<td>{ours}</td><td>{theirs}</td><td><b>{ratio}</b></td></tr>"
        )
    worst = min(history.test_accuracy[-1] for result in results for history in result.histories)
    return f"""
<h2>Results</h2>
<p>Accuracy is the share of images read correctly at the end. With 360 test images, one image is 0.3 %, so differences
of less than a per cent may well be chance. The lowest test accuracy of any single training was {_percent(worst)} %. The
learning rates, <code>lr</code>, are the peaks; they were chosen on other splits of the images than these.</p>
<p>Time is what one optimizer step for the whole network takes, in millionths of a second: by lrfast, and by the same
update in careful in-place NumPy without temporaries. They took turns in one process; the numbers are medians. The ratio
says how many times faster lrfast is; there is none where nobody has written the update in plain NumPy. The network is
small enough for the cache, and part of the gain is that lrfast needs one call where NumPy needs many: for Adam 12 for
each of the {2 * (len(SIZES) - 1)} arrays.</p>
<div class=scroll><table>
<thead><tr><th scope=col rowspan=2>Optimizer</th><th scope=colgroup colspan=2>accuracy, %</th>
<th scope=colgroup colspan=2>step, &micro;s</th><th scope=col rowspan=2>ratio</th></tr>
<tr><th scope=col>train</th><th scope=col>test</th><th scope=col>lrfast</th><th scope=col>NumPy</th></tr></thead>
<tbody>
{chr(10).join(rows)}
</tbody></table></div>
"""


def _trainings() -> str:
    return f"""
<h2>The trainings</h2>
<p>Four families: gradient descent, with and without momentum; methods that divide each step by the size of past
gradients; Adam, which does both; and three that set the size of a step in other ways: by past steps (Adadelta), by the
largest gradient (Adamax), or to the learning rate itself (Lion). Each picture shows one family in colour and the others
in grey, on the same axes.</p>
<h3>Loss</h3>
<p>What training makes small: the cross-entropy over all training images. Its axis is logarithmic, so that a straight
line down means a constant factor per epoch.</p>
{_panels("loss", "Training loss after each epoch.")}
<h3>Gradient norm</h3>
<p>How steep the loss is where the network stands: the length of the gradient over all training images. Where the loss
stops falling, this tells why. A small norm means that training has arrived somewhere flat; a large one, that it
bounces. Here it falls together with the loss: these trainings arrive.</p>
{_panels("grad_norm", "Length of the gradient of the training loss after each epoch.")}
<h3>Test accuracy</h3>
<p>What training is for: images that were never trained on. All optimizers end close together; they differ in how
quickly and how smoothly they get there. While the rate is near its peak, some fall back for an epoch; the decay calms
them.</p>
{_panels("test_accuracy", "Share of the 360 test images read correctly after each epoch; the axis starts at 90 %.")}
"""


def _lecture() -> str:
    return """
<h2>Why the learning rate matters</h2>
<p>Why does training get stuck, why does one learning rate not fit all parameters, and what do Adagrad, RMSprop, Adam,
decay and warm-up do about it? <a href="lecture.html">Learning rates in nine steps</a> computes each answer and shows
it.</p>
<figure><div class="panels n2"><div><img src="l1-path.svg" alt="One rate: the path bounces for ever."></div>
<div><img src="l4-path.svg" alt="A rate for each parameter: the path arrives."></div></div>
<figcaption>A bowl that is long in one direction. With one rate for both parameters the path bounces for ever (first
picture); with a rate for each it arrives (second).</figcaption></figure>
"""


def _panels(quantity: str, caption: str) -> str:
    return _figure([f"{quantity}-{family}" for family in FAMILIES], caption, list(FAMILIES.values()))


def _figure(names: Sequence[str], caption: str, titles: Sequence[str] | None = None) -> str:
    """Pictures side by side where there is room, otherwise below one another, over one caption."""
    panels = []
    for i, name in enumerate(names):
        title = f"<h4>{escape(titles[i])}</h4>" if titles else ""
        what = f"{titles[i]}: {caption}" if titles else caption
        panels.append(f'<div>{title}<img src="{name}.svg" alt="{what}"></div>')
    return (
        f'<figure><div class="panels n{len(names)}">{"".join(panels)}</div><figcaption>{caption}</figcaption></figure>'
    )


def _breakable(code: str) -> str:
    """A line may end after the opening parenthesis as well."""
    return escape(code).replace("(", "(<wbr>")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
