"""Many at once: maps, commands, saves and readers, also with one thread that serves; nobody hangs, nobody sees a tear."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from harness import same, scaled

# 1000 rows of 3s; two rows of 5s are appended, the first one is dropped, the first three are overwritten with 9s, n times each.
PRELUDE = """
import os, sys, numpy as np
path, me, n, clock = sys.argv[1], sys.argv[2], int(sys.argv[3]), np.memmap(sys.argv[4], "i8", "r+")
x, y, c = os.path.join(path, "x.npy"), os.path.join(path, "y.npy"), os.path.join(path, ".numpack/arrays/x/")
m = np.load(x, mmap_mode="r+") if me == "map" else None
print("ready", flush=True)
sys.stdin.readline()
def say(name, data):
    fd = os.open(c + name, os.O_WRONLY)
    try: assert os.write(fd, data) == len(data)
    finally: os.close(fd)
"""
LOOP = "for i in range(n):\n"
CLOCK = ["append begun", "append done", "drop begun", "drop done"]
JOBS = {
    # Opened once: numpy, which opens twice, would make a file that lost rows in between longer again. Not the rows that
    # the views overwrite: whose page is written last wins.
    "map": LOOP + "    m[500:] += 0; m.flush()",
    "append": LOOP + "    clock[0] += 1; say('append.raw', np.full((2, 4), 5, 'i8').tobytes()); clock[1] += 1",
    "drop": LOOP + "    clock[2] += 1; say('drop', b'0:1\\n'); clock[3] += 1",
    "other": LOOP + "    np.save(y, np.full((100, 100), i)); assert (np.load(y) == i).all()",
    "clone": LOOP + "    d = os.path.join(path, f'c{i}.npy'); say('clone', b'c%d\\n' % i); check(np.load(d)); os.unlink(d)",
    "view": LOOP + "    np.save(c + 'view/0:3.npy', np.full((3, 4), 9, 'i8'))",
    "read": "while running(): seen(read)",
    "mapped": "while running(): seen(mapped)",
}
# What one open of x may show: the rows of a moment between that open and the end of the reading. np.load(mmap_mode=...) opens the
# name twice, a generation may come between.
READERS = """
import io
def running():
    return clock[1] < n or clock[3] < n
def read():
    with open(x, "rb", buffering=0) as f: return np.load(io.BytesIO(f.readall()))
def mapped():
    with open(x, "rb") as f:
        np.lib.format.read_magic(f)
        shape, _, dtype = np.lib.format.read_array_header_1_0(f)
        return np.array(np.memmap(f, dtype, "r", offset=f.tell(), shape=shape))
def check(got):
    assert got.shape[1:] == (4,) and (got == got[:, :1]).all(), f"a row is torn: {got[(got != got[:, :1]).any(1)]}"
    v = got[:, 0]
    fives = int((v == 5).sum())
    dropped = 1000 + fives - len(v)
    assert fives % 2 == 0 and (v[1000 - dropped:] == 5).all(), f"{fives} rows were appended, {v[-8:]} are the last"
    assert set(v[:1000 - dropped]) <= {3, 9}, set(v)
    return v, fives // 2, dropped
def seen(how):
    done = int(clock[1]), int(clock[3])
    v, appended, dropped = check(how())
    begun = int(clock[0]), int(clock[2])
    assert done[0] <= appended <= begun[0] and done[1] <= dropped <= begun[1], \
        f"{appended} appended and {dropped} dropped, while {done} to {begun} were"
    nines = np.flatnonzero(v == 9)
    assert not len(nines) or nines[-1] < begun[1] - dropped + 3, f"no view had row {nines[-1]}"
    if how is read:     # while a map is copied its page may change
        runs = np.split(nines, np.flatnonzero(np.diff(nines) > 1) + 1)
        assert all(len(r) >= 3 or r[0] == 0 for r in runs if len(r)), f"a view was written in part: {nines}"
"""


@pytest.mark.parametrize("threads", [1, 4])
def test_everybody_at_once(mount, tmp_path, threads):
    n = scaled(40)
    clock = tmp_path / "clock"
    clock.write_bytes(bytes(8 * len(CLOCK)))
    with mount(tmp_path / "s.npk", "create", f"threads={threads}", ro=False) as m:
        np.save(m.array("x"), np.full((1000, 4), 3, "i8"))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        jobs = {k: subprocess.Popen([sys.executable, "-c", PRELUDE + READERS + v, str(m.path), k, str(n), str(clock)], **pipes)
                for k, v in JOBS.items()}
        for p in jobs.values():
            assert p.stdout.readline() == "ready\n"
        for p in jobs.values():
            p.stdin.write("go\n")
            p.stdin.flush()
        told = []
        for name, p in jobs.items():
            err = p.communicate(timeout=100)[1]
            told += [f"{name}: {err[-1500:]}"] if p.returncode else []
        assert not told, "\n".join(told)
        x = m.load("x")
        want = np.full((1000 - n + 2 * n, 4), 3, "i8")
        want[1000 - n:] = 5
        nines = int((x[:3] == 9).all(1).sum())      # how many drops came behind the last view
        want[:nines] = 9
        same(x, want)


def test_sigterm_writes_out_what_a_map_changed(mount, tmp_path):
    store = tmp_path / "s.npk"
    m = mount.start(store, "create", ro=False)
    np.save(m.array("x"), np.zeros((5000, 4)))
    x = m.load("x", mmap_mode="r+")
    x += 2
    os.kill(m.pid, signal.SIGTERM)
    time.sleep(1)
    del x
    mount.stop(m)
    with mount(store) as m:
        same(m.load("x"), np.full((5000, 4), 2.0))
