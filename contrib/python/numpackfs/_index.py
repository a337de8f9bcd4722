"""Row indexes as NumPy understands them: an int, a slice, a list of ints, a boolean mask."""

import operator

import numpy as np

from ._speed import fast

_KINDS = "The indexes must be int or list or numpy.ndarray or slice, not "      # NumPack's words


def one(i, n, name):
    """`i` as a row of 0 .. n - 1; negative ones count from the end."""
    if not -n <= i < n:
        raise IndexError(f"Index {i} out of bounds for array {name} with {n} rows")
    return i + n if i < 0 else i


def rows_of(index, n, name, wrong=TypeError):
    """What `index` selects of `n` rows: an int, a range, or a 1-D int64 array whose elements are checked and not negative.

    `wrong` is raised for an index of another kind, ValueError for a mask of another length or an array of more dimensions,
    IndexError for a row that is not there.
    """
    # A list of ints is what most callers give, and numpy takes longer to find out that it is one.
    if fast is not None and type(index) is list:
        out = np.empty(len(index), np.int64)
        if fast.indexes(index, n, out):
            return out
    if type(index) is list and {*map(type, index)} == {int}:
        try:
            return _in_range(np.fromiter(index, np.int64, len(index)), n, name)
        except OverflowError:       # more than an int64 holds: below, as a row that is not there
            pass
    if isinstance(index, slice):
        try:
            return range(*index.indices(n))
        except TypeError as e:
            raise wrong(str(e)) from None
    if isinstance(index, (bool, np.bool_, str, bytes)):
        raise wrong(_KINDS + type(index).__name__)
    if isinstance(index, range):
        if len(index):
            one(index[0], n, name), one(index[-1], n, name)
            if index[0] < 0 or index[-1] < 0:
                return _checked(np.arange(index.start, index.stop, index.step), n, name)
        return index
    if not isinstance(index, (list, tuple, np.ndarray)):
        try:
            return one(operator.index(index), n, name)
        except TypeError:
            if not hasattr(index, "__array__"):
                raise wrong(_KINDS + type(index).__name__) from None
    a = np.asarray(index)
    if a.ndim == 0 and a.dtype.kind in "iu":
        return one(int(a), n, name)
    if a.ndim != 1:
        raise ValueError(f"rows are given in one dimension, not {a.ndim}")
    if a.dtype.kind == "b":
        if len(a) != n:
            raise ValueError(f"the mask has {len(a)} elements, array {name} has {n} rows")
        return np.flatnonzero(a)
    if a.size == 0 and (a.dtype.kind in "iu" or not isinstance(index, np.ndarray)):
        return np.zeros(0, np.int64)
    if a.dtype.kind not in "iu":
        raise wrong(f"{_KINDS}{a.dtype}")
    return _checked(a, n, name)


def _checked(a, n, name):
    if a.dtype.kind == "u" and (a >= n).any():      # before they could become negative
        one(int(a[(a >= n).argmax()]), n, name)
    return _in_range(a.astype(np.int64), n, name)      # a copy: the caller's stays as it is


def _in_range(a, n, name):
    """Makes the negative ones of `a`, int64 and ours, count from the end."""
    if a.size == 0:
        return a
    low = a.min()
    if low < -n or a.max() >= n:
        one(int(a[((a >= n) | (a < -n)).argmax()]), n, name)
    if low < 0:
        a[a < 0] += n
    return a
