"""The converters that need other libraries, on the real ones; `make test-extras` installs and runs them. Values are compared with
what each library itself reads and writes."""

import subprocess
import sys

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


# --- PyTorch ---

# What torch.save() of the pinned version writes, and what it only has in memory.
SAVED = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "complex64", "complex128"]
UNSAVED = ["uint16", "uint32", "uint64"]


@pytest.fixture(scope="module")
def tensors():
    arrays = {d: random(d) for d in SAVED}
    return {**arrays, "empty": np.zeros((0, 3), "f4"), "deep": random("float32", (7, 2, 3, 2))}


@pytest.mark.parametrize("chunk_size", [200, 1 << 20])
def test_torch_files(tmp_path, store, tensors, chunk_size):
    import torch

    path = store(**tensors)
    f = tmp_path / "m.pt"
    io.to_pt(path, f, chunk_size=chunk_size)
    got = torch.load(f, weights_only=True)
    assert list(got) == sorted(tensors)
    for k in tensors:
        same(got[k].numpy(), tensors[k])
    torch.save({k: torch.from_numpy(a) for k, a in tensors.items()}, f)
    io.from_pt(f, tmp_path / "b.npk", chunk_size=chunk_size)
    io.from_pt(f, tmp_path / "c.npk", key="int16")
    io.from_pt(f, tmp_path / "c.npk", key="int16", array_name="named")
    for k, a in load(tmp_path / "b.npk").items():
        same(a, tensors[k])
    assert sorted(load(tmp_path / "b.npk")) == sorted(tensors) and sorted(load(tmp_path / "c.npk")) == ["int16", "named"]
    io.to_pt(path, tmp_path / "one.pth", ["deep"], as_dict=False)
    same(torch.load(tmp_path / "one.pth", weights_only=True).numpy(), tensors["deep"])
    io.from_torch_file(tmp_path / "one.pth", tmp_path / "d.npk")
    same(load(tmp_path / "d.npk")["one"], tensors["deep"])
    torch.save(torch.from_numpy(tensors["int64"]), f, _use_new_zipfile_serialization=False)      # the old format, which is not mapped
    io.from_pt(f, tmp_path / "d.npk")
    same(load(tmp_path / "d.npk")["m"], tensors["int64"])


def test_torch_files_of_arrays_with_deleted_rows(tmp_path, store, tensors):
    import torch

    path = store(x=tensors["float32"])
    with NumPack(path) as n:
        n.drop("x", [0, 5, 6, -1])
    io.to_pt(path, tmp_path / "x.pt")
    same(torch.load(tmp_path / "x.pt", weights_only=True)["x"].numpy(), np.delete(tensors["float32"], [0, 5, 6, -1], axis=0))


