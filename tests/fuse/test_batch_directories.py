"""Transactions: mkdir .numpack/batch/NAME shows the tree again; what happens inside is published by commit, in one step."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from harness import expect_error, same, saved, say

A = np.arange(300, dtype="f4").reshape(100, 3)
B = np.arange(60, dtype="i8").reshape(20, 3)
STORED = {"x": A, "y": B}


def begin(m, name="t1"):
    path = m.control() / "batch" / name
    os.mkdir(path)
    return path


def load(path, name, **kw):
    return np.load(path / f"{name}.npy", **kw)


def test_what_is_done_inside_is_seen_inside_only_and_published_at_once(rw):
    t = begin(rw)
    assert os.listdir(rw.control() / "batch") == ["t1"] and sorted(os.listdir(t)) == ["x.npy", "y.npy"]
    np.save(t / "x.npy", A[:7])
    np.save(t / "n.npy", A)
    c = t / ".numpack" / "arrays"
    say(c / "y" / "drop", "0:5\n")
    say(c / "y" / "append", saved(B[:2]))
    os.rename(t / "n.npy", t / "m.npy")
    with open(t / "x.npy", "ab") as f:
        f.write(A[50].tobytes())
    same(load(t, "x"), np.vstack([A[:7], A[50:51]]))
    same(load(t, "y"), np.vstack([B[5:], B[:2]]))
    same(load(t, "m"), A)
    same(np.load(c / "y" / "view" / "0:2.npy"), B[5:7])
    assert (c / "y" / "rows").read_text() == "17\n" and (t / ".numpack" / "members").read_text() == "m\nx\ny\n"
    assert sorted(os.listdir(t)) == ["m.npy", "x.npy", "y.npy"] and sorted(os.listdir(rw.path)) == ["x.npy", "y.npy"]
    same(rw.load("x"), A)
    same(rw.load("y"), B)
    kept = load(t, "m", mmap_mode="r")
    say(t / "ctl", "commit\n")
    assert os.listdir(rw.control() / "batch") == [] and not t.exists()
    same(rw.load("x"), np.vstack([A[:7], A[50:51]]))
    same(rw.load("y"), np.vstack([B[5:], B[:2]]))
    same(rw.load("m"), A)
    same(kept, A)
    begin(rw)
    os.rmdir(t)


def test_the_example_of_the_contract(rw, tmp_path):
    np.save(tmp_path / "a.npy", A)
    np.save(tmp_path / "b.npy", B)
    script = f"cd {tmp_path}; B={rw.path}/.numpack/batch/t1; mkdir $B; cp a.npy b.npy $B/; echo '0:5' > $B/.numpack/arrays/x/drop; echo commit > $B/ctl"
    subprocess.run(["bash", "-ec", script], check=True, timeout=60)
    same(rw.load("a"), A)
    same(rw.load("b"), B)
    same(rw.load("x"), A[5:])


@pytest.mark.parametrize("how", ["rmdir", "abort"])
def test_a_discarded_one_never_was(rw, how):
    t = begin(rw)
    np.save(t / "x.npy", B)
    os.unlink(t / "y.npy")
    mapped = load(t, "x", mmap_mode="r")
    if how == "rmdir":
        os.rmdir(t)
    else:
        say(t / "ctl", "abort\n")
    assert not t.exists() and os.listdir(rw.control() / "batch") == []
    same(mapped, B)
    same(rw.load("x"), A)
    same(rw.load("y"), B)


def test_rows_written_in_place_inside(rw):
    outside = rw.load("x", mmap_mode="r")
    assert outside[3, 0] == A[3, 0]
    t = begin(rw)
    x = load(t, "x", mmap_mode="r+")
    x += 1
    x[5] = -1
    x.flush()
    want = A + 1
    want[5] = -1
    same(load(t, "x"), want)
    same(outside, A)
    same(rw.load("x"), A)
    del x
    np.save(t / ".numpack/arrays/x/view/0:2.npy", A[:2])
    want[:2] = A[:2]
    say(t / "ctl", "commit\n")
    same(rw.load("x"), want)
    same(outside, A)


def test_two_that_changed_the_same_array(rw):
    one, two = begin(rw, "one"), begin(rw, "two")
    say(one / ".numpack/arrays/x/drop", "0\n")
    say(two / ".numpack/arrays/x/drop", "1\n")
    np.save(two / "z.npy", B)
    say(one / "ctl", "commit\n")
    fd = os.open(two / "ctl", os.O_RDWR)
    expect_error(errno.EBUSY, os.write, fd, b"commit\n")
    assert os.pread(fd, 1000, 0).startswith(b"ERR EBUSY")
    expect_error(errno.EBUSY, os.close, fd)
    same(rw.load("x"), A[1:])
    assert not rw.array("z").exists() and two.exists()
    same(load(two, "x"), np.delete(A, 1, 0))
    os.rmdir(two)
    three = begin(rw, "three")
    say(three / ".numpack/arrays/y/drop", "0\n")
    say(rw.control("x") / "drop", "0\n")
    say(three / "ctl", "commit\n")              # another array: no conflict
    same(rw.load("y"), B[1:])
    same(rw.load("x"), A[2:])
    four = begin(rw, "four")
    say(four / ".numpack/arrays/y/drop", "0\n")
    y = rw.load("y", mmap_mode="r+")
    y[0] = 5
    y.flush()
    fd = os.open(four / "ctl", os.O_WRONLY)
    expect_error(errno.EBUSY, os.write, fd, b"commit\n")
    with pytest.raises(OSError):
        os.close(fd)
    del y


def test_a_file_that_is_open_for_writing_holds_up_the_commit(rw):
    t = begin(rw)
    f = open(t / "x.npy", "r+b")
    fd = os.open(t / "ctl", os.O_WRONLY)
    expect_error(errno.EBUSY, os.write, fd, b"commit\n")
    f.close()
    os.write(fd, b"commit\n")
    os.close(fd)
    assert not t.exists()


def test_a_handle_of_it_goes_on_as_an_ordinary_one(rw):
    t = begin(rw)
    np.save(t / "n.npy", A)
    f = open(t / "n.npy", "rb")
    ctl = os.open(t / ".numpack/arrays/n/drop", os.O_WRONLY)
    say(t / "ctl", "commit\n")
    assert f.read() == saved(A)
    os.write(ctl, b"0\n")
    os.close(ctl)
    same(rw.load("n"), A[1:])
    f.close()


def test_commands_inside(rw):
    t = begin(rw)
    fd = os.open(t / "ctl", os.O_RDWR)
    os.write(fd, b"drop x rows=0:10\nclone x w\ncompact x\n")
    assert os.pread(fd, 100, 0).startswith(b"OK compact")
    os.write(fd, b"has w\n")
    assert os.pread(fd, 100, 0) == b"1\n"
    for bad in (b"begin\n", b"sync\n"):
        expect_error(errno.EINVAL, os.write, fd, bad)
    os.write(fd, b"commit\n")
    assert os.pread(fd, 100, 0).startswith(b"OK commit")
    expect_error(errno.ESTALE, os.write, fd, b"commit\n")
    expect_error(errno.ESTALE, os.close, fd)
    same(rw.load("w"), A[10:])


def test_names_and_walls(rw):
    t = begin(rw)
    expect_error(errno.EEXIST, os.mkdir, t)
    expect_error(errno.EPERM, os.mkdir, t / "in it")
    expect_error(errno.EXDEV, os.rename, t / "x.npy", rw.array("z"))
    expect_error(errno.EXDEV, os.rename, rw.array("x"), t / "z.npy")
    expect_error(errno.ENOENT, os.rmdir, rw.control() / "batch" / "none")
    expect_error(errno.ENOENT, os.stat, t / ".numpack" / "batch")
    (t / "scratch").write_text("no array")
    os.replace(t / "x.npy", t / "x2.npy")
    shutil.copy(t / "x2.npy", t / "tmp")
    os.replace(t / "tmp", t / "x2.npy")
    assert sorted(os.listdir(t)) == ["scratch", "x2.npy", "y.npy"]
    say(t / "ctl", "commit\n")
    assert sorted(os.listdir(rw.path)) == ["x2.npy", "y.npy"]
    assert any("scratch" in e["path"] for e in rw.last_errors())
    same(rw.load("x2"), A)


def test_fifty_changes_survive_whole_or_not_at_all(mount, tmp_path):
    store = tmp_path / "s.npk"
    with mount(store, "create", ro=False) as m:
        np.save(m.array("x"), A)
        np.save(m.array("y"), B)
    code = """
