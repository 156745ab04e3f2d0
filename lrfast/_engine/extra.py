"""What is said where a library of the extra ``demo`` is missing, which pictures, curvature and the command need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

__all__ = ["import_extra", "require_extra"]


@contextmanager
def import_extra(user: str, library: str) -> Iterator[None]:
    """Around imports that ``user`` needs. Without the library they raise ModuleNotFoundError, saying what to install;
    an error of any other module stays what it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library.lower():
            raise
        raise ModuleNotFoundError(_hint(user, library), name=error.name) from None


def require_extra(user: str, modules: Iterable[str]) -> None:
    """Raises SystemExit, saying what to install, unless all these modules are there; imports none of them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise SystemExit(_hint(user, f"modules that are missing here ({', '.join(missing)})"))


def _hint(user: str, needed: str) -> str:
    return f"{user} needs {needed}: pip install 'lrfast[demo]'"
