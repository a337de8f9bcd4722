"""What NumPack's documentation shows, one test a call or example: the same calls with the documented names, orders and kinds of
arguments, and the documented result, which numpy knows. test_py_api.py has the errors and the corners of each call.

Where the documentation shows something that cannot be, the test says what is done here, and so does contrib/python/README.md.
"""

import inspect
import platform
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

import numpackfs
from harness import same
from numpackfs import LazyArray, NumPack, get_package_info, pack, unpack
from numpackfs.vector_engine import StreamingVectorEngine, VectorEngine

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def the_same_numbers_alone_and_together():
    global RNG
    RNG = np.random.default_rng(7)


def table(rows, columns=5, dtype="f8"):
    return RNG.random((rows, columns)).astype(dtype)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The examples name their stores by relative paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- the signatures ---------------------------------------------------------------------------------------------------

CLASS = {
    "__init__": "filename, drop_if_exists=False, strict_context_mode=False, warn_no_context=None, force_gc_on_close=False",
    "open": "", "close": "force_gc=None", "save": "arrays", "load": "array_name, lazy=False", "replace": "arrays, indexes",
    "append": "arrays", "drop": "array_name, indexes=None", "getitem": "array_name, indexes",
    "stream_load": "array_name, buffer_size=None", "get_shape": "array_name", "get_member_list": "", "has_array": "array_name",
    "get_modify_time": "array_name", "get_metadata": "", "clone": "source_name, target_name", "reset": "", "update": "array_name",
    "get_io_stats": "", "batch_mode": "memory_limit=None", "writable_batch_mode": "", "__getitem__": "key", "__iter__": "",
}
FUNCTIONS = {
    "pack": "source, target=None, compression=True, overwrite=False", "unpack": "source, target=None, overwrite=False, verify=True",
    "get_package_info": "source", "get_backend_info": "", "force_cleanup_windows_handles": "",
}


@pytest.mark.parametrize("where, name, documented", [(NumPack, k, v) for k, v in CLASS.items()] +
                         [(numpackfs, k, v) for k, v in FUNCTIONS.items()], ids=lambda v: v if isinstance(v, str) and v.isidentifier() else "")
def test_a_signature_is_the_documented_one(where, name, documented):
    """By position and by name; what is ours besides is given by name only."""
    parameters = list(inspect.signature(getattr(where, name)).parameters.values())[where is NumPack:]
    plain = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in plain) == documented
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters if p not in plain)


# --- core operations --------------------------------------------------------------------------------------------------


def test_making_an_object_touches_nothing(here):
    for n in (NumPack("d.npk"), NumPack(Path("d.npk")),
              NumPack("d.npk", drop_if_exists=True, strict_context_mode=True, force_gc_on_close=False)):
        assert n.is_closed and not n.is_opened and n.backend_type == "rust"
    assert list(here.iterdir()) == []


def test_save_one_and_several_and_over_what_is_there(npk):
    npk.save({"f": table(20)})
    arrays = {"f": table(30, 3, "f4"), "l": RNG.integers(0, 10, 30).astype("i4"), "w": RNG.random(30).astype("f4")}
    npk.save(arrays)
    assert sorted(npk.get_member_list()) == ["f", "l", "w"]
    for name, a in arrays.items():
        same(npk.load(name), a)


def test_load_eager_and_lazy(npk):
    x = table(300)
    npk.save({"f": x})
    assert type(npk.load("f")) is np.ndarray and type(npk.load("f", lazy=True)) is LazyArray
    assert type(npk.load("f", lazy=True)).__name__ == "LazyArray"
    same(npk.load("f"), x)
    same(npk.load("f", lazy=True)[100:200], x[100:200])


def test_brackets_load(npk):
    x = table(9)
    npk.save({"f": x, "l": np.arange(9)})
    same(npk["f"], npk.load("f"))
    same(npk["f"], x)
    same(npk["l"], np.arange(9))


@pytest.mark.parametrize("rows", [0, [0, 10, 20, 30, 40], np.array([1, 3, 5, 7, 9]), slice(0, 10)], ids=str)
def test_replace_by_each_kind_of_index(npk, rows):
    x = table(50)
    npk.save({"f": x, "other": x})
    new = table(50)[rows]
    npk.replace({"f": new}, rows)
    want = x.copy()
    want[rows] = new
    same(npk.load("f"), want)
    same(npk.load("other"), x)