import os, sys, numpy as np
m, n = sys.argv[1], int(sys.argv[2])
def say(path, data):
    fd = os.open(path, os.O_WRONLY); os.write(fd, data); os.close(fd)
while True:
    t = f"{m}/.numpack/batch/t{n}"
    os.mkdir(t)
    for i in range(17):
        np.save(f"{t}/s{i}.npy", np.full((50, 3), n))
        say(f"{t}/.numpack/arrays/x/append.raw", np.full((2, 3), n, "f4").tobytes())
        say(f"{t}/.numpack/arrays/x/drop", b"0\\n")
    say(f"{t}/ctl", b"commit\\n")
    print(n, flush=True)
    n += 1
"""
    n, rng = 0, random.Random(7)
    for wait in (1, 3, 2, 5, 1, 1):
        m = mount.start(store, ro=False)
        w = subprocess.Popen([sys.executable, "-c", code, str(m.path), str(n)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines = [w.stdout.readline() for _ in range(wait)]
        time.sleep(rng.uniform(0, 0.1))     # anywhere in the next one, its commit too
        os.kill(m.pid, signal.SIGKILL)
        lines += w.stdout.readlines()
        w.wait()
        mount.kill(m)
        done = max([int(line) for line in lines if line.strip()])
        with mount(store, ro=False) as m:
            x = m.load("x")
            committed = (len(x) - 100) // 17
            assert committed in (done + 1, done + 2) and len(x) == 100 + 17 * committed
            assert int(x[-1, 0]) == committed - 1 and (x[-34:] == committed - 1).all()
            for i in range(17):
                assert (m.load(f"s{i}") == committed - 1).all()
            assert os.listdir(m.control() / "batch") == []
        n = committed


def test_an_open_one_is_discarded_by_the_end_of_the_mount(mount, tmp_path):
    store = tmp_path / "s.npk"
    with mount(store, "create", ro=False) as m:
        np.save(m.array("x"), A)
        np.save(begin(m) / "x.npy", B)
        np.save(begin(m, "t2") / "z.npy", B)
    with mount(store) as m:
        same(m.load("x"), A)
        assert os.listdir(m.path) == ["x.npy"]
    assert sorted(p.name for p in store.iterdir() if p.name.endswith(".npkd")) == ["data_x.npkd"]


def ended(path, how):
    """The transaction ends: by a command, or rmdir."""
    if how == "rmdir":
        os.rmdir(path)
    else:
        say(path / "ctl", how + "\n")


@pytest.mark.parametrize("how", ["rmdir", "abort", "commit"])
def test_readers_of_an_ended_one_keep_what_they_had(rw, how):
    """Also what came after they had opened it, and was never read: neither an error nor SIGBUS."""
    t = begin(rw)
    c = t / ".numpack" / "arrays"
    x, y = os.open(t / "x.npy", os.O_RDONLY), load(t, "y", mmap_mode="r")
    copied = load(t, "y", mmap_mode="c")
    say(c / "x" / "append.raw", A[:2].tobytes())
    say(c / "y" / "replace", b"0\n" + saved(B[5:6]))
    late = os.open(t / "x.npy", os.O_RDONLY)
    view = os.open(c / "x" / "view" / "99:101.npy", os.O_RDONLY)
    ended(t, how)
    for name in "xy":                          # whatever becomes of the files outside
        say(rw.control(name) / "drop", "0:10\n")
        say(rw.control(name) / "compact", "1\n")
    say(rw.control() / "sync", "1\n")
    want = B.copy()
    want[0] = B[5]
    same(y, want)
    same(copied, want)
    for fd, rows in ((x, np.vstack([A, A[:2]])), (late, np.vstack([A, A[:2]])), (view, np.vstack([A[99:], A[:1]]))):
        assert os.fstat(fd).st_size == len(saved(rows)) and os.pread(fd, 1 << 16, 0) == saved(rows)
        os.close(fd)


@pytest.mark.parametrize("how", ["rmdir", "abort"])
def test_writers_of_a_discarded_one_go_on_as_with_an_unlinked_file(rw, how):
    t = begin(rw)
    np.save(t / "n.npy", A)
    x = load(t, "x", mmap_mode="r+")
    x[0] = -1
    x.flush()
    n, fd = load(t, "n", mmap_mode="r+"), os.open(t / "n.npy", os.O_RDWR)
    view = os.open(t / ".numpack/arrays/n/view/9:10.npy", os.O_RDWR)
    ended(t, how)
    n[5], x[5] = -5, -5
    n.flush()
    x.flush()
    assert os.pwrite(fd, np.full(3, -6, "f4").tobytes(), 128 + 6 * 12) == 12
    assert os.pwrite(view, np.full(3, -9, "f4").tobytes(), 128) == 12
    want = A.copy()
    want[5], want[6], want[9] = -5, -6, -9
    assert os.pread(fd, 1 << 16, 0) == saved(want)
    same(n, want)
    want = A.copy()
    want[0], want[5] = -1, -5
    same(x, want)
    expect_error(errno.ESTALE, os.pwrite, fd, A[:1].tobytes(), 128 + 1200)      # there is nothing to add rows to
    expect_error(errno.ESTALE, os.close, fd)
    os.close(view)
    same(rw.load("x"), A)
    assert sorted(os.listdir(rw.path)) == ["x.npy", "y.npy"]
    say(rw.control() / "sync", "1\n")
    assert sorted(p.name for p in rw.store.iterdir() if p.name.endswith(".npkd")) == ["data_x.npkd", "data_y.npkd"]


def test_what_a_discarded_one_showed_of_the_store_is_not_written_through_it(rw):
    t = begin(rw)
    fd, x = os.open(t / "x.npy", os.O_WRONLY), load(t, "x", mmap_mode="r+")
    os.rmdir(t)
    expect_error(errno.ESTALE, os.pwrite, fd, np.full(3, -1, "f4").tobytes(), 128)
    expect_error(errno.ESTALE, os.close, fd)
    x[5] = -5
    expect_error(errno.ESTALE, x.flush)
    same(rw.load("x"), A)


def test_a_view_inside_shows_what_is_written_inside(rw):
    t = begin(rw)
    view = t / ".numpack/arrays/x/view/0:3.npy"
    same(np.load(view), A[:3])
    with open(t / "x.npy", "r+b") as f:
        f.seek(128 + 12)
        f.write(np.full(3, -1, "f4").tobytes())
    want = A.copy()
    want[1] = -1
    same(np.load(view), want[:3])
    say(t / ".numpack/arrays/x/append.raw", A[:1].tobytes())
    same(np.load(view), want[:3])
    same(np.load(rw.view("x", "0:3")), A[:3])


def test_a_reader_of_a_committed_one_goes_on_as_any_reader(rw):
    """It sees what is written in place afterwards, also in rows that waited in the transaction."""
    t = begin(rw)
    np.save(t / "n.npy", A)
    say(t / ".numpack/arrays/x/append.raw", A[:2].tobytes())
    x, n = load(t, "x", mmap_mode="r"), load(t, "n", mmap_mode="r")
    same(x, np.vstack([A, A[:2]]))
    say(t / "ctl", "commit\n")
    want = np.vstack([A, A[:2]])
    for row in (7, 100, 101):
        want[row] = -row
        with open(rw.array("x"), "r+b") as f:
            f.seek(128 + row * 12)
            f.write(want[row].tobytes())
    same(rw.load("x"), want)
    same(x, want)
    outside = rw.load("n", mmap_mode="r+")
    outside[3] = -3
    outside.flush()
    want = A.copy()
    want[3] = -3
    same(n, want)


def test_files_outside_follow_a_rename_inside(rw):
    """Found by the model checker: a map of y is held while a transaction renames y to x."""
    held, older = rw.load("y", mmap_mode="r"), rw.load("y", mmap_mode="r+")
    t = begin(rw)
    os.replace(t / "y.npy", t / "x.npy")
    say(t / "ctl", "commit\n")
    with open(rw.array("x"), "ab", buffering=0) as f:
        f.write(B[:1].tobytes())
    with open(rw.array("x"), "r+b", buffering=0) as f:
        os.pwrite(f.fileno(), B[7:8].tobytes(), 128)
    want = np.vstack([B, B[:1]])
    want[0] = B[7]
    same(rw.load("x"), want)
    same(held, want[:20])
    say(rw.control("x") / "drop", "3\n")
    older[5] = -5
    older.flush()
    want[5] = -5
    same(held, want[:20])
    same(rw.load("x"), np.delete(want, 3, 0))
    assert not rw.array("y").exists()
