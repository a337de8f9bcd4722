"""Commands that change arrays: what they do, what they answer, and what they leave alone when they fail."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from harness import ask, expect_error, same, saved, say

A = np.arange(300, dtype="f4").reshape(100, 3)
STORED = {"x": A}


def test_drop_compact_clone_rename(rw):
    c = rw.control("x")
    old = rw.load("x", mmap_mode="r")
    code, reply = ask(c / "drop", "0:10 50\n")
    assert code == 0 and reply.startswith(b"OK drop rows=11 generation="), reply
    want = np.delete(A, list(range(10)) + [50], 0)
    same(rw.load("x"), want)
    same(old, A)
    assert len(np.load(c / "deleted.npy")) == 11
    subprocess.run(["bash", "-c", f"echo 1 > {c}/compact"], check=True, timeout=60)
    same(rw.load("x"), want)
    same(old, A)
    assert (c / "deleted").read_text() == "0\n"
    say(c / "clone", "y\n")
    same(rw.load("y"), want)
    assert ask(c / "clone", "y\n")[0] == errno.EEXIST
    say(c / "rename", "z\n")
    assert sorted(os.listdir(rw.path)) == ["y.npy", "z.npy"] and not rw.array("x").exists()
    same(rw.load("z"), want)


def test_errors_leave_everything_as_it_was(rw):
    c = rw.control("x")
    for text, code in (("all\n", errno.EINVAL), ("0:10 x\n", errno.EINVAL), ("100\n", errno.ERANGE), ("1\n2\n3 q\n", errno.EINVAL)):
        got, reply = ask(c / "drop", text)
        assert got == code and reply.startswith(b"ERR " + errno.errorcode[code].encode()), (text, got, reply)
    same(rw.load("x"), A)
    fd = os.open(c / "drop", os.O_WRONLY)
    assert os.write(fd, b"1\n200\n") == 2
    expect_error(errno.ERANGE, os.write, fd, b"200\n")
    expect_error(errno.ERANGE, os.close, fd)
    same(rw.load("x"), np.delete(A, 1, 0))
    assert [e["errno"] for e in rw.last_errors()][-1] == "ERANGE"


def test_ctl_and_the_store_s_commands(rw):
    ctl = rw.control() / "ctl"
    say(ctl, "drop x rows=0:50\nclone x y\ncompact all\n")
    same(rw.load("y"), A[50:])
    assert ask(ctl, "rename y x\n")[0] == errno.EEXIST
    assert ask(ctl, "frobnicate x\n")[0] == errno.EINVAL
    assert ask(ctl, "sync\n")[1].startswith(b"OK sync")
    assert ask(rw.control() / "reset", "confirm=other\n")[0] == errno.EINVAL
    say(rw.control() / "reset", "confirm=s.npk\n")
    assert os.listdir(rw.path) == []


def test_append_takes_streams(rw):
    c = rw.control("x")
    more = A[:5] + 1000
    with open(c / "append", "wb") as f:
        np.save(f, more)
    same(rw.load("x"), np.vstack([A, more]))
    code, reply = ask(c / "append", saved(more) + saved(np.asfortranarray(more)) + saved(more.astype(">f4")))
    assert code == 0 and reply.startswith(b"OK append rows=5"), reply
    same(rw.load("x"), np.vstack([A, more, more, more, more]))
    say(c / "append.raw", more.tobytes())
    assert len(rw.load("x")) == 125
    for bad in (saved(more.astype("f8")), saved(more[:, :2].copy()), b"garbage, and more of it"):
        fd = os.open(c / "append", os.O_WRONLY)
        expect_error(errno.EINVAL, os.write, fd, bad)
        expect_error(errno.EINVAL, os.write, fd, bad)
        expect_error(errno.EINVAL, os.close, fd)
    fd = os.open(c / "append.raw", os.O_WRONLY)
    os.write(fd, b"12345")
    expect_error(errno.EINVAL, os.close, fd)
    assert len(rw.load("x")) == 125


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "u8", "f2", "f4", "f8", "c8", "c16"])
def test_append_takes_csv(rw, dtype, tmp_path):
    """What data.csv shows goes back through append.csv, bit for bit; numpy's own text does as well."""
    rng = np.random.default_rng(3)
    a = rng.integers(0, 2 if dtype == "?" else 200, (50, 2, 3)).astype(dtype)
    if np.dtype(dtype).kind in "fc":
        a = (a * rng.standard_normal(a.shape) / 7).astype(dtype)
        a[0, 0, 0], a[1, 0, 0], a[2, 0, 0] = np.inf, -np.inf, -0.0
    np.save(rw.array("c"), a)
    c = rw.control("c")
    text = (c / "data.csv").read_text()
    fd = os.open(c / "append.csv", os.O_RDWR)
    for i in range(0, len(text), 700):      # cut anywhere
        os.write(fd, text[i:i + 700].encode())
    assert os.pread(fd, 100, 0).startswith(b"OK append rows=")
    os.close(fd)
    same(rw.load("c"), np.concatenate([a, a]))
    if np.dtype(dtype).kind in "iuf":
        np.savetxt(tmp_path / "t.csv", a.reshape(50, 6).astype("f8"), delimiter=",", fmt="%.18g")
        subprocess.run(["sh", "-c", f"cat {tmp_path}/t.csv > {c}/append.csv"], check=True, timeout=60)
        same(rw.load("c"), np.concatenate([a, a, a]))


