"""fallocate, copy_file_range, lseek, utimensat, renameat2, programs that copy: the rows of interface.md's table, numpy as truth."""

import ctypes
import errno
import fcntl
import os
import shutil
import subprocess

import numpy as np
import pytest

from harness import expect_error, same, saved

A = np.arange(300, dtype="f4").reshape(100, 3)
B = np.arange(60, dtype="f8").reshape(20, 3)
STORED = {"x": A}
KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO_RANGE = 1, 2, 8, 16
NOREPLACE, EXCHANGE = 1, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def run(*argv, **kw):
    return subprocess.run([str(a) for a in argv], check=True, timeout=60, **kw)


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def fallocate(fd, mode, off, length):
    return checked(LIBC.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(length)))


def rename(a, b, flags):
    return checked(LIBC.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), flags))


@pytest.mark.parametrize("mode", [PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, ZERO_RANGE | KEEP_SIZE])
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY])
def test_zeroes_go_to_rows_and_not_to_the_header(rw, mode, flags):
    seen = rw.load("x", mmap_mode="r")
    assert seen[5, 0] == A[5, 0]
    fd = os.open(rw.array("x"), flags)
    fallocate(fd, mode, 128 + 12 * 5 + 4, 12 * 10)
    want = A.copy()
    want.reshape(-1)[16:46] = 0
    same(rw.load("x"), want)
    same(seen, want)
    if mode & KEEP_SIZE:
        fallocate(fd, mode, 128 + 12 * 95, 1 << 20)
        want[95:] = 0
        same(rw.load("x"), want)
    expect_error(errno.EINVAL, fallocate, fd, mode, 0, 128)
    with pytest.raises(OSError):
        os.close(fd)


def test_fallocate_reserves_extends_and_refuses(rw, tmp_path):
    fd = os.open(rw.array("x"), os.O_RDWR)
    before = sum(p.stat().st_blocks for p in rw.store.iterdir())
    fallocate(fd, KEEP_SIZE, 0, 8 << 20)
    assert sum(p.stat().st_blocks for p in rw.store.iterdir()) >= before + (8 << 20) // 512 - 64
    same(rw.load("x"), A)
    expect_error(errno.ENOSPC, fallocate, fd, KEEP_SIZE, 0, 1 << 50)
    fallocate(fd, 0, 0, 128 + 12 * 103)
    same(rw.load("x"), np.vstack([A, np.zeros((3, 3), "f4")]))
    expect_error(errno.EOPNOTSUPP, fallocate, fd, COLLAPSE, 0, 4096)
    os.close(fd)
    with open(rw.array("x"), "ab") as f:
        f.write(A[:1].tobytes())
    same(rw.load("x")[103:], A[:1])
    fd = os.open(rw.path / "scratch", os.O_RDWR | os.O_CREAT)
    fallocate(fd, 0, 0, 1000)
    os.close(fd)
    assert (rw.path / "scratch").read_bytes() == bytes(1000)


def copy_range(a, b, n, off_in=0, off_out=0):
    with open(a, "rb") as i, open(b, "r+b" if os.path.exists(b) else "w+b") as o:
        done = 0
        while done < n:
            got = os.copy_file_range(i.fileno(), o.fileno(), n - done, off_in + done, off_out + done)
            if got == 0:
                break
            done += got
    return done


def test_copying_a_whole_array_clones_it(rw):
    (rw.control("x") / "drop").write_text("0:10\n")
    size = os.stat(rw.array("x")).st_size
    assert copy_range(rw.array("x"), rw.array("y"), size) == size
    same(rw.load("y"), A[10:])
    assert (rw.control("y") / "deleted").read_text() == "0\n"
    y = rw.load("y", mmap_mode="r+")
    y[0] = -1
    y.flush()
    same(rw.load("x"), A[10:])
    del y
    assert copy_range(rw.array("x"), rw.array("z"), 1 << 62) == size
    same(rw.load("z"), A[10:])
    big = np.arange(3 << 20, dtype="f8")
    np.save(rw.array("big"), big)
    run("cp", rw.array("big"), rw.array("copy"))
    run("cp", "-a", rw.array("big"), rw.array("x"))
    same(rw.load("copy"), big)
    same(rw.load("x"), big)
    shutil.copyfile(rw.array("big"), rw.path / "scratch")
    os.replace(rw.path / "scratch", rw.array("copy2"))
    same(rw.load("copy2"), big)


