"""A view that is written replaces the selected elements; one that is unlinked drops its rows."""

import errno
import os
import subprocess

import numpy as np
import pytest

from harness import expect_error, same, saved

A = np.arange(300, dtype="f4").reshape(100, 3)


@pytest.fixture
def rw(mount, tmp_path):
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        np.save(m.array("x"), A)
        yield m


def test_saving_a_view_replaces_its_elements(rw):
    want = A.copy()
    seen, view = rw.load("x", mmap_mode="r"), np.load(rw.view("x", "0+10+20"), mmap_mode="r")
    assert seen[10, 0] == view[1, 0] == A[10, 0]
    rows = np.arange(9, dtype="f4").reshape(3, 3) - 50
    np.save(rw.view("x", "0+10+20"), rows)
    want[[0, 10, 20]] = rows
    same(rw.load("x"), want)
    same(seen, want)
    same(view, rows)
    same(np.load(rw.view("x", "0+10+20")), rows)
    np.save(rw.view("x", "5:8@1"), np.asfortranarray(np.full((3, 1), 7, ">f4")))
    want[5:8, 1] = 7
    same(rw.load("x"), want)
    with open(rw.view("x", "50:60"), "r+b") as f:
        f.seek(128 + 12)
        f.write(np.full(3, 99, "f4").tobytes())
    want[51] = 99
    same(rw.load("x"), want)
    assert subprocess.run(["sh", "-c", f"cat > {rw.view('x', '0:2')}"], input=saved(A[:2]), timeout=60).returncode == 0
    want[:2] = A[:2]
    same(rw.load("x"), want)


def test_another_shape_is_refused(rw):
    for data in (A[:3], A[:2].astype("f8"), A[:2, :2].copy()):
        fd = os.open(rw.view("x", "0:2"), os.O_WRONLY | os.O_TRUNC)
        expect_error(errno.EINVAL, os.write, fd, saved(data))
        expect_error(errno.EINVAL, os.close, fd)
    expect_error(errno.EOPNOTSUPP, os.open, rw.view("x", "0:2"), os.O_WRONLY | os.O_APPEND)
    same(rw.load("x"), A)


def test_unlinking_a_view_drops_its_rows(rw):
    old = rw.load("x", mmap_mode="r")
    os.unlink(rw.view("x", "0:10"))
    same(rw.load("x"), A[10:])
    same(old, A)
    expect_error(errno.EOPNOTSUPP, os.unlink, rw.view("x", "0:10@1"))
    same(rw.load("x"), A[10:])
