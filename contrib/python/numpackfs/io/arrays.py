"""NumPy's .npy and .npz, safetensors, PyTorch tensors and files."""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any, Dict, Iterable, Iterator, List, Optional, Tuple

import numpy as np

from ..core import NumPack
from .common import (DEFAULT_CHUNK_SIZE, PathLike, Progress, finished, in_memory, input_file, need, opened, output_file, rows_in_blocks, spans,
                     storable, store_array, store_rows, the_array, the_arrays, writing)

# --- NumPy ---


def from_npy(input_path: PathLike, output_path: PathLike, array_name: Optional[str] = None, drop_if_exists: bool = False,
             chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False, progress: Progress = None) -> Optional[NumPack]:
    """A .npy file as the array `array_name` (default: the file's stem), or all arrays of a .npz file. Any byte and element order.

    FileNotFoundError; ValueError: another suffix, an object array, 0 dimensions.
    """
    with input_file(input_path) as path:
        suffix = path.suffix.lower()
        if suffix not in (".npy", ".npz"):
            raise ValueError(f"Unsupported file format: {suffix}. Supported: .npy and .npz")
        with writing(output_path, drop_if_exists) as npk:
            if suffix == ".npy":
                store_array(npk, array_name or path.stem, np.load(path, mmap_mode="r", allow_pickle=False), chunk_size, progress)
            else:
                with zipfile.ZipFile(path) as z:
                    for member in z.namelist():
                        if member.endswith(".npy"):
                            with z.open(member) as f:
                                _from_stream(npk, member[:-4], f, chunk_size, progress)
    return finished(npk, return_npk_obj)


def _from_stream(npk: NumPack, name: str, f: IO[bytes], chunk_size: int, progress: Progress) -> None:
    version = np.lib.format.read_magic(f)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"{name}: .npy version {version} is unknown")
    shape, fortran, dtype = read(f)
    native = storable(dtype, name)
    if len(shape) == 0:
        raise ValueError(f"{name}: has 0 dimensions, NumPack stores 1 or more")

    def exactly(n: int) -> bytes:
        got = f.read(n)
        if len(got) != n:
            raise ValueError(f"{name}: ends after {len(got)} of {n} bytes")
        return got

    def blocks() -> Iterator[np.ndarray]:
        if fortran and len(shape) > 1:      # its rows do not lie together: all of it is needed for the first one
            yield np.frombuffer(exactly(int(np.prod(shape, dtype=object)) * dtype.itemsize), dtype).reshape(shape, order="F")
            return
        inner = shape[1:]
        row = int(np.prod(inner, dtype=object)) * dtype.itemsize
        for at, end in spans(shape[0], shape, dtype, chunk_size):
            yield np.frombuffer(exactly((end - at) * row), dtype).reshape((end - at,) + inner)

    store_rows(npk, name, native, shape[1:], blocks(), shape[0], progress)


def _write_npy(f: IO[bytes], npk: NumPack, name: str, chunk_size: int, progress: Progress) -> None:
    shape, dtype = npk.get_shape(name), npk.get_dtype(name)
    np.lib.format.write_array_header_1_0(f, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    for _, block in rows_in_blocks(npk, name, chunk_size, progress):
        f.write(block.reshape(-1).view(np.uint8).data)


def to_npy(input_path: PathLike, output_path: PathLike, array_names: Optional[Iterable[str]] = None, compressed: bool = True,
           chunk_size: int = DEFAULT_CHUNK_SIZE, progress: Progress = None, array_name: Optional[str] = None) -> None:
    """Arrays (default: all) to a .npz file, or one to a .npy file.

    ValueError: another suffix, several arrays for a .npy file; KeyError: no such array.
    """
    suffix = Path(str(output_path)).suffix.lower()
    if suffix not in (".npy", ".npz"):
        raise ValueError(f"Unsupported file format: {suffix}. Supported: .npy and .npz")
    with opened(input_path) as npk:
        names = the_arrays(npk, array_name if array_name is not None else array_names)
        if suffix == ".npy" and len(names) != 1:
            raise ValueError(f".npy can only store one array, not {names}; use .npz or name one")
        with output_file(output_path) as path:
            if suffix == ".npy":
                with open(path, "wb") as f:
                    _write_npy(f, npk, names[0], chunk_size, progress)
                return
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED, allowZip64=True) as z:
                for name in names:
                    with z.open(name + ".npy", "w", force_zip64=True) as f:
                        _write_npy(f, npk, name, chunk_size, progress)


# --- safetensors ---

