"""The model checker (checker.py). NPK_MODEL_STEPS=5000 makes each run that long, NPK_MODEL_SEED=7 begins with that seed, and
NPK_MODEL_SCRIPT='[["save", "a", 1], ...]' runs the script that a failure printed."""

import json
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import checker  # noqa: E402
from harness import Mounter, scaled  # noqa: E402

STEPS = int(os.environ.get("NPK_MODEL_STEPS", scaled(150)))
FIRST = int(os.environ.get("NPK_MODEL_SEED", "1"))
SCRIPT = os.environ.get("NPK_MODEL_SCRIPT")


@pytest.mark.timeout(max(300, STEPS))
@pytest.mark.parametrize("seed", range(FIRST, FIRST + 3))
def test_a_mount_does_what_arrays_in_memory_do(seed, watchdog, tmp_path):
    mounter = Mounter(tmp_path / "mounts", watchdog, life=max(600, STEPS))
    script = json.loads(SCRIPT) if SCRIPT else checker.make(seed, STEPS)
    failure = checker.run(script, mounter, tmp_path / "run")
    if failure:
        done, why, told = failure
        short, again = checker.shrink(script[:done], mounter, tmp_path / "run", 60)
        if again:
            _, why, told = again
        raise AssertionError(f"seed {seed}: {why}\nafter:\n  " + "\n  ".join(told) + f"\nNPK_MODEL_SCRIPT='{json.dumps(short)}'")
