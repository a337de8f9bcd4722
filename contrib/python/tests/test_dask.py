"""numpackfs.dask: arrays, searches and appends by a real cluster of processes give what one process gives."""

import contextlib
import os
import pickle
import re
import threading

import dask
import dask.array as da
import numpy as np
import pytest

import numpackfs.dask as npd
from harness import ROOT, same, wait_for
from numpackfs import NumPack, NumPackError, _source
from numpackfs.errors import ArrayNotFoundError
from numpackfs.vector_engine import StreamingVectorEngine

pytestmark = pytest.mark.filterwarnings("ignore:Running on a single-machine scheduler")

METRICS = ["cosine", "dot", "inner", "l2", "l2sq", "hamming", "jaccard", "kl", "js"]
WORKERS = 4


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    from distributed import Client, LocalCluster

    base = tmp_path_factory.mktemp("dask")
    slow = {f"distributed.comm.timeouts.{k}": "120s" for k in ("connect", "tcp")}
    with dask.config.set({"temporary-directory": str(base), **slow}):
        with LocalCluster(n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1",
                          memory_limit=0, local_directory=str(base)) as cluster, Client(cluster, timeout="120s") as c:
            c.wait_for_workers(WORKERS, timeout=120)
            yield c


@pytest.fixture(autouse=True)
def nothing_is_open_yet():
    npd.forget()
    yield
    npd.forget()      # a map would keep a mount busy


@pytest.fixture
def everybody_forgets(client):
    """Makes every worker open anew; and at the end give up what it has open of mounts."""
    def forget():
        client.run(npd.forget)

    forget()
    yield forget
    forget()


@pytest.fixture(params=["store", "mount"])
def reached(request, mount):
    """with reached(store) as path: the store's directory, or a mount of it."""
    @contextlib.contextmanager
    def reach(store):
        if request.param == "store":
            yield store
        else:
            with mount(store) as m:
                yield m.path

    return reach


def write(path, drop=(), **arrays):
    with NumPack(path, drop_if_exists=True) as n:
        n.save(arrays)
        for name in arrays if len(drop) else ():
            n.drop(name, list(drop))
    return path


def rng(seed=1):
    return np.random.default_rng(seed)


def bits(result):
    return [(a.dtype, a.shape, a.tobytes()) for a in result]


# --- arrays -----------------------------------------------------------------------------------------------------------

ARRAYS = {
    "f4": rng().standard_normal((1000, 7)).astype("f4"),
    "bool": rng().integers(0, 2, (300, 9)).astype(bool),
    "c16": rng().standard_normal((200, 2, 2)) * (1 + 2j),
    "f2": rng().standard_normal((150, 3)).astype("f2"),
    "i8": np.arange(-500, 500),
    "no_rows": np.zeros((0, 3), "u2"),
    "no_bytes": np.zeros((12, 0), "f8"),
    "a.b c%": np.arange(40, dtype="u1").reshape(20, 2),
}
KEYS = [slice(None), slice(3, -2), slice(None, None, -3), 5, (slice(1, 9), 0), (slice(None), slice(None, None, 2)), [3, 1, 1]]


@pytest.mark.parametrize("dropped", [0, 5])
def test_an_array_is_numpys(tmp_path, reached, dropped):
    """Shape, dtype and bytes, whole and sliced, in chunks of any size, deleted rows skipped."""
    store = tmp_path / "s.npk"
    names = ["f4", "bool", "i8", "no_bytes"] if dropped else list(ARRAYS)
    gone = [0, 2, 3, 7, 11][:dropped]
    write(store, gone, **{n: ARRAYS[n] for n in names})

    with reached(store) as path:
        for name in names:
            want = np.delete(ARRAYS[name], gone, axis=0) if dropped else ARRAYS[name]
            for how in ({}, {"chunk_rows": 1 if len(want) < 50 else 64}, {"chunk_bytes": "1KiB"}, {"chunk_rows": 10**9}):
                x = npd.array(path, name, **how)
                assert x.shape == want.shape and x.dtype == want.dtype and x.chunks[1:] == tuple((n,) for n in want.shape[1:])
                same(x.compute(scheduler="sync"), want)
            for key in KEYS if want.ndim == 2 and want.size else ():
                same(npd.array(path, name, chunk_rows=13)[key].compute(scheduler="threads"), want[key])
        npd.forget()


