"""VectorEngine and StreamingVectorEngine against float64 arithmetic, and against one another."""

import numpy as np
import pytest

from npkwrite import Spec, write_store
from numpackfs import NumPack
from numpackfs.vector_engine import StreamingVectorEngine, VectorEngine, is_similarity, merge

ALIASES = {"cosine": ["cos", "cosine_similarity"], "dot": ["dot_product", "dotproduct"], "inner": ["inner_product"],
           "l2": ["euclidean", "l2_distance"], "l2sq": ["l2_squared", "squared_euclidean"], "hamming": [], "jaccard": [],
           "kl": ["kl_divergence"], "js": ["js_divergence"]}


def truth(metric, q, x):
    """float64, straight from the definitions."""
    if metric in ("hamming", "jaccard"):
        q, x = (np.unpackbits(a, axis=-1) if a.dtype == np.uint8 else a for a in (q, x))
        both, either = (q & x).sum(-1, dtype=float), (q | x).sum(-1, dtype=float)
        return (q != x).sum(-1).astype(float) if metric == "hamming" else 1 - np.where(either > 0, both / np.maximum(either, 1), 1)
    q, x = np.asarray(q, float), np.asarray(x, float)
    if metric in ("dot", "inner"):
        return x @ q
    if metric == "cosine":
        norm = np.linalg.norm(x, axis=-1) * np.linalg.norm(q)
        return np.where(norm > 0, x @ q / np.where(norm > 0, norm, 1), 0)
    if metric in ("l2", "l2sq"):
        d = ((x - q) ** 2).sum(-1)
        return d if metric == "l2sq" else np.sqrt(d)

    def kl(a, b):
        with np.errstate(all="ignore"):
            return np.where(a > 0, a * np.log(a / b), 0).sum(-1)

    return kl(q, x) if metric == "kl" else np.sqrt(np.maximum(0, (kl(q, (q + x) / 2) + kl(x, (q + x) / 2)) / 2))


def data(metric, dtype, n, dim, seed=0):
    rng = np.random.default_rng(seed)
    if metric in ("hamming", "jaccard"):
        return rng.integers(0, 256, (n, dim)).astype("u1") if dtype != "bool" else rng.random((n, dim)) < 0.4
    if metric in ("kl", "js"):
        return rng.dirichlet(np.ones(dim), n).astype(dtype)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0 if dtype[0] == "u" else -100, 100, (n, dim)).astype(dtype)
    return rng.standard_normal((n, dim)).astype(dtype)


