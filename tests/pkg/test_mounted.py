"""A package as the store of a mount: what numpy sees is what the unpacked store has."""

import errno
import gc
import os
import pathlib
import struct

import numpy as np
import pytest

from harness import ARRAYS, BAD, GOLDEN, INDEX, copy_golden, expect_error, same, saved, untouched
from npkrun import good
from npkwrite import Spec, write_store
from packages import package, parse, raw_member

STORES = sorted({a["store"] for a in ARRAYS} - {"slash.npk"})


def unnamed_files(m, below):
    """The files without a name that the daemon has open or mapped below a directory."""
    found = set()
    for line in pathlib.Path(f"/proc/{m.pid}/maps").read_text().splitlines():
        if str(below) in line and line.endswith("(deleted)"):
            found.add(line.split()[4])
    return found


@pytest.mark.parametrize("p", INDEX["packages"], ids=lambda p: p["package"])
def test_the_real_numpacks_packages(p, mount, tmp_path):
    with untouched(GOLDEN / p["store"]), mount(GOLDEN / p["package"], f"cache_dir={tmp_path}") as m:
        names = good("ls", GOLDEN / p["store"]).decode().splitlines()
        assert sorted(f.name for f in m.path.iterdir()) == [n + ".npy" for n in names]
        for name in names:
            assert m.array(name).read_bytes() == good("get", GOLDEN / p["store"], name)


@pytest.mark.parametrize("codec", ["zstd", "zlib", "none"])
@pytest.mark.parametrize("store", STORES)
def test_every_array_equals_the_unpacked_store(store, codec, mount, tmp_path):
    good("pack", "-c", codec, copy_golden(store, tmp_path), tmp_path / "x.npkg")
    with mount(tmp_path / "x.npkg", f"cache_dir={tmp_path}") as m:
        for a in ARRAYS:
            if a["store"] == store:
                assert m.array(a["array"]).read_bytes() == (GOLDEN / a["expected_npy"]).read_bytes()
                same(m.load(a["array"]), np.load(GOLDEN / a["expected_npy"]))


@pytest.fixture
def made(tmp_path):
    rng = np.random.default_rng(5)
    arrays = {"zeros": Spec(np.zeros((50_000, 3), "<f8")), "noise": Spec(np.frombuffer(rng.bytes(40_000), "<f4").reshape(-1, 10)),
              "holes": Spec(np.arange(30_000, dtype="<i8").reshape(-1, 3), deleted=list(range(0, 10_000, 7)))}
    write_store(tmp_path / "x.npk", arrays)
    good("pack", tmp_path / "x.npk", tmp_path / "x.npkg")
    os.mkdir(tmp_path / "cache")
    return tmp_path / "x.npkg", {n: s.logical() for n, s in arrays.items()}


def test_arrays_are_unpacked_once_and_only_when_opened(made, mount, tmp_path):
    path, arrays = made
    stored = {m.name: m.codec for m in parse(path)[2]}
    assert stored["data_noise.npkd"] == "none" and stored["data_zeros.npkd"] == stored["data_holes.npkd"] == "zstd"
    with mount(path, f"cache_dir={tmp_path / 'cache'}") as m:
        assert sorted(f.name for f in m.path.iterdir()) == ["holes.npy", "noise.npy", "zeros.npy"]
        for name, want in arrays.items():
            assert m.array(name).stat().st_size == len(saved(want))
        assert unnamed_files(m, tmp_path / "cache") == set()
        same(m.load("noise"), arrays["noise"])
        assert unnamed_files(m, tmp_path / "cache") == set()
        for _ in range(3):
            same(m.load("zeros"), arrays["zeros"])
            assert len(unnamed_files(m, tmp_path / "cache")) == 1
        same(m.load("holes", mmap_mode="r")[5:9], arrays["holes"][5:9])
        assert len(unnamed_files(m, tmp_path / "cache")) == 2
        assert os.listdir(tmp_path / "cache") == []
        same(np.load(m.view("holes", "::2;1")), arrays["holes"][::2, 1:2])
        gc.collect()


