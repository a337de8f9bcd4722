"""Converters that need nothing but numpy (and the safetensors that the tests have anyway); the others are tested by
`make test-extras`."""

import tracemalloc

import numpy as np
import pytest

from harness import same
from numpackfs import NumPack, get_package_info, io, pack, unpack

DTYPES = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
          "complex64", "complex128"]


def random(dtype, shape=(50, 3)):
    rng = np.random.default_rng(3)
    dtype = np.dtype(dtype)
    raw = rng.integers(0, 256, int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
    a = (raw & 1 if dtype.kind == "b" else raw).view(dtype).reshape(shape).copy()
    a[~np.isfinite(a)] = 0
    return a


def store(tmp_path, **arrays):
    with NumPack(tmp_path / "s.npk", drop_if_exists=True) as n:
        n.save(arrays)
    return tmp_path / "s.npk"


def load(path):
    with NumPack(path) as n:
        return {k: n.load(k) for k in n}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chunk_size", [1, 100, 1 << 20])
def test_npy_and_npz(tmp_path, dtype, chunk_size):
    x = random(dtype, (50, 3, 2))
    np.save(tmp_path / "x.npy", x)
    assert io.from_npy(tmp_path / "x.npy", tmp_path / "a.npk", chunk_size=chunk_size) is None
    same(load(tmp_path / "a.npk")["x"], x)
    io.to_npy(tmp_path / "a.npk", tmp_path / "out.npy", chunk_size=chunk_size)
    assert (tmp_path / "out.npy").read_bytes()[128:] == (tmp_path / "x.npy").read_bytes()[128:]
    same(np.load(tmp_path / "out.npy"), x)
    np.savez(tmp_path / "z.npz", a=x, b=np.arange(3))
    io.from_numpy(tmp_path / "z.npz", tmp_path / "b.npk", chunk_size=chunk_size)
    for compressed in (True, False):
        io.to_numpy(tmp_path / "b.npk", tmp_path / "out.npz", compressed=compressed, chunk_size=chunk_size)
        with np.load(tmp_path / "out.npz") as z:
            same(z["a"], x)
            same(z["b"], np.arange(3))


def test_npy_of_other_orders_and_deleted_rows(tmp_path):
    x = np.arange(24.0).reshape(4, 6)
    for name, a in (("f", np.asfortranarray(x)), ("big", x.astype(">f8"))):
        np.save(tmp_path / f"{name}.npy", a)
        np.savez_compressed(tmp_path / f"{name}.npz", **{name + "z": a})
        io.from_npy(tmp_path / f"{name}.npy", tmp_path / "s.npk", chunk_size=100)
        io.from_npy(tmp_path / f"{name}.npz", tmp_path / "s.npk", chunk_size=100)
    got = load(tmp_path / "s.npk")
    assert sorted(got) == ["big", "bigz", "f", "fz"]
    for a in got.values():
        same(a, x)
    with NumPack(tmp_path / "s.npk") as n:
        n.drop("f", [0, 2])
    io.to_npy(tmp_path / "s.npk", tmp_path / "f.npy", ["f"])
    same(np.load(tmp_path / "f.npy"), x[[1, 3]])


def test_return_npk_obj_array_name_and_drop(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    store(tmp_path, old=np.ones(2))
    n = io.from_npy(tmp_path / "x.npy", tmp_path / "s.npk", array_name="y", return_npk_obj=True)
    assert n.is_opened and sorted(n) == ["old", "y"]
    n.close()
    io.from_npy(tmp_path / "x.npy", tmp_path / "s.npk", drop_if_exists=True)
    assert list(load(tmp_path / "s.npk")) == ["x"]


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d[0] != "c"] + ["complex64", "complex128"])
@pytest.mark.parametrize("kind", ["csv", "txt"])
def test_text_reads_back_to_the_same_values(tmp_path, dtype, kind):
    x = random(dtype)
    path = store(tmp_path, x=x, v=x[:, 0].copy())
    to, read = (io.to_csv, io.from_csv) if kind == "csv" else (io.to_txt, io.from_txt)
    to(path, tmp_path / f"x.{kind}", "x", chunk_size=300)
    to(path, tmp_path / f"v.{kind}", "v")
    read(tmp_path / f"x.{kind}", tmp_path / "b.npk", dtype=dtype, chunk_size=300)
    read(tmp_path / f"v.{kind}", tmp_path / "b.npk", dtype=dtype)
    got = load(tmp_path / "b.npk")
    np.testing.assert_array_equal(got["x"], x)
    np.testing.assert_array_equal(got["v"], x[:, 0])
    assert got["x"].dtype == x.dtype