def test_torch_files_are_refused_with_a_reason(tmp_path, store, tensors):
    import torch

    path, f = store(**tensors), tmp_path / "m.pt"
    io.to_pt(path, f)
    before = f.read_bytes()
    with pytest.raises(ValueError, match="wants one array"):
        io.to_pt(path, f, as_dict=False)
    with pytest.raises(KeyError):
        io.to_pt(path, f, ["nobody"])
    with pytest.raises(ValueError, match="x: torch.uint32"):
        io.to_pt(store(x=random("uint32")), f)
    assert f.read_bytes() == before and [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(KeyError, match="Available"):
        io.from_pt(f, tmp_path / "b.npk", key="nobody")
    for content, error in (([torch.ones(2)], TypeError), ({"a": {"b": torch.ones(2)}}, TypeError), ({"a": torch.tensor(1.0)}, ValueError),
                           ({"a": torch.ones(2, dtype=torch.bfloat16)}, TypeError)):
        torch.save(content, f)
        with pytest.raises(error):
            io.from_pt(f, tmp_path / "b.npk")

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save(Evil(), f)
    with pytest.raises(Exception, match="(?i)weights.only"):
        io.from_pt(f, tmp_path / "b.npk")
    assert not (tmp_path / "ran").exists() and load(tmp_path / "b.npk") == {}


@pytest.mark.parametrize("dtype", SAVED + UNSAVED)
def test_tensors(tmp_path, dtype):
    import torch

    x = random(dtype)
    io.from_tensor(torch.from_numpy(x), tmp_path / "s.npk", "x", chunk_size=100)
    same(load(tmp_path / "s.npk")["x"], x)
    t = io.to_tensor(tmp_path / "s.npk", "x")
    assert isinstance(t, torch.Tensor)
    same(t.numpy(), x)
    same(io.to_tensor(tmp_path / "s.npk").numpy(), x)
    t[0] = 1        # it is one's own
    same(load(tmp_path / "s.npk")["x"], x)


def test_tensors_of_other_kinds(tmp_path):
    import torch

    out = tmp_path / "s.npk"
    c = torch.tensor([1 + 2j, 3 - 1j])
    for name, t, want in (("conj", c.conj(), [1 - 2j, 3 + 1j]), ("negative", c.conj().imag, [-2, 1]), ("turned", torch.arange(6).reshape(2, 3).T,
                          [[0, 3], [1, 4], [2, 5]]), ("learned", torch.ones(2, requires_grad=True), [1, 1])):
        io.from_tensor(t, out, name)
        np.testing.assert_array_equal(load(out)[name], want)
    assert io.to_tensor(out, "learned", dtype=torch.float64, device="cpu").dtype == torch.float64
    for t, said in ((torch.ones(2, dtype=torch.bfloat16), "bfloat16"), (torch.eye(2).to_sparse(), "sparse")):
        with pytest.raises(TypeError, match=said):
            io.from_tensor(t, out, "bad")
    with pytest.raises(TypeError):
        io.from_tensor(np.ones(2), out)
    io.from_safetensors({"a": torch.ones(3)}, out)
    same(load(out)["a"], np.ones(3, "f4"))
    assert "bad" not in load(out)


# --- progress and memory ---

FILES = {"npy": "npy", "npz": "npz", "csv": "csv", "txt": "txt", "safetensors": "safetensors", "parquet": "parquet", "feather": "arrow",
         "hdf5": "h5", "zarr": "zarr", "pytorch": "pt"}


@pytest.mark.parametrize("kind", FILES)
def test_progress_of_files(tmp_path, store, kind):
    """It counts rows, never goes back, and ends with all of them; most formats know from the beginning how many there are."""
    x = random("float64", (1000, 4))
    path, f = store(x=x), tmp_path / f"x.{FILES[kind]}"
    for convert in (lambda p: io.export_file(path, f, kind, chunk_size=4000, progress=p),
                    lambda p: io.import_file(f, tmp_path / "b.npk", kind, chunk_size=4000, progress=p),
                    lambda p: io.to_url(path, f"memory://b/x.{FILES[kind]}", progress=p),
                    lambda p: io.from_url(f"memory://b/x.{FILES[kind]}", tmp_path / "b.npk", progress=p)):
        told = []
        convert(lambda done, total: told.append((done, total)))
        assert told[-1] == (1000, 1000) and [d for d, _ in told] == sorted(d for d, _ in told)
        assert {t for _, t in told} == {1000} or kind in ("csv", "txt", "feather")
    same(load(tmp_path / "b.npk")["x"], x)
    told = []
    io.export_file(path, f, kind, chunk_size=4000, progress=lambda *a: told.append(a))
    assert len(told) > 3


def test_progress_in_memory(tmp_path, store):
    import pandas as pd
    import pyarrow as pa
    import torch

    x = random("float32", (500, 4))
    path, out = store(x=x), tmp_path / "b.npk"
    for convert in (lambda **k: io.to_tensor(path, **k), lambda **k: io.to_pandas(path, **k), lambda **k: io.to_table(path, **k),
                    lambda **k: io.to_safetensors(path, **k), lambda **k: io.from_tensor(torch.from_numpy(x), out, **k),
                    lambda **k: io.from_pandas(pd.DataFrame(x), out, **k), lambda **k: io.from_safetensors({"x": x}, out, **k),
                    lambda **k: io.from_table(pa.table({"a": x[:, 0]}), out, **k)):
        told = []
        convert(progress=lambda done, total: told.append((done, total)))
        assert told[-1] == (500, 500)


@pytest.mark.parametrize("kind", [k for k in FILES if k not in ("csv", "txt")])
def test_memory_does_not_grow_with_the_array(tmp_path, kind):
    """64 MiB go both ways in blocks of 1 MiB. What a process allocated for itself is counted, not the pages of files it mapped."""
    script = """
import resource, sys, numpy as np
from numpackfs import NumPack, io
def own():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("RssAnon")) >> 10
def note(done, total):
    global most
    most = max(most, own())
directory, kind, suffix = sys.argv[1:]
with NumPack(directory + "/warm.npk") as n:
    n.save({"x": np.zeros((100, 4), "f4")})
with NumPack(directory + "/a.npk") as n:
    for _ in range(16):
        block = np.random.default_rng(1).random((8192, 128), "f4")
        n.append({"x": block}) if n.has_array("x") else n.save({"x": block})
del block
io.export_file(directory + "/warm.npk", f"{directory}/warm.{suffix}", kind)      # what is loaded once is no growth
io.import_file(f"{directory}/warm.{suffix}", directory + "/warm2.npk", kind)
most = before = own()
io.export_file(directory + "/a.npk", f"{directory}/x.{suffix}", kind, chunk_size=1 << 20, progress=note)
io.import_file(f"{directory}/x.{suffix}", directory + "/b.npk", kind, chunk_size=1 << 20, progress=note)
with NumPack(directory + "/a.npk") as a, NumPack(directory + "/b.npk") as b:
    for old, new in zip(a.stream_load("x", buffer_size=8192), b.stream_load(b.get_member_list()[0], buffer_size=8192)):
        assert (old == new).all()
print(most - before)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), kind, FILES[kind]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40, f"{done.stdout.strip()} MiB for an array of 64 MiB"