def test_nothing_can_be_changed(made, mount, tmp_path):
    with mount(made[0], f"cache_dir={tmp_path}", ro=False) as m:     # read-only without being asked
        expect_error(errno.EROFS, np.save, m.path / "new.npy", np.arange(3))
        expect_error(errno.EROFS, os.unlink, m.array("zeros"))
        with untouched(tmp_path / "cache"):
            same(m.load("noise"), made[1]["noise"])


@pytest.mark.parametrize("option", ["create", "drop_if_exists"])
def test_a_package_is_never_made_or_emptied(option, made, mount):
    before = made[0].read_bytes()
    status, message = mount.refused(made[0], option, ro=False)
    assert status == 2 and "only read" in message and made[0].read_bytes() == before


@pytest.mark.parametrize("case", [b for b in BAD if b["kind"] == "package"], ids=lambda c: c["path"])
def test_damaged_packages(case, mount, tmp_path):
    """What the list of files tells is refused; the contents of an array are found out when it is opened."""
    if case["path"] in ("crc_wrong.npkg", "data_flipped.npkg"):
        with mount(GOLDEN / "bad" / case["path"], f"cache_dir={tmp_path}") as m:
            assert list(m.path.iterdir())       # sound but for the checksum of all
        return
    status, message = mount.refused(GOLDEN / "bad" / case["path"], f"cache_dir={tmp_path}")
    assert status == 2 and ".npkg: byte " in message


def test_a_damaged_array_leaves_the_others(made, mount, tmp_path):
    raw = bytearray(made[0].read_bytes())
    at = raw.index(b"data_zeros.npkd") + len(b"data_zeros.npkd")
    (stored,) = struct.unpack_from("<Q", raw, at + 8)
    raw[at + 16 + 4:at + 16 + stored] = bytes(stored - 4)
    made[0].write_bytes(raw)
    with mount(made[0], f"cache_dir={tmp_path}") as m:
        with pytest.raises(OSError) as e:
            m.array("zeros").read_bytes()
        assert e.value.errno in (errno.EUCLEAN, errno.EIO)
        same(m.load("noise"), made[1]["noise"])
        same(m.load("holes"), made[1]["holes"])
        assert os.listdir(tmp_path / "cache") == []


def test_an_array_that_is_not_in_the_package(mount, tmp_path):
    write_store(tmp_path / "x.npk", {"a": Spec(np.arange(9)), "b": Spec(np.arange(9))})
    members = [((tmp_path / "x.npk" / n).read_bytes(), n) for n in ("metadata.npkm", "data_a.npkd")]
    (tmp_path / "x.npkg").write_bytes(package([(d, raw_member(n, d)) for d, n in members]))
    with mount(tmp_path / "x.npkg", f"cache_dir={tmp_path}") as m:
        same(m.load("a"), np.arange(9))
        expect_error(errno.EUCLEAN, m.array("b").read_bytes)


def test_a_cache_that_is_not_there(made, mount, tmp_path):
    status, message = mount.refused(made[0], f"cache_dir={tmp_path / 'nope'}")
    assert status == 2 and "cache directory" in message
    with mount(made[0], env={"TMPDIR": str(tmp_path / "cache")}) as m:
        before = unnamed_files(m, tmp_path / "cache")     # a sanitizer's own
        same(m.load("zeros"), made[1]["zeros"])
        assert len(unnamed_files(m, tmp_path / "cache") - before) == 1


def test_npk_reads_packages_as_stores(made):
    path, arrays = made
    for name, want in arrays.items():
        assert good("get", path, name) == saved(want)
    good("pack", "-c", "none", path, path.parent / "again.npkg")
    assert {m.name: m.data for m in parse(path)[2]} == {m.name: m.data for m in parse(path.parent / "again.npkg")[2]}
