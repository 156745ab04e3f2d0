"""The nine claims of the lecture, with their numbers; the page that shows them."""

from __future__ import annotations

import re
import sys
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest

import lrfast
from lrfast.cli import main
from lrfast.lab import lecture
from lrfast.lab.lecture import (
    l1_bouncing,
    l2_verdict,
    l3_one_rate,
    l4_sigma,
    l5_forgetting,
    l6_adam,
    l7_burst,
    l8_decay,
    l9_warmup,
)
from lrfast.lab.lecture.descent import descend
from lrfast.lab.lecture.lesson import number
from lrfast.lab.lecture.surface import CRESCENT, LONG_BOWL, SADDLE, WIDE_BOWL, bowl

SURFACES = {"long bowl": LONG_BOWL, "wide bowl": WIDE_BOWL, "saddle": SADDLE, "crescent": CRESCENT}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return lecture.run(tmp_path_factory.mktemp("lecture") / "new" / "folder")


# ---- the ground they stand on --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SURFACES)
def test_gradient_is_the_derivative_of_the_loss(name):
    surface = SURFACES[name]
    points = np.random.default_rng(0).uniform(-2, 2, (50, 2))
    h = 1e-6
    for axis, step in enumerate(h * np.eye(2)):
        slope = (surface.loss(points + step) - surface.loss(points - step)) / (2 * h)
        np.testing.assert_allclose(surface.gradient(points)[:, axis], slope, rtol=1e-6, atol=1e-6)


def test_many_starts_are_the_same_as_one_by_one():
    starts = np.array([[-1.5, 2.5], [0.3, -0.2]])
    settings = {"lr": 1e-2, "initial": "first-gradient"}
    together = descend(CRESCENT, lrfast.RMSprop, 50, starts, **settings)
    for i, start in enumerate(starts):
        alone = descend(CRESCENT, lrfast.RMSprop, 50, start, **settings)
        assert np.array_equal(together.path[:, i], alone.path)
        assert np.array_equal(together.rates[:, i], alone.rates)
    assert together.path.dtype == np.float64


# ---- the claims ----------------------------------------------------------------------------------------------


def test_l1_the_loss_stands_while_the_gradient_is_large():
    run = l1_bouncing.run()
    assert run.updates == 2_000
    assert run.losses[-1] == pytest.approx(25.08, abs=0.005)
    assert run.grad_norms[-1] == pytest.approx(100.0, abs=0.05)
    assert run.turning == pytest.approx(0.9995, abs=0.00005)


@pytest.mark.parametrize("expected", ["bouncing", "crawling", "minimum", "saddle"])
def test_l2_verdicts(expected):
    run = l2_verdict.runs()[expected]
    verdict = l2_verdict.verdict(run)
    assert verdict.kind == expected
    evidence = verdict.evidence
    assert evidence["steps"] == run.updates == 2_000
    if expected in ("minimum", "saddle"):
        assert evidence["grad_norm"] < 1e-6 * evidence["grad_norm_before"]
        known = {"minimum": (1, 2), "saddle": (-1, 1)}[expected]
        assert (evidence["smallest"], evidence["largest"]) == pytest.approx(known, abs=1e-6)
    else:
        assert evidence["grad_norm"] > 90
        assert evidence["cosine"] == pytest.approx({"bouncing": 1, "crawling": -1}[expected], abs=1e-5)


def test_l2_the_monitor_saw_the_run_and_left_it_alone():
    watched, alone = l2_verdict.runs()["bouncing"], l1_bouncing.run()
    assert np.array_equal(watched.path, alone.path)
    assert [row["loss"] for row in watched.monitor.records] == watched.losses[:-1].tolist()
    np.testing.assert_allclose([row["grad_norm"] for row in watched.monitor.records], watched.grad_norms[:-1])


def test_l2_a_run_in_order_is_left_in_peace():
    run = descend(bowl(1.0, 2.0), lrfast.SGD, 50, lr=0.01, monitored=True)
    assert l2_verdict.verdict(run).kind == "descending"
    with pytest.raises(ValueError, match="monitored=True"):
        l2_verdict.verdict(descend(bowl(1.0, 2.0), lrfast.SGD, 50, lr=0.01))


def test_l2_the_page_shows_what_the_monitor_says(page):
    html = page.read_text(encoding="utf-8")
    for expected, run in l2_verdict.runs().items():
        text = escape(l2_verdict.verdict(run).text)
        row = re.search(f'<tr><th scope="row">{expected}</th>.*?</tr>', html)
        assert row is not None
        assert f'<td data-label="verdict">{expected}</td>' in row[0]
        assert f'<td data-label="in words">{text}</td>' in row[0]


