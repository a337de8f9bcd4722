"""What is refused, with which code and sentence; ending early; files that shrink."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from npklib import DTYPES, METRICS, Array, NpkError, TopK
from npkwrite import Spec, write_store

X = np.arange(40, dtype=np.float32).reshape(10, 4)


def refused(code, words, call, *args, **named):
    with pytest.raises(NpkError) as e:
        call(*args, **named)
    assert e.value.errno == code, e.value
    for word in words.split("|"):
        assert word in e.value.text, e.value.text


def test_nonsense_is_refused(opened):
    a = opened(X, mask=np.ones(9, bool))
    q = X[:1]
    refused(errno.EINVAL, "k is 0|at least 1", a.search, q, "l2", 0)
    refused(errno.EINVAL, "float64|'x'|float32", a.search, q.astype(np.float64), "l2", 1)
    refused(errno.EINVAL, "3 elements|4", a.search, np.ones((1, 3), np.float32), "l2", 1)
    refused(errno.EINVAL, "metric 9 is unknown", a.search, q, 9, 1)
    refused(errno.EINVAL, "metric -1 is unknown", a.search, q, -1, 1)
    refused(errno.EINVAL, "unknown dtype|float32", a.search, q, "l2", 1, dtype=77)
    refused(errno.EINVAL, "no query", a.search, np.zeros((0, 4), np.float32), "l2", 1, dim=4)
    refused(errno.EINVAL, "2 parts", a.search, q, "l2", 1, rows="1:2;1")
    refused(errno.EINVAL, "selection", a.search, q, "l2", 1, rows="1:x")
    refused(errno.ERANGE, "10 is out of range", a.search, q, "l2", 1, rows="10")
    refused(errno.ENOENT, "nothing", a.search, q, "l2", 1, rows="mask=nothing")
    refused(errno.EINVAL, "9|10", a.search, q, "l2", 1, rows="mask=mask")
    refused(errno.EINVAL, "one query, not 2", a.scores, X[:2], "l2", 0, 3)
    refused(errno.ERANGE, "5:11 of 10", a.scores, q, "l2", 5, 6)
    refused(errno.ERANGE, "10", a.scores, q, "l2", 2**64 - 1, 2)
    refused(errno.EINVAL, "k is 0", TopK, a.l, q, "l2", 0)


def test_a_nan_in_any_query_is_refused(opened):
    for dtype in np.float16, np.float32, np.float64:
        a = opened(X.astype(dtype))
        for nq, at in (1, 0), (9, 8), (40, 17):
            q = np.ones((nq, 4), dtype)
            q[at, 3] = np.nan
            refused(errno.EINVAL, "NaN", a.search, q, "l2", 1)
        refused(errno.EINVAL, "NaN", TopK, a.l, q, "l2", 1)


def test_metrics_and_the_dtypes_they_are_not_for(opened):
    for dtype in DTYPES:
        x = np.ones((3, 2), dtype)
        a = opened(x)
        for metric in METRICS:
            fine = not dtype.startswith("complex")
            fine &= metric not in ("hamming", "jaccard") or dtype in ("uint8", "bool")
            fine &= metric not in ("kl", "js") or dtype.startswith("float")
            if fine:
                assert a.search(x, metric, 2)[0].tolist() == [[0, 1]] * 3
            else:
                refused(errno.EINVAL, f"'{metric}'|{dtype}", a.search, x, metric, 2)
                refused(errno.EINVAL, f"'{metric}'|{dtype}", a.l.pair, metric, x[0], x[1])


def test_a_scalar_has_no_rows(opened):
    refused(errno.EINVAL, "scalar", opened(np.array(3.0)).search, np.ones((1, 1)), "l2", 1)


def test_names_of_metrics(lib):
    names = {"cosine": "cos cosine_similarity", "dot": "dot_product dotproduct", "inner": "inner_product",
             "l2": "euclidean l2_distance", "l2sq": "l2_squared squared_euclidean", "hamming": "", "jaccard": "",
             "kl": "kl_divergence", "js": "js_divergence"}
    assert list(names) == METRICS
    for i, (name, others) in enumerate(names.items()):
        for alias in [name, *others.split()]:
            assert lib.metric(alias) == lib.metric(alias.upper()) == lib.metric(alias.title()) == i
        assert lib.lib.npk_metric_name(i).decode() == name
        assert lib.lib.npk_metric_is_similarity(i) == (i < 3)
    assert lib.lib.npk_metric_name(9) is None and lib.lib.npk_metric_name(-1) is None
    for bad in "", "l3", "cosine ", "x" * 300:
        refused(errno.EINVAL, "unknown|cosine, dot", lib.metric, bad)


def test_too_much_is_refused(opened):
    a = opened(X)
    many = np.ones((1, 4), np.float32)
    refused(errno.E2BIG, "too many", TopK, a.l, many, "l2", 2**62)
    refused(errno.E2BIG, "too many", TopK, a.l, many, "l2", 2**36 + 1)
    assert a.search(many, "l2", 2**64 - 1)[0].shape == (1, 10)


def test_the_result_is_taken_once(opened):
    a = opened(X)
    with TopK(a.l, X[:2], "l2", 3) as t:
        t.feed(X, 0)
        assert t.result()[0].tolist() == [[0, 1, 2], [1, 0, 2]]
        refused(errno.EINVAL, "taken already", t.result)
        refused(errno.EINVAL, "taken already", t.feed, X, 0)
    with TopK(a.l, X[:2], "l2", 3) as t:
        assert t.result()[0].shape == (2, 0)
    with TopK(a.l, X[:2], "l2", 30) as t:
        t.feed(X[:0], 0)
        t.feed(X, 2**40)
        assert t.result()[0].tolist()[0] == list(range(2**40, 2**40 + 10))


def test_progress_and_the_end_before_the_end(opened):
    a = opened(np.zeros((300000, 16), np.float32))
    q = np.zeros((1, 16), np.float32)
    for threads in 1, 3:
        told = []
        a.search(q, "l2", 1, threads=threads, progress=lambda done, of: told.append((done, of)) or True)
        assert told and all(0 < done <= of == 300000 for done, of in told)
        assert [d for d, _ in told] == sorted(d for d, _ in told)
        refused(errno.ECANCELED, "cancelled", a.search, q, "l2", 1, threads=threads, progress=lambda done, of: False)
    assert a.search(q, "l2", 1)[0].tolist() == [[0]]


@pytest.mark.parametrize("dtype, metric, dim, nq", [("f4", "l2", 64, 20000), ("u1", "hamming", 16, 200000), ("f2", "js", 300, 3000)])
def test_progress_with_many_queries(opened, dtype, metric, dim, nq):
    """How much is done between two looks does not grow with the queries."""
    rng = np.random.default_rng(4)
    x = rng.integers(0, 256, (700, dim)).astype("u1") if dtype == "u1" else rng.random((700, dim)).astype(dtype)
    a, q = opened(x), np.resize(x, (nq, dim))
    most = max(128, (512 << 20) // (nq * dim * x.itemsize))
    told = [0]
    rows, _ = a.search(q, metric, 1, progress=lambda done, of: told.append(done) or True)
    assert told[-1] == 700 and np.diff(told).max() <= most, told
    np.testing.assert_array_equal(rows[:, 0], np.resize(np.arange(700), nq))    # each is its own nearest
    told = []
    refused(errno.ECANCELED, "cancelled", a.search, q, metric, 1, progress=lambda done, of: told.append(done))
    assert len(told) == 1 and told[0] <= most


SHRINK = """
import ctypes, errno, os, sys
import numpy as np
from npklib import Array, Library, NpkError
lib = Library()
lib.call("npk_guard_install")
x = np.zeros((200000, 16), np.float32)
path, file = sys.argv[1], sys.argv[1] + "/data_x.npkd"
for threads in 1, 2:
    a = Array(lib, path, "x")
    assert a.search(x[:1], "l2", 1)[0].tolist() == [[0]]        # mapped now
    os.truncate(file, 4096)
    for call in (lambda: a.search(x[:1], "l2", 1, threads=threads), lambda: a.search(x[:20], "dot", 1, threads=threads),
                 lambda: a.search(x[:1], "l2", 1, rows="::3", threads=threads), lambda: a.scores(x[0], "l2", 0, len(x))):
        try:
            call()
            raise SystemExit("no error")
        except NpkError as e:
            assert e.errno == errno.EIO and "cut short" in e.text, e
    assert a.search(x[:1], "l2", 1, rows="0:64")[0].tolist() == [[0]]
    os.truncate(file, x.nbytes)
    assert a.search(x[:1], "l2", 1)[0].tolist() == [[0]]
    a.close()
