"""Exact vector search: in memory (VectorEngine) and in a store (StreamingVectorEngine).

Metrics, in any case: cosine (cos, cosine_similarity), dot (dot_product, dotproduct) and inner (inner_product) are similarities,
best is highest; l2 (euclidean, l2_distance), l2sq (l2_squared, squared_euclidean), hamming, jaccard, kl (kl_divergence) and js
(js_divergence) are distances, best is lowest. hamming (differing bits) and jaccard (1 - and/or) are of uint8 rows as packed bits,
or of bool rows. cosine with a zero vector is 0; kl and js are in nats, js is the square root of the divergence.

Scores are float64 over the stored values: float16, float32, float64 and 8-bit integers are taken as they are, other integers and
pairs of different dtypes as float64. Results come best first, equal scores by the lower row, NaN last. min(k, rows) of them: an
empty set of candidates gives an empty result.

Errors of all calls: ValueError for an unknown metric, other widths, k < 1, a dtype that the metric does not have, a NaN in a query.
"""

from __future__ import annotations

import contextlib
import os
from ctypes import byref, c_double, c_int, c_void_p
from pathlib import Path
from typing import Iterator, Optional, Tuple, Union

import numpy as np

from . import _lib, _store
from ._lib import CODES, SIMILARITIES, Hits, Progress, Queries, Search, check, err, lib
from .errors import ArrayNotFoundError

_BITS = frozenset((5, 6))          # hamming, jaccard
_FLOATS_ONLY = frozenset((7, 8))   # kl, js
_BLOCK = 8 << 20                   # bytes of rows that are converted at a time

Result = Tuple[np.ndarray, np.ndarray]


def _metric(name: str) -> int:
    if not isinstance(name, str):
        raise TypeError(f"a metric is a str, not {type(name).__name__}")
    out = c_int()
    check(lib.npk_metric_parse(name.encode(), byref(out), err()))
    return out.value


def is_similarity(metric: str) -> bool:
    """Whether higher scores are better. ValueError: an unknown metric."""
    return _metric(metric) in SIMILARITIES


def _vectors(a: np.ndarray, ndim: int, what: str) -> np.ndarray:
    a = np.asarray(a)
    if a.ndim != ndim:
        raise ValueError(f"{what} has {a.ndim} dimensions, not {ndim}")
    if a.dtype.newbyteorder("=") in CODES:
        a = a.astype(a.dtype.newbyteorder("="), copy=False)
    if a.dtype not in CODES or a.dtype.kind == "c":
        raise ValueError(f"{what} is {a.dtype}, which has no metric")
    return np.ascontiguousarray(a)


def _k(k: int) -> int:
    import operator

    k = operator.index(k)
    if k < 1:
        raise ValueError(f"k is {k}, not at least 1")
    return min(k, 2**63)


def _match(q: np.ndarray, dtype: np.dtype, metric: int) -> Tuple[np.ndarray, np.dtype]:
    """The query and the dtype in which it meets vectors of `dtype`: that dtype itself where it loses nothing."""
    if metric in _BITS:
        if q.dtype != dtype:
            raise ValueError(f"hamming and jaccard want two vectors of one dtype, not {q.dtype} and {dtype}")
        return q, dtype
    if dtype.kind == "f" or metric not in _FLOATS_ONLY:
        if q.dtype == dtype:
            return q, dtype
        if dtype.kind != "b" and q.dtype.kind != "b":
            with np.errstate(all="ignore"):
                cast = q.astype(dtype)
                exact = cast.astype(np.float64) == q if q.dtype.kind == "f" else cast == q
                if exact.all() and (q.dtype.itemsize < 8 or q.dtype.kind == "f" or dtype.itemsize == 8):
                    return cast, dtype
    return q.astype(np.float64), np.dtype(np.float64)


def _queries(q: np.ndarray, dim: int) -> Queries:
    return Queries(CODES[q.dtype], q.ctypes.data, len(q) if q.ndim == 2 else 1, dim)


def _take(hits: Hits) -> Tuple[np.ndarray, np.ndarray]:
    n = hits.nq * hits.k
    try:
        if n == 0:
            return np.zeros(0, np.uint64), np.zeros(0)
        return np.ctypeslib.as_array(hits.row, (n,)).copy(), np.ctypeslib.as_array(hits.score, (n,)).copy()
    finally:
        lib.npk_hits_fini(byref(hits))