def test_l3_large_bounces_and_small_never_arrives():
    large, small = l1_bouncing.run(), l3_one_rate.crawling()
    assert np.all(np.abs(large.path[:, 1]) > 0.49)
    assert small.updates == 100_000
    assert small.turning == 0
    assert small.path[-1, 0] - small.path[0, 0] == pytest.approx(0.0005, abs=0.000005)


def test_l4_a_rate_for_each_parameter_arrives():
    run = l4_sigma.run()
    assert run.updates == 2_000
    assert np.linalg.norm(run.path[-1]) < 1e-3
    assert run.losses[-1] < 1e-8
    sigma = np.sqrt(np.cumsum(run.gradients[:-1] ** 2, axis=0) / np.arange(1, 2_001)[:, None])
    np.testing.assert_allclose(run.rates, 0.01 / sigma, rtol=1e-9)
    assert np.all(run.rates[:, 0] > 0.01)
    assert np.all(run.rates[:, 1] < 0.01)


def test_l5_rmsprop_forgets():
    forgets, remembers = l5_forgetting.rmsprop(), l5_forgetting.remembering()
    assert forgets.updates == remembers.updates == 5_000
    assert forgets.losses[-1] == pytest.approx(0.0016, abs=0.00005)
    assert remembers.losses[-1] == pytest.approx(4.62, abs=0.005)
    first = np.abs(CRESCENT.gradient(np.array(CRESCENT.start)))
    np.testing.assert_allclose(forgets.rates[0], 1e-3 / first, rtol=1e-12)  # sigma_1 = |g_1|


def test_l5_forgetting_is_not_always_better():
    """At 0.01 the mean of all squares is chaotic: single ends lie from 2e-4 to 0.7, their median below RMSProp's."""
    finals = dict(zip(l5_forgetting.RATES, l5_forgetting.sweep(), strict=True))
    means, forgets = finals[1e-2]
    np.testing.assert_allclose(forgets, 0.022, rtol=0.05)
    assert np.median(means) < np.median(forgets)
    for lr in (1e-3, 2e-3):
        means, forgets = finals[lr]
        assert forgets.max() < means.min() / 100
    for lr, rule, run in ((1e-3, 0, l5_forgetting.remembering), (1e-3, 1, l5_forgetting.rmsprop)):
        assert finals[lr][rule][0] == run().losses[-1]  # the first start is that of the crescent


def test_l6_adam_without_momentum_is_rmsprop_with_a_bias_correction():
    assert l6_adam.difference_from_rmsprop() < 1e-12


@pytest.mark.parametrize("problem", ["bowl", "crescent", "digits"])
def test_l6_adam_beside_its_parents(problem):
    losses = {method: l6_adam.sweep()[problem, method] for method in l6_adam.METHODS}
    assert losses["Adam"].min() < 0.7 * losses["RMSProp"].min()
    if problem == "bowl":
        assert losses["Adam"].min() < losses["momentum"].min() / 1e6
    if problem == "crescent":  # momentum is as good at one rate, and diverges at the next
        best = int(losses["momentum"].argmin())
        assert losses["momentum"][best] < 1e-12
        assert np.all(np.isinf(losses["momentum"][best + 1 :]))


@pytest.mark.parametrize(("problem", "least"), [("bowl", 20), ("crescent", 20), ("digits", 6)])
def test_l6_tuning_by_hand_often_makes_it_worse(problem, least):
    losses = l6_adam.betas_losses()[problem]
    default = losses[l6_adam.BETAS.index((0.9, 0.999))]
    assert len(losses) == 24
    assert (losses > default).sum() >= least


def test_l7_burst():
    run = l7_burst.run()
    at = l7_burst.peak(run)
    height = np.abs(run.path[:, 1])
    assert at == pytest.approx(717, abs=3)
    assert height[at] == pytest.approx(0.91, abs=0.005)
    assert height[100:at].min() < 1e-100
    assert height[at + 100] < 1e-20
    rates = run.rates[:, 1]
    assert rates[at - 50] > l7_burst.LIMIT > rates[at + 1]  # sigma recovers


def test_l1_the_pass_of_the_update_tells_the_same():
    """Gradient norm and turning round, as statistics of the steps themselves."""
    run = l1_bouncing.run()
    point, gradient = run.path[0].copy(), np.empty(2)
    optimizer = lrfast.SGD(point, lr=0.01, grads=gradient, stats=True)
    norms, cosines = [], []
    for _ in range(run.updates):
        gradient[...] = LONG_BOWL.gradient(point)
        optimizer.step()
        total = optimizer.stats["total"]
        norms.append(total["grad_norm"])
        cosines.append(total["cosine"])
    assert np.array_equal(point, run.path[-1])
    np.testing.assert_allclose(norms, run.grad_norms[:-1], rtol=1e-12)
    assert (np.array(cosines) > 0).mean() == run.turning