def test_names_in_mounts():
    from harness import component

    for name in ("x", "a/b", "", ".hidden", "%", "ü", "a\nb", "x\x7f", "bad\udcff"):
        assert _source.component(name) == component(name.encode("utf-8", "surrogateescape")), name


def test_chunks_are_the_mapping_itself_and_graphs_hold_no_rows(tmp_path):
    x = rng().standard_normal((100_000, 16))
    path = write(tmp_path / "s.npk", x=x)
    whole = npd.array(path, "x", chunk_rows=1000)
    assert len(pickle.dumps(whole)) < 4000
    block = whole.blocks[7].compute(scheduler="sync")
    assert np.shares_memory(block, npd.Source(path, "x")._open().gen.mapped) and not block.flags.writeable
    same(block, x[7000:8000])
    with NumPack(path) as n:
        n.drop("x", [50_000])
    dropped = npd.array(path, "x", chunk_rows=1000)
    block = dropped.blocks[7].compute(scheduler="sync")      # the deleted row is in another chunk
    assert np.shares_memory(block, npd.Source(path, "x")._open().gen.rows_at(0, 40_000))
    block = dropped.blocks[50].compute(scheduler="sync")
    assert not block.flags.writeable
    same(block, x[np.r_[50_001:51_001]])


def test_chunks_are_of_dasks_size(tmp_path):
    path = write(tmp_path / "s.npk", x=np.zeros((1000, 128), "f4"))
    with dask.config.set({"array.chunk-size": "100KiB"}):
        assert npd.array(path, "x").chunks[0] == (200,) * 5
    assert npd.array(path, "x").chunks[0] == (1000,)
    for how in ({"chunk_rows": 0}, {"chunk_rows": 5, "chunk_bytes": 5}):
        with pytest.raises(ValueError):
            npd.array(path, "x", **how)


def test_what_is_not_there(tmp_path):
    path = write(tmp_path / "s.npk", x=np.zeros(3))
    with pytest.raises(KeyError, match="Array not found: y'"):
        npd.array(path, "y")
    with pytest.raises(ValueError, match="is no NumPack store"):
        npd.array(tmp_path, "x")
    assert str(pickle.loads(pickle.dumps(ArrayNotFoundError("y")))) == str(ArrayNotFoundError("y"))


def test_a_cluster_computes(tmp_path, reached, client, everybody_forgets):
    x = rng().integers(-1000, 1000, (5000, 12))
    store = write(tmp_path / "s.npk", [17, 4999], x=x)
    want = np.delete(x, [17, 4999], axis=0)
    assert len(set(client.run(os.getpid).values()) - {os.getpid()}) == WORKERS

    with reached(store) as path:
        d = npd.array(path, "x", chunk_rows=700)
        same(d.sum(axis=0).compute(), want.sum(axis=0))
        same((d.T @ d).compute(), want.T @ want)
        same(d[::-7].compute(), want[::-7])
        everybody_forgets()
        npd.forget()


# --- what changes -----------------------------------------------------------------------------------------------------


def test_what_a_graph_sees(tmp_path, client, everybody_forgets):
    x = np.arange(3000).reshape(1000, 3)
    path = write(tmp_path / "s.npk", x=x)
    with NumPack(path) as n:
        before = npd.array(path, "x", chunk_rows=250)
        n.append({"x": np.zeros((10, 3), int)})
        same(before.compute(), x)                       # appended rows are not among them
        n.replace({"x": np.full((1, 3), -1)}, [5])
        x[5] = -1
        everybody_forgets()
        same((before + 0).compute(), x)                 # values show
        grown = npd.array(path, "x", chunk_rows=250)
        assert grown.name != before.name and grown.shape == (1010, 3)
        same(grown[-10:].compute(), np.zeros((10, 3), int))
        for change in (lambda: n.drop("x", [0]), lambda: n.update("x"), lambda: n.save({"x": x}), lambda: n.save({"x": x})):
            old = npd.array(path, "x", chunk_rows=250)
            change()
            everybody_forgets()
            with pytest.raises(npd.StaleError, match="x is not the one any more"):
                (old + 1).compute()
            n.append({"x": x[:100]})                    # it is not the number of rows that tells
            with pytest.raises(npd.StaleError):
                (old + 2).compute()
        with pytest.raises(npd.StaleError):
            (before + 3).compute()
        old = npd.array(path, "x", chunk_rows=50)
        n.drop("x")
        everybody_forgets()
        with pytest.raises(KeyError):
            (old + 4).compute()


