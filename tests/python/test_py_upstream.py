"""The real NumPack's own tests, which its wheel brings along, run with `numpack` naming this package.

DIFFERENT lists those that we do not pass, each with its reason; that they still fail is checked too, so that the list is true.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from harness import ROOT

PLUGIN = '''
import sys

import numpy as np
import numpackfs, numpackfs.io, numpackfs.vector_engine

for name in ("", ".io", ".vector_engine"):
    sys.modules["numpack" + name] = sys.modules["numpackfs" + name]
# Importing the real NumPack replaces this function by one that takes tuples, and its tests rely on that.
plain = np.issubdtype
np.issubdtype = lambda a, b: any(plain(a, c) for c in b) if isinstance(b, tuple) else plain(a, b)
'''

FILES = ["test_advanced_api", "test_batch_modes", "test_cross_platform", "test_diagnose_inplace", "test_drop_append_lazy",
         "test_drop_scenarios", "test_inplace_operators", "test_lazy_array_advanced", "test_lazy_array_operators", "test_numpack",
         "test_open_close", "test_package_io", "test_thread_safety", "test_user_intent", "test_vector_engine",
         "test_windows_handles"]

INSIDE = "it looks at attributes inside the real class"
STRICT = "the documentation says that open() itself raises in strict mode"
DIFFERENT = {
    "test_batch_modes::TestBatchModeBasics::test_cache_hit_mechanism": INSIDE,
    "test_batch_modes::TestBatchModeBasics::test_dirty_tracking": INSIDE,
    "test_batch_modes::TestBatchModeWithOtherOperations::test_with_replace": INSIDE,
    "test_batch_modes::TestBatchModeExceptionHandling::test_exception_during_batch": INSIDE,
    "test_batch_modes::TestBatchModesComparison::test_memory_characteristics": INSIDE,
    "test_cross_platform::TestCrossPlatformConsistency::test_strict_mode_consistent": STRICT,
    "test_windows_handles::TestStrictContextMode::test_strict_mode_prevents_non_context_usage": STRICT,
    "test_drop_scenarios::TestDropScenarios::test_drop_all_rows":
        "since 0.7 an array whose rows are all dropped stays, with 0 rows",
    "test_lazy_array_advanced::TestLazyArrayAdvancedMethods::test_lazy_array_numpy_compatibility_methods":
        "it asks that lazy arrays have no astype()",
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    found = subprocess.run([sys.executable, "-c", "import importlib.util as u; print(u.find_spec('numpack').origin)"],
                           capture_output=True, text=True, check=True).stdout.strip()
    base = tmp_path_factory.mktemp("upstream")
    shutil.copytree(pathlib.Path(found).parent / "tests", base / "t")
    (base / "as_numpack.py").write_text(PLUGIN)
    (base / "pytest.ini").write_text("[pytest]\n")
    return base


def run(suite, *args):
    # The tests save thousands of small arrays: temporary files in memory, where syncing costs nothing.
    memory = pathlib.Path("/dev/shm")
    work = suite / "tmp"
    if os.access(memory, os.W_OK):
        work = memory / f"npk-upstream-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    env = {**os.environ, "PYTHONPATH": f"{suite}:{ROOT / 'contrib' / 'python'}", "TMPDIR": str(work)}
    try:
        return subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "as_numpack", "-p", "no:cacheprovider", "-W", "ignore",
                               f"--rootdir={suite}", f"--basetemp={work / 'base'}", "--tb=short", *args],
                              cwd=suite, env=env, capture_output=True, text=True, errors="replace", timeout=600)
    finally:
        shutil.rmtree(work)


def node(name):
    file, rest = name.split("::", 1)
    return f"t/{file}.py::{rest}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", FILES)
def test_passes(suite, file):
    skip = [f"--deselect={node(name)}" for name in DIFFERENT if name.startswith(file + "::")]
    done = run(suite, *skip, f"t/{file}.py")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 0


def test_the_list_of_differences_is_true(suite):
    done = run(suite, *map(node, DIFFERENT))
    assert re.search(rf"^{len(DIFFERENT)} failed", done.stdout, re.MULTILINE), done.stdout[-8000:] + done.stderr[-3000:]
