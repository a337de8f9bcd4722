"""The extension module: what it gives is what the long way gives, it refuses what it cannot do, and it keeps nothing."""

import gc
import os
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import BUILD, same, scaled
from npkwrite import Spec, write_store
from numpackfs import NumPack
from numpackfs._lib import DTYPES
from numpackfs._speed import SUFFIX, address, fast

X = np.arange(23 * 4, dtype="f4").reshape(23, 4)
LAYOUTS = {"plain": Spec(X), "deleted": Spec(np.insert(X, [0, 5, 5, 9, 23], -1, axis=0), deleted=[0, 6, 7, 12, 27]),
           "segments": Spec(X, segment_rows=7)}
built = pytest.mark.skipif(os.environ.get("NUMPACKFS_FAST") == "0" or not (BUILD / f"_fast{SUFFIX}").exists(),
                           reason="there is no extension module: built without Python.h, or told to do without")
ANY = st.integers(-23, 22) | st.sampled_from([23, -24, 2**63, -2**64, True, False, 1.0, "1", None, np.int64(3)])


@pytest.fixture(scope="module", params=list(LAYOUTS))
def store(request, tmp_path_factory):
    path, _ = write_store(tmp_path_factory.mktemp("fast") / "s", {"x": LAYOUTS[request.param]})
    with NumPack(path) as n:
        yield n


@built
def test_it_is_used_where_it_was_built():
    assert fast is not None and address is fast.address


@built
@settings(max_examples=scaled(300), deadline=None)
@given(rows=st.lists(ANY, max_size=8))
def test_indexes_are_the_rows_or_not_for_here(rows):
    out = np.empty(len(rows), np.int64)
    if all(type(r) is int and -23 <= r < 23 for r in rows):
        assert fast.indexes(rows, 23, out) is True
        assert out.tolist() == [r % 23 for r in rows]
    else:
        assert fast.indexes(rows, 23, out) is False


@settings(max_examples=scaled(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(-23, 22), max_size=8), many=st.sampled_from([1, 100]))
def test_any_list_gives_numpys_rows(store, rows, many):
    rows = rows * many      # 800 numbers do not fit on the stack
    want = X[np.array(rows, np.int64)]
    same(store.getitem("x", rows), want)
    same(store.getitem("x", np.array(rows, np.int64)), want)
    same(store.getitem("x", np.array(rows, np.int64)[::-1]), want[::-1].copy())
    same(store.load("x", lazy=True)[rows], want)


@pytest.mark.parametrize("rows, error", [
    ([0, 23], IndexError), ([-24], IndexError), ([2**62], IndexError), ([1, 2.0], TypeError), (["1"], TypeError), (23, IndexError),
    (-24, IndexError), (2**70, IndexError), (np.array([23]), IndexError), (np.array([-24]), IndexError), (slice("a", 3), TypeError),
    ([True], ValueError), (True, TypeError)])
def test_what_is_refused_is_what_is_documented(store, rows, error):
    with pytest.raises(error):
        store.getitem("x", rows)


def test_rows_that_are_given_belong_to_the_caller(store):
    got = [store.getitem("x", 3), store.getitem("x", slice(2, 5)), store.getitem("x", [1, 1]), store.load("x", lazy=True)[3],
           store.load("x", lazy=True)[::-2]]
    for a in got:
        assert a.flags.writeable and a.flags.c_contiguous
        a[...] = -7
    whole = np.asarray(store.load("x", lazy=True))
    assert not whole.flags.writeable
    whole.shape = (92,)      # the caller's own view
    same(store.getitem("x", 22), X[22])
    same(store.load("x"), X)


@built
def test_wrong_arguments_are_refused():
    out = np.empty(2, np.int64)
    for call, args in ((fast.take, (1, 8, [0])), (fast.indexes, ([0], 1)), (fast.indexes, ([0], "1", out)), (fast.take, ("1", 8, [0], out)),
                       (fast.address, (3,)), (fast.set_library, ("x",)), (fast.take, (1, 8, [0], b"12345678"))):
        with pytest.raises((TypeError, BufferError)):
            call(*args)
    for args in ((0, 8, [0, 0], out), (1, -8, [0, 0], out)):
        with pytest.raises(ValueError):
            fast.take(*args)
    with pytest.raises((ValueError, BufferError)):
        fast.address(np.zeros((4, 4))[:, 1])
    assert fast.indexes((0, 1), 2, out) is False and fast.take(1, 8, (0, 1), out) is False
    assert fast.take(1, 8, [0], out) is False      # the room is not the list's: the library is not asked
    assert fast.indexes([0], 2, out) is False