def test_csv_options(tmp_path):
    f = tmp_path / "t.csv"
    f.write_text("junk\na;b\n1;2\n# remark\n\n3;4\n5;6\n")
    io.from_csv(f, tmp_path / "s.npk", delimiter=";", skiprows=1, header=0, max_rows=2, dtype="i4")
    same(load(tmp_path / "s.npk")["t"], np.array([[1, 2], [3, 4]], "i4"))
    io.to_csv(tmp_path / "s.npk", f, header=True, fmt="%03d")
    assert f.read_text() == "col0,col1\n001,002\n003,004\n"
    for text, said in (("", "has no numbers"), ("1,2\n3\n", "columns"), ("1,x\n", "x"), ("1,2\n3,y\n", "after 1 rows")):
        f.write_text(text)
        with pytest.raises(ValueError, match=said):
            io.from_csv(f, tmp_path / "bad.npk")
        assert load(tmp_path / "bad.npk") == {}


@pytest.mark.parametrize("chunk_size", [64, 1 << 20])
def test_safetensors(tmp_path, chunk_size):
    from safetensors.numpy import load_file, save_file

    arrays = {d: random(d, (20, 3)) for d in DTYPES if d[0] != "c"}
    arrays["empty"] = np.zeros((0, 4), "f4")
    path = store(tmp_path, **arrays)
    f = tmp_path / "m.safetensors"
    io.to_safetensors_file(path, f, metadata={"who": "me"}, chunk_size=chunk_size)
    got = load_file(f)
    assert set(got) == set(arrays)
    for k in arrays:
        same(got[k], arrays[k])
    assert io.get_safetensors_metadata(f)["metadata"] == {"who": "me"}
    save_file(arrays, f)
    io.from_safetensors_file(f, tmp_path / "b.npk", chunk_size=chunk_size)
    io.from_safetensors_file(f, tmp_path / "c.npk", keys=["int8"])
    for k, a in load(tmp_path / "b.npk").items():
        same(a, arrays[k])
    assert list(load(tmp_path / "c.npk")) == ["int8"]
    io.from_safetensors(io.to_safetensors(path, ["int16"]), tmp_path / "d.npk")
    same(load(tmp_path / "d.npk")["int16"], arrays["int16"])
    with pytest.raises(KeyError):
        io.from_safetensors_file(f, tmp_path / "c.npk", keys=["nobody"])
    with pytest.raises(ValueError, match="complex128"):
        io.to_safetensors_file(store(tmp_path, c=np.ones(2, "c16")), f)
    same(load_file(f)["int8"], arrays["int8"])      # a failed export leaves what was there
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.parametrize("header", [
    b"", b"\xff" * 8, (10).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]",
    (77).to_bytes(8, "little") + b'{"x": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}'.ljust(77)])
def test_hostile_safetensors(tmp_path, header):
    (tmp_path / "m.safetensors").write_bytes(header)
    with pytest.raises(ValueError):
        io.from_safetensors_file(tmp_path / "m.safetensors", tmp_path / "s.npk")


@pytest.mark.parametrize("call, error", [
    (lambda t: io.from_npy(t / "no.npy", t / "s.npk"), FileNotFoundError), (lambda t: io.from_csv(t / "no.csv", t / "s.npk"), FileNotFoundError),
    (lambda t: io.to_npy(t / "no.npk", t / "x.npy"), FileNotFoundError), (lambda t: io.to_npy(t / "s.npk", t / "x.xyz"), ValueError),
    (lambda t: io.from_npy(t / "s.npk", t / "o.npk"), ValueError), (lambda t: io.to_npy(t / "s.npk", t / "x.npy"), ValueError),
    (lambda t: io.to_csv(t / "s.npk", t / "x.csv"), ValueError), (lambda t: io.to_csv(t / "s.npk", t / "x.csv", "nobody"), KeyError),
    (lambda t: io.to_npy(t / "s.npk", t / "x.npz", ["nobody"]), KeyError), (lambda t: io.format_of("x.what"), ValueError),
    (lambda t: io.to_npy(t / "s.npk", t / "x.npz", chunk_size=0), ValueError)])
def test_errors(tmp_path, call, error):
    store(tmp_path, a=np.ones(2), b=np.ones(2))
    with pytest.raises(error):
        call(tmp_path)
    assert not (tmp_path / "no.npk").exists() and not list(tmp_path.glob("x.*"))


def test_utilities(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"0" * 100)
    assert io.get_file_size(tmp_path) == 100 and io.is_large_file(tmp_path / "d" / "f", 50) and not io.is_large_file(tmp_path)
    assert io.estimate_chunk_rows((1000, 10), "f8", 800) == 10 and io.estimate_chunk_rows((5,), "f8", 1) == 1


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(io.DependencyError, match=r"numpackfs\[hdf5\]"):
        io.to_hdf5(store(tmp_path, x=np.ones(1)), tmp_path / "x.h5")


