"""export/store.safetensors: the whole store as one file that the real safetensors package opens, also as a map."""

import json
import struct

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from harness import ARRAYS, GOLDEN, same
from npkwrite import Spec, write_store

STORES = sorted({a["store"] for a in ARRAYS})
LACKS = {np.dtype("c8"), np.dtype("c16")}      # in the release of the format that tests pin; c8 came later


def header(raw):
    n = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + n])


@pytest.mark.parametrize("store", STORES)
def test_the_real_package_reads_every_golden_store(store, golden_mount):
    m = golden_mount(store)
    path = m.control() / "export" / "store.safetensors"
    raw = path.read_bytes()
    assert path.stat().st_size == len(raw)
    told = header(raw)
    left_out = json.dumps(told.get("__metadata__", {}), ensure_ascii=False)
    with safetensors.safe_open(path, framework="np") as f:
        keys = set(f.keys())
        for a in [a for a in ARRAYS if a["store"] == store]:
            want = np.load(GOLDEN / a["expected_npy"])
            if want.dtype in LACKS:
                assert a["array"] not in keys and json.dumps(a["array"], ensure_ascii=False)[1:-1] in left_out.replace("\\\\", "\\"), a
                continue
            same(f.get_tensor(a["array"]), want)
            keys.discard(a["array"])
    assert keys == set()


def test_loaded_from_bytes(golden_mount):
    m = golden_mount("digits.npk")
    got = safetensors.numpy.load((m.control() / "export" / "store.safetensors").read_bytes())
    assert sorted(got) == ["images", "labels", "pixels"]
    for name, x in got.items():
        same(x, m.load(name))


def test_tensors_are_aligned_and_dense(mount, tmp_path):
    """Offsets start at 0, follow each other without holes, and the file ends with the last one: readers refuse others."""
    store, specs = write_store(tmp_path / "s.npk", {
        "a": np.arange(3, dtype="u1"), "b": np.arange(5, dtype="f8"), "c": Spec(np.arange(100).reshape(10, 10), deleted=[1, 2]),
        "d": np.zeros((0, 2), "f4"), "e": np.ones(7, "f2"), "z": np.ones(3, "c16")})
    with mount(store) as m:
        raw = (m.control() / "export" / "store.safetensors").read_bytes()
        told = header(raw)
        n = struct.unpack("<Q", raw[:8])[0]
        assert n % 8 == 0
        spans = sorted(t["data_offsets"] for k, t in told.items() if k != "__metadata__")
        assert spans[0][0] == 0 and all(x[1] == y[0] for x, y in zip(spans, spans[1:])) and 8 + n + spans[-1][1] == len(raw)
        assert all(isinstance(v, str) for v in told["__metadata__"].values())
        for name, spec in specs.items():
            if name == "z":
                continue
            begin, end = told[name]["data_offsets"]
            assert raw[8 + n + begin:8 + n + end] == spec.logical().tobytes(), name
            assert (8 + n + begin) % spec.array.itemsize == 0 or begin == end, name


def test_a_damaged_array_is_left_out_and_named(mount, golden_copy):
    with mount(golden_copy("bad/data_short")) as m:
        path = m.control() / "export" / "store.safetensors"
        with safetensors.safe_open(path, framework="np") as f:
            assert list(f.keys()) == ["good"]
            same(f.get_tensor("good"), m.load("good"))
            assert "victim" in json.dumps(f.metadata())


def test_an_empty_store(golden_mount):
    path = golden_mount("fresh.npk").control() / "export" / "store.safetensors"
    assert safetensors.numpy.load(path.read_bytes()) == {}


def test_who_has_it_open_reads_on_when_arrays_are_replaced(mount, tmp_path):
    x, y = np.arange(60000.0).reshape(-1, 3), np.arange(5)
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        np.save(m.array("x"), x)
        np.save(m.array("y"), y)
    with mount(tmp_path / "s.npk", ro=False) as m:      # nothing of it is mapped
        with open(m.control() / "export" / "store.safetensors", "rb", buffering=0) as f:
            np.save(m.array("x"), -x)
            m.array("y").unlink()
            (m.control() / "sync").write_text("1\n")
            assert sorted(p.name for p in m.store.iterdir() if p.name.endswith(".npkd")) == ["data_x.npkd"]
            got = safetensors.numpy.load(f.readall())
            same(got["x"], x)
            same(got["y"], y)
        assert tensors(m.path).keys() == {"x"}
        same(tensors(m.path)["x"], -x)


def tensors(path):
    return safetensors.numpy.load((path / ".numpack/export/store.safetensors").read_bytes())


@pytest.mark.parametrize("how", ["commit", "abort"])
def test_a_transaction_has_its_own(mount, tmp_path, how):
    x, y = np.arange(300.0).reshape(100, 3), np.arange(5)
    with mount(tmp_path / "s.npk", "create", ro=False) as m:
        np.save(m.array("x"), x)
        np.save(m.array("y"), y)
        t = m.control() / "batch" / "t"
        t.mkdir()
        assert "export" in [p.name for p in (t / ".numpack").iterdir()]
        (t / ".numpack/arrays/x/drop").write_text("0:10\n")
        (t / "y.npy").unlink()
        np.save(t / "z.npy", x + 1)
        want = {"x": x[10:], "z": x + 1}
        with open(t / "x.npy", "r+b") as f:
            f.seek(128)
            f.write(np.full(3, -1.0).tobytes())
        want["x"] = np.vstack([np.full((1, 3), -1.0), x[11:]])
        got, outside = tensors(t), tensors(m.path)
        assert got.keys() == want.keys() and outside.keys() == {"x", "y"}
        for name in want:
            same(got[name], want[name])
        same(outside["x"], x)
        with open(t / "x.npy", "r+b") as f:     # once more: it is the transaction's own file now
            f.seek(128)
            f.write(np.full(3, -2.0).tobytes())
        want["x"][0] = -2
        same(tensors(t)["x"], want["x"])
        with safetensors.safe_open(t / ".numpack/export/store.safetensors", framework="np") as f:
            (t / "ctl").write_text(how + "\n")
            (m.control() / "sync").write_text("1\n")
            for name in want:
                same(f.get_tensor(name), want[name])
        same(tensors(m.path)["x"], want["x"] if how == "commit" else x)
