"""The formats by name and suffix."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from ..core import NumPack
from . import arrays, groups, tables, text
from .common import PathLike

# name: (suffixes, import, export, the export's argument for the arrays' names, the import's)
_FORMATS: Dict[str, Tuple[Tuple[str, ...], Callable, Callable, str, Optional[str]]] = {
    "npy": ((".npy",), arrays.from_npy, arrays.to_npy, "array_name", "array_name"),
    "npz": ((".npz",), arrays.from_npy, arrays.to_npy, "array_names", None),
    "csv": ((".csv",), text.from_csv, text.to_csv, "array_name", "array_name"),
    "txt": ((".txt", ".dat"), text.from_txt, text.to_txt, "array_name", "array_name"),
    "safetensors": ((".safetensors",), arrays.from_safetensors_file, arrays.to_safetensors_file, "array_names", "keys"),
    "parquet": ((".parquet", ".pq"), tables.from_parquet, tables.to_parquet, "array_name", "array_name"),
    "feather": ((".feather", ".arrow"), tables.from_feather, tables.to_feather, "array_name", "array_name"),
    "hdf5": ((".h5", ".hdf5"), groups.from_hdf5, groups.to_hdf5, "array_names", "dataset_names"),
    "zarr": ((".zarr",), groups.from_zarr, groups.to_zarr, "array_names", "array_names"),
    "pytorch": ((".pt", ".pth"), arrays.from_pt, arrays.to_pt, "array_names", "key"),
}
NAMES = tuple(_FORMATS)


def format_of(path: Any, name: str = "auto") -> str:
    """The format's name. ValueError: unknown."""
    if name != "auto":
        if name not in _FORMATS:
            raise ValueError(f"format {name!r} is none of {', '.join(NAMES)}")
        return name
    suffix = Path(str(path).rstrip("/")).suffix.lower()
    for kind, (suffixes, *_) in _FORMATS.items():
        if suffix in suffixes:
            return kind
    raise ValueError(f"{path}: its suffix tells no format; there are {', '.join(NAMES)}")


def _one(names: List[str], kind: str) -> Optional[str]:
    if len(names) > 1:
        raise ValueError(f"{kind} takes one array, not {len(names)}")
    return names[0] if names else None


def import_file(path: PathLike, store: PathLike, kind: str = "auto", names: Optional[List[str]] = None, **options: Any
                ) -> Optional[NumPack]:
    """Any file or directory of a known format into a store. `names`: of formats with one array its name in the store, of the
    others which of their arrays are taken."""
    kind = format_of(path, kind)
    _, read, _, _, argument = _FORMATS[kind]
    if names:
        if argument is None:
            raise ValueError(f"{kind} takes all arrays of the file")
        options[argument] = list(names) if argument.endswith("s") else _one(list(names), kind)
    return read(path, store, **options)


def export_file(store: PathLike, path: PathLike, kind: str = "auto", names: Optional[List[str]] = None, **options: Any) -> None:
    """Arrays of a store (default: all, or the only one) to a file or directory of a known format."""
    kind = format_of(path, kind)
    _, _, write, argument, _ = _FORMATS[kind]
    if names:
        options[argument] = list(names) if argument.endswith("s") else _one(list(names), kind)
    write(store, path, **options)
