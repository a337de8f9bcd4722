"""stat, statfs and extended attributes tell the truth."""

import errno
import os
import stat
import subprocess

import numpy as np
import pytest

from harness import expect_error, saved
from npkwrite import Spec, write_store

MTIME = 1_600_000_000_654_321


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(13)
    return write_store(tmp_path / "s.npk", {
        "x": Spec(rng.random((50_000, 8)), mtime_us=MTIME),
        "holes": Spec(rng.random((50_000, 8)), deleted=list(range(0, 50_000, 2)), mtime_us=MTIME),
        "parts": Spec(rng.random((50_000, 8)), segment_rows=7_000, deleted=[3]),
        "none": np.zeros((0, 2)),
    })


def backing(store, name):
    """Blocks that the array's files really use."""
    files = [p for p in store.rglob("*") if p.is_file() and f"_{name}" in str(p.relative_to(store)) and p.suffix != ".npkseg"]
    return sum(p.stat().st_blocks for p in files)


def test_stat(store, mount):
    path, specs = store
    with mount(path) as m:
        for name, spec in specs.items():
            st = m.array(name).stat()
            data = path / f"data_{name}.npkd" if name != "parts" else path / "data_parts_segments" / "seg_000000.npkd"
            assert stat.S_ISREG(st.st_mode) and st.st_nlink == 1, name
            assert st.st_size == len(saved(spec.logical())), name
            assert (st.st_uid, st.st_gid) == (data.stat().st_uid, data.stat().st_gid), name
            # No more permissions than the file has; a read-only mount may show fewer.
            assert stat.S_IMODE(st.st_mode) & ~stat.S_IMODE(data.stat().st_mode) == 0 and st.st_mode & 0o400, name
            assert st.st_blksize == 1 << 20, name
            if spec.mtime_us:
                assert st.st_mtime_ns == spec.mtime_us * 1000, name
        inodes = [m.array(name).stat().st_ino for name in specs]
        assert len(set(inodes)) == len(inodes)


def test_owner_and_mode_of_the_backing_file(store, mount):
    path, specs = store
    (path / "data_x.npkd").chmod(0o640)
    if os.getuid() == 0:
        os.chown(path / "data_x.npkd", 1234, 4321)
    with mount(path) as m:
        st = m.array("x").stat()
        assert stat.S_IMODE(st.st_mode) & ~0o640 == 0 and stat.S_IMODE(st.st_mode) & 0o440 == 0o440
        if os.getuid() == 0:
            assert (st.st_uid, st.st_gid) == (1234, 4321)
        assert m.array("none").stat().st_uid == os.getuid()


def test_blocks_are_honest(store, mount):
    """du of the mount is du of the data and bitmaps; du minus du --apparent-size is what compacting would free."""
    path, specs = store
    with mount(path) as m:
        for name in specs:
            assert m.array(name).stat().st_blocks == backing(path, name), name
        total = int(subprocess.run(["du", "-s", "--block-size=512", str(m.path)], check=True, stdout=subprocess.PIPE).stdout.split()[0])
        want = sum(backing(path, name) for name in specs)
        assert want <= total <= want + 64, (total, want)
        used = m.array("holes").stat().st_blocks * 512 - m.array("holes").stat().st_size
        assert used >= 25_000 * 64 - 4096


def test_statfs_is_the_backing_filesystems(store, mount):
    path, specs = store
    with mount(path) as m:
        here, there = os.statvfs(m.path), os.statvfs(path)
        assert (here.f_bsize, here.f_frsize, here.f_blocks) == (there.f_bsize, there.f_frsize, there.f_blocks)
        assert here.f_files == len(specs) and here.f_namemax >= 255
        assert abs(here.f_bavail - there.f_bavail) * there.f_frsize < 1 << 30
        out = subprocess.run(["df", "--output=size", str(m.path)], check=True, stdout=subprocess.PIPE, text=True).stdout
        assert int(out.split()[-1]) > 0


NAMES = ["shape", "dtype", "rows", "deleted", "physical_rows", "mtime_us", "generation", "data_file"]


def test_attributes_by_name(store, mount):
    path, specs = store
    with mount(path) as m:
        for name, spec in specs.items():
            def value(key):
                return os.getxattr(m.array(name), "user.numpack." + key).decode()

            x = spec.logical()
            data_file = "data_parts.npkseg" if name == "parts" else f"data_{name}.npkd"
            want = {"shape": " ".join(map(str, x.shape)), "dtype": "<f8", "rows": str(len(x)),
                    "deleted": str(len(spec.deleted or [])), "physical_rows": str(len(spec.array)), "data_file": data_file}
            assert {k: value(k) for k in want} == want, name
            assert int(value("generation")) >= 1
            assert value("state") != ""
            if spec.mtime_us:
                assert int(value("mtime_us")) == spec.mtime_us


def test_attributes_by_the_tool(store, mount):
    path, _ = store
    with mount(path) as m:
        got = subprocess.run(["getfattr", "--only-values", "-n", "user.numpack.shape", str(m.array("x"))], check=True,
                             stdout=subprocess.PIPE).stdout
        assert got == b"50000 8"


