"""A library built with a sanitizer can only be loaded by a Python that began with that sanitizer's runtime. There, only
test_sanitized.py runs, which starts such a Python for the rest."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import MODE, SANITIZED  # noqa: E402

PRELOADED = f"lib{MODE}.so" in pathlib.Path("/proc/self/maps").read_text()
collect_ignore = ["test_sanitized.py"]
if SANITIZED and not PRELOADED:
    collect_ignore = [p.name for p in pathlib.Path(__file__).parent.glob("test_*.py") if p.name != "test_sanitized.py"]


@pytest.fixture(scope="session")
def lib():
    from npklib import Library

    return Library()


@pytest.fixture
def opened(lib, tmp_path):
    """opened(array or Spec, **others): the array as a library's Array, from a store that npkwrite wrote."""
    from npklib import Array
    from npkwrite import write_store

    arrays = []

    def get(a, **others):
        path, _ = write_store(tmp_path / f"s{len(arrays)}", {"x": a, **others})
        arrays.append(Array(lib, path, "x"))
        return arrays[-1]

    yield get
    for a in arrays:
        a.close()
