"""The other tests of this directory, in a Python that begins with the sanitizer's runtime."""

import os
import pathlib
import subprocess
import sys

from harness import MODE, ROOT


def test_all_of_them(tmp_path):
    here = pathlib.Path(__file__).parent
    runtime = subprocess.run(["gcc", f"-print-file-name=lib{MODE}.so"], capture_output=True, text=True, check=True)
    env = {**os.environ, "LD_PRELOAD": runtime.stdout.strip(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # Python itself keeps memory to the end of the process.
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "").replace("detect_leaks=1", "detect_leaks=0") + ":detect_leaks=0"
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--rootdir={ROOT}",
                           f"--basetemp={tmp_path / 'inner'}", str(here)],
                          env=env, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert " passed" in done.stdout, done.stdout