def test_replace_in_several_arrays(npk):
    x, labels = table(10), np.arange(10)
    npk.save({"f": x, "l": labels})
    npk.replace({"f": x[7:], "l": np.array([1, 2, 3])}, [0, 1, 2])
    x[:3], labels[:3] = x[7:], [1, 2, 3]
    same(npk.load("f"), x)
    same(npk.load("l"), labels)


def test_append_to_one_and_to_several(npk):
    x, more, most, labels = table(100), table(10), table(5), np.arange(5)
    npk.save({"f": x, "l": labels})
    npk.append({"f": more})
    assert npk.get_shape("f") == (110, 5)
    npk.append({"f": most, "l": labels})
    same(npk.load("f"), np.concatenate([x, more, most]))
    same(npk.load("l"), np.concatenate([labels, labels]))


def test_drop_arrays(npk):
    npk.save({"a": table(10), "b": table(10), "c": table(10), "d": table(10)})
    npk.drop("a")
    assert not npk.has_array("a")
    npk.drop(["b", "c"])
    assert npk.get_member_list() == ["d"]
    npk.drop("a", [0, 1, 2])      # the example goes on with an array that it dropped: nothing happens
    npk.drop("a", slice(0, 10))
    assert npk.get_member_list() == ["d"]


@pytest.mark.parametrize("rows", [3, [0, 1, 2, 10, 20], np.array([5, 15, 25]), slice(0, 10)], ids=str)
def test_drop_rows_by_each_kind_of_index(npk, rows):
    x = table(100)
    npk.save({"a": x})
    npk.drop("a", rows)
    same(npk.load("a"), np.delete(x, rows, axis=0))
    npk.drop(array_name="a", indexes=0)
    same(npk.load("a"), np.delete(x, rows, axis=0)[1:])


def test_dropped_rows_take_room_until_update(npk, here):
    x = table(10_000)
    npk.save({"a": x})

    def on_disk():
        npk.close()
        npk.open()
        return sum(p.stat().st_size for p in (here / "s.npk").glob("data_*"))

    npk.drop("a", [0, 1, 2])
    assert on_disk() == x.nbytes and npk.get_shape("a") == (9997, 5)
    npk.update("a")
    npk.update("a")      # nothing to do
    assert on_disk() == x[3:].nbytes
    same(npk.load("a"), x[3:])


def test_getitem_by_each_kind_of_index(npk):
    x = table(1000, 8)
    npk.save({"f": x})
    for rows, shape in ((0, (8,)), ([0, 10, 20, 30], (4, 8)), (np.array([1, 5, 10, 15, 20]), (5, 8)), (slice(0, 100), (100, 8))):
        got = npk.getitem("f", rows)
        assert got.shape == shape
        same(got, x[rows])


def test_shape_list_and_presence(npk):
    npk.save({"f": table(12), "l": np.arange(12)})
    shape = npk.get_shape("f")
    rows, columns = shape
    assert isinstance(shape, tuple) and (rows, columns) == (12, 5)
    names = npk.get_member_list()
    assert isinstance(names, list) and {n: npk.get_shape(n) for n in names} == {"f": (12, 5), "l": (12,)}
    assert npk.has_array("f") is True and npk.has_array("q") is False


def test_the_time_is_in_microseconds(npk):
    """The core operations call it a Unix timestamp for datetime.fromtimestamp(), which takes seconds; NumPack gives microseconds."""
    before = datetime.now(timezone.utc).timestamp()
    npk.save({"f": table(3)})
    told = npk.get_modify_time("f")
    assert isinstance(told, int) and npk.get_modify_time("q") is None
    assert before - 1 <= datetime.fromtimestamp(told / 1e6, timezone.utc).timestamp() <= datetime.now(timezone.utc).timestamp() + 1


def test_metadata(npk):
    npk.save({"f": table(3, 4, "f4"), "l": np.arange(3)})
    arrays = npk.get_metadata()["arrays"]
    assert {k: (v["shape"], v["dtype"]) for k, v in arrays.items()} == {"f": ([3, 4], "Float32"), "l": ([3], "Int64")}


