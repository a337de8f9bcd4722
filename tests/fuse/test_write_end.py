"""The end of a writing mount: what is still open, who holds the lock, mounting again right after."""

import os
import re
import signal
import subprocess

import numpy as np
import pytest

from harness import same, saved, wait_for

A = np.arange(300, dtype="f4").reshape(100, 3)


def test_the_lock_names_the_daemon_and_not_its_parent(mount, tmp_path):
    store = tmp_path / "s.npk"
    at = tmp_path / "m"
    at.mkdir()
    with mount(store, "create", ro=False):
        pass
    program = mount.start.__globals__["program"]("numpackfs")
    subprocess.run([str(program), "-o", "lock_timeout=0", str(store), str(at)], check=True, timeout=60)
    try:
        pid = int(re.match(r"pid (\d+) on ", (store / ".numpackfs.lock").read_text())[1])
        assert os.readlink(f"/proc/{pid}/exe") == str(program)
        status, message = mount.refused(store, "lock_timeout=0", ro=False)
        assert status == 3 and f"pid {pid} " in message and str(at) in message
    finally:
        subprocess.run(["fusermount3", "-u", str(at)], check=True)
    wait_for("the daemon ends", lambda: not os.path.exists(f"/proc/{pid}"))


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_files_that_are_open_at_the_end_are_closed_by_the_daemon(mount, tmp_path, sig):
    """The second signal does not wait for those who use the mount; what was acknowledged is there, nothing leaks."""
    store = tmp_path / "s.npk"
    m = mount.start(store, "create", ro=False)
    np.save(m.array("x"), A)
    held = [os.open(m.array("x"), os.O_RDWR), os.open(m.path, os.O_RDONLY), os.open(m.path / "scratch", os.O_RDWR | os.O_CREAT),
            os.open(m.control() / "ctl", os.O_RDWR), os.open(m.control("x") / "append", os.O_WRONLY), os.open(m.view("x", "0:2"), os.O_WRONLY)]
    os.pwrite(held[0], A[:1].tobytes(), 128 + 12)
    os.write(held[2], b"some bytes")
    os.write(held[3], b"begin\ndrop x rows=0\n")
    os.write(held[4], saved(A)[:500])
    os.kill(m.pid, sig)
    wait_for("the mount is gone", lambda: "unmounting" in m.log_text())
    os.kill(m.pid, sig)
    assert m.process.wait(60) == 0, m.log_text()
    for fd in held:
        try:
            os.close(fd)
        except OSError:
            pass        # the connection is gone
    mount.stop(m)
    want = A.copy()
    want[1] = A[0]
    with mount(store, ro=False) as m:
        same(m.load("x"), want)
        assert os.listdir(m.path) == ["x.npy"]


def test_mounted_again_at_once(mount, tmp_path):
    store, at = tmp_path / "s.npk", tmp_path / "m"
    at.mkdir()
    for i in range(4):
        m = mount.start(store, "create", at=at, ro=False)
        np.save(m.array(f"a{i}"), A + i)
        subprocess.run(["fusermount3", "-u", str(at)], check=True)      # the daemon still writes its checkpoint
        n = mount.start(store, at=at, ro=False)
        for j in range(i + 1):
            same(n.load(f"a{j}"), A + j)
        assert m.process.wait(60) == 0
        mount.watchdog.say("disarm", m.pid)
        mount.stop(n)