def test_addresses_are_numpys():
    for dtype in DTYPES:
        for shape in ((3, 2), (0, 2), (1,)):
            a = np.zeros(shape, dtype)
            assert address(a) == a.ctypes.data
            a.flags.writeable = False
            assert address(a) == a.ctypes.data


@built
def test_nothing_is_kept(store):
    rows, few = [1000000 % 23] * 1000, [5, 7]
    bad = rows + [2.5]
    out = np.empty((1000, 4), "f4")
    ptr = store._store.gen("x").ptr

    def work():
        for _ in range(50):
            assert fast.take(ptr, 16, rows, out)
            assert not fast.take(ptr, 16, bad, out)
            assert fast.indexes(few, 23, np.empty(2, np.int64))
            store.getitem("x", few), store.getitem("x", 3), store.getitem("x", slice(1, 4))
            address(out)

    work()
    gc.collect()
    before = [sys.getrefcount(v) for v in (rows, few, bad, out, bad[-1])]
    tracemalloc.start()
    try:
        work()
        gc.collect()
        first = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            work()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - first
    finally:
        tracemalloc.stop()
    assert [sys.getrefcount(v) for v in (rows, few, bad, out, bad[-1])] == before
    assert grown < 4000, grown      # one list of 1000 numbers that is kept has 8000 bytes, and there were 1000


BLOCKED = """
import ctypes, threading, sys
import numpy as np
from numpackfs import _speed
libc = ctypes.CDLL(None)
sem = ctypes.create_string_buffer(64)
assert libc.sem_init(sem, 0, 0) == 0
_speed.fast.set_library(ctypes.cast(libc.sem_wait, ctypes.c_void_p).value)      # a library that waits for us
t = threading.Thread(target=lambda: print(_speed.fast.take(ctypes.addressof(sem), 8, [0], np.empty(1))))
t.start()
assert libc.sem_post(sem) == 0
t.join()
"""


@built
def test_others_run_while_the_library_works(python):
    for _ in range(3):
        assert python(BLOCKED) == "True\n"


def test_threads_read_what_was_there_while_others_change_it(tmp_path):
    """Every row says its own number; rows are appended and replaced by themselves, and other arrays come and go."""
    rows = 2000
    x = np.repeat(np.arange(rows, dtype="i8")[:, None], 3, 1)
    errors, done = [], threading.Event()
    with NumPack(tmp_path / "s.npk") as n:
        n.save({"x": x, "y": x[:5]})

        def guarded(work):
            def run():
                try:
                    while not done.is_set():
                        work()
                except BaseException as e:
                    errors.append(e)
                    done.set()
            return run

        def read():
            lazy = n.load("x", lazy=True)
            for index in ([5, 1999, 5], 7, slice(10, 20), np.array([3, -2000])):
                want = x[index] if not isinstance(index, np.ndarray) else x[[3, 0]]
                if isinstance(index, np.ndarray):
                    same(lazy[np.array([3, 0])], want)
                else:
                    same(n.getitem("x", index), want)
                    same(lazy[index], want)
            assert n.has_array("x") and n.get_shape("x")[0] >= rows

        def write():
            n.append({"x": np.full((2, 3), n.get_shape("x")[0])})
            n.replace({"x": x[[4, 9]]}, [4, 9])

        def others():
            n.drop("y")
            assert not n.has_array("y")
            n.save({"y": x[:7].astype("f4")})
            n.append({"y": x[:1].astype("f4")})
            assert n.get_shape("y") == (8, 3)

        threads = [threading.Thread(target=guarded(w)) for w in (read, read, read, write, others)]
        for t in threads:
            t.start()
        for _ in range(scaled(200)):
            same(n.getitem("x", [0, 1]), x[:2])
        done.set()
        for t in threads:
            t.join()
        assert not errors, errors
        got = n.load("x")
        same(got[:rows], x)
        assert (got[:, 0] == got[:, 2]).all()