def test_bad_csv_adds_nothing(rw):
    c = rw.control("x")
    for bad in ("1,2\n", "1,2,3,4\n", "1,2,x\n", "1,2,3\n4,5\n", "1,,3\n", "1;2;3\n"):
        code, reply = ask(c / "append.csv", bad)
        assert code == errno.EINVAL and reply.startswith(b"ERR EINVAL line "), (bad, code, reply)
    same(rw.load("x"), A)
    say(c / "append.csv", "1,2,3\n\n 4 , 5e0 ,-6\r\n")
    same(rw.load("x"), np.vstack([A, np.array([[1, 2, 3], [4, 5, -6]], "f4")]))
    fd = os.open(c / "append.csv", os.O_WRONLY)
    os.write(fd, b"7,8,9\n1,2")
    expect_error(errno.EINVAL, os.close, fd)
    assert len(rw.load("x")) == 103


def test_append_keeps_the_inode_and_the_maps(rw):
    seen = rw.load("x", mmap_mode="r")
    ino = os.stat(rw.array("x")).st_ino
    assert seen[99, 2] == A[99, 2]
    say(rw.control("x") / "append", saved(A))
    same(rw.load("x"), np.vstack([A, A]))
    assert os.stat(rw.array("x")).st_ino == ino
    same(seen, A)


def test_replace(rw):
    c = rw.control("x")
    rows = np.full((3, 3), -5, "f4")
    seen = rw.load("x", mmap_mode="r")
    assert seen[7, 0] == A[7, 0]
    code, reply = ask(c / "replace", b"rows=0,7:9\n" + saved(rows))
    assert code == 0 and reply.startswith(b"OK replace rows=3"), reply
    want = A.copy()
    want[[0, 7, 8]] = -5
    same(rw.load("x"), want)
    same(seen, want)
    assert ask(c / "replace", b"0,1\n" + saved(rows))[0] == errno.EINVAL
    assert ask(c / "replace", b"0,1,100\n" + saved(rows))[0] == errno.ERANGE
    say(c / "replace", b"-1 -2 -3 atomic\n" + saved(rows + 1))
    assert (rw.load("x")[97:] == -4).all()


def read_by_daemon(m):
    return json.loads((m.control() / "stats").read_text())["read_bytes"]


