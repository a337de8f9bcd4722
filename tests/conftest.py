"""The fixtures; what they are made of is in harness.py."""

import pathlib
import shutil
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import BUILD, Mounter, RealNumPack, copy_golden, differences, fresh_reports, tree, watchdog  # noqa: E402, F401


def pytest_report_header():
    return f"numpackfs build: {BUILD}"


@pytest.fixture(autouse=True)
def no_sanitizer_report():
    yield
    fresh = fresh_reports()
    assert not fresh, "a sanitizer reports:\n" + "\n".join(fresh)


@pytest.fixture
def mount(tmp_path, watchdog):
    return Mounter(tmp_path / "mounts", watchdog)


@pytest.fixture
def rw(request, mount, tmp_path):
    """A new store, mounted for writing, with the arrays that the module names in STORED."""
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        for name, array in getattr(request.module, "STORED", {}).items():
            np.save(m.array(name), array)
        yield m


@pytest.fixture
def golden_copy(tmp_path):
    return lambda name: copy_golden(name, tmp_path)


@pytest.fixture(scope="session")
def golden_mount(tmp_path_factory, watchdog):
    """golden_mount("dtypes.npk"): a mount of a copy of that store that all tests share. What it was must stay so."""
    base = tmp_path_factory.mktemp("golden")
    mounter = Mounter(base / "mounts", watchdog, life=3600)
    open_mounts, failed, trouble = {}, {}, []

    def get(name):
        if name in open_mounts and open_mounts[name][0].process.poll() is not None:
            # Told once, at the end; the tests that follow are about something else and get a new mount.
            dead, _ = open_mounts.pop(name)
            trouble.append(f"{name}: the daemon died with status {dead.process.returncode}:\n{dead.log_text()}")
            mounter.kill(dead)
            shutil.rmtree(dead.store)
        if name in failed:
            raise AssertionError(f"{name} could not be mounted before: {failed[name]}")
        if name not in open_mounts:
            store = copy_golden(name, base)
            try:
                open_mounts[name] = (mounter.start(store), tree(store))
            except AssertionError as e:
                failed[name] = e
                raise
        return open_mounts[name][0]

    yield get
    for name, (m, before) in open_mounts.items():
        try:
            mounter.stop(m)
        except AssertionError as e:
            trouble.append(f"{name}: {e}")
        changed = differences(before, tree(m.store))
        if changed:
            trouble.append(f"{name} changed on disk: {changed}")
    trouble += fresh_reports()
    assert not trouble, "\n".join(trouble)


@pytest.fixture
def real_numpack(tmp_path):
    real = RealNumPack(tmp_path / "real")
    yield real
    real.end()
