"""Many at once: maps, commands, saves and readers, also with one thread that serves; nobody hangs, nobody sees a tear."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from harness import same, scaled

PRELUDE = """
import os, sys, numpy as np
path, n = sys.argv[1], int(sys.argv[2])
x, c = os.path.join(path, "x.npy"), os.path.join(path, ".numpack/arrays/x/")
m = np.load(x, mmap_mode="r+") if sys.argv[3] == "map" else None
print("ready", flush=True)
sys.stdin.readline()
def say(name, data):
    fd = os.open(c + name, os.O_WRONLY)
    try: os.write(fd, data)
    finally: os.close(fd)
def load(mode):
    while True:
        try: return np.load(x, mmap_mode=mode)
        except ValueError: pass     # numpy opens a file twice: its header, then a generation with fewer rows
for i in range(n):
"""
JOBS = {
    # Opened once: numpy, which opens twice, would make a file that lost rows in between longer again. Not the rows that
    # the views overwrite: whose page is written last wins.
    "map": "    m[500:] += 0; m.flush()",
    "append": "    say('append.raw', np.full((2, 4), 5, 'i8').tobytes())",
    "drop": "    say('drop', b'0:1\\n')",
    "read": "    m = load('r'); assert not set(np.unique(m)) - {3, 5, 9}; del m",
    "other": "    np.save(os.path.join(path, 'y.npy'), np.full((100, 100), i)); assert len(np.unique(np.load(os.path.join(path, 'y.npy')))) == 1",
    "clone": "    say('clone', b'c%d\\n' % i); assert os.path.exists(os.path.join(path, 'c%d.npy' % i)); os.unlink(os.path.join(path, 'c%d.npy' % i))",
    "view": "    np.save(c + 'view/0:3.npy', np.full((3, 4), 9, 'i8'))",
}


@pytest.mark.parametrize("threads", [1, 4])
def test_everybody_at_once(mount, tmp_path, threads):
    n = scaled(40)
    with mount(tmp_path / "s.npk", "create", f"threads={threads}", ro=False) as m:
        np.save(m.array("x"), np.full((1000, 4), 3, "i8"))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        jobs = {k: subprocess.Popen([sys.executable, "-c", PRELUDE + v, str(m.path), str(n), k], **pipes)
                for k, v in JOBS.items()}
        for p in jobs.values():
            assert p.stdout.readline() == "ready\n"
        for p in jobs.values():
            p.stdin.write("go\n")
            p.stdin.flush()
        for name, p in jobs.items():
            err = p.communicate(timeout=100)[1]
            assert p.returncode == 0, f"{name}: {err[-1500:]}"
        x = m.load("x")
        assert x.shape == (1000 + 2 * n - n, 4) and (x.min(1) == x.max(1)).all()


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
