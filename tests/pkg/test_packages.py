"""npk pack, unpack, pkginfo: both versions of the format, the real NumPack both ways, damage, and what overwriting may do.

Each byte flipped and each truncation: tests/unit/test_package.c.
"""

import fcntl
import io
import json
import os
import pty
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
import zstandard

from harness import (ARRAYS, BAD, GOLDEN, INDEX, PATIENCE, SANITIZED, copy_golden, program, same, tree, untouched, wait_for)
from npkrun import BUSY, FAILED, OK, USAGE, good, refused
from npkwrite import DTYPES, Spec, write_store
from packages import package, parse, raw_member, real

PACKAGES = INDEX["packages"]
CODECS = [("zstd", 2), ("zlib", 2), ("none", 2), ("zstd", 1), ("zlib", 1), ("none", 1)]
STORES = sorted({a["store"] for a in ARRAYS} - {"slash.npk"})


def array(store, name):
    return np.load(io.BytesIO(good("get", store, "--", name)))


def files(path):
    return {p.name: p.read_bytes() for p in path.iterdir()}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Every dtype, deleted rows, segments, no rows, one that cannot be compressed and one that can."""
    base = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(7)
    arrays = {f"t_{name}": Spec(np.frombuffer(rng.bytes(3 * 5 * np.dtype(name).itemsize), name).reshape(3, 5).copy()
                                if name != "bool" else rng.random((3, 5)) < 0.5) for name in DTYPES}
    arrays["holes"] = Spec(np.arange(1000, dtype="<i8").reshape(250, 4), deleted=[0, 63, 64, 200, 249])
    arrays["segments"] = Spec(np.arange(700, dtype="<f4").reshape(100, 7), segment_rows=13, deleted=[12, 13, 99])
    arrays["empty"] = Spec(np.zeros((0, 4), "<f8"))
    arrays["gone"] = Spec(np.ones((9, 2), "<u2"), deleted=list(range(9)))
    arrays["noise"] = Spec(np.frombuffer(rng.bytes(700_000), "u1").reshape(-1, 7).copy())
    arrays["zeros"] = Spec(np.zeros((300_000, 2), "<f4"))
    arrays["größe ☃"] = Spec(np.arange(3.0))
    write_store(base / "all.npk", arrays)
    with untouched(base / "all.npk"):
        yield base / "all.npk", {name: spec.logical() for name, spec in arrays.items()}


def check(path, arrays):
    assert good("ls", path).decode().splitlines() == sorted(arrays, key=lambda n: n.encode())
    for name, want in arrays.items():
        same(array(path, name), want)
    assert good("verify", "-q", path) == b""


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec,version", CODECS)
def test_every_dtype_and_layout_comes_back(codec, version, store, tmp_path):
    path, arrays = store
    good("pack", path, tmp_path / "x.npkg", "--codec", codec, "--format", version)
    got_version, compression, members = parse(tmp_path / "x.npkg")
    assert (got_version, compression) == (version, int(codec != "none"))
    names = [m.name for m in members]
    assert names == sorted(names, key=lambda n: n.encode()) and "data_segments.npkd" in names
    assert {m.name for m in members if m.name.startswith("deleted_")} == {f"deleted_{n}.npkb" for n in ("holes", "segments", "gone")}
    for m in members:
        assert m.codec == "none" if not m.stored else m.codec == codec
        assert m.stored < m.original or m.stored == 0
    assert {m.name: m.codec for m in members}["data_noise.npkd"] == "none"
    assert {m.name: m.codec for m in members}["data_zeros.npkd"] == codec
    good("unpack", tmp_path / "x.npkg", tmp_path / "y.npk")
    assert files(tmp_path / "y.npk") == {m.name: m.data for m in members}
    check(tmp_path / "y.npk", arrays)


@pytest.mark.parametrize("name", STORES + INDEX["empty_stores"])
def test_golden_stores_come_back(name, tmp_path):
    path = copy_golden(name, tmp_path)
    with untouched(path):
        good("pack", path)
    good("unpack", tmp_path / (name + ".npkg"), tmp_path / "back.npk")
    for a in ARRAYS:
        if a["store"] == name:
            assert good("get", tmp_path / "back.npk", "--", a["array"]) == (GOLDEN / a["expected_npy"]).read_bytes()
    assert good("ls", tmp_path / "back.npk") == good("ls", path)


def test_a_slash_fits_in_no_package(tmp_path):
    path = copy_golden("slash.npk", tmp_path)
    assert "has a '/'" in refused(FAILED, "pack", path)
    assert os.listdir(tmp_path) == ["slash.npk"]


def test_a_damaged_array_is_told_not_left_out(tmp_path):
    write_store(tmp_path / "x.npk", {"a": Spec(np.arange(5)), "b": Spec(np.arange(5))})
    os.truncate(tmp_path / "x.npk" / "data_b.npkd", 7)
    assert "data_b.npkd: byte 7" in refused(FAILED, "pack", tmp_path / "x.npk")
    assert os.listdir(tmp_path) == ["x.npk"]


def test_threads_and_levels_give_the_same_contents(tmp_path):
    rng = np.random.default_rng(3)
    write_store(tmp_path / "x.npk", {"a": Spec(rng.integers(0, 9, 3_000_000).astype("u1"))})
    for i, options in enumerate((["-t", "1"], ["-t", "2"], ["-t", "16"], ["-l", "1"], ["-l", "9"])):
        good("pack", tmp_path / "x.npk", tmp_path / f"{i}.npkg", *options)
        assert parse(tmp_path / f"{i}.npkg")[2][0].data == (tmp_path / "x.npk" / "data_a.npkd").read_bytes()
        assert json.loads(good("pkginfo", "--check", "--json", tmp_path / f"{i}.npkg"))["checked"]


@pytest.mark.parametrize("codec", ["zstd", "zlib", "none"])
def test_many_small_arrays_are_packed_by_several_threads(codec, tmp_path):
    """Around what counts as small (1 MiB) too, beside large ones, and with bytes that do not get smaller: whoever compresses
    them, the package holds the same files in the same order, with the same codecs."""
    rng = np.random.default_rng(4)
    arrays = {f"a{i:03}": np.arange(i * 7, dtype="<i4") for i in range(150)}
    arrays |= {f"n{i}": rng.integers(0, 256, n).astype("u1") for i, n in enumerate([1, 2, 700, 70_000, 1 << 20, (1 << 20) + 1])}
    arrays |= {f"z{i}": np.zeros(n, "u1") for i, n in enumerate([1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])}
    write_store(tmp_path / "x.npk", {n: Spec(a, deleted=[0]) if len(a) > 50 else Spec(a) for n, a in arrays.items()})
    want = files(tmp_path / "x.npk")
    alone = None
    for threads in ("1", "2", "16"):
        good("pack", "-t", threads, "-c", codec, tmp_path / "x.npk", tmp_path / f"{threads}.npkg")
        members = parse(tmp_path / f"{threads}.npkg")[2]
        told = [(m.name, m.codec) for m in members]
        assert [n for n, _ in told] == sorted(want)
        assert {m.name: m.data for m in members if m.name != "metadata.npkm"} == \
            {n: b for n, b in want.items() if n != "metadata.npkm"}
        alone = alone or told
        assert told == alone
        assert json.loads(good("pkginfo", "--check", "--json", tmp_path / f"{threads}.npkg"))["checked"]


def test_the_first_small_array_that_cannot_be_read_ends_it(tmp_path):
    write_store(tmp_path / "x.npk", {f"a{i}": Spec(np.arange(100)) for i in range(40)})
    for i in (7, 23):
        os.truncate(tmp_path / "x.npk" / f"data_a{i}.npkd", 9)
    assert "byte 9" in refused(FAILED, "pack", "-t", "4", tmp_path / "x.npk")
    assert os.listdir(tmp_path) == ["x.npk"]


# --- the real NumPack -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", PACKAGES, ids=lambda p: p["package"])
def test_packages_of_the_real_numpack_unpack_to_the_byte(p, tmp_path):
    with untouched(GOLDEN / "packed.npk"):
        good("unpack", GOLDEN / p["package"], tmp_path / "x.npk")
    assert files(tmp_path / "x.npk") == files(GOLDEN / p["store"])
    told = json.loads(good("pkginfo", "-j", GOLDEN / p["package"]))
    assert (told["version"], told["compression"]) == (p["version"], p["compression"])
    assert {f["name"]: f["codec"].replace("none", "raw") for f in told["files"]} == p["codecs"]


@pytest.mark.parametrize("zstd", [True, False])
@pytest.mark.parametrize("compression", [True, False])
def test_we_unpack_what_it_packs(zstd, compression, store, tmp_path):
    path = tmp_path / "real.npk"
    arrays = {n: a for n, a in store[1].items() if n != "segments"}     # it leaves segments out
    write_store(path, {n: Spec(a) for n, a in arrays.items()})
    real("pack", path, tmp_path / "x.npkg", zstd=zstd, compression=compression)
    good("unpack", tmp_path / "x.npkg", tmp_path / "y.npk")
    assert files(tmp_path / "y.npk") == files(path)
    check(tmp_path / "y.npk", arrays)


@pytest.mark.parametrize("codec,zstd", [("zstd", True), ("zlib", False), ("none", True), ("none", False)])
@pytest.mark.parametrize("version", [1, 2])
def test_it_unpacks_what_we_pack(codec, zstd, version, store, tmp_path, real_numpack):
    good("pack", store[0], tmp_path / "x.npkg", "-c", codec, "-f", version)
    real("unpack", tmp_path / "x.npkg", tmp_path / "y.npk", zstd=zstd)
    good("unpack", tmp_path / "x.npkg", tmp_path / "z.npk")
    assert files(tmp_path / "y.npk") == files(tmp_path / "z.npk")
    real_numpack.open(tmp_path / "y.npk")
    assert real_numpack.members() == sorted(store[1])
    for name, want in store[1].items():
        if name not in ("gone", "empty"):       # the library says "array not found" of an array without rows, or maps nothing
            same(real_numpack.load(name), want)
    real_numpack.close()


# --- what a package says ----------------------------------------------------------------------------------------------


def test_pkginfo_tells_what_is_there(store, tmp_path):
    good("pack", store[0], tmp_path / "x.npkg")
    version, compression, members = parse(tmp_path / "x.npkg")
    told = json.loads(good("pkginfo", "--json", tmp_path / "x.npkg"))
    assert [(f["name"], f["codec"], f["original_size"], f["stored_size"]) for f in told["files"]] == \
        [(m.name, m.codec, m.original, m.stored or m.original) for m in members]
    assert told["total_original_size"] == sum(m.original for m in members)
    assert told["total_stored_size"] == sum(m.stored or m.original for m in members)
    assert told["compression_ratio"] == pytest.approx(told["total_stored_size"] / told["total_original_size"], rel=1e-5)
    assert (told["version"], told["compression"], told["file_count"], told["checked"]) == (2, 1, len(members), False)
    lines = good("pkginfo", tmp_path / "x.npkg").decode().splitlines()
    assert all(any(line.endswith("  " + m.name) and line.startswith(m.codec) for line in lines) for m in members)


def test_an_empty_package(tmp_path):
    (tmp_path / "x.npkg").write_bytes(package([]))
    told = json.loads(good("pkginfo", "-cj", tmp_path / "x.npkg"))
    assert (told["file_count"], told["compression_ratio"]) == (0, 1)
    good("unpack", tmp_path / "x.npkg")
    assert os.listdir(tmp_path / "x.npk") == []


def test_names_of_targets(tmp_path):
    write_store(tmp_path / "a.npk", {"x": Spec(np.arange(3))})
    good("pack", str(tmp_path / "a.npk") + "/")
    good("pack", tmp_path / "a.npk", tmp_path / "b")
    good("pack", tmp_path / "a.npk", tmp_path / "c.bin")
    assert sorted(os.listdir(tmp_path)) == ["a.npk", "a.npk.npkg", "b.npkg", "c.bin"]
    good("unpack", tmp_path / "b.npkg")
    good("unpack", tmp_path / "c.bin")
    assert sorted(os.listdir(tmp_path)) == ["a.npk", "a.npk.npkg", "b.npk", "b.npkg", "c.bin", "c.bin.npk"]
    assert "is there already" in refused(FAILED, "unpack", tmp_path / "a.npk.npkg")


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    """An older store, which no refused package may touch."""
    write_store(tmp_path / "old.npk", {"old": Spec(np.arange(9))})
    before = tree(tmp_path / "old.npk")
    yield tmp_path / "old.npk"
    assert tree(tmp_path / "old.npk") == before
    assert {n for n in os.listdir(tmp_path) if ".tmp" in n or "evil" in n} == set()


def refuse(data, old, why):
    path = old.parent / "bad.npkg"
    path.write_bytes(data)
    for args in ([], ["-n"]):
        assert why in refused(FAILED, "unpack", path, old, "-o", *args)
    assert why in refused(FAILED, "pkginfo", "--check", path)
    assert "is there already" in refused(FAILED, "unpack", path, old)
    assert why in refused(FAILED, "unpack", path, old.parent / "new.npk") and not (old.parent / "new.npk").exists()


@pytest.mark.parametrize("case", [b for b in BAD if b["kind"] == "package"], ids=lambda c: c["path"])
def test_golden_damage_is_refused(case, old):
    assert ".npkg: byte " in refused(FAILED, "unpack", GOLDEN / "bad" / case["path"], old, "--overwrite")
    refused(FAILED, "unpack", GOLDEN / "bad" / case["path"], old.parent / "new.npk")
    assert not (old.parent / "new.npk").exists()


@pytest.mark.parametrize("name", [b"../evil.npkd", b"/tmp/evil.npkd", b"data_a/../../evil.npkd", b"..", b".", b"", b"data_x/y.npkd",
                                  b"data_\0.npkd", b"data_\xff.npkd", b"data_\xed\xa0\x80.npkd", b"evil.npkd", b"numpackfs.journal",
                                  b".numpackfs.lock", b"data_x.npkseg", b"metadata.npkm.tmp.1", b"data_" + b"x" * 300 + b".npkd"])
def test_names_that_no_store_has(name, old):
    refuse(package([(b"abc", raw_member(name, b"abc"))]), old, "is no file of a store" if 0 < len(name) < 256 else "a name of")


def test_names_that_a_store_has(tmp_path):
    names = ["data_.npkd", "data_...npkd", "data_a..b.npkd", "deleted_x.npkb", "data_\\.npkd", "data_é\n.npkd", "metadata.npkm"]
    (tmp_path / "x.npkg").write_bytes(package([(b"abc", raw_member(n, b"abc")) for n in names]))
    good("unpack", tmp_path / "x.npkg")
    assert files(tmp_path / "x.npk") == {n: b"abc" for n in names}


def zst(data, **kw):
    return zstandard.ZstdCompressor(write_content_size=False, **kw).compress(data)


DATA = b"0123456789" * 1000
WRONG = {
    "one path twice": ([("data_x.npkd", DATA, None, None), ("data_x.npkd", DATA, None, None)], "is there twice"),
    "zstd, more than promised": ([("data_x.npkd", DATA, zst(DATA), 9999)], "has more contents"),
    "zstd, less than promised": ([("data_x.npkd", DATA, zst(DATA), 10001)], "ends after 10000 of 10001"),
    "zlib, more than promised": ([("data_x.npkd", DATA, zlib.compress(DATA), 9999)], "has more contents"),
    "zlib, less than promised": ([("data_x.npkd", DATA, zlib.compress(DATA), 10001)], "ends after 10000 of 10001"),
    "zstd, something behind": ([("data_x.npkd", DATA, zst(DATA) + b"x", None)], "data_x.npkd"),
    "zstd, zlib behind": ([("data_x.npkd", DATA, zst(DATA[:5000]) + zlib.compress(DATA[5000:]), None)], "data_x.npkd"),
    "zlib, something behind": ([("data_x.npkd", DATA, zlib.compress(DATA) + b"x", None)], "bytes follow"),
    "zlib, twice": ([("data_x.npkd", DATA, zlib.compress(DATA[:5000]) + zlib.compress(DATA[5000:]), None)], "data_x.npkd"),
    "zstd, cut short": ([("data_x.npkd", DATA, zst(DATA)[:-2], None)], "data_x.npkd"),
    "zlib, cut short": ([("data_x.npkd", DATA, zlib.compress(DATA)[:-2], None)], "data_x.npkd"),
    "compressed nothing": ([("data_x.npkd", b"", zst(b""), None)], "has no contents"),
    "neither codec": ([("data_x.npkd", DATA, b"garbage!" * 9, None)], "data_x.npkd"),
    "a size that overflows": ([("data_x.npkd", b"", b"", (1 << 64) - 1)], "the package ends"),
    "sizes that overflow": ([(f"data_{i}.npkd", b"", b"\x28\xb5\x2f\xfd" + b"x" * 60, (1 << 64) - 1) for i in "ab"], "is impossible"),
    "a zstd bomb": ([("data_x.npkd", b"", zst(bytes(1 << 20)), 1 << 45)], "is impossible"),
    "a zlib bomb": ([("data_x.npkd", b"", zlib.compress(bytes(1 << 20), 9), 1 << 40)], "is impossible"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_package_promises_must_hold(case, old):
    members, why = WRONG[case]
    refuse(package([(data, raw_member(n, data, blob, original)) for n, data, blob, original in members]), old, why)


def test_contents_that_no_disk_holds_are_refused_at_once(old):
    """As dense as zstd can be: 32 KiB that say 1 GiB each, so often that they fill no disk of ours."""
    free = os.statvfs(old).f_bavail * os.statvfs(old).f_frsize
    blob = b"\x28\xb5\x2f\xfd" + bytes(1 << 20)
    n = free // (len(blob) * 32000) + 1
    data = package([(b"", raw_member(f"data_{i}.npkd", b"", blob, len(blob) * 32000)) for i in range(n)])
    (old.parent / "bad.npkg").write_bytes(data)
    assert "there is room for" in refused(FAILED, "unpack", old.parent / "bad.npkg", old, "-o")


@pytest.mark.parametrize("count", [0, 2, 0xFFFFFFFF])
def test_a_wrong_count_of_files(count, old):
    refuse(package([(DATA, raw_member("data_x.npkd", DATA))], count=count), old, "byte")


def test_several_zstd_frames_are_one_file(tmp_path):
    blob = zst(DATA[:3000]) + zst(b"") + zst(DATA[3000:], write_checksum=True)
    (tmp_path / "x.npkg").write_bytes(package([(DATA, raw_member("data_x.npkd", DATA, blob))], compression=0))
    good("unpack", tmp_path / "x.npkg")
    assert (tmp_path / "x.npk" / "data_x.npkd").read_bytes() == DATA


def test_a_wrong_checksum_can_be_passed_over(old):
    path = old.parent / "x.npkg"
    path.write_bytes(package([(DATA, raw_member("data_x.npkd", DATA))], crc=7))
    assert "checksum 00000007" in refused(FAILED, "unpack", path, old, "-o")
    good("unpack", "--no-verify", path)
    assert (old.parent / "x.npk" / "data_x.npkd").read_bytes() == DATA


def test_what_is_no_package(old):
    for path in (old, old.parent / "nothing", "/dev/null"):
        refused(FAILED, "pkginfo", path)
        refused(FAILED, "unpack", path, old.parent / "new.npk")
    os.mkfifo(old.parent / "fifo")
    assert "not a regular file" in refused(FAILED, "pkginfo", old.parent / "fifo")


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path):
    write_store(tmp_path / "new.npk", {"n": Spec(np.arange(5))})
    good("pack", tmp_path / "new.npk", tmp_path / "new.npkg")
    return tmp_path / "new.npkg"


def test_overwriting_replaces_the_whole_store(made, tmp_path):
    write_store(tmp_path / "old.npk", {"x": Spec(np.arange(30), segment_rows=7, deleted=[3]), "y": Spec(np.arange(3))})
    good("unpack", "-o", made, tmp_path / "old.npk")
    assert files(tmp_path / "old.npk") == files(tmp_path / "new.npk")
    assert sorted(os.listdir(tmp_path)) == ["new.npk", "new.npkg", "old.npk"]
    assert "is there already" in refused(FAILED, "pack", tmp_path / "old.npk", made)
    good("pack", tmp_path / "old.npk", made, "--overwrite")
    os.mkdir(tmp_path / "empty.npk")
    assert "is there already" in refused(FAILED, "unpack", made, tmp_path / "empty.npk")
    good("unpack", made, tmp_path / "empty.npk", "-o")
    same(array(tmp_path / "empty.npk", "n"), np.arange(5))


def test_a_link_is_followed_not_replaced(made, tmp_path):
    write_store(tmp_path / "old.npk", {"x": Spec(np.arange(3))})
    os.symlink("old.npk", tmp_path / "link.npk")
    good("unpack", "-o", made, tmp_path / "link.npk")
    assert (tmp_path / "link.npk").is_symlink()
    same(array(tmp_path / "old.npk", "n"), np.arange(5))


@pytest.mark.parametrize("foreign", ["thesis.txt", "data_x.npkd/x", "sub/x", "data_x_segments/thesis.txt", "link"])
def test_a_directory_with_other_things_is_never_replaced(foreign, made, tmp_path):
    write_store(tmp_path / "old.npk", {"y": Spec(np.arange(3))})
    if foreign == "link":
        os.symlink("/tmp", tmp_path / "old.npk" / foreign)
    else:
        (tmp_path / "old.npk" / foreign).parent.mkdir(exist_ok=True)
        (tmp_path / "old.npk" / foreign).write_text("years of work")
    with untouched(tmp_path / "old.npk"):
        assert "no part of a store" in refused(FAILED, "unpack", "-o", made, tmp_path / "old.npk")


def test_a_file_is_never_replaced_by_a_store_nor_a_store_by_a_file(made, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "no directory" in refused(FAILED, "unpack", "-o", made, tmp_path / "file")
    assert "no regular file" in refused(FAILED, "pack", "-o", tmp_path / "new.npk", tmp_path / "new.npk")
    assert (tmp_path / "file").read_text() == "x"


def test_a_store_that_is_being_written_is_not_replaced(made, tmp_path):
    write_store(tmp_path / "old.npk", {"y": Spec(np.arange(3))})
    fd = os.open(tmp_path / "old.npk" / ".numpackfs.lock", os.O_RDWR | os.O_CREAT)
    fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))      # F_OFD_SETLK
    with untouched(tmp_path / "old.npk"):
        assert "open for writing" in refused(BUSY, "unpack", "-o", made, tmp_path / "old.npk")
    os.close(fd)
    good("unpack", "-o", made, tmp_path / "old.npk")


def test_permissions_are_the_users(made, tmp_path):
    good("unpack", made, tmp_path / "x.npk", preexec_fn=lambda: os.umask(0o027))
    assert stat.S_IMODE(os.stat(tmp_path / "x.npk").st_mode) == 0o750
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o640 for p in (tmp_path / "x.npk").iterdir())
    good("pack", tmp_path / "x.npk", preexec_fn=lambda: os.umask(0o077))
    assert stat.S_IMODE(os.stat(tmp_path / "x.npk.npkg").st_mode) == 0o600


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """4 GiB of zeros, which no disk sees, and that take a while."""
    path = tmp_path_factory.mktemp("large") / "large.npk"
    write_store(path, {"z": Spec(np.zeros((1, 1 << 20), "<u1"))})
    os.truncate(path / "data_z.npkd", 4 << 30)
    meta = (path / "metadata.npkm").read_bytes()
    dims = struct.pack("<QQ", 1, 1 << 20)
    assert meta.count(dims) == 1
    (path / "metadata.npkm").write_bytes(meta.replace(dims, struct.pack("<QQ", 4096, 1 << 20)))
    return path


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(sig, large, tmp_path):
    process = subprocess.Popen([str(program("npk")), "pack", "-t", "1", "-l", "9", str(large), str(tmp_path / "x.npkg")],
                               stderr=subprocess.PIPE)
    wait_for("the package is begun", lambda: os.listdir(tmp_path))
    process.send_signal(sig)
    assert process.wait(PATIENCE) == -sig
    assert process.stderr.read() == b"" and os.listdir(tmp_path) == []


def test_progress_is_for_terminals(store, tmp_path):
    parent, child = pty.openpty()
    process = subprocess.Popen([str(program("npk")), "pack", str(store[0]), str(tmp_path / "x.npkg")], stderr=child)
    os.close(child)
    shown = b""
    while select.select([parent], [], [], PATIENCE)[0]:
        try:
            shown += os.read(parent, 65536)
        except OSError:     # the other end is closed
            break
    os.close(parent)
    assert process.wait(PATIENCE) == OK
    assert b"packing [" in shown and b" 100 %" in shown and shown.endswith(b"\r\x1b[K")


def peak_kib(*args):
    """The peak memory of npk in KiB. A process begins with the peak of the one it was forked from, so that one is small."""
    script = "import resource, subprocess, sys\n" \
        "subprocess.run(sys.argv[1:], check=True)\nprint(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-S", "-c", script, str(program("npk")), *map(str, args)], capture_output=True,
                          text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (OK, "")
    return int(done.stdout)


@pytest.mark.skipif(SANITIZED, reason="sanitizers keep memory of their own")
def test_memory_does_not_grow_with_the_store(tmp_path):
    """256 MiB that compress by half, and each of the codecs: 64 MiB at most, the program itself included."""
    rng = np.random.default_rng(1)
    write_store(tmp_path / "x.npk", {"a": Spec(rng.integers(0, 16, 1 << 24, "u1").view("<u4"))})
    with open(tmp_path / "x.npk" / "data_a.npkd", "r+b") as f:
        block = f.read()
        for _ in range(15):
            f.write(block)
    meta = (tmp_path / "x.npk" / "metadata.npkm").read_bytes()
    rows = struct.pack("<Q", 1 << 22)
    (tmp_path / "x.npk" / "metadata.npkm").write_bytes(meta.replace(rows, struct.pack("<Q", 1 << 26), 1))
    for codec in ("zstd", "zlib", "none"):
        level = ["-l", "1"] if codec == "zlib" else []
        assert peak_kib("pack", "-o", "-c", codec, *level, tmp_path / "x.npk", tmp_path / "x.npkg") <= 64 << 10
        assert peak_kib("unpack", "-o", tmp_path / "x.npkg", tmp_path / "y.npk") <= 64 << 10
        assert (tmp_path / "y.npk" / "data_a.npkd").stat().st_size == 256 << 20


# --- live stores ------------------------------------------------------------------------------------------------------


def test_a_mounted_store_is_packed_as_it_is_at_one_moment(tmp_path, mount):
    """While rows are appended and dropped through a mount, each package has the first rows, in order, whole."""
    write_store(tmp_path / "s.npk", {"x": Spec(np.arange(4, dtype="<i8").reshape(4, 1))})
    stop, trouble = threading.Event(), []

    def change(m):
        n = 4
        try:
            while not stop.is_set():
                with open(m.array("x"), "ab", buffering=0) as f:
                    f.write(np.arange(n, n + 3, dtype="<i8").tobytes())
                n += 3
                if n % 5 == 0:
                    (m.control("x") / "drop").write_text("-1\n")
                    n -= 1
        except Exception as e:      # the main thread tells
            trouble.append(e)

    with mount(tmp_path / "s.npk", ro=False) as m:
        thread = threading.Thread(target=change, args=(m,))
        thread.start()
        try:
            lengths = []
            for _ in range(6):
                good("pack", "-o", tmp_path / "s.npk", tmp_path / "x.npkg")
                good("unpack", "-o", tmp_path / "x.npkg", tmp_path / "y.npk")
                got = array(tmp_path / "y.npk", "x")
                wrong = np.flatnonzero(got[:, 0] != np.arange(len(got)))
                assert not len(wrong), f"from row {wrong[0]} of {len(got)} on: {got[wrong[0]:wrong[0] + 9, 0]}"
                lengths.append(len(got))
        finally:
            stop.set()
            thread.join()
        assert not trouble and lengths == sorted(lengths) and lengths[-1] > 4


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args,why", [
    (["pack", "S", "-c", "lz4"], "lz4"), (["pack", "S", "-l", "20"], "20"), (["pack", "S", "-c", "zlib", "-l", "10"], "10"),
    (["pack", "S", "-c", "none", "-l", "1"], "none"), (["pack", "S", "-f", "3"], "3"), (["pack", "S", "-t", "0"], "0"),
    (["pack", "S", "-t", "x"], "x"), (["pack"], "STORE"), (["unpack"], "PACKAGE"), (["pkginfo"], "PACKAGE"),
    (["unpack", "a", "b", "c"], "c")])
def test_wrong_usage(args, why, store):
    assert why in refused(USAGE, *[store[0] if a == "S" else a for a in args])
