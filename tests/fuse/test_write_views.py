"""A view that is written replaces the selected elements; one that is unlinked drops its rows."""

import errno
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from harness import expect_error, same, saved

A = np.arange(300, dtype="f4").reshape(100, 3)
STORED = {"x": A}


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


@pytest.mark.timeout(600)
def test_a_view_is_replaced_whole_or_not_at_all(mount, tmp_path):
    """kill -9 of the daemon at any moment of a write of many megabytes, every other row."""
    store, rows = tmp_path / "s.npk", 1 << 16
    with mount(store, "create", ro=False) as m:
        np.save(m.array("x"), np.zeros((rows, 32)))
    code = """
import sys, numpy as np
path, n = sys.argv[1], int(sys.argv[2])
while True:
    n += 1
    np.save(path, np.full((%d // 2, 32), float(n)))
    print(n, flush=True)
""" % rows
    done = 0
    for i in range(6):
        m = mount.start(store, ro=False)
        try:
            w = subprocess.Popen([sys.executable, "-c", code, m.view("x", "::2"), str(done)], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, text=True)
            lines = [w.stdout.readline()]
            time.sleep(0.03 * i)
            m.process.kill()
            lines += w.stdout.readlines()
            w.wait()
        finally:
            mount.kill(m)
        done = max([done] + [int(line) for line in lines if line.strip()])
        with mount(store, ro=False) as m:
            x = m.load("x")
            assert (x[1::2] == 0).all()
            got = np.unique(x[::2])
            assert len(got) == 1 and got[0] in (done, done + 1), f"{done} is acknowledged, there are {got}"
            done = int(got[0])


def test_who_writes_a_view_is_a_writer_of_the_array(rw):
    (rw.control("x") / "drop").write_text("99\n")
    fd = os.open(rw.view("x", "0:2"), os.O_WRONLY)
    with pytest.raises(OSError) as e:
        (rw.control("x") / "compact").write_text("1\n")
    assert e.value.errno == errno.EBUSY
    os.close(fd)
    (rw.control("x") / "compact").write_text("1\n")
    t = rw.control() / "batch" / "t"
    t.mkdir()
    fd = os.open(t / ".numpack/arrays/x/view/0:2.npy", os.O_WRONLY)
    with pytest.raises(OSError) as e:
        (t / "ctl").write_text("commit\n")
    assert e.value.errno == errno.EBUSY
    os.close(fd)
    np.save(t / ".numpack/arrays/x/view/0:2.npy", A[5:7])
    np.save(rw.view("x", "50:51"), A[:1])       # that is a change of the array, too
    with pytest.raises(OSError) as e:
        (t / "ctl").write_text("commit\n")
    assert e.value.errno == errno.EBUSY


def test_a_view_that_lies_in_very_many_pieces(mount, tmp_path):
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        want = np.zeros((120000, 3), "i2")
        np.save(m.array("x"), want)
        np.save(m.view("x", ":@1"), np.arange(120000, dtype="i2").reshape(-1, 1))
        want[:, 1] = np.arange(120000, dtype="i2")
        same(m.load("x"), want)
        np.save(m.view("x", "0:90000@2"), want[:90000, 1:2])
        want[:90000, 2] = want[:90000, 1]
        same(m.load("x"), want)


@pytest.mark.parametrize("how", ["save", "unlink", "drop"])
def test_a_view_whose_array_changes_while_it_is_written(rw, how):
    """What it shows is what is written to: rows of the array as long as they are the array's."""
    data = saved(A[50:60])
    fd = os.open(rw.view("x", "0:10"), os.O_WRONLY | os.O_TRUNC)
    os.write(fd, data[:300])
    want = A.copy()
    if how == "save":
        np.save(rw.array("x"), want)
    elif how == "unlink":
        os.unlink(rw.array("x"))
    else:
        (rw.control("x") / "drop").write_text("5:7\n")
        want[:10] = A[50:60]
        want = np.delete(want, [5, 6], 0)
    os.write(fd, data[300:])
    os.close(fd)
    if how == "unlink":
        assert not rw.array("x").exists()
    else:
        same(rw.load("x"), want)


@pytest.mark.parametrize("threads", [1, 4])
def test_who_unlinked_a_view_sees_the_array_without_its_rows(mount, tmp_path, threads):
    with mount(tmp_path / "s.npk", "create", f"threads={threads}", ro=False) as m:
        x = np.arange(3000).reshape(1000, 3)
        np.save(m.array("x"), x)
        for i in range(300):
            before = os.stat(m.array("x"))
            os.unlink(m.view("x", f"{i}:{i + 2}"))
            x = np.delete(x, [i, i + 1], 0)
            now = os.stat(m.array("x"))
            assert now.st_size == 128 + x.nbytes and now.st_ino != before.st_ino
            same(m.load("x", mmap_mode="r"), x)


def test_a_rename_between_the_root_and_a_view_does_not_hang_an_unlink(mount, tmp_path):
    """It holds the root's lock, that the notification needs, while it waits for the directory of the view."""
    code = "import os, sys\nprint('ready', flush=True)\nwhile True:\n    try: os.rename(sys.argv[1], sys.argv[2])\n    except OSError: pass\n"
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        x = np.arange(3000).reshape(1000, 3)
        np.save(m.array("x"), x)
        pair = [m.array("x"), m.view("x", "0:1")]
        others = [subprocess.Popen([sys.executable, "-c", code, *way], stdout=subprocess.PIPE)
                  for way in (pair, pair[::-1])]
        try:
            for p in others:
                assert p.stdout.readline() == b"ready\n"
            for _ in range(4):
                os.unlink(m.view("x", "0:3"))
        finally:
            for p in others:
                p.kill()
                p.wait()
        same(m.load("x"), x[12:])
