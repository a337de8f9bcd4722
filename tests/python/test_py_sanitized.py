"""The tests of the package's own behaviour, in a Python that begins with the sanitizer's runtime."""

import os
import pathlib
import subprocess
import sys

import pytest

from harness import MODE, ROOT

HERE = pathlib.Path(__file__).parent


@pytest.mark.skipif(MODE == "tsan", reason="the library's threads are tested in C; Python's own make this too slow")
@pytest.mark.parametrize("file", ["test_py_api.py", "test_py_fast.py", "test_py_lazy.py", "test_py_vector.py"])
def test_file(tmp_path, file):
    runtime = subprocess.run(["gcc", f"-print-file-name=lib{MODE}.so"], capture_output=True, text=True, check=True)
    env = {**os.environ, "LD_PRELOAD": runtime.stdout.strip(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"      # Python itself keeps memory to the end
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--rootdir={ROOT}",
                           f"--basetemp={tmp_path / 'inner'}", str(HERE / file)],
                          env=env, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert " passed" in done.stdout, done.stdout