def test_who_has_it_open_goes_on(tmp_path):
    """One process: its chunks come from the generation that it opened, whatever happened to the array since."""
    x = np.arange(3000).reshape(1000, 3)
    path = write(tmp_path / "s.npk", x=x)
    with NumPack(path) as n:
        d = npd.array(path, "x", chunk_rows=50)
        n.drop("x", slice(0, 500))
        n.update("x")
        n.save({"x": np.zeros((7, 7))})
        same(d.compute(scheduler="threads"), x)
        assert npd.array(path, "x").shape == (7, 7)


def test_what_a_graph_sees_through_a_mount(tmp_path, mount, client, everybody_forgets):
    x = np.arange(3000).reshape(1000, 3)
    store = write(tmp_path / "s.npk", x=x)
    with mount(store, ro=False) as m:
        d = npd.array(m.path, "x", chunk_rows=250)
        with open(m.control("x") / "append", "wb") as f:
            np.save(f, x[:9])
        same(d.compute(), x)
        assert npd.array(m.path, "x").shape == (1009, 3)
        everybody_forgets()
        same((d + 0).compute(), x)
        for change in ("drop", "compact"):
            d = npd.array(m.path, "x", chunk_rows=250)
            (m.control("x") / change).write_text("1\n")
            everybody_forgets()
            with pytest.raises(npd.StaleError):
                (d + 1).compute()
        d = npd.array(m.path, "x", chunk_rows=250)
        everybody_forgets()
        npd.forget()
    with NumPack(store) as n:
        n.save({"x": x + 1, "y": x})
    with mount(store, "watch=poll:20", at=m.path) as m:       # the mount is another one, and so is the array
        with pytest.raises(npd.StaleError):
            (d + 2).compute()
        d, y = npd.array(m.path, "x"), npd.array(m.path, "y", chunk_rows=300)
        same(d.compute(), x + 1)
        everybody_forgets()
        npd.forget()
        with NumPack(store) as n:
            n.drop("x", [0])
        wait_for("the mount follows", lambda: npd.array(m.path, "x").shape == (999, 3))
        everybody_forgets()
        with pytest.raises(npd.StaleError):
            (d + 3).compute()
        same(npd.array(m.path, "x").compute(), x[1:] + 1)
        same(y.compute(), x)
        everybody_forgets()
        npd.forget()
    with mount(store, at=m.path) as m:                         # another mount again, and the same array
        same(y.compute(), x)
        everybody_forgets()
        npd.forget()


# --- search -----------------------------------------------------------------------------------------------------------