"""


def test_a_file_cut_short(tmp_path):
    path, _ = write_store(tmp_path / "s", {"x": np.zeros((200000, 16), np.float32)})
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", SHRINK, str(path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


LEVEL = """
import hashlib, sys
import numpy as np
from npklib import METRICS, Array, Library, NpkError
lib, digest = Library(), hashlib.sha256()
for name in "f16", "f32", "f64", "i8", "u8", "bool", "i32", "hostile", "far":
    a = None
    try:
        a = Array(lib, sys.argv[1], name)
        x = np.load(sys.argv[1] + "/" + name + ".npy")
        for metric in METRICS:
            for nq in 1, 2, 5, 9, 33:
                try:
                    rows, scores = a.search(x[40:40 + nq], metric, 15, threads=2)
                except NpkError as e:
                    if "NPKV_LEVEL" in e.text:
                        raise
                    rows = scores = np.zeros(0)
                digest.update(rows.tobytes() + np.where(np.isnan(scores), np.nan, scores).tobytes())
    except NpkError as e:
        print(e)
        raise SystemExit(3)
print(digest.hexdigest())
"""


def run_level(path, level):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NPKV_LEVEL": level}
    return subprocess.run([sys.executable, "-c", LEVEL, str(path)], env=env, capture_output=True, text=True)


def test_levels(tmp_path):
    """Every level that this CPU has gives the same bytes; one that it lacks, or a word that is none, is refused."""
    rng = np.random.default_rng(11)
    base = rng.standard_normal((700, 37))
    hostile = base.astype(np.float32)
    hostile[::5] *= np.float32(1e30)
    hostile[1::5, 3] = np.inf
    hostile[2::5] *= np.float32(1e-40)
    arrays = {"f16": base.astype(np.float16), "f32": base.astype(np.float32), "f64": base,
              "i8": rng.integers(-128, 128, base.shape, np.int8), "u8": rng.integers(0, 256, base.shape, np.uint8),
              "bool": base > 0, "i32": (base * 1e8).astype(np.int32), "hostile": hostile,
              "far": (base + 30000).astype(np.float32)}
    path, _ = write_store(tmp_path / "s", arrays)
    for name, x in arrays.items():
        np.save(path / f"{name}.npy", x)
    digests, lacking = {}, []
    for level in "", "scalar", "avx2", "avx512", "neon", "sve":
        done = run_level(path, level)
        if done.returncode == 3:
            assert f"NPKV_LEVEL={level}: this CPU lacks that level" in done.stdout, done.stdout
            lacking.append(level)
        else:
            assert done.returncode == 0, done.stderr
            digests[level] = done.stdout
    assert "" in digests and "scalar" in digests and lacking, (digests, lacking)
    assert len(set(digests.values())) == 1, digests
    for level in "AVX2", "avx", "0", "scalar ":
        done = run_level(path, level)
        assert done.returncode == 3 and "EINVAL" in done.stdout and "not one of scalar, avx2, avx512, neon, sve" in done.stdout
