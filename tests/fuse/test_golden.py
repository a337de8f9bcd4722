"""Every array of every golden store, through the mount: the file is, byte for byte, what np.save writes of the logical rows."""

import collections
import filecmp
import os
import subprocess
import tarfile

import numpy as np
import pytest

from harness import ARRAYS, GOLDEN, INDEX, npy, same, saved

BY_STORE = collections.defaultdict(list)
for _a in ARRAYS:
    BY_STORE[_a["store"]].append(_a)
EACH = pytest.mark.parametrize("a", ARRAYS, ids=lambda a: f"{a['store']}-{a['expected_npy'].split('/')[1][:-4]}")
STORES = pytest.mark.parametrize("store", sorted(BY_STORE))


def expected(a):
    return (GOLDEN / a["expected_npy"]).read_bytes()


@EACH
def test_bytes_are_those_of_np_save(a, golden_mount):
    m = golden_mount(a["store"])
    want = expected(a)
    path = m.array(a["array"])
    assert saved(np.load(GOLDEN / a["expected_npy"])) == want, "this numpy writes other headers than the fixtures have"
    assert path.stat().st_size == len(want)
    assert path.read_bytes() == want


@EACH
@pytest.mark.parametrize("mode", ["r", "c"])
def test_numpy_maps_it(a, mode, golden_mount):
    m = golden_mount(a["store"])
    want = np.load(GOLDEN / a["expected_npy"])
    if want.size == 0:
        # mmap(2) cannot map nothing, and numpy of any version refuses to try; plain loading must work.
        same(m.load(a["array"]), want)
        return
    got = m.load(a["array"], mmap_mode=mode)
    same(got, want)
    if mode == "c" and got.ndim:
        got[...] = np.zeros((), got.dtype)      # a private page: the file keeps its bytes
        same(m.load(a["array"]), want)


@STORES
def test_the_listing_is_complete(store, golden_mount):
    m = golden_mount(store)
    assert sorted(os.listdir(m.path)) == sorted(npy(a["array"]) for a in BY_STORE[store])


@pytest.mark.parametrize("store", INDEX["empty_stores"])
def test_an_empty_store_is_an_empty_directory(store, golden_mount):
    m = golden_mount(store)
    assert os.listdir(m.path) == []
    assert (m.control() / "members").read_bytes() == b""


@STORES
def test_cp(store, golden_mount, tmp_path):
    m = golden_mount(store)
    to = tmp_path / "to"
    subprocess.run(["cp", "-r", "--", str(m.path), str(to)], check=True)
    assert sorted(os.listdir(to)) == sorted(os.listdir(m.path))
    for a in BY_STORE[store]:
        assert (to / npy(a["array"])).read_bytes() == expected(a), a["array"]


@STORES
def test_cp_keeps_mode_and_times(store, golden_mount, tmp_path):
    m = golden_mount(store)
    to = tmp_path / "to"
    subprocess.run(["cp", "-a", "--", str(m.path), str(to)], check=True)
    for a in BY_STORE[store]:
        there, here = m.array(a["array"]).stat(), (to / npy(a["array"])).stat()
        assert (here.st_mode, here.st_mtime_ns // 1000) == (there.st_mode, there.st_mtime_ns // 1000), a["array"]
        assert (to / npy(a["array"])).read_bytes() == expected(a), a["array"]


@STORES
def test_cat(store, golden_mount):
    m = golden_mount(store)
    paths = [os.fsencode(m.array(a["array"])) for a in BY_STORE[store]]
    out = subprocess.run([b"cat", b"--", *paths], check=True, stdout=subprocess.PIPE).stdout
    assert out == b"".join(expected(a) for a in BY_STORE[store])


@STORES
def test_tar(store, golden_mount, tmp_path):
    m = golden_mount(store)
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "cf", str(archive), "-C", str(m.path), "."], check=True)
    with tarfile.open(archive, errors="surrogateescape") as tar:
        members = {t.name: t for t in tar.getmembers() if t.isfile()}
        assert sorted(members) == sorted("./" + npy(a["array"]) for a in BY_STORE[store])
        for a in BY_STORE[store]:
            assert tar.extractfile(members["./" + npy(a["array"])]).read() == expected(a), a["array"]


@STORES
def test_rsync(store, golden_mount, tmp_path):
    m = golden_mount(store)
    to = tmp_path / "to"
    copy = ["rsync", "-a", "--itemize-changes", f"{m.path}/", f"{to}/"]
    subprocess.run(copy, check=True, stdout=subprocess.PIPE)
    assert filecmp.dircmp(m.path, to).left_only == []
    for a in BY_STORE[store]:
        assert (to / npy(a["array"])).read_bytes() == expected(a), a["array"]
    again = subprocess.run(copy, check=True, stdout=subprocess.PIPE, text=True, errors="replace").stdout
    assert again == "", "a second rsync finds something to do"


@pytest.mark.parametrize("block", ["1M", "4096", "64K"])
@pytest.mark.parametrize("store", ["dtypes.npk", "deletions.npk", "segmented.npk", "digits.npk"])
def test_dd_direct(store, block, golden_mount):
    m = golden_mount(store)
    for a in BY_STORE[store]:
        out = subprocess.run(["dd", f"if={m.array(a['array'])}", "iflag=direct", f"bs={block}", "status=none"], check=True,
                             stdout=subprocess.PIPE).stdout
        assert out == expected(a), a["array"]


@pytest.mark.parametrize("block", ["1", "7", "127", "129", "1000", "65537", "1048577"])
def test_dd_with_odd_sizes(block, golden_mount):
    m = golden_mount("deletions.npk")
    for a in BY_STORE["deletions.npk"][:: 1 if int(block) > 100 else 16]:
        for flags in ([], ["iflag=direct"]):
            out = subprocess.run(["dd", f"if={m.array(a['array'])}", *flags, f"bs={block}", "status=none"], check=True,
                                 stdout=subprocess.PIPE).stdout
            assert out == expected(a), (a["array"], flags)