def test_parts_are_copied(rw):
    np.save(rw.array("y"), np.zeros((100, 3), "f4"))
    assert copy_range(rw.array("x"), rw.array("y"), 12 * 7, 128 + 12 * 20, 128 + 12 * 50) == 84
    want = np.zeros((100, 3), "f4")
    want[50:57] = A[20:27]
    same(rw.load("y"), want)
    old = open(rw.array("x"), "rb")
    (rw.control("x") / "drop").write_text("0\n")
    fd = os.open(rw.array("w"), os.O_RDWR | os.O_CREAT)
    n = os.copy_file_range(old.fileno(), fd, 1 << 30, 0, 0)     # an older generation: its rows
    assert n == len(saved(A))
    os.close(fd)
    old.close()
    same(rw.load("w"), A)


def test_reflinks_are_refused_and_there_are_no_holes(rw):
    with open(rw.array("x"), "rb") as f, open(rw.path / "scratch", "wb") as g:
        expect_error(errno.EOPNOTSUPP, fcntl.ioctl, g.fileno(), 0x40049409, f.fileno())
        size = os.stat(rw.array("x")).st_size
        assert os.lseek(f.fileno(), 0, os.SEEK_HOLE) == size and os.lseek(f.fileno(), 700, os.SEEK_DATA) == 700
        expect_error(errno.ENXIO, os.lseek, f.fileno(), size, os.SEEK_DATA)
    run("cp", "--reflink=auto", rw.array("x"), rw.array("y"))
    same(rw.load("y"), A)
    done = subprocess.run(["cp", "--reflink=always", str(rw.array("x")), str(rw.array("z"))], capture_output=True, timeout=60)
    assert done.returncode != 0


def test_times(rw):
    os.utime(rw.array("x"), ns=(0, 1_500_000_000_123_456_000))
    assert os.stat(rw.array("x")).st_mtime_ns == 1_500_000_000_123_456_000
    assert (rw.control("x") / "mtime").read_text() == "1500000000123456\n"
    same(rw.load("x"), A)
    with open(rw.array("x"), "ab") as f:
        f.write(A[:1].tobytes())
    assert os.stat(rw.array("x")).st_mtime_ns > 1_600_000_000_000_000_000
    os.utime(rw.path, ns=(0, 1_400_000_000_000_000_000))
    assert os.stat(rw.store).st_mtime_ns == os.stat(rw.path).st_mtime_ns == 1_400_000_000_000_000_000


def test_a_time_that_was_set_is_seen_at_once(rw):
    """Whatever the kernel is being told of the file meanwhile."""
    for i in range(300):
        np.save(rw.array(f"x{i}"), A)
        os.utime(rw.array(f"x{i}"), ns=(0, 1_500_000_000_000_000_000 + i * 1000))
        assert os.stat(rw.array(f"x{i}")).st_mtime_ns == 1_500_000_000_000_000_000 + i * 1000


def test_rename_flags(rw):
    np.save(rw.array("y"), B)
    expect_error(errno.EEXIST, rename, rw.array("x"), rw.array("y"), NOREPLACE)
    old = rw.load("x", mmap_mode="r")
    rename(rw.array("x"), rw.array("y"), EXCHANGE)
    same(rw.load("x"), B)
    same(rw.load("y"), A)
    same(old, A)
    rename(rw.array("y"), rw.array("z"), NOREPLACE)
    same(rw.load("z"), A)
    expect_error(errno.ENOENT, rename, rw.array("none"), rw.array("x"), 0)
    expect_error(errno.ENOENT, rename, rw.array("x"), rw.array("none"), EXCHANGE)
    (rw.path / "scratch").write_bytes(saved(A))
    expect_error(errno.EEXIST, rename, rw.path / "scratch", rw.array("x"), NOREPLACE)
    rename(rw.path / "scratch", rw.array("s"), NOREPLACE)
    same(rw.load("s"), A)


def test_links_and_special_files_are_refused(rw):
    for call in (lambda: os.link(rw.array("x"), rw.array("y")), lambda: os.symlink("x", rw.array("y")), lambda: os.mkfifo(rw.array("y")),
                 lambda: os.mkdir(rw.path / "dir"), lambda: os.rmdir(rw.control())):
        expect_error(errno.EPERM, call)
    expect_error(errno.EOPNOTSUPP, os.setxattr, rw.array("x"), "user.other", b"1")
    expect_error(errno.ENODATA, os.getxattr, rw.array("x"), "user.other")


