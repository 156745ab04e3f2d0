"""The demo: its page, the accuracies it promises, and the NumPy code it is timed against."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lrfast
from lrfast.lab import demo
from lrfast.lab.bench.numpy_steps import VARIANTS, make_step
from lrfast.lab.demo.curves import FAMILIES
from lrfast.lab.digits import MLP, load_digits
from lrfast.lab.training import CONTESTANTS, FIRST_SEED, train

from variants import taken

NAMES = [contestant.name for contestant in CONTESTANTS]


def test_quick_demo_writes_a_page_that_needs_nothing_else(quick_demo):
    folder, printed = quick_demo
    page = folder / "index.html"
    html = page.read_text(encoding="utf-8")
    pictures = re.findall(r'src="([^"]*)"', html)
    assert len(pictures) == 3 * len(FAMILIES) + 2
    assert all((page.parent / picture).is_file() for picture in pictures)
    assert re.findall(r'href="([^"]*)"', html) == ["lecture.html"]
    assert (page.parent / "lecture.html").is_file()
    assert "://" not in html
    assert sum(path.stat().st_size for path in page.parent.iterdir()) < 3_000_000
    assert printed.splitlines()[-1] == str(page.resolve())
    for name in NAMES:
        assert name in html
        assert name in printed


@pytest.mark.matrix(5)
@pytest.mark.parametrize("contestant", CONTESTANTS, ids=NAMES)
def test_accuracy(contestant):
    seeds = range(FIRST_SEED, FIRST_SEED + 3)
    histories = [train(contestant, load_digits(seed), epochs=30, seed=seed, after_epoch=int) for seed in seeds]
    accuracy = np.mean([history.test_accuracy[-1] for history in histories])
    assert accuracy >= (0.97 if contestant.name in ("Adam", "AdamW") else 0.95)
    for history in histories:
        assert history.loss[-1] < history.loss[0] / 50
        assert len(history.loss) == len(history.grad_norm) == len(history.test_accuracy) == 31


def test_training_follows_from_the_seed():
    contestant, digits = CONTESTANTS[0], load_digits(seed=1)
    first, second = (train(contestant, digits, epochs=2, seed=1, after_epoch=lambda: None) for _ in range(2))
    assert first == second
    assert first != train(contestant, digits, epochs=2, seed=2, after_epoch=lambda: None)


def test_digits_are_split_without_overlap():
    digits = load_digits(seed=3)
    assert digits.train_images.shape == (1437, 64)
    assert digits.test_images.shape == (360, 64)
    assert digits.train_images.dtype == np.float32
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 1)
    train_rows = {row.tobytes() for row in digits.train_images}
    assert len(train_rows) == 1437
    assert not any(row.tobytes() in train_rows for row in digits.test_images)


def test_backward_pass_is_the_derivative_of_the_loss():
    rng = np.random.default_rng(0)
    model = MLP((5, 7, 6, 3), seed=0)
    for arrays in (model.params, model.grads):
        arrays.update({name: array.astype(np.float64) for name, array in arrays.items()})
    images, labels = rng.standard_normal((4, 5)), np.array([0, 2, 1, 2])
    model.loss(images, labels)
    grads = {name: grad.copy() for name, grad in model.grads.items()}
    for name, param in model.params.items():
        for i in np.ndindex(param.shape):
            start, h = param[i], 1e-6
            param[i] = start + h
            above = model.loss(images, labels)
            param[i] = start - h
            below = model.loss(images, labels)
            param[i] = start
            assert grads[name][i] == pytest.approx((above - below) / (2 * h), abs=1e-8), (name, i)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)], ids=["float32", "float64"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["naive", "inplace"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_numpy_steps_make_the_same_update(variant, kind, weight_decay, dtype, tolerance):
    rng = np.random.default_rng(0)
    ours = rng.standard_normal((30, 20)).astype(dtype)
    theirs, grad = ours.copy(), np.zeros_like(ours)
    cls, options = VARIANTS[variant]
    settings = taken(getattr(lrfast, cls), {"lr": 0.01, "weight_decay": weight_decay})
    optimizer = getattr(lrfast, cls)(ours, grads=grad, **options, **settings)
    step = make_step(kind, variant, theirs, grad, settings)
    for _ in range(25):
        grad[...] = rng.standard_normal(grad.shape)
        optimizer.step()
        step()
        np.testing.assert_allclose(theirs, ours, rtol=tolerance, atol=tolerance)
    assert theirs.dtype == dtype


def test_numpy_steps_refuse_what_does_not_exist():
    array = np.zeros(3)
    with pytest.raises(TypeError, match="betas"):
        make_step("naive", "sgd", array, array, {"betas": (0.9, 0.999)})
    with pytest.raises(KeyError, match="sgdw"):
        make_step("inplace", "sgdw", array, array, {})


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(SystemExit, match=r"\(rich\).*pip install 'lrfast\[demo\]'"):
        demo.run(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["lrfast", "lrfast.lab.demo", "lrfast.lab.lecture"])
def test_import_does_not_need_the_extra(module):
    code = f"import {module}, sys; print({{'matplotlib', 'rich', 'sklearn'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.home())
    assert done.stdout.strip() == "set()"
