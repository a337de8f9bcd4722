"""Agreement with libraries that people use for this: scipy's distances, faiss' exact indexes."""

import faiss
import numpy as np
import pytest
from scipy import special
from scipy.spatial import distance

from npkwrite import Spec

METRICS = {"l2": "euclidean", "l2sq": "sqeuclidean", "js": "jensenshannon", "cosine": "cosine"}


def clustered(rng, rows, dim):
    """As embeddings lie: clusters of different sizes and widths, on the unit sphere."""
    centres = rng.standard_normal((30, dim))
    x = centres[rng.zipf(1.5, rows) % 30] + rng.standard_normal((rows, dim)) * rng.uniform(0.02, 0.6, (rows, 1))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("metric", list(METRICS))
def test_scipy(opened, metric):
    rng = np.random.default_rng(1)
    x = clustered(rng, 2000, 48)
    if metric == "js":
        x = np.abs(x)
        x /= x.sum(1, keepdims=True)
    want = distance.cdist(x[:20].astype(float), x.astype(float), METRICS[metric])
    if metric == "cosine":
        want = 1 - want
    a = opened(x)
    tolerance = {"rtol": 1e-5, "atol": 1e-7} if metric == "js" else {"rtol": 1e-9, "atol": 1e-9}
    got = np.array([a.scores(q, metric, 0, 2000) for q in x[:20]])
    if metric == "js":      # scipy divides by the sum, which in float32 is not quite 1
        tolerance["atol"] = 3e-4
    np.testing.assert_allclose(got, want, **tolerance)


def test_scipy_entropy(opened):
    """kl and js of distributions that are normalised in float64."""
    rng = np.random.default_rng(2)
    x = rng.dirichlet(np.full(64, 0.3), 800) + 1e-12
    x /= x.sum(1, keepdims=True)
    a = opened(x)
    kl = special.rel_entr(x[:10, None], x[None]).sum(2)
    np.testing.assert_allclose([a.scores(q, "kl", 0, 800) for q in x[:10]], kl, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(a.search(x[:10], "kl", 5)[0], kl.argsort(1, kind="stable")[:, :5])
    np.testing.assert_allclose([a.scores(q, "js", 0, 800) for q in x[:10]], distance.cdist(x[:10], x, "jensenshannon"),
                               rtol=1e-5, atol=1e-7)


def test_scipy_bits(opened):
    rng = np.random.default_rng(3)
    bits = rng.random((700, 256)) < rng.uniform(0, 1, (700, 1))
    a, b = opened(np.packbits(bits, axis=1)), opened(bits)
    for metric, name in ("hamming", "hamming"), ("jaccard", "jaccard"):
        want = distance.cdist(bits[:9], bits, name) * (256 if metric == "hamming" else 1)
        for array, q in (a, np.packbits(bits[:9], axis=1)), (b, bits[:9]):
            np.testing.assert_allclose([array.scores(v, metric, 0, 700) for v in q], want, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("nq", [1, 100])
@pytest.mark.parametrize("metric", ["l2sq", "inner"])
def test_faiss(opened, metric, nq):
    """The same rows, but where faiss' float32 cannot tell two of them apart."""
    rng = np.random.default_rng(4)
    x = clustered(rng, 20000, 96)
    q = clustered(rng, nq, 96)
    index = (faiss.IndexFlatL2 if metric == "l2sq" else faiss.IndexFlatIP)(96)
    index.add(x)
    their_scores, theirs = index.search(q, 10)
    rows, scores = opened(Spec(x, segment_rows=7000)).search(q, metric, 10, threads=2)
    np.testing.assert_allclose(scores, their_scores, rtol=1e-4, atol=2e-5)
    differ = rows != theirs
    assert differ.mean() < 0.02
    exact = ((x[theirs.astype(int)].astype(float) - q[:, None]) ** 2).sum(2) if metric == "l2sq" else \
        (x[theirs.astype(int)].astype(float) * q[:, None]).sum(2)
    assert (exact >= scores - 1e-9).all() if metric == "l2sq" else (exact <= scores + 1e-9).all()


def test_faiss_bits(opened):
    rng = np.random.default_rng(5)
    x = rng.integers(0, 256, (30000, 32), np.uint8)
    index = faiss.IndexBinaryFlat(256)
    index.add(x)
    distances, _ = index.search(x[:50], 10)
    _, scores = opened(x).search(x[:50], "hamming", 10)
    np.testing.assert_array_equal(scores, distances)
