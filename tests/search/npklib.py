"""libnumpack.so through ctypes: just what searching needs. Errors become NpkError with the errno and the sentence."""

import ctypes
import errno
import os
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("NPK_BUILD", "build/release")).resolve()

METRICS = ["cosine", "dot", "inner", "l2", "l2sq", "hamming", "jaccard", "kl", "js"]
SIMILARITIES = METRICS[:3]
DTYPES = ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
          "complex64", "complex128"]


class Err(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("msg", ctypes.c_char * 512)]


class Queries(ctypes.Structure):
    _fields_ = [("dtype", ctypes.c_uint), ("data", ctypes.c_void_p), ("nq", ctypes.c_size_t), ("dim", ctypes.c_uint64)]


class Hits(ctypes.Structure):
    _fields_ = [("nq", ctypes.c_size_t), ("k", ctypes.c_size_t), ("row", ctypes.POINTER(ctypes.c_uint64)),
                ("score", ctypes.POINTER(ctypes.c_double))]


Progress = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)


class Search(ctypes.Structure):
    _fields_ = [("metric", ctypes.c_int), ("k", ctypes.c_uint64), ("rows", ctypes.c_char_p), ("threads", ctypes.c_uint),
                ("progress", Progress), ("ctx", ctypes.c_void_p)]


class NpkError(Exception):
    def __init__(self, rc, err):
        self.errno = -rc
        self.text = err.msg.decode()
        super().__init__(f"{errno.errorcode.get(-rc, -rc)}: {self.text}")


class Library:
    def __init__(self, build=None):
        self.lib = ctypes.CDLL(str(pathlib.Path(build or BUILD) / "libnumpack.so"))
        for name in ("npk_store_close", "npk_array_put", "npk_gen_put", "npk_hits_fini", "npk_topk_close"):
            getattr(self.lib, name).restype = None
        self.lib.npk_metric_name.restype = ctypes.c_char_p
        self.lib.npk_metric_is_similarity.restype = ctypes.c_bool

    def call(self, name, *args):
        err = Err()
        rc = getattr(self.lib, name)(*args, ctypes.byref(err))
        if rc != 0:
            assert rc == -err.code, (rc, err.code, err.msg)
            assert err.msg and b"\n" not in err.msg, err.msg
            raise NpkError(rc, err)

    def metric(self, name):
        out = ctypes.c_int()
        self.call("npk_metric_parse", name.encode(), ctypes.byref(out))
        return out.value

    def hits(self, h):
        n = h.nq * h.k
        rows = np.ctypeslib.as_array(h.row, (n,)).copy() if n else np.zeros(0, np.uint64)
        scores = np.ctypeslib.as_array(h.score, (n,)).copy() if n else np.zeros(0)
        shape = (h.nq, h.k)
        self.lib.npk_hits_fini(ctypes.byref(h))
        return rows.reshape(shape), scores.reshape(shape)

    def pair(self, metric, a, b):
        assert a.dtype == b.dtype
        a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
        out = ctypes.c_double()
        self.call("npk_pair", METRICS.index(metric), DTYPES.index(a.dtype.name), ctypes.c_void_p(a.ctypes.data),
                  ctypes.c_void_p(b.ctypes.data), ctypes.c_uint64(a.size), ctypes.byref(out))
        return out.value


def queries_of(q, dim=None, dtype=None):
    """A struct npk_queries over the rows of `q`, and the array that must live as long."""
    q = np.ascontiguousarray(q)
    if q.ndim == 1:
        q = q[None, :]
    width = int(np.prod(q.shape[1:], dtype=np.int64)) if dim is None else dim
    code = DTYPES.index(q.dtype.name) if dtype is None else dtype
    return Queries(code, q.ctypes.data, q.shape[0], width), q


class Array:
    """The current generation of one array of a store."""

    def __init__(self, library, store, name):
        self.l, self.store, self.array, self.gen = library, ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        try:
            library.call("npk_store_open", ctypes.byref(self.store), os.fsencode(store), 1)
            library.call("npk_array_get", ctypes.byref(self.array), self.store, name.encode())
            library.call("npk_gen_get", ctypes.byref(self.gen), self.array)
        except NpkError:
            self.close()
            raise

    def close(self):
        self.l.lib.npk_gen_put(self.gen)
        self.l.lib.npk_array_put(self.array)
        self.l.lib.npk_store_close(self.store)
        self.gen = self.array = self.store = ctypes.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def search(self, q, metric, k, rows=None, threads=1, progress=None, dim=None, dtype=None):
        """(rows, scores), both nq x min(k, rows searched)."""
        queries, keep = queries_of(q, dim, dtype)
        metric = METRICS.index(metric) if isinstance(metric, str) else metric
        call = Progress(lambda ctx, done, of: progress(done, of)) if progress else Progress()
        how = Search(metric, k, None if rows is None else rows.encode(), threads, call, None)
        hits = Hits()
        self.l.call("npk_search", self.gen, ctypes.byref(queries), ctypes.byref(how), ctypes.byref(hits))
        del keep
        return self.l.hits(hits)

    def scores(self, q, metric, first, nrows):
        queries, keep = queries_of(q)
        out = np.full(nrows, -12345.0)
        self.l.call("npk_scores", self.gen, ctypes.byref(queries), METRICS.index(metric), ctypes.c_uint64(first),
                    ctypes.c_uint64(nrows), ctypes.c_void_p(out.ctypes.data))
        del keep
        return out


class TopK:
    """Segmented search."""

    def __init__(self, library, q, metric, k):
        self.l, self.p = library, ctypes.c_void_p()
        queries, self.keep = queries_of(q)
        library.call("npk_topk_open", ctypes.byref(self.p), ctypes.byref(queries), METRICS.index(metric), ctypes.c_uint64(k))

    def feed(self, rows, first):
        rows = np.ascontiguousarray(rows)
        self.l.call("npk_topk_feed", self.p, ctypes.c_void_p(rows.ctypes.data), ctypes.c_uint64(rows.shape[0]), ctypes.c_uint64(first))

    def result(self):
        hits = Hits()
        self.l.call("npk_topk_result", self.p, ctypes.byref(hits))
        return self.l.hits(hits)

    def close(self):
        self.l.lib.npk_topk_close(self.p)
        self.p = ctypes.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
