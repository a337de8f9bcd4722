"""LazyArray against numpy: any index, with and without deleted rows and segments."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import same, scaled
from npkwrite import Spec, write_store
from numpackfs import LazyArray, NumPack

SHAPE = (23, 4, 3)
X = np.arange(np.prod(SHAPE), dtype="f4").reshape(SHAPE)
PHYSICAL = np.insert(X, [0, 5, 5, 9, 23], -1, axis=0)
DELETED = [0, 6, 7, 12, 27]
LAYOUTS = {"plain": Spec(X), "deleted": Spec(PHYSICAL, deleted=DELETED), "segments": Spec(X, segment_rows=7)}


@pytest.fixture(scope="module", params=list(LAYOUTS))
def lazy(request, tmp_path_factory):
    path, _ = write_store(tmp_path_factory.mktemp("lazy") / "s", {"x": LAYOUTS[request.param]})
    with NumPack(path) as n:
        yield n.load("x", lazy=True)


def axis_index(n):
    slices = st.builds(slice, *[st.none() | st.integers(-n - 3, n + 3)] * 2, st.none() | st.integers(-4, 4).filter(bool))
    lists = st.lists(st.integers(-n, n - 1), max_size=6)
    return st.integers(-n, n - 1) | slices | lists | lists.map(lambda v: np.array(v, np.int64)) | \
        st.lists(st.booleans(), min_size=n, max_size=n).map(np.array)


KEYS = axis_index(23) | st.tuples(axis_index(23)) | st.tuples(axis_index(23), axis_index(4)) | \
    st.tuples(axis_index(23), axis_index(4), axis_index(3)) | st.tuples(st.just(Ellipsis), axis_index(3)) | \
    st.tuples(axis_index(23), st.just(Ellipsis)) | st.tuples(axis_index(23), st.just(Ellipsis), axis_index(3)) | \
    st.just(()) | st.just(Ellipsis) | st.just((slice(None), None, 1)) | \
    st.lists(st.integers(-23, 22), min_size=6, max_size=6).map(lambda v: np.array(v).reshape(2, 3))


@settings(max_examples=scaled(400), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS)
def test_any_index(lazy, key):
    def plain(k):      # an empty list is an index to us, and to numpy an array of floats
        return np.zeros(0, np.int64) if isinstance(k, list) and not k else k

    def get(a, k):
        try:
            return a[k]
        except IndexError as e:
            return e

    want = get(X, tuple(map(plain, key)) if isinstance(key, tuple) else plain(key))
    got = get(lazy, key)
    if isinstance(want, IndexError):      # fancy indexes that do not go together
        assert isinstance(got, IndexError), (got, want)
        return
    assert not isinstance(got, Exception), (got, want)
    same(got, want)
    if isinstance(got, np.ndarray) and got.size:
        got[...] = -5      # a new array: the store's stays
    same(np.asarray(lazy), X)


@pytest.mark.parametrize("key, error", [
    (23, IndexError), (-24, IndexError), ([0, 23], IndexError), ((0, 4), IndexError), ((0, 0, 0, 0), IndexError), (1.5, IndexError),
    ("x", IndexError), ((Ellipsis, Ellipsis), IndexError), ([True] * 22, ValueError), (np.array([0.5]), IndexError)])
def test_refused(lazy, key, error):
    with pytest.raises(error):
        lazy[key]


def test_what_it_is(lazy):
    assert (lazy.shape, lazy.ndim, lazy.size, lazy.dtype, lazy.itemsize, lazy.nbytes, len(lazy)) == \
        (SHAPE, 3, X.size, X.dtype, 4, X.nbytes, 23)
    same(lazy.T, X.T.copy())
    assert repr(lazy).startswith("LazyArray('x', shape=(23, 4, 3), dtype=float32")
    assert lazy.tolist() == X.tolist() and 5.0 in lazy
    same(np.array(list(lazy)), X)
    with pytest.raises(TypeError):
        hash(lazy)


def test_reshape(lazy):
    for shape in [(-1,), (276,), (12, -1), ((4, 69),), ([23, 12],), (23, 2, 6)]:
        r = lazy.reshape(*shape)
        want = X.reshape(shape[0] if isinstance(shape[0], (tuple, list)) else shape)
        assert isinstance(r, LazyArray) and r.shape == want.shape
        same(np.asarray(r), want)
        same(r[1:3], want[1:3])
        same(r[[0, -1]], want[[0, -1]])
        if want.ndim > 1:
            same(r[:, 1], want[:, 1])
            same(r[1], want[1])
    assert lazy.shape == SHAPE
    for shape in [(5,), (-1, -1), (-1, 7), (-2, 3)]:
        with pytest.raises(ValueError):
            lazy.reshape(*shape)


def test_one_dimension(tmp_path):
    with NumPack(tmp_path / "s.npk") as n:
        n.save({"v": np.arange(5)})
        for dropped in ([], [0]):
            n.drop("v", dropped)
            want, v = n.load("v"), n.load("v", lazy=True)
            same(v[1], want[1:2])      # NumPack's shape (1,)
            same(v[1:3], want[1:3])
            assert [int(x[0]) for x in v] == want.tolist() and int(v[(2,)]) == want[2]


BINARY = ["+", "-", "*", "/", "//", "%", "**", "<", "<=", "==", "!=", ">", ">="]
WHOLE = ["&", "|", "^", "<<", ">>"]


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32", "float64", "complex64"])
@pytest.mark.parametrize("op", BINARY + WHOLE)
@pytest.mark.parametrize("dropped", [[], [3]])
def test_operators(tmp_path, op, dtype, dropped):
    x = (np.arange(1, 13) % 7 + 1).reshape(6, 2).astype(dtype)
    with NumPack(tmp_path / "s.npk") as n:
        n.save({"x": x})
        n.drop("x", dropped)
        x = np.delete(x, dropped, axis=0)
        lazy = n.load("x", lazy=True)
        for a, b in [("lazy", "2"), ("2", "lazy"), ("lazy", "x"), ("x", "lazy"), ("lazy", "lazy")]:
            expression = f"{a} {op} {b}"
            try:
                want = eval(expression.replace("lazy", "x"))
            except TypeError:
                with pytest.raises(TypeError):
                    eval(expression)
                continue
            same(eval(expression), want)
        names = {"lazy": lazy, "x": x.copy()}
        if op in BINARY[:7] and not (op in ("//", "%") and dtype == "complex64"):
            exec(f"lazy {op}= 2", names)
            same(names["lazy"], eval(f"x {op} 2"))
            same(n.load("x"), x)


def test_bitwise_on_floats(lazy):
    for call in (lambda: lazy & 1, lambda: ~lazy, lambda: 1 | lazy, lambda: np.bitwise_xor(lazy, 1), lambda: lazy << 1):
        with pytest.raises(TypeError, match="Bitwise operations are only supported for integer arrays"):
            call()


def test_numpy_functions_and_reductions(lazy):
    for name in ("sum", "mean", "std", "var", "min", "max", "argmin", "argmax", "prod", "any", "all", "cumsum"):
        same(np.asarray(getattr(lazy, name)()), np.asarray(getattr(X, name)()))
        same(np.asarray(getattr(np, name)(lazy)), np.asarray(getattr(np, name)(X)))
    same(lazy.sum(axis=0), X.sum(axis=0))
    same(np.sqrt(lazy), np.sqrt(X))
    same(np.add(lazy, lazy), X + X)
    same(np.concatenate([lazy, lazy]), np.concatenate([X, X]))
    same(-lazy, -X)
    same(abs(lazy), abs(X))
    same(lazy.astype("f8"), X.astype("f8"))
    same(lazy.copy(), X)
    same(lazy.flatten(), X.flatten())
    same(lazy.reshape(23, 12) @ np.ones((12, 2), "f4"), X.reshape(23, 12) @ np.ones((12, 2), "f4"))
    same(np.multiply.reduce(lazy), np.multiply.reduce(X))
    out = np.zeros(SHAPE, "f4")
    np.add(lazy, 1, out=out)
    same(out, X + 1)
    same(np.asarray(lazy, dtype="f8"), X.astype("f8"))
    assert bool((lazy == X).all())


def test_numpacks_own_methods(lazy):
    same(lazy.vectorized_gather([3, 0]), X[[3, 0]])
    same(np.array(lazy.mega_batch_get_rows([3, 0], 1)), X[[3, 0]])
    with pytest.raises(OverflowError):
        lazy.mega_batch_get_rows([0], -1)
    mask = np.arange(23) % 2 == 0
    same(lazy.parallel_boolean_index(mask), X[mask])
    with pytest.raises(ValueError):
        lazy.parallel_boolean_index(mask[1:])
    lazy.intelligent_warmup("whatever")


def test_the_mapping_is_not_copied(tmp_path):
    x = np.arange(1_000_000.0)
    with NumPack(tmp_path / "s.npk") as n:
        n.save({"x": x})
        a, b = np.asarray(n.load("x", lazy=True)), np.asarray(n.load("x", lazy=True))
        assert a.ctypes.data == b.ctypes.data and not a.flags.writeable
        n.replace({"x": np.array([-1.0])}, 7)
        assert a[7] == -1      # it is the file
