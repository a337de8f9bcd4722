"""Mounts for the tests of the examples: as in tests/, by the build that NPK_BUILD names (build/release)."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from harness import Mounter, watchdog  # noqa: E402, F401


@pytest.fixture
def mount(tmp_path, watchdog):
    return Mounter(tmp_path / "mounts", watchdog, life=900)