def test_attributes_are_not_listed(store, mount):
    """So that cp -a and rsync -X do not try to copy them."""
    path, _ = store
    with mount(path) as m:
        try:
            assert os.listxattr(m.array("x")) == []
        except OSError as e:
            assert e.errno in (errno.EOPNOTSUPP, errno.ENOSYS)
        out = subprocess.run(["getfattr", "-d", "-m", "-", str(m.array("x"))], stdout=subprocess.PIPE).stdout
        assert b"numpack" not in out


def test_attributes_that_are_none(store, mount):
    path, _ = store
    with mount(path) as m:
        for name in ("user.numpack.nothing", "user.other", "security.capability", "system.posix_acl_access", "trusted.x",
                     "user.numpack."):
            with pytest.raises(OSError) as e:
                os.getxattr(m.array("x"), name)
            assert e.value.errno in (errno.ENODATA, errno.EOPNOTSUPP), name
        # A buffer that is too small is an error, not a cut value.
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        buf = ctypes.create_string_buffer(3)
        got = libc.getxattr(os.fsencode(m.array("x")), b"user.numpack.shape", buf, 3)
        assert got == -1 and ctypes.get_errno() == errno.ERANGE


def test_cp_and_rsync_with_attributes(store, mount, tmp_path):
    path, specs = store
    with mount(path) as m:
        subprocess.run(["cp", "-a", "--", str(m.path), str(tmp_path / "a")], check=True)
        subprocess.run(["rsync", "-aX", f"{m.path}/", str(tmp_path / "b")], check=True)
        for name, spec in specs.items():
            assert (tmp_path / "a" / f"{name}.npy").read_bytes() == saved(spec.logical())
            assert (tmp_path / "b" / f"{name}.npy").read_bytes() == saved(spec.logical())


def test_access_and_ls(store, mount):
    path, specs = store
    with mount(path) as m:
        for name in specs:
            assert os.access(m.array(name), os.R_OK) and not os.access(m.array(name), os.X_OK)
        out = subprocess.run(["ls", "-l", str(m.path)], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert out.stderr == "" and len(out.stdout.splitlines()) == 1 + len(specs)


def test_flock_works(store, mount):
    import fcntl
    path, _ = store
    with mount(path) as m, open(m.array("x"), "rb") as f:
        fcntl.flock(f, fcntl.LOCK_SH)
        fcntl.flock(f, fcntl.LOCK_UN)


def test_the_directory_itself(store, mount):
    path, _ = store
    with mount(path) as m:
        st = m.path.stat()
        assert stat.S_ISDIR(st.st_mode) and st.st_nlink >= 1
        assert expect_error(errno.ENOENT, os.stat, m.path / "nothing").errno == errno.ENOENT


def attributes(path):
    st = os.stat(path)
    return oct(stat.S_IMODE(st.st_mode)), st.st_uid, st.st_gid


@pytest.mark.parametrize("inside", [False, True], ids=["the root", "a transaction"])
def test_rename_over_an_array_brings_the_scratch_files_mode_and_owner(mount, tmp_path, inside):
    root = os.geteuid() == 0
    owner = (1234, 1235) if root else (os.geteuid(), os.getegid())
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        np.save(m.array("x"), np.zeros((10, 3)))
        at = m.path
        if inside:
            at = m.control() / "batch" / "t"
            at.mkdir()
        for target in ("x.npy", "new.npy"):
            temp = at / ".x.npy.Ab3"
            with open(temp, "wb") as f:
                np.save(f, np.asfortranarray(np.ones((5, 3))))
            os.chmod(temp, 0o604)
            os.chown(temp, *owner)
            os.replace(temp, at / target)
            assert attributes(at / target) == ("0o604", *owner)
        if inside:
            assert attributes(m.array("x"))[0] == "0o644"
            (at / "ctl").write_text("commit\n")
        assert attributes(m.array("x")) == attributes(m.array("new")) == ("0o604", *owner)
        np.save(m.array("x"), np.zeros((3, 3)))         # a save over it keeps them
        assert attributes(m.array("x")) == ("0o604", *owner)
        (m.control() / "sync").write_text("1\n")
        assert attributes(m.store / "data_x.npkd") == attributes(m.store / "data_new.npkd") == ("0o604", *owner)


@pytest.mark.parametrize("inside", [False, True], ids=["the root", "a transaction"])
def test_a_new_array_has_the_mode_that_it_was_created_with(mount, tmp_path, inside):
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        np.save(m.array("x"), np.zeros((10, 3)))
        at = m.path
        if inside:
            at = m.control() / "batch" / "t"
            at.mkdir()
        fd = os.open(at / "private.npy", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        assert os.write(fd, saved(np.zeros((10, 3)))) == 128 + 240
        os.close(fd)
        old = os.umask(0o027)
        try:
            subprocess.run(["cp", at / "x.npy", at / "copied.npy"], check=True, timeout=60)
        finally:
            os.umask(old)
        if inside:
            (at / "ctl").write_text("commit\n")
        assert attributes(m.array("private"))[0] == "0o600" and attributes(m.array("copied"))[0] == "0o640"
        assert attributes(m.array("private"))[1:] == (os.geteuid(), os.getegid())