def test_reset(npk):
    npk.save({"f": table(3), "g": table(2)})
    npk.reset()
    assert npk.get_member_list() == []


def test_a_clone_is_independent(npk):
    x = table(10)
    npk.save({"original": x})
    npk.clone("original", "backup")
    backup = npk.load("backup")
    backup *= 2.0
    npk.save({"backup": backup})
    same(npk.load("original"), x)
    same(npk.load("backup"), x * 2)
    with pytest.raises(KeyError):
        npk.clone("nobody", "other")
    with pytest.raises(ValueError):
        npk.clone("original", "backup")


def test_io_stats(npk):
    assert npk.get_io_stats()["backend_type"] == "rust"


def test_stream_in_batches_and_row_by_row(npk):
    x = table(2500, 3)
    npk.save({"big": x})
    batches = list(npk.stream_load("big", buffer_size=1000))
    assert [b.shape for b in batches] == [(1000, 3), (1000, 3), (500, 3)]
    same(np.concatenate(batches), x)
    rows = list(npk.stream_load("big"))
    assert len(rows) == 2500 and {r.shape for r in rows} == {(1, 3)}
    same(np.concatenate(rows), x)


def test_open_and_close_by_hand(here):
    n = NumPack("d.npk")
    assert (n.is_opened, n.is_closed) == (False, True)
    assert n.open() is None
    assert (n.is_opened, n.is_closed) == (True, False)
    n.open()
    x = table(4)
    n.save({"data": x})
    assert n.close() is None
    n.close(force_gc=True)
    assert (n.is_opened, n.is_closed) == (False, True)
    n.open()
    same(n.load("data"), x)
    n.close()


def test_iteration_gives_names(npk):
    npk.save({"a": table(1), "b": table(2), "c": table(3)})
    assert {name: npk.get_shape(name) for name in npk} == {"a": (1, 5), "b": (2, 5), "c": (3, 5)}


def test_a_session_from_save_to_stream(here):
    """The core operations' closing example."""
    x, labels = table(100, 6, "f4"), np.arange(100, dtype="i4")
    first, more = table(10, 6, "f4"), table(20, 6, "f4")
    with NumPack("d.npk", drop_if_exists=True) as n:
        n.save({"f": x, "l": labels})
        assert sorted(n.get_member_list()) == ["f", "l"] and n.load("f").shape == (100, 6)
        n.replace({"f": first}, list(range(10)))
        n.append({"f": more, "l": labels[:20]})
        assert n.get_shape("f") == (120, 6) and n.getitem("f", [0, 30, 60, 90, 110]).shape == (5, 6)
        n.drop("f", [0, 1, 2])
        n.update("f")
        want = np.concatenate([first[3:], x[10:], more])
        same(np.concatenate(list(n.stream_load("f", buffer_size=50))), want)
    assert n.is_closed
    with NumPack("d.npk") as n:
        same(n.load("f"), want)
        same(n.load("l"), np.concatenate([labels, labels[:20]]))


# --- the class reference ----------------------------------------------------------------------------------------------


def test_representation(here):
    n = NumPack("d.npk")
    with n:
        n.save({"a": table(1), "b": table(1)})
        assert repr(n) == str(n) == "NumPack(d.npk, arrays=2, backend=rust)"


def test_nothing_works_on_a_closed_store(here):
    """The overview's shortest example loads without opening; the class reference says that this raises."""
    with pytest.raises(RuntimeError):
        NumPack("d.npk").load("array", lazy=True)


def test_a_hundred_changes_in_batch_mode(npk):
    x = np.arange(40.0).reshape(10, 4) / 7
    npk.save({"a": x})
    with npk.batch_mode():
        for _ in range(100):
            a = npk.load("a")
            a *= 1.25
            npk.save({"a": a})
    want = x.copy()
    for _ in range(100):
        want *= 1.25
    same(npk.load("a"), want)


def test_one_row_at_a_time_with_and_without_batch_mode(npk):
    x = table(100)
    npk.save({"plain": x, "batch": x})

    def double(name):
        for i in range(100):
            a = npk.load(name)
            a[i] *= 2
            npk.save({name: a})

    double("plain")
    with npk.batch_mode(memory_limit=64):
        double("batch")
    same(npk.load("plain"), x * 2)
    same(npk.load("batch"), x * 2)


