"""A read-only mount refuses every change with EROFS, and the store's bytes stay as they are."""

import errno
import os
import subprocess

import numpy as np
import pytest

from harness import expect_error, saved, untouched


def create(path):
    return os.open(path, os.O_CREAT | os.O_WRONLY, 0o644)


ATTEMPTS = {
    "open to write": lambda p: os.open(p / "int32_5x3.npy", os.O_WRONLY),
    "open to read and write": lambda p: os.open(p / "int32_5x3.npy", os.O_RDWR),
    "open to append": lambda p: os.open(p / "int32_5x3.npy", os.O_WRONLY | os.O_APPEND),
    "open to truncate": lambda p: os.open(p / "int32_5x3.npy", os.O_RDONLY | os.O_TRUNC),
    "save over": lambda p: np.save(p / "int32_5x3.npy", np.zeros(3)),
    "create": lambda p: create(p / "new.npy"),
    "create something else": lambda p: create(p / "notes.txt"),
    "create a hidden file": lambda p: create(p / ".hidden"),
    "create exclusively": lambda p: os.open(p / "new.npy", os.O_CREAT | os.O_EXCL | os.O_RDWR),
    "truncate": lambda p: os.truncate(p / "int32_5x3.npy", 0),
    "truncate to the same size": lambda p: os.truncate(p / "int32_5x3.npy", os.stat(p / "int32_5x3.npy").st_size),
    "unlink": lambda p: os.unlink(p / "int32_5x3.npy"),
    "rename": lambda p: os.rename(p / "int32_5x3.npy", p / "other.npy"),
    "rename over": lambda p: os.rename(p / "int32_5x3.npy", p / "int8_17.npy"),
    "mkdir": lambda p: os.mkdir(p / "dir"),
    "rmdir": lambda p: os.rmdir(p / ".numpack"),
    "chmod": lambda p: os.chmod(p / "int32_5x3.npy", 0o600),
    "chown": lambda p: os.chown(p / "int32_5x3.npy", os.getuid(), os.getgid()),
    "utime": lambda p: os.utime(p / "int32_5x3.npy", (1, 1)),
    "utime of the root": lambda p: os.utime(p, (1, 1)),
    "setxattr": lambda p: os.setxattr(p / "int32_5x3.npy", "user.x", b"1"),
    "removexattr": lambda p: os.removexattr(p / "int32_5x3.npy", "user.numpack.shape"),
    "link": lambda p: os.link(p / "int32_5x3.npy", p / "linked.npy"),
    "symlink": lambda p: os.symlink("x", p / "symbolic.npy"),
    "mkfifo": lambda p: os.mkfifo(p / "fifo"),
    "unlink of a view": lambda p: os.unlink(p / ".numpack/arrays/int32_5x3/view/0:2.npy"),
    "write to a view": lambda p: os.open(p / ".numpack/arrays/int32_5x3/view/0:2.npy", os.O_WRONLY),
    "truncate a view": lambda p: os.open(p / ".numpack/arrays/int32_5x3/view/0:2.npy", os.O_RDWR | os.O_TRUNC),
    "create in the control tree": lambda p: create(p / ".numpack/new"),
    "unlink in the control tree": lambda p: os.unlink(p / ".numpack/version"),
    "mkdir in the control tree": lambda p: os.mkdir(p / ".numpack/arrays/new"),
    "write to a batch": lambda p: os.open(p / ".numpack/arrays/int32_5x3/batches/2/0.npy", os.O_RDWR),
    "write to the export": lambda p: os.open(p / ".numpack/export/store.safetensors", os.O_RDWR),
    "write to deleted.npy": lambda p: os.open(p / ".numpack/arrays/int32_5x3/deleted.npy", os.O_RDWR),
    "map to write": lambda p: np.load(p / "int32_5x3.npy", mmap_mode="r+"),
}
# interface.md section 3 names EPERM for these whatever the mount is.
ALSO_EPERM = {"link", "symlink", "mkfifo", "mkdir", "rmdir", "mkdir in the control tree", "unlink in the control tree",
              "create in the control tree"}


@pytest.mark.parametrize("what", ATTEMPTS)
def test_every_change_is_refused(what, golden_mount):
    m = golden_mount("dtypes.npk")
    with untouched(m.store):
        try:
            got = ATTEMPTS[what](m.path)
        except OSError as e:
            allowed = {errno.EROFS} | ({errno.EPERM} if what in ALSO_EPERM else set())
            # A file that cannot have the attribute or the operation at all may say so.
            allowed |= {errno.EOPNOTSUPP} if what in ("setxattr", "removexattr") else set()
            assert e.errno in allowed, f"{errno.errorcode[e.errno]}: {e}"
        else:
            raise AssertionError(f"it worked: {got!r}")


def test_programs_see_it(golden_mount, tmp_path):
    m = golden_mount("dtypes.npk")
    np.save(tmp_path / "x.npy", np.zeros(4))
    with untouched(m.store):
        for argv in (["cp", str(tmp_path / "x.npy"), str(m.path / "x.npy")], ["cp", str(tmp_path / "x.npy"), str(m.path / "int8_17.npy")],
                     ["mv", str(tmp_path / "x.npy"), str(m.path)], ["rm", "-f", str(m.path / "int8_17.npy")],
                     ["touch", str(m.path / "int8_17.npy")], ["sh", "-c", 'echo x > "$1"', "sh", str(m.path / "int8_17.npy")],
                     ["rsync", "-a", f"{tmp_path}/", f"{m.path}/"], ["chmod", "600", str(m.path / "int8_17.npy")]):
            done = subprocess.run(argv, stderr=subprocess.PIPE, text=True, env={**os.environ, "LC_ALL": "C"})
            assert done.returncode != 0 and "Read-only file system" in done.stderr, (argv, done)


def test_a_store_on_a_read_only_filesystem_can_be_mounted(mount, golden_copy):
    """Reading needs no right to write: files and directory without any write permission."""
    store = golden_copy("deletions.npk")
    for p in store.rglob("*"):
        p.chmod(0o444)
    store.chmod(0o555)
    try:
        with untouched(store), mount(store) as m:
            for path in m.path.iterdir():
                np.load(path)
    finally:
        store.chmod(0o755)


def test_nothing_is_created_beside_the_arrays(mount, golden_copy):
    """Not even a lock file: reading leaves no trace."""
    store = golden_copy("dtypes.npk")
    before = sorted(os.listdir(store))
    with mount(store) as m:
        assert sorted(os.listdir(store)) == before
        m.array("int8_17").read_bytes()
        assert sorted(os.listdir(store)) == before
    assert sorted(os.listdir(store)) == before


def test_mounted_twice(mount, golden_copy):
    """Any number of read-only mounts of one store."""
    store = golden_copy("dtypes.npk")
    with mount(store) as a, mount(store) as b:
        assert a.array("int8_17").read_bytes() == b.array("int8_17").read_bytes() == saved(a.load("int8_17"))
        expect_error(errno.EROFS, os.open, a.array("int8_17"), os.O_WRONLY)