def _search_blocks(q: np.ndarray, blocks: Iterator[np.ndarray], dim: int, metric: int, k: int) -> Result:
    """Blocks of rows in the query's dtype, from row 0 on."""
    top, first = c_void_p(), 0
    check(lib.npk_topk_open(byref(top), byref(_queries(q, dim)), metric, k, err()))
    try:
        for block in blocks:
            check(lib.npk_topk_feed(top, block.ctypes.data, len(block), first, err()))
            first += len(block)
        hits = Hits()
        check(lib.npk_topk_result(top, byref(hits), err()))
        return _take(hits)
    finally:
        lib.npk_topk_close(top)


def _search_rows(gen: _lib.Gen, q: np.ndarray, metric: int, k: int, rows: Optional[str] = None, threads: int = 0) -> Result:
    """Rows of a generation in the query's dtype; `rows`: which, as "from:to", None: all."""
    how = Search(metric, k, rows.encode() if rows else None, threads, Progress(), None)
    hits = Hits()
    check(lib.npk_search(gen.ptr, byref(_queries(q, gen.shape[1])), byref(how), byref(hits), err()))
    return _take(hits)


def _pieces(a: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    if a.dtype == dtype:
        yield a
        return
    n = max(1, _BLOCK // max(1, a.shape[1] * dtype.itemsize))
    for at in range(0, len(a), n):
        yield a[at:at + n].astype(dtype)


def _width(q: np.ndarray, dim: int) -> None:
    if q.shape[-1] != dim:
        raise ValueError(f"Dimension mismatch: the query has {q.shape[-1]} elements, the candidates have {dim}")


class VectorEngine:
    """Search among vectors in memory. Has no state; any thread may use it, and the GIL is released while it works."""

    def capabilities(self) -> str:
        """The library and its version."""
        level = os.environ.get("NPKV_LEVEL")
        return f"libnumpack {lib.npk_version().decode()}" + (f", NPKV_LEVEL={level}" if level else "")

    def compute_metric(self, a: np.ndarray, b: np.ndarray, metric: str) -> float:
        """The metric of two vectors (dim,)."""
        m = _metric(metric)
        a, b = _vectors(a, 1, "a"), _vectors(b, 1, "b")
        _width(a, len(b))
        a, dtype = _match(a, b.dtype, m)
        b = b.astype(dtype, copy=False)
        out = c_double()
        check(lib.npk_pair(m, CODES[dtype], a.ctypes.data, b.ctypes.data, len(a), byref(out), err()))
        return out.value

    def batch_compute(self, query: np.ndarray, candidates: np.ndarray, metric: str) -> np.ndarray:
        """float64 (n,): the metric of `query` (dim,) and each of `candidates` (n, dim)."""
        m = _metric(metric)
        q, x = _vectors(query, 1, "query"), _vectors(candidates, 2, "candidates")
        _width(q, x.shape[1])
        out = np.empty(len(x))
        if len(x):
            q, dtype = _match(q, x.dtype, m)
            rows, scores = _search_blocks(q, _pieces(x, dtype), x.shape[1], m, len(x))
            out[rows] = scores
        return out

    def top_k_search(self, query: np.ndarray, candidates: np.ndarray, metric: str, k: int) -> Result:
        """(uint64 (m,), float64 (m,)): rows of `candidates` (n, dim) that are best for `query` (dim,), and their scores;
        m = min(k, n)."""
        q = _vectors(query, 1, "query")
        return self._top_k(q, candidates, metric, k)

    def multi_query_top_k(self, queries: np.ndarray, candidates: np.ndarray, metric: str, k: int) -> Result:
        """The same for each of `queries` (nq, dim), in one pass: flat arrays of nq * m, one query after the other."""
        return self._top_k(_vectors(queries, 2, "queries"), candidates, metric, k)

    def _top_k(self, q: np.ndarray, candidates: np.ndarray, metric: str, k: int) -> Result:
        m, k = _metric(metric), _k(k)
        x = _vectors(candidates, 2, "candidates")
        _width(q, x.shape[1])
        if len(x) == 0 or (q.ndim == 2 and len(q) == 0):
            return np.zeros(0, np.uint64), np.zeros(0)
        q, dtype = _match(q, x.dtype, m)
        return _search_blocks(q, _pieces(x, dtype), x.shape[1], m, min(k, len(x)))

    def segmented_top_k_search(self, query: np.ndarray, candidates: np.ndarray, metric: str, global_offset: int,
                               current_indices: np.ndarray, current_scores: np.ndarray, k: int,
                               is_similarity: bool) -> Result:
        """The k best of what was found so far (`current_indices`, `current_scores`, both (j,)) and of `candidates` (n, dim),
        whose first row has the number `global_offset`. ValueError also when `is_similarity` is not what the metric is."""
        if bool(is_similarity) != (_metric(metric) in SIMILARITIES):
            raise ValueError(f"is_similarity={is_similarity} does not fit the metric {metric}")
        rows, scores = self.top_k_search(query, candidates, metric, k)
        return merge([(np.asarray(current_indices, np.uint64), np.asarray(current_scores, np.float64)),
                      (rows + np.uint64(global_offset), scores)], _k(k), bool(is_similarity))


def merge(parts: list, k: int, similarity: bool) -> Result:
    """The k best of several results (rows (j,), scores (j,)) with different rows; best first, equal scores by the lower row, NaN
    last."""
    rows = np.concatenate([np.asarray(r, np.uint64) for r, _ in parts])
    scores = np.concatenate([np.asarray(s, np.float64) for _, s in parts])
    order = np.lexsort((rows, -scores if similarity else scores))[:k]      # numpy sorts NaN last, also behind -
    return rows[order], scores[order]


class StreamingVectorEngine:
    """Search among the rows of an array in a store, straight from the mapped file, with all CPUs. Rows are logical: deleted ones
    are neither scored nor counted. `batch_size` is taken for compatibility (it must be above 0); results do not depend on it.

    ValueError also for a missing store or array.
    """

    def capabilities(self) -> str:
        return VectorEngine().capabilities()

    @contextlib.contextmanager
    def _gen(self, npk_dir: Union[str, Path], array_name: str, batch_size: int) -> Iterator[_lib.Gen]:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, not at least 1")
        with _store.reading(npk_dir) as store:
            try:
                gen = store.gen(array_name)
            except ArrayNotFoundError:
                raise ValueError(f"{npk_dir}: has no array {array_name!r}") from None
            if len(gen.shape) != 2:
                raise ValueError(f"array {array_name} has {len(gen.shape)} dimensions, not 2")
            yield gen

    def streaming_top_k_from_file(self, query: np.ndarray, npk_dir: Union[str, Path], array_name: str, metric: str, k: int,
                                  batch_size: int = 10000) -> Result:
        """(uint64 (m,), float64 (m,)): the rows of the array (n, dim) that are best for `query` (dim,)."""
        return self._search(_vectors(query, 1, "query"), npk_dir, array_name, metric, k, batch_size)

    def streaming_multi_query_top_k(self, queries: np.ndarray, npk_dir: Union[str, Path], array_name: str, metric: str, k: int,
                                    batch_size: int = 10000) -> Result:
        """The same for each of `queries` (nq, dim), in one pass: flat arrays of nq * m, one query after the other."""
        return self._search(_vectors(queries, 2, "queries"), npk_dir, array_name, metric, k, batch_size)

    def _search(self, q: np.ndarray, npk_dir: Union[str, Path], name: str, metric: str, k: int, batch_size: int) -> Result:
        m, k = _metric(metric), _k(k)
        with self._gen(npk_dir, name, batch_size) as gen:
            dim = gen.shape[1]
            _width(q, dim)
            if gen.rows == 0 or (q.ndim == 2 and len(q) == 0):
                return np.zeros(0, np.uint64), np.zeros(0)
            q, dtype = _match(q, gen.dtype, m)
            if dtype != gen.dtype:
                return _search_blocks(q, _converted(gen, dtype), dim, m, min(k, gen.rows))
            return _search_rows(gen, q, m, k)

    def streaming_batch_compute(self, query: np.ndarray, npk_dir: Union[str, Path], array_name: str, metric: str,
                                batch_size: int = 10000) -> np.ndarray:
        """float64 (n,): the metric of `query` (dim,) and each row of the array (n, dim)."""
        m, q = _metric(metric), _vectors(query, 1, "query")
        with self._gen(npk_dir, array_name, batch_size) as gen:
            _width(q, gen.shape[1])
            q, dtype = _match(q, gen.dtype, m)
            out = np.empty(gen.rows)
            if gen.rows == 0:
                return out
            if dtype == gen.dtype:
                check(lib.npk_scores(gen.ptr, byref(_queries(q, gen.shape[1])), m, 0, gen.rows, out.ctypes.data, err()))
                return out
            at, engine = 0, VectorEngine()
            for block in _converted(gen, dtype):
                out[at:at + len(block)] = engine.batch_compute(q, block, metric)
                at += len(block)
            return out


def _converted(gen: _lib.Gen, dtype: np.dtype) -> Iterator[np.ndarray]:
    n = max(1, _BLOCK // max(1, gen.shape[1] * dtype.itemsize))
    for at in range(0, gen.rows, n):
        yield gen.read(at, min(n, gen.rows - at)).astype(dtype)