def test_writable_batch_mode_needs_no_save(npk):
    x = table(100)
    npk.save({"a": x})
    with npk.writable_batch_mode() as wb:
        a = wb.load("a")
        for _ in range(100):
            a *= 1.25
        a[:10] *= 2.0
    want = x.copy()
    for _ in range(100):
        want *= 1.25
    want[:10] *= 2
    same(npk.load("a"), want)


# --- advanced features ------------------------------------------------------------------------------------------------


def test_lazy_from_another_session(here):
    x = table(5000, 4, "f4")
    with NumPack("d.npk", drop_if_exists=True) as n:
        n.save({"f": x})
    with NumPack("d.npk") as n:
        lazy = n.load("f", lazy=True)
        assert lazy.shape == (5000, 4) and lazy[1000:2000].shape == (1000, 4)
        same(lazy[1000:2000], x[1000:2000])


@pytest.fixture
def lazy(npk):
    npk.save({"f": X})
    return npk.load("f", lazy=True)


X = table(1000, 20)


def test_lazy_tells_what_it_is(lazy):
    rows, columns = lazy.shape
    assert (rows, columns, lazy.ndim, lazy.size, lazy.dtype, lazy.nbytes) == (1000, 20, 2, 20_000, np.float64, 160_000)


@pytest.mark.parametrize("key", [0, slice(100, 200), slice(None, None, 10), [0, 10, 20, 30], np.array([1, 5, 10, 15, 20]),
                                 X[:, 0] > 0.5, (slice(100, 200), slice(3, 9)), (slice(None), [0, 5, 10, 15]),
                                 (slice(None, None, 10), slice(None))], ids=str)
def test_lazy_index(lazy, key):
    got = lazy[key]
    assert isinstance(got, np.ndarray)
    same(got, X[key])


def test_lazy_iteration(lazy):
    rows = []
    for i, row in enumerate(lazy):
        if i == 10:
            break
        rows.append(row)
    same(np.array(rows), X[:10])
    same(np.concatenate([lazy[i:i + 300] for i in range(0, len(lazy), 300)]), X)


def test_lazy_to_numpy_and_to_a_list(lazy):
    same(np.asarray(lazy[10:20]), X[10:20])
    full = np.asarray(lazy)
    assert type(full) is np.ndarray
    same(full, X)
    assert lazy[0:10].tolist() == X[0:10].tolist() and lazy.tolist() == X.tolist()


def test_lazy_parts_that_are_larger_than_what_is_left(lazy):
    same(lazy[:800], X[:800])
    same(lazy[800:900], X[800:900])
    same(lazy[900:], X[900:])
    assert lazy[5000:].shape == (0, 20)


def test_a_mean_over_a_stream(npk):
    npk.save({"f": X})
    total = count = 0
    for batch in npk.stream_load("f", buffer_size=300):
        total += batch.sum()
        count += batch.size
    assert count == X.size and total / count == pytest.approx(X.mean(), rel=1e-12)


def test_from_one_store_into_another(here):
    with NumPack("in.npk") as n:
        n.save({"f": X})
    with NumPack("in.npk") as source, NumPack("out.npk", drop_if_exists=True) as target:
        for i, batch in enumerate(source.stream_load("f", buffer_size=300)):
            if i == 0:
                target.save({"doubled": batch * 2})
            else:
                target.append({"doubled": batch * 2})
    with NumPack("out.npk") as n:
        same(n.load("doubled"), X * 2)


def test_two_streams_side_by_side(npk):
    npk.save({"f": X, "l": np.arange(1000)})
    pairs = list(zip(npk.stream_load("f", buffer_size=300), npk.stream_load("l", buffer_size=300)))
    assert [(len(f), len(l)) for f, l in pairs] == [(300, 300)] * 3 + [(100, 100)]
    same(np.concatenate([l for _, l in pairs]), np.arange(1000))


def test_rows_where_a_label_is_set(npk):
    labels = RNG.integers(0, 2, 1000)
    npk.save({"f": X, "l": labels})
    chosen = npk.load("f", lazy=True)[npk.load("l") == 1]
    same(chosen, X[labels == 1])


