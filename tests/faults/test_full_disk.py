"""A small disk that gets full. What is told, what stays, and that room which no array needs any more is found in time."""

import errno
import os
import subprocess

import numpy as np
import pytest

from engine import Library, Refused
from harness import BUILD, PATIENCE, expect_error, same, say, wait_for

BIG = np.arange(400_000, dtype="f8")        # 3.2 MB: two of them fit on the disk
HUGE = np.arange(1_000_000, dtype="f8")     # one of these, and no other


def run(*argv, **kw):
    return subprocess.run([str(a) for a in argv], **{"check": True, "timeout": PATIENCE, **kw})


def refused(*argv):
    done = run(*argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode != 0, f"{argv} went well: {done.stdout}"
    return done.stdout


@pytest.fixture
def small(tmp_path):
    """A disk of 10 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "small"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=10m", "none", disk)
    yield disk
    run("umount", "-l", disk)


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "big.npy", BIG)
    np.save(tmp_path / "huge.npy", HUGE)
    return tmp_path


def fill(disk, left):
    """All of it but `left` bytes is another program's."""
    with open(disk / "other", "wb", buffering=0) as f:
        with pytest.raises(OSError):
            while True:
                f.write(bytes(1 << 16))
    os.truncate(disk / "other", os.stat(disk / "other").st_size - left)


def sound(store):
    run(BUILD / "npk", "verify", "--deep", store, stdout=subprocess.DEVNULL)


def in_the_end(call, *args):
    """The room of a file comes back when the kernel has let go of it; it sends RELEASE and FORGET in its own time."""
    def works():
        try:
            call(*args)
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    wait_for(f"there is room for {args}", works)


def test_a_copy_that_finds_it_full(mount, small, files):
    with mount(small / "s.npk", "create", ro=False) as m:
        run("cp", files / "big.npy", m.array("x"))
        assert "No space left on device" in refused("cp", files / "huge.npy", m.array("x"))
        same(m.load("x"), BIG)
        assert "No space left on device" in refused("sh", "-c", f"cat {files}/huge.npy > {m.control('x')}/append")
        same(m.load("x"), BIG)
        assert {e["path"] for e in m.last_errors() if e["errno"] == "ENOSPC"} == {"x.npy", ".numpack/arrays/x/append"}
        say(m.control("x") / "drop", "0:100\n")
        same(m.load("x"), BIG[100:])
        wait_for("what the first cp wrote is gone", lambda: any(e["errno"] == "ECANCELED" for e in m.last_errors()))
        in_the_end(run, "cp", files / "big.npy", m.array("y"))
        same(m.load("y"), BIG)
    sound(small / "s.npk")


def test_what_was_saved_over_and_removed_gives_its_room_back(mount, small, files):
    """Without sync, and long before the journal is old."""
    with mount(small / "s.npk", "create", ro=False) as m:
        for i in range(5):
            in_the_end(run, "cp", files / "big.npy", m.array("x"))
            in_the_end(np.save, m.array("x"), BIG + i)
        same(m.load("x"), BIG + 4)
        for _ in range(2):
            os.unlink(m.array("x"))
            in_the_end(run, "cp", files / "huge.npy", m.array("x"))
        same(m.load("x"), HUGE)
        os.unlink(m.array("x"))
        in_the_end(np.save, m.array("x"), BIG)
        in_the_end(np.save, m.array("x"), BIG)
        for _ in range(4):      # a request each
            in_the_end(say, m.control("x") / "append.raw", BIG[:100_000].tobytes())
        same(m.load("x"), np.concatenate([BIG, *[BIG[:100_000]] * 4]))
    sound(small / "s.npk")


def test_the_same_by_the_library(small, tmp_path):
    e = Library(small / "s.npk", tmp_path)
    for i in range(5):
        e.save("x", BIG + i)
    e.remove("x")
    e.save("x", HUGE)
    same(e.load("x"), HUGE)
    with pytest.raises(Refused, match="ENOSPC"):
        e.save("y", BIG)
    e.remove("x")
    for _ in range(2):
        e.save("x", BIG)
    for _ in range(2):
        e.append("x", BIG[:200_000])
    with pytest.raises(Refused, match="ENOSPC"):
        e.append("x", HUGE)
    same(e.load("x"), np.concatenate([BIG, BIG[:200_000], BIG[:200_000]]))
    e.close()
    sound(small / "s.npk")


@pytest.mark.parametrize("left", [0, 4096, 8192])
def test_a_checkpoint_that_has_no_room_does_not_end_the_store(mount, small, left):
    with mount(small / "s.npk", "create", ro=False) as m:
        np.save(m.array("x"), BIG)
        np.save(m.array("y"), BIG[:1000])
        fill(small, left)
        e = expect_error(errno.ENOSPC, say, m.control() / "sync", "1\n")
        assert m.last_errors()[-1]["message"].endswith(f"the disk has room for {left}"), (e, m.last_errors())
        say(m.control("y") / "drop", "0:10\n")
        os.unlink(m.array("x"))
        same(m.load("y"), BIG[10:1000])
        expect_error(errno.ENOSPC, say, m.control() / "sync", "1\n")
        os.unlink(small / "other")
        say(m.control() / "sync", "1\n")
        assert not list((small / "s.npk").glob("data_.npk-*"))
        np.save(m.array("z"), BIG)
    sound(small / "s.npk")
