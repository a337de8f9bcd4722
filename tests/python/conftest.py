"""The Python package runs from the source tree, on the library of the build under test. A library built with a sanitizer can
only be loaded by a Python that began with its runtime: there, only test_py_sanitized.py runs, which starts such a Python."""

import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from harness import BUILD, MODE, SANITIZED  # noqa: E402

PACKAGE = ROOT / "contrib" / "python"
os.environ["LIBNUMPACK"] = str(BUILD / "libnumpack.so")
sys.path.insert(0, str(PACKAGE))

PRELOADED = f"lib{MODE}.so" in pathlib.Path("/proc/self/maps").read_text()
collect_ignore = ["test_py_sanitized.py"]
if SANITIZED and not PRELOADED:
    collect_ignore = [p.name for p in pathlib.Path(__file__).parent.glob("test_*.py") if p.name != "test_py_sanitized.py"]


@pytest.fixture
def python():
    """python(source, *args): what another Python process prints, the package importable in it."""
    import subprocess

    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}

    def run(source, *args, wait=True):
        p = subprocess.Popen([sys.executable, "-c", source, *map(str, args)], env=env, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if not wait:
            return p
        out, error = p.communicate(timeout=100)
        assert p.returncode == 0, error
        return out

    return run


@pytest.fixture
def npk(tmp_path):
    from numpackfs import NumPack

    with NumPack(tmp_path / "s.npk") as n:
        yield n