def test_in_place_operations_of_a_writable_batch(npk):
    def work(a):
        a += 5
        a -= 2
        a *= 3
        a /= 4
        a **= 2
        np.sqrt(a, out=a)
        np.exp(a, out=a)
        np.log(a, out=a)
        np.sin(a, out=a)
        a[0] = 999.0
        a[10:20] = 0.0
        a[:, 0] = 1.0
        a[a < 0] = 0

    npk.save({"f": X})
    with npk.writable_batch_mode() as wb:
        work(wb.load("f"))
    want = X.copy()
    work(want)
    same(npk.load("f"), want)
    npk.close()
    npk.open()
    same(npk.load("f"), want)


def test_chunks_by_getitem(npk):
    npk.save({"f": X})
    rows = npk.get_shape("f")[0]
    same(np.concatenate([npk.getitem("f", list(range(at, min(at + 300, rows)))) for at in range(0, rows, 300)]), X)


def test_generators_over_streams_and_lazy_chunks(npk):
    npk.save({"f": X})

    def normalised():
        for batch in npk.stream_load("f", buffer_size=250):
            yield (batch - batch.mean()) / batch.std()

    for got, want in zip(normalised(), np.split(X, 4)):
        np.testing.assert_allclose(got, (want - want.mean()) / want.std(), rtol=1e-12)
    chunks = npk.load("f", lazy=True)
    same(np.concatenate([np.log(chunks[i:i + 300] * 2.0 + 1.0) for i in range(0, len(chunks), 300)]), np.log(X * 2 + 1))


def test_without_a_with_statement(here, recwarn):
    n = NumPack("d.npk", warn_no_context=False)
    n.open()
    n.save({"data": X})
    n.close()
    assert numpackfs.force_cleanup_windows_handles() and not recwarn.list


def test_strict_context_mode(here):
    n = NumPack("d.npk", strict_context_mode=True)
    with pytest.raises(RuntimeError, match="with"):
        n.open()
    with n:
        n.save({"data": X})
    with pytest.raises(RuntimeError):
        n.load("data")
    with n:
        same(n.load("data"), X)


def test_backend_info():
    info = numpackfs.get_backend_info()
    assert info["platform"] == platform.system() and info["is_windows"] is False


def test_smaller_dtypes_are_kept(npk):
    arrays = {"f": X.astype(np.float32), "l": np.arange(9).astype(np.int32), "c": np.arange(200).astype(np.uint8)}
    npk.save(arrays)
    for name, a in arrays.items():
        same(npk.load(name), a)


def test_explore_normalise_augment(here):
    """The advanced features' closing example, on fewer rows. It appends float64 rows to a float32 array, which the core operations
    forbid: ValueError here, and the rows are appended once they have the array's dtype."""
    x, labels = table(3000, 8, "f4"), RNG.integers(0, 10, 3000).astype("i4")
    with NumPack("d.npk", drop_if_exists=True) as n:
        n.save({"f": x, "l": labels})
    with NumPack("d.npk") as n:
        assert n.load("f", lazy=True)[:100].mean() == x[:100].mean()
        mean = np.mean([b.mean(dtype="f8") for b in n.stream_load("f", buffer_size=1000)])
        with n.writable_batch_mode() as wb:
            f = wb.load("f")
            for i in range(0, len(f), 1000):
                chunk = f[i:i + 1000]      # a view of the file
                chunk -= mean
                chunk /= chunk.std()
        for chunk in np.split(x, 3):
            chunk -= mean
            chunk /= chunk.std()
        same(n.load("f"), x)
        noise, more = RNG.standard_normal(x.shape) * 0.01, RNG.standard_normal(x.shape) * 0.05
        with n.batch_mode():
            f = n.load("f")
            f += noise
            n.save({"f": f})
            with pytest.raises(ValueError, match="float64"):
                n.append({"f": (f + more)[:100], "l": n.load("l")[:100]})
            n.append({"f": (f + more)[:100].astype("f4"), "l": n.load("l")[:100]})
        x += noise
    with NumPack("d.npk") as n:
        assert n.get_shape("f") == (3100, 8)
        same(n.load("f"), np.concatenate([x, (x + more)[:100].astype("f4")]))
        same(n.load("l"), np.concatenate([labels, labels[:100]]))