@pytest.mark.parametrize("how", ["the array's file", "ctl"])
def test_replace_leaves_the_pages_of_other_rows(rw, how):
    want = np.random.default_rng(3).random((200_000, 10), "f4")
    np.save(rw.array("big"), want)
    seen = rw.load("big", mmap_mode="r")
    same(seen, want)
    at = read_by_daemon(rw)
    rows = [0, 7, 8, 100_000, 199_999]
    new = np.arange(50, dtype="f4").reshape(5, 10)
    words = ",".join(map(str, rows))
    if how == "ctl":
        say(rw.control() / "ctl", f"replace big rows={words} npy={len(saved(new))}\n".encode() + saved(new))
    else:
        say(rw.control("big") / "replace", f"{words}\n".encode() + saved(new))
    want[rows] = new
    same(seen, want)
    same(rw.load("big"), want)
    assert read_by_daemon(rw) - at < want.nbytes / 4, "the kernel read anew what nobody has changed"


def test_replace_of_rows_beside_a_drop(rw):
    """Who holds the generation of before, where the rows lie elsewhere, sees what was replaced as well."""
    want = np.random.default_rng(4).random((50_000, 10), "f4")
    np.save(rw.array("big"), want)
    old = rw.load("big", mmap_mode="r")
    same(old, want)
    say(rw.control("big") / "drop", "0:10000\n")
    new = rw.load("big", mmap_mode="r")
    same(new, want[10_000:])
    say(rw.control("big") / "replace", b"5\n" + saved(np.full((1, 10), -3, "f4")))
    want[10_005] = -3
    same(new, want[10_000:])
    same(old, want)


def test_what_a_map_wrote_is_there_after_a_drop(rw):
    x = rw.load("x", mmap_mode="r+")
    x += 1
    say(rw.control("x") / "drop", "0\n")
    same(rw.load("x"), A[1:] + 1)
    x[5] = -1
    x.flush()
    assert (rw.load("x")[4] == -1).all()
    assert ask(rw.control("x") / "compact", "1\n")[0] == errno.EBUSY
    assert ask(rw.control("x") / "compact", "1 force\n")[0] == 0
    del x


def test_a_view_opened_later_sees_what_a_map_wrote(rw):
    x = rw.load("x", mmap_mode="r+")
    assert (np.load(rw.view("x", "0:3")) == A[:3]).all()
    x[1] = 44
    assert (np.load(rw.view("x", "0:3"))[1] == 44).all()
    del x


def test_a_read_only_mount_refuses(mount, tmp_path):
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        np.save(m.array("x"), A)
    with mount(tmp_path / "s.npk") as m:
        assert ask(m.control("x") / "drop", "0\n")[0] == errno.EROFS if os.geteuid() == 0 else True
        same(m.load("x"), A)


WORKER = """
import os, sys, numpy as np
path, seed = sys.argv[1], int(sys.argv[2])
control = os.path.join(path, ".numpack/arrays/x/")
n = 0
while True:
    fd = os.open(control + "append.raw", os.O_WRONLY)
    os.write(fd, np.full((1, 3), seed * 1000000 + n, "f8").tobytes())
    os.close(fd)
    n += 1
    print(n, flush=True)
    if n % 7 == 0:
        np.save(os.path.join(path, f"s{seed}.npy"), np.full(10, n))
        print("saved", n, flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_what_was_acknowledged_survives_kill_9(mount, tmp_path, seed):
    store = tmp_path / "s.npk"
    with mount(store, "create", ro=False) as m:
        np.save(m.array("x"), np.zeros((0, 3)))
    m = mount.start(store, ro=False)
    w = subprocess.Popen([sys.executable, "-c", WORKER, str(m.path), str(seed)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         text=True)
    lines = [w.stdout.readline() for _ in range(40 + 13 * seed)]
    os.kill(m.pid, signal.SIGKILL)
    lines += w.stdout.readlines()
    w.wait()
    mount.kill(m)
    acknowledged = max(int(line) for line in lines if line.strip().isdigit())
    saves = [int(line.split()[1]) for line in lines if line.startswith("saved")]
    with mount(store, ro=False) as m:
        x = m.load("x")
        assert acknowledged <= len(x) <= acknowledged + 1
        same(x, np.repeat(np.arange(len(x), dtype="f8")[:, None], 3, 1) + seed * 1000000)
        if saves:
            s = m.load(f"s{seed}")
            assert s.shape == (10,) and len(np.unique(s)) == 1 and s[0] in (saves[-1], saves[-1] + 7)
