"""The package without its extension module: the tests of its behaviour once more, in a Python that is told to do without."""

import os
import pathlib
import subprocess
import sys

import pytest

from harness import ROOT

HERE = pathlib.Path(__file__).parent


@pytest.mark.parametrize("file, which", [("test_py_api.py", "not save_and_load and not real_numpack"), ("test_py_lazy.py", ""),
                                         ("test_py_fast.py", "")])
def test_file(tmp_path, file, which):
    env = {**os.environ, "NUMPACKFS_FAST": "0", "NPK_SCALE": "0.25"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--rootdir={ROOT}", "-k", which,
                           f"--basetemp={tmp_path / 'inner'}", str(HERE / file)],
                          env=env, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert " passed" in done.stdout, done.stdout


def test_it_is_not_loaded_then(python):
    assert python("import os; os.environ['NUMPACKFS_FAST'] = '0'\nfrom numpackfs import _speed\n"
                  "print(_speed.fast, _speed.address.__name__)") == "None _address\n"
