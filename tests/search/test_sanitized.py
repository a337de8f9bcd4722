"""The other tests of this directory, in a Python that begins with the sanitizer's runtime. ThreadSanitizer gets those where
threads matter; for the arithmetic it is slow and has nothing to say."""

import os
import pathlib
import subprocess
import sys

import pytest

from harness import MODE, ROOT

HERE = pathlib.Path(__file__).parent
# A file cut short is not among them: jumping out of a SIGBUS handler is more than the runtime of gcc 12 can follow.
THREADS = "any_layout or many_blocks or picked or progress or nonsense"


FILES = ["test_agrees.py", "test_refused.py"] + (["test_hard.py", "test_others.py"] if MODE == "asan" else [])


@pytest.mark.skipif(MODE == "tsan", reason="tests/prop/test_search.c runs the threads; Python's own make this too slow")
@pytest.mark.parametrize("file", FILES)
def test_file(tmp_path, file):
    runtime = subprocess.run(["gcc", f"-print-file-name=lib{MODE}.so"], capture_output=True, text=True, check=True)
    env = {**os.environ, "LD_PRELOAD": runtime.stdout.strip(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # Python itself keeps memory to the end of the process.
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--rootdir={ROOT}",
                           f"--basetemp={tmp_path / 'inner'}", *(["-k", THREADS] if MODE == "tsan" else []), str(HERE / file)],
                          env=env, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert " passed" in done.stdout, done.stdout