def test_memory_does_not_grow_with_the_array(tmp_path):
    with open(tmp_path / "x.npy", "wb") as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "<f8", "fortran_order": False, "shape": (8 << 20,)})
        f.truncate(f.tell() + (64 << 20))
    progress = []
    tracemalloc.start()
    io.from_npy(tmp_path / "x.npy", tmp_path / "s.npk", chunk_size=1 << 20, progress=lambda done, total: progress.append((done, total)))
    io.to_npy(tmp_path / "s.npk", tmp_path / "y.npy", chunk_size=1 << 20)
    io.to_safetensors_file(tmp_path / "s.npk", tmp_path / "y.safetensors", chunk_size=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20, peak
    assert progress[-1] == (8 << 20, 8 << 20) and len(progress) == 64 and progress == sorted(progress)


def test_the_command(tmp_path, python):
    run = "import sys; from numpackfs.io.__main__ import main; print(main(sys.argv[1:]))"
    np.savez(tmp_path / "z.npz", a=np.arange(3), b=np.ones((2, 2)))
    assert python(run, "import", "--format", "npz", tmp_path / "s.npk", tmp_path / "z.npz") == "0\n"
    assert python(run, "export", tmp_path / "s.npk", tmp_path / "a.npy", "a") == "0\n"
    same(np.load(tmp_path / "a.npy"), np.arange(3))
    assert python(run, "export", tmp_path / "s.npk", tmp_path / "b.csv", "nobody") == "1\n"
    assert python(run, "export", "--format", "npy", tmp_path / "s.npk", tmp_path / "c.npy") == "1\n"


# --- packages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [True, False, "zlib"])
def test_pack_and_unpack(tmp_path, compression, python):
    path = store(tmp_path, x=np.zeros((1000, 4)), y=np.arange(5))
    with NumPack(path) as n:
        n.drop("x", [0, 5])
    package = pack(path, compression=compression)
    assert package == tmp_path / "s.npkg"
    info = get_package_info(package)
    assert info["file_count"] == len(info["files"]) >= 3 and info["compression_name"] == {True: "zstd", False: "none"}.get(compression, "zlib")
    assert info["total_original_size"] == sum(f["original_size"] for f in info["files"])
    assert info["total_compressed_size"] == sum(f["actual_size"] for f in info["files"])
    assert info["compression_ratio"] == 1 if compression is False else info["compression_ratio"] < 0.5
    back = unpack(package, tmp_path / "deep" / "t.npk")
    assert load(back)["x"].shape == (998, 4) and load(back)["y"].tolist() == list(range(5))
    with pytest.raises(FileExistsError):
        pack(path)
    with pytest.raises(FileExistsError):
        unpack(package)      # the store itself
    assert pack(path, compression=compression, overwrite=True) == package and unpack(package, overwrite=True) == path
    if compression != "zlib":      # which a real NumPack reads only where the module zstandard is missing
        python("import sys; from numpack import unpack; unpack(sys.argv[1], sys.argv[2])", package, tmp_path / "real.npk")
        assert load(tmp_path / "real.npk")["x"].shape == (998, 4)


def test_a_package_of_the_real_numpack(tmp_path, python):
    path = store(tmp_path, x=np.arange(1000.0))
    python("import sys; from numpack import pack; pack(sys.argv[1], sys.argv[2])", path, tmp_path / "r.npkg")
    same(load(unpack(tmp_path / "r.npkg"))["x"], np.arange(1000.0))


def test_bad_packages(tmp_path):
    path = store(tmp_path, x=np.arange(1000.0))
    whole = pack(path, compression=False).read_bytes()
    bad = tmp_path / "bad.npkg"
    for content, said in ((b"nonsense", "Invalid"), (b"", "Invalid"), (whole[:-100], "Invalid"),
                          (whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], "Invalid")):
        bad.write_bytes(content)
        with pytest.raises((ValueError, RuntimeError), match=said):
            unpack(bad, tmp_path / "t.npk")
        assert not (tmp_path / "t.npk").exists()
    for source in (tmp_path / "nobody.npkg", tmp_path):
        for call in (unpack, get_package_info):
            with pytest.raises(ValueError):
                call(source)
    for source in (tmp_path / "nobody.npk", bad, tmp_path):
        with pytest.raises(ValueError):
            pack(source)
    with pytest.raises(ValueError):
        pack(path, tmp_path / "o.npkg", compression="lzma")