_TENSOR_NAMES = {"bool": "BOOL", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "int8": "I8", "int16": "I16",
                 "int32": "I32", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64"}
_TENSOR_DTYPES = {v: np.dtype(k) for k, v in _TENSOR_NAMES.items()}


def from_safetensors(tensors: Dict[str, Any], output_path: PathLike, drop_if_exists: bool = False,
                     chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False, progress: Progress = None) -> Optional[NumPack]:
    """A dict of arrays or CPU tensors, as safetensors' load_file() gives it."""
    with writing(output_path, drop_if_exists) as npk:
        for name, t in tensors.items():
            store_array(npk, name, _numpy_of(t, name), chunk_size, progress)
    return finished(npk, return_npk_obj)


def to_safetensors(input_path: PathLike, array_names: Optional[Iterable[str]] = None, progress: Progress = None
                   ) -> Dict[str, np.ndarray]:
    """Arrays (default: all) in memory, as safetensors' save_file() takes them."""
    with opened(input_path) as npk:
        return {name: in_memory(npk, name, progress) for name in the_arrays(npk, array_names)}


def _read_header(f: IO[bytes], path: Any) -> Tuple[dict, int]:
    head = f.read(8)
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
    if not 0 < length <= 100_000_000:
        raise ValueError(f"{path}: is no safetensors file")
    raw = f.read(length)
    try:
        header = json.loads(raw)
        if len(raw) != length or not isinstance(header, dict):
            raise ValueError
    except ValueError:
        raise ValueError(f"{path}: its header of {length} bytes is no JSON object") from None
    return header, 8 + length


def get_safetensors_metadata(path: PathLike) -> Dict[str, Any]:
    """{"tensors": {name: {"dtype", "shape"}}, "metadata": {...}} of a file, without reading tensors."""
    with input_file(path) as local, open(local, "rb") as f:
        header, _ = _read_header(f, path)
    metadata = header.pop("__metadata__", {})
    return {"tensors": {k: {"dtype": v["dtype"], "shape": v["shape"]} for k, v in header.items()}, "metadata": metadata}


def iter_safetensors(path: PathLike, keys: Optional[List[str]] = None) -> Iterator[Tuple[str, np.ndarray]]:
    """(name, read-only array over the mapped file) of each tensor. KeyError: no such tensor; ValueError: a dtype or an extent
    that makes no sense."""
    with input_file(path) as local:
        with open(local, "rb") as f:
            header, start = _read_header(f, path)
        header.pop("__metadata__", None)
        for name in header if keys is None else keys:
            if name not in header:
                raise KeyError(f"{path}: has no tensor {name!r}")
            t = header[name]
            dtype = _TENSOR_DTYPES.get(t["dtype"])
            if dtype is None:
                raise ValueError(f"{path}: tensor {name}: NumPack cannot store {t['dtype']}")
            first, last = t["data_offsets"]
            shape = tuple(t["shape"])
            if last - first != int(np.prod(shape, dtype=object)) * dtype.itemsize or start + last > local.stat().st_size:
                raise ValueError(f"{path}: tensor {name}: bytes {first} to {last} are not those of {dtype}{shape}")
            if last == first:
                yield name, np.empty(shape, dtype)
            else:
                yield name, np.memmap(local, dtype, "r", start + first, shape or None)


def from_safetensors_file(input_path: PathLike, output_path: PathLike, keys: Optional[List[str]] = None,
                          drop_if_exists: bool = False, chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False,
                          progress: Progress = None) -> Optional[NumPack]:
    """The tensors of a file (default: all). KeyError: no such tensor; ValueError: a dtype that NumPack lacks, as BF16."""
    with input_file(input_path) as path, writing(output_path, drop_if_exists) as npk:
        for name, t in iter_safetensors(path, keys):
            store_array(npk, name, t, chunk_size, progress)
    return finished(npk, return_npk_obj)


def to_safetensors_file(input_path: PathLike, output_path: PathLike, array_names: Optional[Iterable[str]] = None,
                        metadata: Optional[Dict[str, str]] = None, chunk_size: int = DEFAULT_CHUNK_SIZE,
                        progress: Progress = None) -> None:
    """Arrays (default: all) as one file. ValueError: a dtype that the format lacks (complex128)."""
    with opened(input_path) as npk:
        names = the_arrays(npk, array_names)
        header: Dict[str, Any] = {"__metadata__": {str(k): str(v) for k, v in metadata.items()}} if metadata else {}
        at = 0
        for name in sorted(names, key=lambda n: (-npk.get_dtype(n).itemsize, n)):      # so that each stays aligned
            shape, dtype = npk.get_shape(name), npk.get_dtype(name)
            if dtype.name not in _TENSOR_NAMES:
                raise ValueError(f"array {name}: safetensors has no {dtype}")
            end = at + int(np.prod(shape, dtype=object)) * dtype.itemsize
            header[name] = {"dtype": _TENSOR_NAMES[dtype.name], "shape": list(shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with output_file(output_path) as path, open(path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for name in header:
                if name != "__metadata__":
                    for _, block in rows_in_blocks(npk, name, chunk_size, progress):
                        f.write(block.reshape(-1).view(np.uint8).data)


# --- PyTorch ---


def _numpy_of(t: Any, name: str) -> np.ndarray:
    """An array, or a tensor of any device, which is not copied where that is possible."""
    if not hasattr(t, "detach"):
        return np.asarray(t)
    t = t.detach().cpu()
    try:
        return t.resolve_conj().resolve_neg().numpy()
    except TypeError as e:      # bfloat16, sparse, quantised
        raise TypeError(f"tensor {name}: {t.dtype}, {t.layout}: {e}") from None


class _Counted:
    """A file that is written in pieces, and tells after each how many of so many rows that makes."""

    def __init__(self, f: IO[bytes], rows: int, size: int, chunk_size: int, progress: Progress) -> None:
        self.f, self.rows, self.size, self.chunk_size, self.progress, self.done = f, rows, size, chunk_size, progress, 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for at in range(0, len(view), self.chunk_size):
            self.done += self.f.write(view[at:at + self.chunk_size])
            if self.progress is not None and self.size:
                self.progress(min(self.rows, self.rows * self.done // self.size), self.rows)
        return len(view)

    def flush(self) -> None:
        self.f.flush()


def from_tensor(tensor: Any, output_path: PathLike, array_name: Optional[str] = None, drop_if_exists: bool = False,
                chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False, progress: Progress = None) -> Optional[NumPack]:
    """A torch.Tensor as the array `array_name` (default: data). TypeError: something else, a sparse tensor, or a dtype that NumPy
    lacks, as bfloat16; ValueError: 0 dimensions."""
    torch = need("torch", "torch")
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"Expected torch.Tensor, got {type(tensor)}")
    with writing(output_path, drop_if_exists) as npk:
        store_array(npk, array_name or "data", _numpy_of(tensor, array_name or "data"), chunk_size, progress)
    return finished(npk, return_npk_obj)


def to_tensor(input_path: PathLike, array_name: Optional[str] = None, device: Any = None, dtype: Any = None,
              progress: Progress = None) -> Any:
    """An array (default: the only one) as a torch.Tensor in memory, on `device`, of torch's `dtype`."""
    torch = need("torch", "torch")
    with opened(input_path) as npk:
        t = torch.from_numpy(in_memory(npk, the_array(npk, array_name), progress))
    return t.to(device=device, dtype=dtype) if device is not None or dtype is not None else t


def from_pt(input_path: PathLike, output_path: PathLike, key: Optional[str] = None, drop_if_exists: bool = False,
            chunk_size: int = DEFAULT_CHUNK_SIZE, return_npk_obj: bool = False, array_name: Optional[str] = None,
            progress: Progress = None) -> Optional[NumPack]:
    """A .pt or .pth file: a tensor (named by the file's stem), or a dict of tensors, all or `key`. The file is mapped, and only
    data is read from it: pickled code is refused.

    KeyError: no such key; TypeError: something that is no tensor.
    """
    torch = need("torch", "torch")
    with input_file(input_path) as path:
        try:
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:      # the format before zip files cannot be mapped
            data = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(data, torch.Tensor):
            if key is not None:
                raise KeyError(f"{input_path}: is one tensor, it has no key {key!r}")
            data = {array_name or path.stem: data}
        elif isinstance(data, dict):
            if key is not None:
                if key not in data:
                    raise KeyError(f"Key '{key}' not found. Available: {list(data)}")
                data = {array_name or key: data[key]}
        else:
            raise TypeError(f"Unsupported PyTorch data type: {type(data)}")
        for name, t in data.items():
            if not isinstance(t, torch.Tensor) or not isinstance(name, str):
                raise TypeError(f"{input_path}: {name!r} is {type(t).__name__}, not a tensor")
        with writing(output_path, drop_if_exists) as npk:
            for name, t in data.items():
                store_array(npk, name, _numpy_of(t, name), chunk_size, progress)
    return finished(npk, return_npk_obj)


def to_pt(input_path: PathLike, output_path: PathLike, array_names: Optional[Iterable[str]] = None, as_dict: bool = True,
          chunk_size: int = DEFAULT_CHUNK_SIZE, array_name: Optional[str] = None, progress: Progress = None) -> None:
    """Arrays (default: all) as a dict of tensors, or with as_dict=False one as a tensor. torch.save() wants them all at once:
    they are handed over as maps of the store, which the kernel can page out; one with deleted rows is copied into memory.
    ValueError: a dtype that torch.save() lacks, as uint16 before PyTorch 2.6. `progress` counts the rows of all arrays together."""
    torch = need("torch", "torch")
    with opened(input_path) as npk, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)      # that the map is not writable: nobody writes to it
        names = the_arrays(npk, array_name if array_name is not None else array_names)
        tensors = {name: torch.from_numpy(np.asarray(npk.load(name, lazy=True))) for name in names}
        if not as_dict and len(tensors) != 1:
            raise ValueError(f"as_dict=False wants one array, not {names}")
        rows, size = sum(len(t) for t in tensors.values()), sum(t.numel() * t.element_size() for t in tensors.values())
        with output_file(output_path) as path, open(path, "wb") as f:
            try:
                torch.save(tensors if as_dict else tensors[names[0]], _Counted(f, rows, size, chunk_size, progress))
            except KeyError as e:      # of its own table of dtypes
                raise ValueError(f"torch.save(): {e.args[0]}; the arrays are {', '.join(f'{n}: {t.dtype}' for n, t in tensors.items())}"
                                 ) from None
