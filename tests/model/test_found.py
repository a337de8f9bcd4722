"""What the model checker found once, each as short as it made it."""

import os

import numpy as np
import pytest

from harness import same

A = np.arange(300, dtype="f4").reshape(100, 3)


@pytest.fixture
def rw(mount, tmp_path):
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        np.save(m.array("x"), A)
        np.save(m.array("y"), A + 1000)
        yield m


@pytest.mark.parametrize("how", ["rename", "exchange", "command"])
def test_an_old_generation_follows_a_rename(rw, how):
    """It shows the same rows: what is written to them under the new name must be seen through it, and the other way."""
    old = rw.load("x", mmap_mode="r+")
    view = np.load(rw.view("x", "0:10"), mmap_mode="r")
    assert old[7, 0] == view[7, 0] == A[7, 0]
    (rw.control("x") / "drop").write_text("0\n")
    if how == "rename":
        os.rename(rw.array("x"), rw.array("z"))
    elif how == "command":
        (rw.control("x") / "rename").write_text("z\n")
    else:
        np.save(rw.array("z"), A)
        (rw.control("x") / "drop").write_text("0\n")
        import ctypes
        assert ctypes.CDLL(None).renameat2(-100, os.fsencode(rw.array("x")), -100, os.fsencode(rw.array("z")), 2) == 0
    with open(rw.array("z"), "r+b") as f:
        f.seek(128 + (5 if how == "exchange" else 6) * 12)
        f.write(np.full(3, -1, "f4").tobytes())
    assert (old[7] == -1).all() and (view[7] == -1).all()
    old[50] = -2
    old.flush()
    assert (rw.load("z")[50 - (2 if how == "exchange" else 1)] == -2).all()
    want = A + 1000
    same(rw.load("y"), want)
