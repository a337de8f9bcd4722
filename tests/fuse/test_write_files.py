"""Writing through the root: programs save, copy, append, overwrite and rename arrays, and nobody who reads notices a tear."""

import errno
import io
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from harness import expect_error, same, saved, wait_for

A = np.arange(300, dtype="f4").reshape(100, 3)
B = np.arange(60, dtype="f8").reshape(20, 3)


def run(*argv, **kw):
    return subprocess.run([str(a) for a in argv], check=True, timeout=60, **kw)


@pytest.mark.parametrize("array", [A, A.astype(">f4"), np.asfortranarray(A), A[::2], np.zeros((0, 4), "i2"), np.arange(5),
                                   np.asfortranarray(np.arange(24, dtype=">i8").reshape(2, 3, 4)), A[:, :1].copy("F"),
                                   np.arange(7, dtype=">c16"), np.array([True, False])], ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_np_save_of_anything_reads_back_equal(rw, array):
    np.save(rw.array("x"), array)
    got = rw.load("x")
    assert got.shape == array.shape and (got == array).all()
    np.save(rw.array("x"), array)
    assert (rw.load("x") == array).all()


def test_save_over_leaves_a_map_its_old_rows(rw):
    np.save(rw.array("x"), A)
    old = rw.load("x", mmap_mode="r")
    np.save(rw.array("x"), B)
    same(old, A)
    same(rw.load("x"), B)


def test_bytes_of_a_copy_are_those_of_the_file(rw, tmp_path):
    np.save(tmp_path / "a.npy", A)
    run("cp", tmp_path / "a.npy", rw.path)
    run("cp", "-p", tmp_path / "a.npy", rw.array("p"))
    run("rsync", "-a", tmp_path / "a.npy", rw.array("r"))
    run("rsync", "-a", "--inplace", tmp_path / "a.npy", rw.array("r"))
    run("install", "-m", "600", tmp_path / "a.npy", rw.array("i"))
    run("mv", shutil.copy(tmp_path / "a.npy", tmp_path / "m.npy"), rw.path)
    run("cp", "--sparse=always", tmp_path / "a.npy", rw.array("s"))
    run("dd", f"if={tmp_path}/a.npy", f"of={rw.array('d')}", "bs=100", stderr=subprocess.DEVNULL)
    for name in "aprimsd":
        assert rw.array(name).read_bytes() == saved(A), name
    for name in "pr":
        assert os.stat(rw.array(name)).st_mtime == pytest.approx(os.stat(tmp_path / "a.npy").st_mtime, abs=1e-5)
    assert sorted(os.listdir(rw.path)) == [n + ".npy" for n in "adimprs"]


def test_open_memmap_creates_and_r_plus_grows_and_changes(rw):
    w = np.lib.format.open_memmap(rw.array("w"), "w+", dtype="i4", shape=(1000, 7))
    w[:] = 5
    w.flush()
    same(rw.load("w"), np.full((1000, 7), 5, "i4"))
    r = rw.load("w", mmap_mode="r+")
    r += 1
    r[r < 0] = 0
    r.flush()
    same(rw.load("w"), np.full((1000, 7), 6, "i4"))
    size = os.stat(rw.array("w")).st_size
    g = np.memmap(rw.array("w"), "i4", "r+", offset=128, shape=(1500, 7))
    g[1400] = 9
    g.flush()
    assert os.stat(rw.array("w")).st_size == size + 500 * 28
    got = rw.load("w")
    assert got.shape == (1500, 7) and (got[1400] == 9).all() and not got[1000:1400].any() and (got[:1000] == 6).all()


def test_whole_rows_are_appended_and_a_part_of_one_is_refused_at_close(rw):
    np.save(rw.array("x"), A)
    with open(rw.array("x"), "ab") as f:
        f.write(A[:2].tobytes())
    same(rw.load("x"), np.vstack([A, A[:2]]))
    run("sh", "-c", f"cat >> {rw.array('x')}", input=A[5].tobytes())
    same(rw.load("x")[-1], A[5])
    fd = os.open(rw.array("x"), os.O_WRONLY | os.O_APPEND)
    os.write(fd, A[6].tobytes() + b"abc")
    expect_error(errno.EINVAL, os.close, fd)
    got = rw.load("x")
    assert len(got) == 104 and (got[-1] == A[6]).all()


def test_dd_replaces_a_row_in_place(rw):
    np.save(rw.array("x"), A)
    seen = rw.load("x", mmap_mode="r")
    assert seen[17, 0] == A[17, 0]
    row = np.full(3, -1, "f4")
    run("dd", f"of={rw.array('x')}", "bs=12", "oflag=seek_bytes", f"seek={128 + 12 * 17}", "conv=notrunc", input=row.tobytes(),
        stderr=subprocess.DEVNULL)
    assert (seen[17] == -1).all() and (rw.load("x")[17] == -1).all() and (rw.load("x")[18] == A[18]).all()


def test_replacing_by_rename(rw, tmp_path):
    np.save(rw.array("x"), A)
    old = rw.load("x", mmap_mode="r")
    with tempfile.NamedTemporaryFile(dir=rw.path, delete=False) as f:
        np.save(f, B)
    os.replace(f.name, rw.array("x"))
    same(old, A)
    same(rw.load("x"), B)
    assert os.listdir(rw.path) == ["x.npy"]
    (rw.path / "junk").write_text("no array")
    expect_error(errno.EINVAL, os.rename, rw.path / "junk", rw.array("x"))
    same(rw.load("x"), B)
    os.unlink(rw.path / "junk")
    expect_error(errno.EINVAL, os.rename, rw.array("x"), rw.path / "x.bak")


def test_rename_unlink_exchange(rw):
    for name, array in (("a", A), ("b", B)):
        np.save(rw.array(name), array)
    assert run("mv", "-n", rw.array("a"), rw.array("b")).returncode == 0
    same(rw.load("b"), B)
    os.rename(rw.array("a"), rw.array("c"))
    same(rw.load("c"), A)
    with open(rw.array("c"), "ab") as f:
        f.write(A[:1].tobytes())
    assert len(rw.load("c")) == 101
    mapped = rw.load("c", mmap_mode="r")
    os.rename(rw.array("b"), rw.array("c"))
    same(mapped[:100], A)
    same(rw.load("c"), B)
    os.unlink(rw.array("c"))
    assert os.listdir(rw.path) == [] and os.listdir(rw.control() / "arrays") == []
    expect_error(errno.ENOENT, os.stat, rw.array("c"))


@pytest.mark.parametrize("what, data", [
    ("garbage", b"not an array" * 20), ("objects", saved(np.array([{}], dtype=object))),
    ("structured", saved(np.zeros(2, "i4,f4"))), ("dates", saved(np.zeros(2, "M8[s]"))), ("scalar", saved(np.float32(1)))])
def test_bad_input_is_refused_by_write_and_the_old_array_stays(rw, what, data):
    np.save(rw.array("x"), A)
    fd = os.open(rw.array("x"), os.O_WRONLY | os.O_TRUNC)
    expect_error(errno.EINVAL, os.write, fd, data)
    expect_error(errno.EINVAL, os.close, fd)
    same(_elsewhere(rw.array("x")), A)


def _elsewhere(path):
    """Read by another process: the writer's own sees what it staged."""
    out = subprocess.run(["cat", str(path)], capture_output=True, check=True, timeout=60).stdout
    return np.load(io.BytesIO(out))


def test_more_than_promised_is_efbig_and_less_stays_incomplete(rw):
    data = saved(A)
    fd = os.open(rw.array("x"), os.O_WRONLY | os.O_CREAT)
    os.write(fd, data[:1000])
    assert os.getxattr(rw.array("x"), "user.numpack.state") == b"incomplete"
    expect_error(errno.EFBIG, os.write, fd, data[1000:] + b"x")
    expect_error(errno.EFBIG, os.close, fd)
    assert rw.array("x").stat().st_size == 1000
    assert "x" not in (rw.control() / "members").read_text().split()


def test_truncate(rw):
    np.save(rw.array("x"), A)
    fd = os.open(rw.array("x"), os.O_RDWR)
    os.ftruncate(fd, 128 + 12 * 40)
    same(rw.load("x"), A[:40])
    os.ftruncate(fd, 128 + 12 * 50)
    os.close(fd)
    same(rw.load("x"), np.vstack([A[:40], np.zeros((10, 3), "f4")]))
    old = rw.load("x", mmap_mode="r")
    os.truncate(rw.array("x"), 128 + 12 * 10)
    same(old[:40], A[:40])
    same(rw.load("x"), A[:10])
    expect_error(errno.EINVAL, os.truncate, rw.array("x"), 201)


def test_ftruncate_to_nothing_starts_a_replacement(rw):
    np.save(rw.array("x"), A)
    with open(rw.array("x"), "r+b") as f:
        f.truncate(0)
        same(_elsewhere(rw.array("x")), A)
        np.save(f, B)
    same(rw.load("x"), B)
    run("truncate", "-s", "0", rw.array("x"))
    same(rw.load("x"), B)
    with open(rw.array("x"), "rb") as reader, open(rw.array("x"), "r+b") as f:
        expect_error(errno.EBUSY, f.truncate, 0)
        expect_error(errno.EBUSY, f.truncate, 128 + 24)
        assert reader.read() == saved(B)


def test_an_incomplete_save_over_an_array_goes_with_its_process(rw):
    np.save(rw.array("x"), A)
    code = "import os, sys; fd = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC); os.write(fd, open(sys.argv[2], 'rb').read(500))"
    (rw.path / "b").write_bytes(saved(B))
    run(sys.executable, "-c", code, rw.array("x"), rw.path / "b")
    same(rw.load("x"), A)
    wait_for("it is told in last_error", lambda: any("incomplete" in e["message"] for e in rw.last_errors()))
    same(rw.load("x"), A)


def test_sed_in_place_and_editors(rw):
    (rw.path / "notes.txt").write_text("one two\n")
    run("sed", "-i", "s/one/1/", rw.path / "notes.txt")
    assert (rw.path / "notes.txt").read_text() == "1 two\n"
    with open(rw.path / "notes.txt", "a") as f:
        f.write("more\n")
    assert (rw.path / "notes.txt").read_text() == "1 two\nmore\n"
    (rw.path / "notes.txt").write_text("x")
    assert (rw.path / "notes.txt").read_text() == "x"
    os.unlink(rw.path / "notes.txt")


def test_several_processes_save_one_name(rw):
    code = "import sys, numpy as np\nfor i in range(20): np.save(sys.argv[1], np.full((50, 50), int(sys.argv[2]), 'i4'))"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(rw.array("x")), str(i)]) for i in range(3)]
    seen = set()
    while any(w.poll() is None for w in writers):
        if rw.array("x").exists():
            try:
                a = rw.load("x", mmap_mode="r")
            except (ValueError, EOFError):
                continue        # the first save is not complete, and seen by all
            assert a.shape == (50, 50) and len(np.unique(a)) == 1
            seen.add(int(a[0, 0]))
    assert [w.wait() for w in writers] == [0, 0, 0] and seen


def test_a_real_reader_and_a_remount_see_it_all(mount, tmp_path, real_numpack):
    store = tmp_path / "s.npk"
    with mount(store, "create", ro=False) as m:
        np.save(m.array("x"), A)
        np.save(m.array("y"), B)
        r = m.load("x", mmap_mode="r+")
        r[3] = 77
        del r
        os.rename(m.array("y"), m.array("z"))
    want = A.copy()
    want[3] = 77
    real_numpack.open(store)
    assert sorted(real_numpack.members()) == ["x", "z"]
    same(real_numpack.load("x"), want)
    same(real_numpack.load("z"), B)
    real_numpack.close()
    with mount(store) as m:
        same(m.load("x"), want)


def test_a_store_is_written_by_one_mount(mount, tmp_path):
    store = tmp_path / "s.npk"
    with mount(store, "create", ro=False) as m:
        status, message = mount.refused(store, "lock_timeout=0", ro=False)
        assert status == 3 and str(m.path) in message
        np.save(m.array("x"), A)
        with mount(store) as reader:
            same(reader.load("x"), A)
    with mount(store, "drop_if_exists", ro=False) as m:
        assert os.listdir(m.path) == []
