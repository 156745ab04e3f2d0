"""opt.save and opt.load: one file, whole or the old one, whatever happens; refused where it is damaged or foreign."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import resource
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import lrfast
from lrfast import schedules
from lrfast._engine import archive

from arrays import make_grads, make_params, same_bits
from variants import VARIANTS

IDS = [lrfast.available_isas()[0], "numpy"]


def trained(variant, steps=3, n=70, **more):
    params = [make_params(n, np.float32), make_params(n + 1, np.float64), np.float32(np.ones((0, 2)))]
    optimizer = VARIANTS[variant].make(params, **more)
    for t in range(steps):
        optimizer.step([make_grads(p.size, p.dtype, seed=t).reshape(p.shape) for p in params])
    return optimizer, params


def equal(a, b):
    """The same types and bits all through."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray):
        return (
            a.dtype == b.dtype and a.shape == b.shape and (same_bits(a, b) if a.dtype.kind == "f" else (a == b).all())
        )
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize("isa", IDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_loading_restores_what_was_saved(variant, isa, tmp_path):
    with lrfast.use_isa(isa):
        path = tmp_path / "optimizer"
        optimizer, params = trained(variant, lr=schedules.cosine(0.1, 20), ema=0.9)
        optimizer.save(path)
        other, other_params = trained(variant, steps=1, lr=schedules.cosine(0.1, 20), ema=0.9)
        for own, p in zip(other_params, params, strict=True):
            own[...] = p
        other.load(path)
        assert equal(other.state_dict(), optimizer.state_dict())
        for o in (optimizer, other):
            o.step([make_grads(p.size, p.dtype, seed=9).reshape(p.shape) for p in params])
        assert equal(other.state_dict(), optimizer.state_dict())
        assert os.listdir(tmp_path) == ["optimizer"]


def test_names_and_further_keys_are_in_the_file(tmp_path):
    path = tmp_path / "checkpoint.of.mine"
    further = {
        **{"name": "body", "initial_lr": np.float32(0.1), "none": None, "nan": float("nan"), "big": 2**80},
        **{"nested": {"a": [1, (2.5, "x")], 3: True, ("t", 1): np.arange(3)}, "@": {"@": "tuple", "of": []}},
        **{"header": np.array(["a", "bc"]), "ä/..": np.ones(2), "a" * 300: np.ones(1)},
    }
    optimizer = lrfast.Adam([{"params": {("layer", 0): np.ones(2), "b": np.ones(3)}, **further}])
    optimizer.save(str(path))
    other = lrfast.Adam([{"params": {"b": np.ones(3), ("layer", 0): np.ones(2)}}])
    other.load(path)
    saved, loaded = optimizer.state_dict()["param_groups"][0], other.state_dict()["param_groups"][0]
    assert loaded.pop("param_names") == saved.pop("param_names")[::-1]
    assert sorted(map(str, saved)) == sorted(map(str, loaded))
    assert all(equal(loaded[key], saved[key]) for key in saved)


def test_keys_that_are_one_word_in_the_file(tmp_path):
    optimizer = lrfast.SGD(np.ones(3))
    further = {"a b": np.ones(1), "a-b": np.ones(2), "a_b": np.ones(3), "x" * 300: np.ones(4)}
    optimizer.param_groups[0].update(further)
    optimizer.save(tmp_path / "x.npz")
    other = lrfast.SGD(np.ones(3))
    other.load(tmp_path / "x.npz")
    assert [other.param_groups[0][key].size for key in further] == [1, 2, 3, 4]


def test_anybody_can_read_it(tmp_path):
    optimizer, _ = trained("adam", lr=schedules.constant(0.5))
    optimizer.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as members:
        assert same_bits(members["state/1/exp_avg_sq"], optimizer.state[1]["exp_avg_sq"])
        header = json.loads(members["header"].tobytes())
    assert (header["format"], header["version"], header["optimizer"]) == ("lrfast", 1, "Adam")
    assert header["schedules"] == [{"lr": repr(schedules.constant(0.5))}]
    optimizer.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes(), "equal states are equal files"


def test_an_error_while_saving_is_that_error(tmp_path, monkeypatch):
    """Whatever is being handled meanwhile."""

    def broken(*_, **__):
        raise ValueError("of its own")

    optimizer, _ = trained("adam")
    monkeypatch.setattr(np.lib.format, "write_array", broken)
    try:
        raise KeyError("handled")
    except KeyError:
        with pytest.raises(ValueError, match="of its own"):
            optimizer.save(tmp_path / "file.npz")
    assert not list(tmp_path.iterdir())


def test_what_a_file_cannot_hold_is_named(tmp_path):
    optimizer = lrfast.SGD([{"params": [np.ones(2)], "tags": [1, {2}]}])
    (tmp_path / "file").write_text("old")
    with pytest.raises(TypeError, match=r"state_dict\['param_groups'\]\[0\]\['tags'\]\[1\]: expected .*got set"):
        optimizer.save(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


# ---- where it is written -------------------------------------------------------------------------------------


def test_paths(tmp_path, monkeypatch):
    optimizer, _ = trained("momentum")
    monkeypatch.chdir(tmp_path)
    for path in ("plain", b"bytes", Path("sub.dir") / "x", "n" * 255):
        os.makedirs("sub.dir", exist_ok=True)
        optimizer.save(path)
        optimizer.load(path)
    assert sorted(os.listdir(tmp_path)) == ["bytes", "n" * 255, "plain", "sub.dir"]
    for path in (tmp_path, "sub.dir", os.devnull):
        with pytest.raises(IsADirectoryError, match="expected the path of a file"):
            optimizer.save(path)
    with pytest.raises(FileNotFoundError, match=r"unchanged: 'missing/x'"):
        optimizer.save("missing/x")
    with pytest.raises(FileNotFoundError):
        optimizer.load("missing")
    with pytest.raises(IsADirectoryError):
        optimizer.load(tmp_path)
    assert os.listdir("sub.dir") == ["x"]


def test_a_link_stays_and_permissions_are_kept(tmp_path):
    optimizer, _ = trained("momentum")
    (tmp_path / "there").mkdir()
    file, link = tmp_path / "there" / "file", tmp_path / "link"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    optimizer.save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    lrfast.SGD([p for g in optimizer.param_groups for p in g["params"]], momentum=0.9).load(file)
    optimizer.save(tmp_path / "new")
    (tmp_path / "by open").write_text("")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "by open").stat().st_mode, "as the umask says"
    assert sorted(os.listdir(tmp_path)) == ["by open", "link", "new", "there"]


class Disk(io.FileIO):
    """Is full after so many bytes, or interrupted."""

    left = 0
    failure: BaseException = MemoryError()

    def write(self, data):
        type(self).left -= len(memoryview(data).cast("B"))
        if self.left < 0:
            raise self.failure
        return super().write(data)


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
def test_a_failing_save_leaves_the_old_file_and_nothing_else(failure, tmp_path, monkeypatch):
    optimizer, _ = trained("adam")
    path = tmp_path / "file"
    optimizer.save(path)
    before, size = path.read_bytes(), path.stat().st_size
    optimizer.step([np.zeros_like(p) for g in optimizer.param_groups for p in g["params"]])
    monkeypatch.setattr(archive, "open", lambda path, mode: Disk(path, mode.replace("b", "")), raising=False)
    for left in [*range(0, size, 97), size - 1]:
        monkeypatch.setattr(Disk, "left", left)
        monkeypatch.setattr(Disk, "failure", failure)
        with pytest.raises(type(failure), match="file'$" if isinstance(failure, OSError) else None):
            optimizer.save(path)
        assert os.listdir(tmp_path) == ["file"]
        assert path.read_bytes() == before
    monkeypatch.undo()
    for name in ("fsync", "replace", "chmod"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, raising(failure))
            with pytest.raises(type(failure)):
                optimizer.save(path)
        assert os.listdir(tmp_path) == ["file"]
        assert path.read_bytes() == before


def raising(error):
    def fail(*arguments, **keywords):
        raise error

    return fail


def test_a_limit_of_the_system(tmp_path):
    """A file that may not grow as large as this: EFBIG, as on a full disk."""
    optimizer = lrfast.Adam([np.ones(100_000)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large; what was there is unchanged"):
            optimizer.save(tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_may_not_be_written(tmp_path):
    optimizer, _ = trained("momentum")
    optimizer.save(tmp_path / "file")
    before = (tmp_path / "file").read_bytes()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(archive, "open", raising(PermissionError(errno.EACCES, "Permission denied")), raising=False)
        with pytest.raises(PermissionError, match=r"Permission denied; what was there is unchanged: '.*file'"):
            optimizer.save(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == before


KILLED = """
import os, random, signal, sys, time
import numpy as np, lrfast
path, kills = sys.argv[1], int(sys.argv[2])
params = [np.ones(n) for n in (3, 40_000, 1000)]
def state(k):
    optimizer = lrfast.Adam(params)
    saved = optimizer.state_dict()
    for i, entry in saved["state"].items():
        entry["step"] = k
        for name in ("exp_avg", "exp_avg_sq"):
            entry[name][...] = k
    optimizer.load_state_dict(saved, updates=k)
    return optimizer
states, random = [state(1), state(2)], random.Random(kills)
states[0].save(path)
check, killed_inside = lrfast.Adam(params), 0
for _ in range(kills):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        while True:
            for optimizer in states:
                optimizer.save(path)
                os.write(writer, b".")
    os.close(writer)
    os.read(reader, 1)
    time.sleep(random.uniform(0, 0.01))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    check.load(path)
    arrays = [s[name] for s in check.state for name in ("exp_avg", "exp_avg_sq")]
    assert all((array == check.updates).all() for array in arrays), [np.unique(array) for array in arrays]
    assert {s["step"] for s in check.state} == {check.updates}
    for part in os.listdir(os.path.dirname(path)):
        if part.endswith(".part"):
            killed_inside += 1
            os.unlink(os.path.join(os.path.dirname(path), part))
print(killed_inside)
"""


def test_killed_in_the_middle_of_saves(tmp_path, request):
    """By kill -9, which nothing can catch: each time the old file or the new one is there, whole."""
    kills = 200 if request.config.getoption("--whole") else 20
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "file"), str(kills)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > kills // 4, "kills did not come in the middle of saves"


def test_two_processes_save_to_one_path(tmp_path):
    optimizer, _ = trained("adam")
    path = tmp_path / "file"
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(20):
                    optimizer.save(path)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    optimizer.load(path)
    assert os.listdir(tmp_path) == ["file"]


# ---- what is read --------------------------------------------------------------------------------------------


def test_each_damaged_byte_is_found(tmp_path):
    """Or means nothing: dates, versions and other marks of the zip format."""
    optimizer = lrfast.SGD({"w": np.arange(3.0)}, momentum=0.9)
    optimizer.step({"w": np.ones(3)})
    path = tmp_path / "file"
    optimizer.save(path)
    whole, saved = path.read_bytes(), optimizer.state_dict()
    refused = 0
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        try:
            optimizer.load(path)
        except ValueError:
            refused += 1
        assert equal(optimizer.state_dict(), saved), i
    assert refused > 0.85 * len(whole)
    for i in range(0, len(whole), 7):
        path.write_bytes(whole[:i])
        with pytest.raises(ValueError, match="expected a whole file that save"):
            optimizer.load(path)
    for longer in (whole + b"x", b"x" + whole, whole + whole, b""):
        path.write_bytes(longer)
        with pytest.raises(ValueError, match="expected a whole file that save"):
            optimizer.load(path)


def foreign(path, kind, optimizer):
    if kind == "pickle":
        path.write_bytes(pickle.dumps(optimizer.state_dict()))
    elif kind == "text":
        path.write_text("lr: 0.1\n" * 10)
    elif kind == "npz":
        with open(path, "wb") as file:
            np.savez(file, a=np.ones(2))
    elif kind == "npz with pickle":
        with open(path, "wb") as file:
            np.savez(file, header=np.array([print], object))
    elif kind == "npy":
        with open(path, "wb") as file:
            np.save(file, np.ones(2))
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", b"x")


@pytest.mark.parametrize("kind", ["pickle", "text", "npz", "npz with pickle", "npy", "zip"])
def test_foreign_files_are_refused(kind, tmp_path):
    optimizer, _ = trained("momentum")
    before = optimizer.state_dict()
    foreign(tmp_path / "file", kind, optimizer)
    with pytest.raises(ValueError, match="expected a whole file that save"):
        optimizer.load(tmp_path / "file")
    assert equal(optimizer.state_dict(), before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2, "lrfast": "9.9"}, "format 1 or earlier, got 2, written by lrfast 9.9; update lrfast"),
        ({"format": "other"}, "the format 'other'"),
        ({"version": "x"}, "expected a whole file"),
        ({"state_dict": {"@": "code", "of": "print"}}, "an unknown kind"),
        ({"state_dict": {}}, "members without a place"),
        ({"state_dict": []}, "members without a place"),
        ({"state_dict": {"@": "array", "of": "state/9"}}, "nothing of that kind"),
    ],
)
def test_headers(change, words, tmp_path):
    optimizer, _ = trained("momentum")
    optimizer.save(tmp_path / "file")
    with np.load(tmp_path / "file") as file:
        members = dict(file)
    header = {**json.loads(members["header"].tobytes()), **change}
    members["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with open(tmp_path / "file", "wb") as file:
        np.savez(file, **members)
    with pytest.raises(ValueError, match=words):
        optimizer.load(tmp_path / "file")


def test_a_member_that_goes_on_after_its_array(tmp_path):
    optimizer, _ = trained("momentum")
    optimizer.save(tmp_path / "file")
    with zipfile.ZipFile(tmp_path / "file") as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(tmp_path / "file", "w") as file:
        for name, content in members.items():
            file.writestr(name, content + b"x")
    with pytest.raises(ValueError, match=r"a member 'header\.npy' that is too long"):
        optimizer.load(tmp_path / "file")


def test_a_file_of_another_optimizer_or_dtype(tmp_path):
    optimizer, _ = trained("adam")
    optimizer.save(tmp_path / "file")
    with pytest.raises(ValueError, match="another optimizer"):
        trained("radam")[0].load(tmp_path / "file")
    double = lrfast.Adam([p.astype(np.float64) for g in optimizer.param_groups for p in g["params"]])
    with pytest.raises(TypeError, match=r"dtype='cast'\) converts"):
        double.load(tmp_path / "file")
    double.load(tmp_path / "file", dtype="cast")
    assert np.array_equal(double.state[0]["exp_avg"], optimizer.state[0]["exp_avg"], equal_nan=True)
