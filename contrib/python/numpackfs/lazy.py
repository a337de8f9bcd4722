"""LazyArray: an array whose rows stay in the store until somebody asks for them."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Iterator, Optional

import numpy as np

from ._index import _checked, one, rows_of
from ._lib import Gen

_BITWISE = frozenset((np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert, np.left_shift, np.right_shift))
_BITWISE_OPERATORS = frozenset(("and_", "or_", "xor", "lshift", "rshift", "invert"))


class LazyArray:
    """The rows of one array as they were when `load(name, lazy=True)` was called: deleted rows are not among them, and later
    drops, saves and compactions do not move them. Values changed in place (`replace`) show through.

    Indexing follows NumPy and gives new arrays, with one exception that NumPack has: `lazy[i]` of a 1-D array has shape (1,).
    `numpy.asarray(lazy)` is a read-only array over the mapped file, without a copy, unless deleted rows or segments lie
    between the rows. Operators and reductions give what NumPy gives; `lazy += 1` rebinds the name to a new array and leaves
    the file alone.

    Errors: IndexError for a row that is not there, ValueError for a mask of another length, TypeError for bitwise operators on
    floats.
    """

    __slots__ = ("_gen", "_name", "_shape", "_whole")

    if TYPE_CHECKING:      # what is made at the end of this file

        def _binary(self, other: Any) -> np.ndarray: ...

        def _unary(self) -> np.ndarray: ...

        def _method(self, *args: Any, **kwargs: Any) -> Any: ...

        __add__ = __sub__ = __mul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = _binary
        __radd__ = __rsub__ = __rmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = __rpow__ = __rmatmul__ = _binary
        __and__ = __or__ = __xor__ = __lshift__ = __rshift__ = __rand__ = __ror__ = __rxor__ = __rlshift__ = __rrshift__ = _binary
        __lt__ = __le__ = __gt__ = __ge__ = _binary
        __neg__ = __pos__ = __abs__ = __invert__ = _unary
        sum = mean = std = var = min = max = argmin = argmax = prod = any = all = cumsum = cumprod = astype = _method
        squeeze = transpose = swapaxes = dot = nonzero = round = clip = argsort = diagonal = trace = repeat = take = _method
        compress = tobytes = conj = item = _method

    def __init__(self, gen: Gen, name: str, shape: Optional[tuple] = None):
        self._gen, self._name = gen, name
        self._shape = gen.shape if shape is None else shape
        self._whole: Optional[np.ndarray] = None      # of a reshaped array whose rows do not lie together

    # --- what it is ---

    @property
    def shape(self) -> tuple:
        """The logical shape, (rows, ...)."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        return self._gen.dtype

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def size(self) -> int:
        """How many elements."""
        return int(np.prod(self._shape, dtype=object))

    @property
    def itemsize(self) -> int:
        return self._gen.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def T(self) -> np.ndarray:
        """A transposed copy."""
        return np.array(self._array().T)

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of unsized object")
        return self._shape[0]

    def __repr__(self) -> str:
        head = f"LazyArray({self._name!r}, shape={self._shape}, dtype={self.dtype}"
        rows = self._shape[0] if self._shape else 0
        if rows == 0 or self.size // rows > 1000:
            return head + ")"
        lines = [str(r) for r in self[:3]] + (["..."] if rows > 6 else []) + [str(r) for r in self[max(3, rows - 3):]]
        return head + ",\n  " + "\n  ".join(lines) + ")"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._array())

    def __float__(self) -> float:
        return float(self._array())

    def __int__(self) -> int:
        return int(self._array())

    def __contains__(self, value: Any) -> bool:
        return value in self._array()

    # --- rows ---

    def _mapped(self) -> Optional[np.ndarray]:
        m = self._gen.mapped
        return None if m is None else m.reshape(self._shape)

    def _array(self) -> np.ndarray:
        """Everything: over the mapping where that is possible, else gathered."""
        m = self._mapped()
        if m is None:
            m = self._gen.read_all().reshape(self._shape) if self._whole is None else self._whole
            m.flags.writeable = False
        return m

    def __array__(self, dtype: Any = None, copy: Optional[bool] = None) -> np.ndarray:
        a = self._array()
        if dtype is not None and np.dtype(dtype) != a.dtype:
            if copy is False:
                raise ValueError("a copy is needed to change the dtype")
            return a.astype(dtype)
        return a.copy() if copy else a

    def __getitem__(self, key: Any) -> np.ndarray:
        gen = self._gen
        if self._shape is gen.shape and (type(key) is not int or len(self._shape) > 1):
            out = gen.quick(key)
            if out is not None:
                return out
        if isinstance(key, tuple) and not any(k is None for k in key):
            return self._get_tuple(key)
        if key is None or key is Ellipsis or isinstance(key, tuple) or self._shape != self._gen.shape or not self._shape:
            return self._get_any(key)
        if isinstance(key, np.ndarray) and key.ndim > 1 or isinstance(key, (bool, np.bool_)):
            return self._get_tuple((key,))
        if isinstance(key, list):
            try:
                key = np.asarray(key) if key else np.zeros(0, np.int64)
            except ValueError as e:
                raise IndexError(str(e)) from None
            if key.ndim != 1:
                return self._get_tuple((key,))
        rows = rows_of(key, self._shape[0], self._name, IndexError)
        if isinstance(rows, int):
            row = self._gen.read(rows, 1)
            return row if len(self._shape) == 1 else row[0]
        return self._rows(rows)

    def _rows(self, rows: Any) -> np.ndarray:
        if isinstance(rows, range):
            if rows.step == 1:
                return self._gen.read(rows.start if len(rows) else 0, len(rows))
            return self._gen.step(rows.start, rows.step, len(rows)) if len(rows) else self._gen.read(0, 0)
        return self._gen.take(rows)

    def _get_any(self, key: Any) -> np.ndarray:
        out = self._array()[key]
        if isinstance(out, np.ndarray):
            out = np.array(out)
            if len(self._shape) == 1 and out.ndim == 0:
                out = out.reshape(1)
        elif len(self._shape) == 1 and not isinstance(key, tuple):
            out = np.array([out])
        return out

    def _get_tuple(self, key: tuple) -> np.ndarray:
        """Reads the rows that the first axis needs, and leaves the rest to numpy."""
        m: Any = self._mapped()
        key = tuple(np.asarray(k) if isinstance(k, list) else k for k in key)
        key = tuple(np.zeros(0, np.int64) if isinstance(k, np.ndarray) and k.size == 0 and k.dtype.kind == "f" else k for k in key)
        if m is None and self._shape != self._gen.shape and self._whole is None:
            self._whole = self._array()
        if m is None:
            m = self._whole
        if m is not None:
            out = m[key]
            return np.array(out) if isinstance(out, np.ndarray) and (out.base is not None) else out
        flat: list = []
        for k in key:
            if isinstance(k, np.ndarray) and k.dtype.kind == "b":
                flat += [k] if k.ndim == 1 else list(self._mask(k, len(flat)))
            elif isinstance(k, (bool, np.bool_)):
                return np.array(self._array()[key])
            else:
                flat.append(k)
        if sum(k is Ellipsis for k in flat) > 1:
            raise IndexError("an index can only have a single ellipsis ('...')")
        if len(flat) - any(k is Ellipsis for k in flat) > self.ndim:
            raise IndexError(f"too many indices for array: array is {self.ndim}-dimensional, but {len(flat)} were indexed")
        if any(k is Ellipsis for k in flat):
            at = next(i for i, k in enumerate(flat) if k is Ellipsis)
            flat[at:at + 1] = [slice(None)] * (self.ndim - len(flat) + 1)
        first, rest = (flat[0] if flat else slice(None)), tuple(flat[1:])
        n = self._shape[0]
        if isinstance(first, slice):
            return self._rows(range(*first.indices(n)))[(slice(None),) + rest]
        if isinstance(first, np.ndarray) and first.ndim > 0:
            if first.dtype.kind == "b":
                first = rows_of(first, n, self._name)
            elif first.dtype.kind not in "iu":
                raise IndexError("arrays used as indices must be of integer (or boolean) type")
            rows = _checked(first.reshape(-1), n, self._name)
            return self._gen.take(rows)[(np.arange(len(rows)).reshape(first.shape),) + rest]
        try:
            row = one(operator.index(first), n, self._name)
        except TypeError:
            raise IndexError("only integers, slices, ellipsis, numpy.newaxis and integer or boolean arrays are valid "
                             "indices") from None
        return self._gen.read(row, 1)[(0,) + rest]

    def _mask(self, mask: np.ndarray, axis: int) -> tuple:
        if mask.shape != self._shape[axis:axis + mask.ndim]:
            raise IndexError(f"boolean index of shape {mask.shape} does not match {self._shape[axis:axis + mask.ndim]}")
        return mask.nonzero()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each row as `lazy[i]` gives it; read in blocks of about 1 MiB."""
        if not self._shape:
            raise TypeError("iteration over a 0-d array")
        rows, row_bytes = self._shape[0], max(1, self.nbytes // max(1, self._shape[0]))
        block = max(1, (1 << 20) // row_bytes)
        for at in range(0, rows, block):
            for row in self[at:at + block]:
                yield row if isinstance(row, np.ndarray) else np.array([row])

    # --- other forms ---

    def reshape(self, *shape: Any) -> "LazyArray":
        """The same elements in another shape, still lazy; one dimension may be -1. ValueError when the sizes differ."""
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        shape = tuple(operator.index(n) for n in shape)
        known = int(np.prod([n for n in shape if n != -1], dtype=object)) if shape else 1
        if shape.count(-1) > 1 or any(n < -1 for n in shape):
            raise ValueError(f"cannot reshape to {shape}: one dimension may be -1, none may be less")
        if -1 in shape:
            if known == 0 or self.size % known:
                raise ValueError(f"cannot reshape array of size {self.size} into shape {shape}")
            shape = tuple(self.size // known if n == -1 else n for n in shape)
        elif known != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {shape}")
        return LazyArray(self._gen, self._name, shape)

    def copy(self) -> np.ndarray:
        """Everything as a new array in memory."""
        return np.array(self._array())

    def flatten(self, order: Any = "C") -> np.ndarray:
        """numpy.ndarray.flatten of all rows: a copy."""
        return self._array().flatten(order)

    def ravel(self, order: Any = "C") -> np.ndarray:
        """flatten(): a LazyArray's memory is not the caller's."""
        return self._array().flatten(order)

    def tolist(self) -> list:
        """Everything as nested lists of Python numbers."""
        return self._array().tolist()

    def close(self) -> None:
        """Nothing to do: the mapping goes with the last array that needs it."""

    # --- numpy ---

    __hash__ = None      # type: ignore[assignment]  # as numpy's arrays

    def __divmod__(self, other: Any) -> Any:
        return divmod(self._array(), _plain_array(other))

    def __rdivmod__(self, other: Any) -> Any:
        return divmod(_plain_array(other), self._array())

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [_plain_array(x) for x in inputs]
        out = kwargs.get("out")
        if out is not None and any(isinstance(x, LazyArray) for x in out):
            if any(x is not None and not isinstance(x, LazyArray) for x in out):
                raise TypeError("a LazyArray cannot be written to")
            del kwargs["out"]      # `lazy += 1`: the name gets a new array
        if ufunc in _BITWISE and any(np.asarray(x).dtype.kind not in "biu" for x in arrays):
            raise TypeError("Bitwise operations are only supported for integer arrays")
        return getattr(ufunc, method)(*arrays, **kwargs)

    # --- what NumPack's own lazy arrays have beside ---

    def vectorized_gather(self, indices: Any) -> np.ndarray:
        """`lazy[indices]`."""
        return self[_plain(indices)]

    def mega_batch_get_rows(self, indices: Any, batch_size: int = 1000) -> list:
        """The rows one by one, in a list. OverflowError for a negative batch size, which changes nothing else."""
        if batch_size < 0:
            raise OverflowError("can't convert negative int to unsigned")
        return list(self[_plain(indices)])

    def parallel_boolean_index(self, mask: Any) -> np.ndarray:
        """`lazy[mask]`; ValueError for a mask of another length."""
        mask = np.asarray(mask, dtype=bool)
        if mask.shape != self._shape[:1]:
            raise ValueError(f"the mask has shape {mask.shape}, the array {self._shape[0]} rows")
        return self[mask]

    boolean_index_production = boolean_index_adaptive_algorithm = boolean_index_smart = parallel_boolean_index

    def choose_optimal_algorithm(self, mask: Any) -> str:
        """How the rows of a mask would be read: "mapped" from one mapping, "gather" over deleted rows or segments."""
        return "gather" if self._mapped() is None else "mapped"

    def intelligent_warmup(self, hint: str = "sequential") -> None:
        """Reads ahead: touches the first MiB of the mapping. Any hint is taken."""
        if self._shape:
            row_bytes = max(1, self.nbytes // max(1, self._shape[0]))
            self[:max(1, (1 << 20) // row_bytes)]


def _plain(indices: Any) -> Any:
    return list(indices) if isinstance(indices, (tuple, range)) else indices


def _delegate(name: str) -> None:
    def method(self, *args, **kwargs):
        return getattr(self._array(), name)(*map(_plain_array, args), **kwargs)

    method.__name__ = name
    method.__doc__ = f"numpy.ndarray.{name} of all rows."
    setattr(LazyArray, name, method)


def _plain_array(x: Any) -> Any:
    return x._array() if isinstance(x, LazyArray) else x


def _operator(name: str) -> None:
    """Binary operators are ndarray's own, which is more than the ufunc of that name: a ** 2 is a square."""
    function = getattr(operator, name)
    bitwise = name in _BITWISE_OPERATORS

    def check(*arrays):
        if bitwise and any(np.asarray(x).dtype.kind not in "biu" for x in arrays):
            raise TypeError("Bitwise operations are only supported for integer arrays")

    def forward(self, other):
        a, b = self._array(), _plain_array(other)
        check(a, b)
        return function(a, b)

    def reflected(self, other):
        a, b = _plain_array(other), self._array()
        check(a, b)
        return function(a, b)

    def alone(self):
        check(self._array())
        return function(self._array())

    plain = name.rstrip("_")
    if name in ("neg", "pos", "abs", "invert"):
        setattr(LazyArray, f"__{plain}__", alone)
        return
    setattr(LazyArray, f"__{plain}__", forward)
    if name not in ("lt", "le", "eq", "ne", "gt", "ge"):
        setattr(LazyArray, f"__r{plain}__", reflected)
        setattr(LazyArray, f"__i{plain}__", forward)      # `lazy += 1` rebinds the name to a new array


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift", "rshift", "lt", "le",
              "eq", "ne", "gt", "ge", "neg", "pos", "abs", "invert"):
    _operator(_name)


for _name in ("sum", "mean", "std", "var", "min", "max", "argmin", "argmax", "prod", "any", "all", "cumsum", "cumprod", "astype",
              "squeeze", "transpose", "swapaxes", "dot", "nonzero", "round", "clip", "argsort", "diagonal",
              "trace", "repeat", "take", "compress", "tobytes", "conj", "item"):
    _delegate(_name)