def vectors(metric, dtype, n=700, dim=24):
    """Rows with copies among them, so that there are ties, and with NaN where the dtype has it."""
    r = rng(3)
    if dtype in ("u1", "?") or metric in ("hamming", "jaccard"):
        x = r.integers(0, 2 if dtype == "?" else 256, (n, dim)).astype(dtype)
    elif dtype.startswith("i"):
        x = r.integers(-90, 90, (n, dim)).astype(dtype)
    else:
        x = np.abs(r.standard_normal((n, dim))).astype(dtype)
        x[r.integers(0, n, 9), 1] = np.nan
        x[n // 2] = 0
    x[r.integers(0, n, 200)] = x[r.integers(0, 8, 200)]
    return x


CASES = [(m, d) for m in METRICS for d in {"hamming": ["u1", "?"], "jaccard": ["u1", "?"], "kl": ["f4", "f8"],
                                           "js": ["f4"]}.get(m, ["f4", "f8", "f2", "i1", "i8"])]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Stores of all the vectors there are to be searched, deleted rows among them: name -> the rows that are left."""
    path = tmp_path_factory.mktemp("searched") / "s.npk"
    arrays = {f"{m}_{d.replace('?', 'b1')}": vectors(m, d) for m, d in CASES}
    gone = list(range(5, 700, 31))
    write(path, gone, **arrays)
    return path, {k: np.delete(a, gone, axis=0) for k, a in arrays.items()}


def test_top_k_is_that_of_one_process(searched, reached, client, everybody_forgets):
    """Every metric and dtype, one query and several, few and all rows: the same bits, order of ties included."""
    store, left = searched

    with reached(store) as path:
        wanted, found = [], []
        for metric, dtype in CASES:
            name = f"{metric}_{dtype.replace('?', 'b1')}"
            x = left[name]
            queries = x[np.flatnonzero(~np.isnan(x.astype("f8")).any(axis=1))[[0, 9, 333]]]
            for q, k in ((queries[0], 10), (queries, 64), (queries[1], 10_000)):
                call = "streaming_multi_query_top_k" if q.ndim == 2 else "streaming_top_k_from_file"
                wanted.append(getattr(StreamingVectorEngine(), call)(q, store, name, metric, k))
                found.append(npd.top_k(q, path, name, metric, k, chunk_rows=170, compute=False))
        for got, want in zip(dask.compute(*found), wanted):
            assert bits(got) == bits(want)
        everybody_forgets()
        npd.forget()


def test_top_k_against_numpy(tmp_path, client):
    """Integers have exact scores: numpy tells the order, ties by the lower row."""
    x = rng().integers(-3, 4, (4000, 5)).astype("i2")
    path = write(tmp_path / "s.npk", x=x)
    for q in (x[7], np.array([0.5, 0, 0, 0, -0.25])):
        score = ((x - q.astype("f8"))**2).sum(axis=1)
        want = np.lexsort((np.arange(len(x)), score))[:300]
        for chunk_rows in (90, 333, 5000):
            rows, scores = npd.top_k(q, path, "x", "l2sq", 300, chunk_rows=chunk_rows)
            same(rows, want.astype("u8"))
            same(scores, score[want])


def test_the_schedulers_and_threads_agree(searched):
    path, left = searched
    q = left["l2_f4"][0]
    want = bits(StreamingVectorEngine().streaming_top_k_from_file(q, path, "l2_f4", "l2", 20))
    for scheduler in ("sync", "threads"):
        for threads in (1, 3):
            with dask.config.set(scheduler=scheduler):
                assert bits(npd.top_k(q, path, "l2_f4", "l2", 20, chunk_rows=64, threads=threads)) == want


def test_top_k_refuses(tmp_path):
    path = write(tmp_path / "s.npk", x=np.ones((10, 4), "f4"), v=np.ones(4), e=np.ones((0, 4)))
    q = np.ones(4, "f4")
    for query, name, metric, k, how in ((q, "x", "nobody", 1, {}), (q[:3], "x", "l2", 1, {}), (q, "x", "l2", 0, {}),
                                        (q, "v", "l2", 1, {}), (q * np.nan, "x", "l2", 1, {}), (q, "x", "hamming", 1, {}),
                                        (q, "x", "l2", 1, {"threads": 0}), (q, "x", "l2", 1, {"chunk_rows": 0})):
        with pytest.raises(ValueError):
            npd.top_k(query, path, name, metric, k, compute=False, **how)
    for query, name in ((q, "e"), (np.ones((0, 4)), "x")):
        rows, scores = npd.top_k(query, path, name, "l2", 3)
        assert rows.dtype == np.uint64 and scores.dtype == np.float64 and rows.shape == scores.shape == (0,)


# --- many stores ------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path):
    """Five stores with the rows of one array, one of them without any; and one store with all of them."""
    x = rng(5).integers(-2, 3, (900, 6)).astype("f4")
    for i, (a, b) in enumerate(((0, 100), (100, 101), (101, 101), (101, 600), (600, 900))):
        write(tmp_path / f"part{i}.npk", x=x[a:b], other=np.arange(i))
    write(tmp_path / "whole.npk", x=x)
    return tmp_path, x


def test_a_dataset_is_one_array(parts, client, mount, everybody_forgets):
    base, x = parts
    d = npd.Dataset(base / "part*.npk", "x")
    assert d.shape == x.shape and d.dtype == x.dtype and len(d) == 900 and len(d.stores) == 5
    assert d.starts.tolist() == [0, 100, 101, 101, 600]
    same(d.array(chunk_rows=64).compute(), x)
    with mount(base / "part3.npk") as m:
        some = npd.Dataset([base / "part4.npk", m.path], "x")
        same(some.array().compute(), np.concatenate([x[600:], x[101:600]]))
        everybody_forgets()
        npd.forget()
    none = npd.Dataset([base / "part2.npk"] * 2, "x")
    assert none.array().compute().shape == (0, 6)
    assert [a.shape for a in none.top_k(x[0], "l2")] == [(0,)] * 3


def test_a_datasets_top_k_is_that_of_the_whole(parts, client):
    base, x = parts
    d = npd.Dataset(str(base / "part?.npk"), "x")
    for q, metric, k in ((x[3], "l2", 25), (x[5:8] + 0.5, "cosine", 40), (x[0], "dot", 2000)):
        call = "streaming_multi_query_top_k" if q.ndim == 2 else "streaming_top_k_from_file"
        rows, scores = getattr(StreamingVectorEngine(), call)(q, base / "whole.npk", "x", metric, k)
        at, row, got = d.top_k(q, metric, k, chunk_rows=37)
        assert bits([d.starts[at] + row, got]) == bits([rows, scores])
        for i in range(0, len(at), 7):
            with NumPack(d.stores[at[i]]) as n:
                same(n.getitem("x", int(row[i])), x[rows[i]])


def test_a_dataset_refuses(parts):
    base, _ = parts
    write(base / "odd.npk", x=np.ones((3, 5), "f4"))
    with pytest.raises(ValueError, match="odd.npk: array x has rows of float32"):
        npd.Dataset([base / "part0.npk", base / "odd.npk"], "x")
    with pytest.raises(KeyError, match="part1.npk: has no array 'y'|part0.npk: has no array 'y'"):
        npd.Dataset(base / "part*.npk", "y")
    for stores in (base / "nobody*.npk", []):
        with pytest.raises(ValueError):
            npd.Dataset(stores, "x")


# --- append -----------------------------------------------------------------------------------------------------------


def numbered(blocks, rows, width=50):
    """Row j of block i holds i, j, and a word of both as often as there is room."""
    def block(info):
        i = info[0]["chunk-location"][0]
        j = np.arange(rows)[:, None]
        return np.concatenate([np.full((rows, 1), i), j, np.repeat(i * 1_000_003 + j, width - 2, axis=1)], axis=1)

    return da.map_blocks(lambda block_info=None: block({0: block_info[None]}), chunks=((rows,) * blocks, (width,)), dtype="i8",
                         meta=np.empty((0, 0), "i8"))


def whole_blocks(got, blocks, rows):
    """Each block is there once, its rows together and in order, and no row is torn."""
    assert got.shape == (blocks * rows, 50)
    torn = (got[:, 2:] != (got[:, 0] * 1_000_003 + got[:, 1])[:, None]).any(axis=1)
    assert not torn.any(), np.flatnonzero(torn)
    assert (got[:, 1].reshape(blocks, rows) == np.arange(rows)).all()
    assert (got[:, 0].reshape(blocks, rows) == got[::rows, 0][:, None]).all()
    assert sorted(got[::rows, 0]) == list(range(blocks))


def test_many_workers_append_through_one_mount(tmp_path, mount, client):
    """No row is lost, doubled or torn, and who reads meanwhile sees whole blocks only."""
    store, blocks, rows = write(tmp_path / "s.npk", x=np.zeros((0, 50), "i8")), 40, 101
    with mount(store, ro=False) as m:
        seen, stop = [], threading.Event()

        def look():
            while not stop.is_set():
                a = np.load(m.array("x"))
                seen.append((len(a), bool((a[:, 2:] == (a[:, 0] * 1_000_003 + a[:, 1])[:, None]).all())))

        reader = threading.Thread(target=look)
        reader.start()
        try:
            assert npd.append(numbered(blocks, rows), m.path, "x") == blocks * rows
        finally:
            stop.set()
            reader.join()
        assert os.listdir(m.path) == ["x.npy"]
        assert seen and all(whole and n % rows == 0 for n, whole in seen), seen
        assert [n for n, _ in seen] == sorted(n for n, _ in seen)
        whole_blocks(m.load("x"), blocks, rows)
        assert not m.last_errors()
    with NumPack(store) as n:
        whole_blocks(n.load("x"), blocks, rows)


def test_blocks_that_are_too_large_are_divided(tmp_path, mount):
    store = write(tmp_path / "s.npk", x=np.zeros((2, 50), "i8"))
    x = np.arange(1_000_000).reshape(20_000, 50)
    with mount(store, "ctl_max=1M", ro=False) as m, dask.config.set(scheduler="sync"):
        assert npd.append(da.from_array(x, chunks=(15_000, 20)), m.path, "x") == 20_000
        got = m.load("x")[2:]      # nobody promises an order of the blocks
        same(got[got[:, 0].argsort()], x)
        assert npd.append(da.zeros((0, 50), dtype="i8"), m.path, "x") == 0
        d = da.from_array(x[:100], chunks=(50, 50))
        assert npd.append(d[d[:, 0] > 999], m.path, "x") == 80      # nobody knows the chunks before


def test_append_refuses(tmp_path, mount):
    store = write(tmp_path / "s.npk", x=np.zeros((2, 5), "i8"))
    good = da.zeros((4, 5), dtype="i8", chunks=2)
    with pytest.raises(ValueError, match="no store is mounted there"):
        npd.append(good, store, "x")
    with mount(store) as m, dask.config.set(scheduler="sync"):
        with pytest.raises(NumPackError, match="Read-only file system"):
            npd.append(good, m.path, "x")
    with mount(store, ro=False) as m, dask.config.set(scheduler="sync"):
        with pytest.raises(KeyError):
            npd.append(good, m.path, "y")
        for bad in (good.astype("f8"), good[:, :4], good[:, 0]):
            with pytest.raises(ValueError, match="array x has rows of int64"):
                npd.append(bad, m.path, "x")
        assert m.load("x").shape == (2, 5)


def test_a_block_whose_task_runs_again(tmp_path, mount):
    """Its worker died after the rows were there: they are not appended twice. It died in between: the call says so."""
    store = write(tmp_path / "s.npk", x=np.zeros((0, 3)))
    block = rng().standard_normal((10, 3))
    with mount(store, ro=False) as m:
        assert [npd._append_block(block, str(m.path), "x", "t", 0) for _ in range(3)] == [10] * 3
        same(m.load("x"), block)
        (m.path / ".append-t-1").write_bytes(b"")
        with pytest.raises(NumPackError, match="block 1 .* is not known"):
            npd._append_block(block, str(m.path), "x", "t", 1)
        same(m.load("x"), block)
        for i in (0, 1):
            (m.path / f".append-t-{i}").unlink()


def test_the_page_about_scaling(tmp_path, mount, monkeypatch):
    """Its Python blocks run as they stand, one after the other."""
    x = rng().standard_normal((2500, 8)).astype("f4")
    write(tmp_path / "data.npk", x=x)
    (tmp_path / "parts").mkdir()
    for i in range(3):
        write(tmp_path / "parts" / f"{i}.npk", x=x[:100 * i + 1])
    (tmp_path / "mnt").mkdir()
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "contrib/python/SCALING.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    with mount(write(tmp_path / "mounted.npk", x=x[:1]), at=tmp_path / "mnt", ro=False) as m, dask.config.set(scheduler="threads"):
        names = {}
        exec("".join(blocks), names)
        got = m.load("x")
        same(got, np.concatenate([x[:1], x[:1000] * 2]))
        same(names["rows"], StreamingVectorEngine().streaming_top_k_from_file(names["mean"].astype("f4"), "data.npk", "x", "cosine", 10)[0])
        assert names["parts"].shape == (303, 8) and len(names["row"]) == 5
        names.clear()
