"""A state_dict in a file: one ``.npz`` without pickle, whole or not there, and refused where it is damaged.

Members are arrays, ``.npy`` as NumPy writes them; ``header.npy`` holds the bytes of a JSON text, in which the rest of
the state_dict stands and arrays are named. ``numpy.load(path)`` reads all of them.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import zipfile
from contextlib import ExitStack, nullcontext, suppress
from functools import partial
from typing import Any

import numpy as np

from .._version import __version__
from . import formats
from .arithmetic import Array

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
VERSION = 1
"""Of the format; a later one is refused."""

_HEADER = "header"
_END = b"PK\5\6"  # of the last record of a zip file, whose comment is empty here
_END_SIZE = 22
_PLAIN = (type(None), bool, int, float, str)


def write(path: Path, saved: dict[str, Any], about: dict[str, Any]) -> None:
    """Puts a state_dict, and what a reader may want to know about it, into the place of a file, or of none.

    It is written beside, flushed to the disk and moved into place. Raises OSError, or TypeError for what JSON cannot
    hold; then the old file is as it was, and nothing lies beside it.
    """
    target = os.path.realpath(os.fsdecode(path))
    if os.path.exists(target) and not os.path.isfile(target):
        raise IsADirectoryError(errno.EISDIR, "expected the path of a file, which need not be there", os.fspath(path))
    arrays: dict[str, Array] = {}
    header = {"format": "lrfast", "version": VERSION, "lrfast": __version__, **about}
    header["state_dict"] = _encoded((), saved, arrays)
    text = json.dumps(header).encode()
    folder = os.path.dirname(target)
    beside = os.path.join(folder, f".lrfast-{secrets.token_hex(8)}.part")
    try:
        with open(beside, "xb") as file:
            with suppress(FileNotFoundError):
                os.chmod(beside, os.stat(target).st_mode & 0o777)
            _write_members(file, {_HEADER: np.frombuffer(text, np.uint8), **arrays})
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(beside)
        if isinstance(error, OSError):
            raise OSError(
                error.errno, f"{error.strerror or error}; what was there is unchanged", os.fspath(path)
            ) from None
        raise
    _flush_folder(folder)


def read(path: Path) -> dict[str, Any]:
    """The state_dict of a file, after all of it was read and checked. Raises OSError, or ValueError for another file,
    a damaged one, or one of a later format."""
    place = os.fsdecode(path)
    with open(path, "rb") as file:
        try:
            members = _read_members(file)
            header = json.loads(members.pop(_HEADER).tobytes())
            if header["format"] != "lrfast":
                raise ValueError(f"the format {header['format']!r}")
            if header["version"] <= VERSION:
                saved = _decoded(header["state_dict"], members)
                if members or not isinstance(saved, dict):
                    raise ValueError(f"members without a place: {sorted(members)}")
                return saved
        except MemoryError:
            raise
        except Exception as error:  # zipfile and NumPy raise about anything
            what = "nothing of that kind" if isinstance(error, KeyError) else error or type(error).__name__
            raise ValueError(f"{place}: expected a whole file that save() of an optimizer wrote, got {what}") from None
    raise ValueError(
        f"{place}: expected a file of format {VERSION} or earlier, got {header['version']}, written by lrfast "
        f"{header.get('lrfast')}; update lrfast"
    )


# ---- members of the zip file ---------------------------------------------------------------------------------


def _write_members(file: Any, members: dict[str, Array]) -> None:
    with ExitStack() as cleanup:
        archive = zipfile.ZipFile(file, "w")
        cleanup.push(partial(_close, archive))
        for name, array in members.items():
            # An entry of its own date, which is a constant: equal states are equal files.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=array.nbytes >= 2**31) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _close(archive: zipfile.ZipFile, kind: type[BaseException] | None, *_: object) -> None:
    """After an exception of a kind nobody wants the file; that it cannot be closed then would hide the exception."""
    with suppress(ValueError) if kind else nullcontext():
        archive.close()


def _read_members(file: Any) -> dict[str, Array]:
    """All arrays; zipfile compares their checksums while it reads them."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _END_SIZE))
    if not file.read().startswith(_END):
        raise ValueError("one that does not end as it should")
    members = {}
    with zipfile.ZipFile(file) as archive:
        if min((info.header_offset for info in archive.infolist()), default=0) > 0:
            raise ValueError("one that does not begin as it should")
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if info.compress_type != zipfile.ZIP_STORED or name in members:
                raise ValueError(f"an unexpected member {info.filename!r}")
            content = io.BytesIO(archive.read(info))
            members[name] = np.lib.format.read_array(content, allow_pickle=False)
            if content.read(1):
                raise ValueError(f"a member {info.filename!r} that is too long")
    return members


def _flush_folder(folder: str) -> None:
    """So that the move survives a loss of power; not every file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# ---- what JSON has no word for: {"@": kind, "of": ...} -------------------------------------------------------


def _encoded(place: tuple[Any, ...], value: Any, arrays: dict[str, Array]) -> Any:
    """What JSON can hold; arrays go apart. ``place``: the keys that lead to the value."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (list, tuple)):
        items = [_encoded((*place, i), item, arrays) for i, item in enumerate(value)]
        return items if type(value) is list else {"@": "tuple", "of": items}
    if isinstance(value, dict):
        items = [[_encoded((*place, key), x, arrays) for x in (key, item)] for key, item in value.items()]
        if all(type(key) is str and key != "@" for key in value):
            return dict(items)
        return {"@": "dict", "of": items}
    bfloat16 = isinstance(value, np.ndarray) and value.dtype.name == "bfloat16"
    if bfloat16 or (isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufcSU"):
        name = "/".join(re.sub(r"\W+", "_", str(key)) for key in place)
        if name in arrays or name == _HEADER or len(name) > 200:
            name = f"+{len(arrays)}"
        arrays[name] = np.asarray(value)
        if bfloat16:  # for which .npy has no word: its bits, which are read as float32
            arrays[name] = arrays[name].view(np.uint16)
            return {"@": "bfloat16", "of": name}
        return {"@": "array" if isinstance(value, np.ndarray) else "scalar", "of": name}
    label = "state_dict" + "".join(f"[{key!r}]" for key in place)
    raise TypeError(
        f"{label}: expected None, numbers, words, arrays, or lists, tuples and dicts of them, which a file can hold; "
        f"got {type(value).__name__}"
    )


def _decoded(value: Any, arrays: dict[str, Array]) -> Any:
    """The inverse; takes the arrays out."""
    if isinstance(value, list):
        return [_decoded(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "@" not in value:
        return {key: _decoded(item, arrays) for key, item in value.items()}
    kind, of = value["@"], value["of"]
    if kind == "tuple":
        return tuple(_decoded(item, arrays) for item in of)
    if kind == "dict":
        return {_decoded(key, arrays): _decoded(item, arrays) for key, item in of}
    if kind == "bfloat16":
        return formats.decode(arrays.pop(of))
    if kind in ("array", "scalar"):
        array = arrays.pop(of)
        return array if kind == "array" else array[()]
    raise ValueError(f"an unknown kind {kind!r}")