def test_archives(rw, tmp_path):
    """tar x and rsync of whole trees, in and out."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, array in (("a", A), ("b", B), ("c", np.zeros((0, 2)))):
        np.save(tree / f"{name}.npy", array)
        os.utime(tree / f"{name}.npy", (1e9, 1e9))
    run("tar", "cf", tmp_path / "t.tar", "-C", tree, ".")
    run("tar", "xf", tmp_path / "t.tar", "-C", rw.path, "--no-same-owner")
    for name in "abc":
        assert rw.array(name).read_bytes() == (tree / f"{name}.npy").read_bytes()
        assert os.stat(rw.array(name)).st_mtime == 1e9
    np.save(tree / "a.npy", B)
    run("rsync", "-a", "--no-owner", "--no-group", f"{tree}/", f"{rw.path}/")
    same(rw.load("a"), B)
    np.save(tree / "a.npy", B * 2)
    os.utime(tree / "a.npy", (2e9, 2e9))      # else rsync takes it for the same: equal size and second
    run("rsync", "-a", "--inplace", "--no-whole-file", "--no-owner", "--no-group", f"{tree}/", f"{rw.path}/")
    same(rw.load("a"), B * 2)
    out = tmp_path / "out"
    run("rsync", "-a", "--exclude=x.npy", f"{rw.path}/", f"{out}/")
    run("cp", "-r", rw.path, tmp_path / "out2")
    for name in "abc":
        assert (out / f"{name}.npy").read_bytes() == (tmp_path / "out2" / f"{name}.npy").read_bytes() == rw.array(name).read_bytes()


def test_sed_in_place_of_an_array(rw):
    text = np.frombuffer(b"one two one two ", "u1").copy()
    np.save(rw.array("t"), text)
    old = rw.load("t", mmap_mode="r")
    run("sed", "-i", "s/one/ONE/g", rw.array("t"))
    same(rw.load("t"), np.frombuffer(b"ONE two ONE two ", "u1"))
    same(old, text)
    assert sorted(os.listdir(rw.path)) == ["t.npy", "x.npy"]


def test_writing_through_generations(rw):
    """In place: through a generation that a drop made old, into the rows it shows; after a compact ESTALE."""
    old = open(rw.array("x"), "r+b", buffering=0)
    (rw.control("x") / "drop").write_text("0:10\n")
    os.pwrite(old.fileno(), np.full(3, -7, "f4").tobytes(), 128 + 12 * 20)
    want = A[10:].copy()
    want[10] = -7
    same(rw.load("x"), want)
    expect_error(errno.ESTALE, os.pwrite, old.fileno(), A[:1].tobytes(), 128 + 1200)
    append = os.open(rw.array("x"), os.O_WRONLY | os.O_APPEND)
    (rw.control("x") / "drop").write_text("0\n")
    os.write(append, A[:1].tobytes())
    want = np.vstack([want[1:], A[:1]])
    same(rw.load("x"), want)
    fd = os.open(rw.control("x") / "compact", os.O_WRONLY)
    expect_error(errno.EBUSY, os.write, fd, b"1\n")
    os.write(fd, b"1 force\n")
    os.close(fd)
    expect_error(errno.ESTALE, os.pwrite, old.fileno(), A[:1].tobytes(), 128)
    os.write(append, A[1:2].tobytes())
    os.close(append)
    same(rw.load("x"), np.vstack([want, A[1:2]]))
    with pytest.raises(OSError):
        old.close()


def test_mode_and_owner_are_those_of_the_data_file_and_stay(rw):
    """chmod and chown, and what saves, drops, compacts and copies keep of them."""
    os.chmod(rw.array("x"), 0o640)
    if os.geteuid() == 0:
        os.chown(rw.array("x"), 65534, 65533)
    want = (0o100640, *((65534, 65533) if os.geteuid() == 0 else (os.getuid(), os.getgid())))

    def now():
        st = os.stat(rw.array("x"))
        return st.st_mode, st.st_uid, st.st_gid

    assert now() == want
    np.save(rw.array("x"), A)
    assert now() == want
    (rw.control("x") / "drop").write_text("0\n")
    assert now() == want
    (rw.control("x") / "compact").write_text("1\n")
    assert now() == want
    same(rw.load("x"), A[1:])
    (rw.control() / "sync").write_text("1\n")
    assert oct(os.stat(rw.store / "data_x.npkd").st_mode) == oct(want[0])
