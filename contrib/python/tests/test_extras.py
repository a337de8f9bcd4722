"""The converters that need other libraries, on the real ones; `make test-extras` installs and runs them. Values are compared with
what each library itself reads and writes."""

import numpy as np
import pytest

from numpackfs import NumPack, io

NUMBERS = ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64"]


def random(dtype, shape=(120, 3)):
    return (np.random.default_rng(1).standard_normal(shape) * 50).astype("i8" if np.dtype(dtype).kind in "iu" else "f8").astype(dtype)


@pytest.fixture
def store(tmp_path):
    def make(**arrays):
        with NumPack(tmp_path / "s.npk", drop_if_exists=True) as n:
            n.save(arrays)
        return tmp_path / "s.npk"

    return make


def load(path):
    with NumPack(path) as n:
        return {k: n.load(k) for k in n}


def same(got, want):
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", NUMBERS + ["bool"])
@pytest.mark.parametrize("chunk_size", [200, 1 << 20])
@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_tables(tmp_path, store, kind, dtype, chunk_size):
    import pyarrow.feather
    import pyarrow.parquet

    x = random(dtype)
    path = store(x=x, v=np.ascontiguousarray(x[:, 0]))
    f = tmp_path / f"x.{kind}"
    getattr(io, f"to_{kind}")(path, f, "x", chunk_size=chunk_size)
    table = pyarrow.parquet.read_table(f) if kind == "parquet" else pyarrow.feather.read_table(f)
    assert table.column_names == ["col0", "col1", "col2"]
    same(table.to_pandas().to_numpy(), x)
    getattr(io, f"from_{kind}")(f, tmp_path / "b.npk", chunk_size=chunk_size)
    getattr(io, f"from_{kind}")(f, tmp_path / "b.npk", "part", columns=["col2", "col0"])
    got = load(tmp_path / "b.npk")
    same(got["x"], x)
    same(got["part"], x[:, [2, 0]])
    table = io.to_table(path, "x")
    same(table.to_pandas().to_numpy(), x)
    io.from_table(table, tmp_path / "c.npk", chunk_size=chunk_size)
    same(load(tmp_path / "c.npk")["data"], x)
    getattr(io, f"to_{kind}")(path, f, "v")
    getattr(io, f"from_{kind}")(f, tmp_path / "c.npk", "v")
    same(load(tmp_path / "c.npk")["v"], x[:, :1])


def test_tables_of_other_kinds(tmp_path):
    import pyarrow as pa

    out = tmp_path / "s.npk"
    io.from_arrow(pa.table({"a": pa.array([1, 2], "i4"), "b": [0.5, None]}), out)
    np.testing.assert_array_equal(load(out)["data"], [[1, 0.5], [2, np.nan]])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype="f4")), 3)
    io.from_table(pa.table({"e": lists}), out, "e")
    same(load(out)["e"], np.arange(6, dtype="f4").reshape(2, 3))
    for bad in ({"a": ["x", "y"]}, {"a": pa.array([1, None], "i4")}, {}):
        with pytest.raises(ValueError):
            io.from_table(pa.table(bad), out, "bad")
    with pytest.raises(TypeError):
        io.from_table([1], out)
    assert sorted(load(out)) == ["data", "e"]


def test_pandas(tmp_path, store):
    import pandas as pd

    df = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]})
    io.from_pandas(df, tmp_path / "p.npk", chunk_size=16)
    same(load(tmp_path / "p.npk")["data"], df.to_numpy())
    x = random("float32")
    back = io.to_pandas(store(x=x))
    assert list(back.columns) == ["col0", "col1", "col2"]
    same(back.to_numpy(), x)
    assert list(io.to_pandas(store(x=x), columns=list("abc")).columns) == list("abc")
    with pytest.raises(ValueError):
        io.from_pandas(pd.DataFrame({"a": ["x"]}), tmp_path / "p.npk")


@pytest.mark.parametrize("chunk_size", [300, 1 << 20])
@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
@pytest.mark.parametrize("group", ["/", "/a/b"])
def test_groups(tmp_path, store, kind, chunk_size, group):
    import h5py
    import zarr

    arrays = {d: random(d, (40, 3, 2)) for d in NUMBERS + ["float16"]}
    arrays.update(bool=random("int8") > 0, complex64=random("float32").astype("c8"), empty=np.zeros((0, 3)), v=np.arange(7))
    f = tmp_path / f"x.{kind}"
    path = store(**arrays)
    for _ in range(2):      # the second one replaces the first
        getattr(io, f"to_{kind}")(path, f, group=group, chunk_size=chunk_size)
    if kind == "hdf5":
        with h5py.File(f) as h:
            got = {k: v[...] for k, v in h[group].items()}
    else:
        got = {k: v[...] for k, v in zarr.open(str(f), mode="r")[group.strip("/") or "/"].arrays()}
    assert set(got) == set(arrays)
    for k in arrays:
        same(got[k], arrays[k])
    getattr(io, f"from_{kind}")(f, tmp_path / "b.npk", group=group, chunk_size=chunk_size)
    got = load(tmp_path / "b.npk")
    assert set(got) == set(arrays)
    for k in arrays:
        same(got[k], arrays[k])
    getattr(io, f"from_{kind}")(f, tmp_path / "c.npk", ["v"], group=group)
    assert list(load(tmp_path / "c.npk")) == ["v"]
    with pytest.raises(KeyError):
        getattr(io, f"from_{kind}")(f, tmp_path / "c.npk", ["nobody"], group=group)


def test_urls(tmp_path, store):
    import fsspec

    x = random("float32")
    path = store(x=x)
    for name in ("x.npy", "x.csv", "x.parquet", "x.h5", "x.zarr", "x.safetensors"):
        url = f"memory://bucket/deep/{name}"
        io.to_url(path, url)
        assert fsspec.filesystem("memory").exists(url)
        io.from_url(url, tmp_path / "b.npk", drop_if_exists=True)
        got = load(tmp_path / "b.npk")["x"]
        np.testing.assert_array_equal(got.astype("f4"), x)      # CSV is read as float64
    io.to_npy(path, "memory://bucket/y.npy")
    io.from_npy("memory://bucket/y.npy", tmp_path / "b.npk")
    same(load(tmp_path / "b.npk")["y"], x)
    with pytest.raises(FileNotFoundError):
        io.from_url("memory://bucket/nobody.npy", tmp_path / "b.npk")
    with pytest.raises(ValueError):
        io.from_s3("memory://bucket/y.npy", tmp_path / "b.npk")


def test_the_command(tmp_path, store):
    from numpackfs.io.__main__ import main

    x = random("float32")
    path = str(store(x=x))
    for kind, name in (("parquet", "x.pq"), ("feather", "x.arrow"), ("hdf5", "x.hdf5"), ("zarr", "x.zarr")):
        f = str(tmp_path / name)
        assert main(["export", "--format", kind, path, f, "x"]) == 0
        assert main(["import", "--format", kind, "--drop-if-exists", str(tmp_path / "b.npk"), f]) == 0
        same(load(tmp_path / "b.npk")["x"], x)
