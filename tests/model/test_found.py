"""What the model checker found once, each as short as it made it."""

import os
import subprocess

import numpy as np
import pytest

from harness import BUILD, same

A = np.arange(300, dtype="f4").reshape(100, 3)
STORED = {"x": A, "y": A + 1000}


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


@pytest.mark.parametrize("how", ["save", "rename", "command", "unlink", "unlink and save"])
@pytest.mark.parametrize("synced", ["never", "after the first write", "before it"])
def test_an_old_generation_lives_on_like_an_unlinked_file(mount, tmp_path, how, synced):
    """Its writer writes on and sees what it writes; no array shows it, before a kill -9 or after."""
    store, new = tmp_path / "s.npk", A[:50] * 2
    m = mount.start(store, "create", ro=False)
    try:
        np.save(m.array("x"), A)
        np.save(m.array("y"), A + 1000)
        np.save(m.array("z"), new)
        if synced != "never":
            (m.control() / "sync").write_text("1\n")
        old = m.load("x", mmap_mode="r+")
        fd = os.open(m.array("x"), os.O_WRONLY)
        old[0] = -1
        old.flush()
        if how == "save":
            np.save(m.array("x"), new)
        elif how == "rename":
            os.replace(m.array("z"), m.array("x"))
        elif how == "command":
            os.unlink(m.array("x"))
            (m.control("z") / "rename").write_text("x\n")
        else:
            os.unlink(m.array("x"))
            if how == "unlink and save":
                np.save(m.array("x"), new)
        if synced == "before it":
            (m.control() / "sync").write_text("1\n")
        want = A.copy()
        want[0] = -1
        old[7] = want[7] = -2
        old.flush()
        assert os.pwrite(fd, np.full(3, -3, "f4").tobytes(), 128 + 8 * 12) == 12
        want[8] = -3
        same(np.array(old), want)
        if synced == "after the first write":      # the old file loses its name
            (m.control() / "sync").write_text("1\n")
            assert os.pwrite(fd, np.full(3, -4, "f4").tobytes(), 128 + 9 * 12) == 12
            old[10] = -5
            old.flush()
            want[9], want[10] = -4, -5
            same(np.array(old), want)
        os.fsync(fd)
        os.close(fd)
        is_there = how != "unlink"
        if is_there:
            same(m.load("x"), new)
        same(m.load("y"), A + 1000)
        del old
    finally:
        mount.kill(m)
    npk = subprocess.run([BUILD / "npk", "verify", str(store)], capture_output=True, text=True)
    assert npk.returncode == 0, npk.stdout + npk.stderr
    with mount(store, ro=False) as m:
        assert os.path.exists(m.array("x")) == is_there
        if is_there:
            same(m.load("x"), new)
        same(m.load("y"), A + 1000)


@pytest.mark.parametrize("force", [False, True])
def test_compact_has_nothing_to_do_with_rows_that_were_saved_over(rw, force):
    """Their map goes on as an unlinked file; only one that shows the array's slots is in the way of compact, or cut off by it."""
    over, now = rw.load("x", mmap_mode="r+"), None
    np.save(rw.array("x"), A * 2)
    (rw.control("x") / "drop").write_text("0:10\n")
    if force:
        now = rw.load("x", mmap_mode="r+")
        with pytest.raises(OSError):
            (rw.control("x") / "compact").write_text("1\n")
        (rw.control("x") / "compact").write_text("1 force\n")
        now[0] = -1
        with pytest.raises(OSError):
            now.flush()
    else:
        (rw.control("x") / "compact").write_text("1\n")
    over[3] = -3
    over.flush()
    want = A.copy()
    want[3] = -3
    same(over, want)
    same(rw.load("x"), A[10:] * 2)
    assert (rw.control("x") / "deleted").read_text() == "0\n"