CASES = [(m, t) for m in ("cosine", "dot", "inner", "l2", "l2sq")
         for t in ("float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "uint32")]
CASES += [(m, t) for m in ("hamming", "jaccard") for t in ("uint8", "bool")]
CASES += [(m, t) for m in ("kl", "js") for t in ("float16", "float32", "float64")]


def best(scores, k, metric):
    order = np.lexsort((np.arange(len(scores)), -scores if is_similarity(metric) else scores))
    return order[:k]


@pytest.mark.parametrize("metric, dtype", CASES)
def test_in_memory(metric, dtype):
    x = data(metric, dtype, 200, 24)
    q = data(metric, dtype, 3, 24, seed=1)
    e = VectorEngine()
    close = {"rtol": 1e-5, "atol": 1e-6}
    for name in [metric, metric.upper(), *ALIASES[metric]]:
        np.testing.assert_allclose(e.batch_compute(q[0], x, name), truth(metric, q[0], x), **close)
    got = e.compute_metric(q[0], x[0], metric)
    assert isinstance(got, float)
    np.testing.assert_allclose(got, truth(metric, q[0], x[:1])[0], **close)
    scores = e.batch_compute(q[0], x, metric)
    assert scores.dtype == np.float64
    rows, s = e.top_k_search(q[0], x, metric, 10)
    assert rows.dtype == np.uint64 and s.dtype == np.float64
    np.testing.assert_array_equal(rows, best(scores, 10, metric))
    np.testing.assert_array_equal(s, scores[rows])
    all_rows, all_s = e.multi_query_top_k(q, x, metric, 10)
    assert all_rows.shape == all_s.shape == (30,)
    for i in range(3):
        one = e.top_k_search(q[i], x, metric, 10)
        np.testing.assert_array_equal(all_rows[10 * i:10 * i + 10], one[0])
        np.testing.assert_array_equal(all_s[10 * i:10 * i + 10], one[1])
    assert len(e.top_k_search(q[0], x, metric, 1000)[0]) == 200
    # In segments: the same as at once.
    rows, s = np.zeros(0, np.uint64), np.zeros(0)
    for at in range(0, 200, 37):
        rows, s = e.segmented_top_k_search(q[0], x[at:at + 37], metric, at, rows, s, 10, is_similarity(metric))
    np.testing.assert_array_equal(rows, best(scores, 10, metric))
    np.testing.assert_array_equal(s, scores[rows])


@pytest.mark.parametrize("metric, dtype", CASES)
@pytest.mark.parametrize("layout", ["plain", "deleted", "segments"])
def test_from_a_store(tmp_path, metric, dtype, layout):
    """Deleted rows are not there, and rows count without them."""
    x = data(metric, dtype, 200, 24)
    deleted = list(range(0, 200, 7))
    spec = {"plain": Spec(x), "deleted": Spec(x, deleted=deleted), "segments": Spec(x, segment_rows=64)}[layout]
    path, _ = write_store(tmp_path / "s", {"x": spec})
    x = np.delete(x, deleted, axis=0) if layout == "deleted" else x
    q = data(metric, dtype, 3, 24, seed=1)
    memory, store = VectorEngine(), StreamingVectorEngine()
    for batch_size in (1, 33, 10_000):
        got = store.streaming_top_k_from_file(q[0], path, "x", metric, 10, batch_size=batch_size)
        for a, b in zip(got, memory.top_k_search(q[0], x, metric, 10)):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(store.streaming_multi_query_top_k(q, path, "x", metric, 10), memory.multi_query_top_k(q, x, metric, 10)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(store.streaming_batch_compute(q[0], path, "x", metric), memory.batch_compute(q[0], x, metric))


@pytest.mark.parametrize("q_dtype, x_dtype", [("float64", "float32"), ("float32", "float64"), ("int64", "float32"), ("float64", "int8"),
                                              ("int8", "uint8"), ("uint64", "int64"), ("float16", "int32"), (">f4", "float32")])
def test_mixed_dtypes_are_computed_in_float64(tmp_path, q_dtype, x_dtype):
    x = data("l2", x_dtype, 50, 8)
    with NumPack(tmp_path / "s.npk") as n:
        n.save({"x": x})
        for fraction in (0, 0.123456789012345):      # one that the rows' dtype has, one that it has not
            q = (np.arange(8) + (fraction if np.dtype(q_dtype).kind == "f" else 0)).astype(q_dtype)
            want = truth("l2sq", q, x)
            np.testing.assert_allclose(VectorEngine().batch_compute(q, x, "l2sq"), want, rtol=1e-12)
            np.testing.assert_allclose(StreamingVectorEngine().streaming_batch_compute(q, n._filename, "x", "l2sq"), want, rtol=1e-12)
            rows, scores = StreamingVectorEngine().streaming_top_k_from_file(q, n._filename, "x", "l2sq", 5)
            np.testing.assert_array_equal(rows, best(want, 5, "l2sq"))
            np.testing.assert_allclose(scores, want[rows], rtol=1e-12)
            np.testing.assert_array_equal(VectorEngine().top_k_search(q, x, "l2sq", 5)[0], rows)


def test_settled_edges():
    e, zero, one = VectorEngine(), np.zeros(4, "f4"), np.ones(4, "f4")
    assert e.compute_metric(zero, one, "cosine") == 0 and e.compute_metric(zero, zero, "cosine") == 0
    assert e.compute_metric(np.zeros(4, "u1"), np.zeros(4, "u1"), "jaccard") == 0
    rows, scores = e.top_k_search(one, np.zeros((0, 4), "f4"), "l2", 3)
    assert rows.shape == scores.shape == (0,) and rows.dtype == np.uint64
    assert e.batch_compute(one, np.zeros((0, 4), "f4"), "l2").shape == (0,)
    x = np.array([[np.nan] * 4, [1] * 4, [2] * 4, [1] * 4], "f4")
    assert e.top_k_search(one, x, "cosine", 4)[0].tolist() == [1, 2, 3, 0]
    assert e.top_k_search(one, x, "l2", 4)[0].tolist() == [1, 3, 2, 0]
    assert isinstance(e.capabilities(), str)


@pytest.mark.parametrize("call", [
    lambda e, q, x: e.compute_metric(q, q, "nope"), lambda e, q, x: e.compute_metric(q, q[:3], "l2"),
    lambda e, q, x: e.batch_compute(q[:3], x, "l2"), lambda e, q, x: e.top_k_search(q, x, "l2", 0),
    lambda e, q, x: e.top_k_search(q, x, "l2", -1), lambda e, q, x: e.top_k_search(q, x, "hamming", 1),
    lambda e, q, x: e.top_k_search(q.astype("u1"), x, "hamming", 1), lambda e, q, x: e.top_k_search(x, x, "l2", 1),
    lambda e, q, x: e.top_k_search(q, q, "l2", 1), lambda e, q, x: e.top_k_search(q.astype("c8"), x, "l2", 1),
    lambda e, q, x: e.top_k_search(q * np.nan, x, "l2", 1), lambda e, q, x: e.multi_query_top_k(q, x, "l2", 1),
    lambda e, q, x: e.segmented_top_k_search(q, x, "l2", 0, [], [], 1, True)])
def test_refused(call):
    with pytest.raises(ValueError):
        call(VectorEngine(), np.ones(4, "f4"), np.ones((5, 4), "f4"))


def test_a_missing_store_or_array_is_a_value_error(tmp_path):
    e, q = StreamingVectorEngine(), np.ones(2, "f4")
    with pytest.raises(ValueError):
        e.streaming_top_k_from_file(q, tmp_path / "no.npk", "x", "l2", 1)
    assert not (tmp_path / "no.npk").exists()
    with NumPack(tmp_path / "s.npk") as n:
        n.save({"x": np.ones((3, 2), "f4"), "v": np.ones(2, "f4")})
        for args in [("q", "l2", 1), ("v", "l2", 1), ("x", "l2", 0), ("x", "nope", 1)]:
            with pytest.raises(ValueError):
                e.streaming_top_k_from_file(q, n._filename, *args)
        with pytest.raises(ValueError):
            e.streaming_top_k_from_file(q, n._filename, "x", "l2", 1, batch_size=0)
        n.append({"x": np.zeros((1, 2), "f4")})      # a search sees what this process changed
        assert e.streaming_top_k_from_file(q * 0, n._filename, "x", "l2", 1)[0].tolist() == [3]


def test_merge():
    parts = [(np.array([5, 1], np.uint64), np.array([1.0, np.nan])), (np.array([0, 7], np.uint64), np.array([1.0, 3.0]))]
    assert merge(parts, 3, False)[0].tolist() == [0, 5, 7]
    assert merge(parts, 9, True)[0].tolist() == [7, 0, 5, 1]