def test_l7_the_pass_of_the_update_tells_the_same():
    """eta/sigma of each parameter, as a statistic of the steps themselves."""
    run = l7_burst.run()
    x, y = run.path[0, :1].copy(), run.path[0, 1:].copy()
    optimizer = lrfast.Adagrad([x, y], lr=0.1, accumulate="mean", stats=True)
    rates = []
    for _ in range(1_000):
        optimizer.step(list(WIDE_BOWL.gradient(np.stack([x, y], axis=-1)).reshape(2, 1)))
        rates.append([optimizer.stats[i]["rate_max"] for i in range(2)])
    assert np.array_equal([x[0], y[0]], run.path[1_000])
    np.testing.assert_allclose(rates, run.rates[:1_000], rtol=1e-6)  # eps is in these


def test_l8_decay_prevents_the_burst():
    run = l8_decay.run()
    assert run.updates == l7_burst.run().updates
    assert np.abs(run.path[300:, 1]).max() < 1e-14
    assert np.all(run.rates[:, 1] < l7_burst.LIMIT)


def test_l8_with_decay_the_mean_is_the_classic_sum():
    ours, classic = l8_decay.run(), l8_decay.classic_sum()
    np.testing.assert_allclose(ours.path, classic.path, rtol=1e-8)
    np.testing.assert_allclose(ours.rates, classic.rates, rtol=1e-8)
    assert l8_decay.difference() < 1e-8


def test_l9_warm_up_prevents_the_jump():
    assert l9_warmup.SEEDS >= 20
    assert l9_warmup.jump("Adam").shape == (l9_warmup.SEEDS,)
    assert l9_warmup.jump("Adam").min() > 50
    assert l9_warmup.jump("Adam, warm-up").max() < 3
    assert l9_warmup.jump("RAdam").max() < 3


def test_l9_it_is_sigma_that_was_not_informed():
    """The same rate does no harm later: an Adam that has seen 200 gradients at rest jumps ten times less at least."""
    assert np.all(l9_warmup.jump("Adam, informed") < l9_warmup.jump("Adam") / 10)
    late = {method: np.median(values[400:600]) for method, values in l9_warmup.losses().items()}
    assert late["Adam"] == pytest.approx(late["Adam, warm-up"], rel=0.2)
    assert late["Adam"] < 0.2


def test_l9_effective_samples():
    t = np.array([1, 2, 10, 10**6])
    for beta2 in (0.9, 0.999):
        weights = [beta2 ** np.arange(n) for n in (1, 2, 10)]
        kish = [w.sum() ** 2 / (w**2).sum() for w in weights]
        np.testing.assert_allclose(l9_warmup.effective_samples(beta2, t)[:3], kish, rtol=1e-9)
        assert l9_warmup.effective_samples(beta2, t)[3] == pytest.approx((1 + beta2) / (1 - beta2))


# ---- the page ------------------------------------------------------------------------------------------------


def test_page_needs_nothing_else(page):
    html = page.read_text(encoding="utf-8")
    pictures = re.findall(r'src="([^"]*)"', html)
    assert sorted(pictures) == sorted(path.name for path in page.parent.glob("*.svg"))
    assert "://" not in html
    assert sum(path.stat().st_size for path in page.parent.iterdir()) < 3_000_000
    assert html.count('class="player"') == 3


def test_page_shows_every_claim_and_that_it_holds(page):
    html = page.read_text(encoding="utf-8")
    for i in range(1, 10):
        assert f'<h2 id="L{i}">' in html
    assert html.count('<td data-label="Holds">yes</td>') == 9


def test_page_is_well_formed(page):
    """Every element that is opened is closed, in order."""

    class Balance(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "input"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag, self.getpos()

    parser = Balance()
    parser.feed(page.read_text(encoding="utf-8").removeprefix("<!doctype html>"))
    assert parser.open == []


def test_the_same_bytes_on_every_run(page, quick_demo):
    """In a fresh process, because this one keeps what it has computed: that of the demo, which shows the lecture."""
    other, _ = quick_demo
    assert page.name == "lecture.html"
    for path in page.parent.iterdir():
        assert (other / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_command_runs_it(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(lecture, "run", ran.append)
    assert main(["lecture", str(tmp_path)]) == 0
    assert ran == [tmp_path]


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"\(matplotlib\).*pip install 'lrfast\[demo\]'"):
        lecture.run(tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0016, "0.0016"),
        (99.95, "100"),
        (-0.32, "&minus;0.32"),
        (2.37e-110, "2.4 &middot; 10<sup>&minus;110</sup>"),
        (0, "0"),
    ],
)
def test_numbers_as_html(value, text):
    assert number(value) == text