# --- packages ---------------------------------------------------------------------------------------------------------


def contents(path):
    with NumPack(path) as n:
        return {name: n.load(name) for name in n}


def test_pack_unpack_with_and_without_a_target(here):
    x = np.arange(20_000.0)
    with NumPack("d.npk") as n:
        n.save({"x": x})
    assert Path(pack("d.npk")).resolve() == here / "d.npkg"
    assert Path(pack("d.npk", "deep/mine.npkg")).resolve() == here / "deep" / "mine.npkg"
    plain = pack("d.npk", "plain.npkg", compression=False)
    assert isinstance(plain, Path) and plain.stat().st_size > x.nbytes > (here / "d.npkg").stat().st_size
    pack("d.npk", "d.npkg", overwrite=True)
    with pytest.raises(FileExistsError):
        unpack("d.npkg")      # d.npk is still there
    assert Path(unpack("d.npkg", overwrite=True)).resolve() == here / "d.npk"
    assert Path(unpack("d.npkg", "there/mine")).resolve() == here / "there" / "mine"
    assert Path(unpack("d.npkg", "dir/")).resolve() == here / "dir"
    assert Path(unpack("plain.npkg", verify=False)).resolve() == here / "plain.npk"
    for path in ("d.npk", "there/mine", "dir", "plain.npk"):
        same(contents(path)["x"], x)


@pytest.mark.parametrize("compression, name", [(True, "zstd"), (False, "none")])
def test_package_info(here, compression, name):
    with NumPack("d.npk") as n:
        n.save({"x": np.zeros((500, 4))})
    info = get_package_info(pack("d.npk", compression=compression))
    assert info["version"] in (1, 2) and info["compression"] == int(compression) and info["compression_name"].lower() == name
    assert info["file_count"] == len(info["files"]) and {"metadata.npkm", "data_x.npkd"} <= {f["name"] for f in info["files"]}
    assert {f["name"]: f["original_size"] for f in info["files"]}["data_x.npkd"] == 500 * 4 * 8
    assert info["total_original_size"] == sum((here / "d.npk" / f["name"]).stat().st_size for f in info["files"])
    assert info["compression_ratio"] == info["total_compressed_size"] / info["total_original_size"]
    assert all(f["compressed_size"] <= f["original_size"] for f in info["files"])


def test_moving_a_store_by_a_package(here):
    x = table(1000, 16, "f4")
    with NumPack("original.npk", drop_if_exists=True) as n:
        n.save({"embeddings": x, "labels": np.arange(1000)})
        n.drop("embeddings", indexes=[0, 100, 200])
    package = pack("original.npk", "backup/data.npkg")
    assert get_package_info(package)["file_count"] >= 4      # the metadata, two arrays, one array's bitmap
    back = unpack(package, "restored/data.npk")
    with NumPack(back) as n:
        assert n.get_shape("embeddings") == (997, 16)
        same(n.load("embeddings"), np.delete(x, [0, 100, 200], axis=0))
        same(n.load("labels"), np.arange(1000))


# --- vector search ----------------------------------------------------------------------------------------------------


def test_search_in_memory_and_in_a_store(here):
    x, queries = table(400, 16, "f4"), table(3, 16, "f4")
    with NumPack("v.npk") as n:
        n.save({"e": x})
    scores = (queries.astype("f8") @ x.T.astype("f8")) / np.linalg.norm(queries, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    rows, got = VectorEngine().top_k_search(queries[0], x, "cosine", k=10)
    assert rows.tolist() == best[0].tolist()
    np.testing.assert_allclose(got, scores[0, best[0]], rtol=1e-5)
    rows, got = VectorEngine().multi_query_top_k(queries, x, "cosine", k=10)
    assert rows.reshape(3, 10).tolist() == best.tolist()
    rows, again = StreamingVectorEngine().streaming_top_k_from_file(queries[0], "v.npk", "e", "cosine", k=10)
    assert rows.tolist() == best[0].tolist()
    np.testing.assert_allclose(again, got[:10], rtol=1e-5)
