"""One file for a whole store: pack(), unpack(), get_package_info()."""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_uint, c_uint64, c_void_p
from pathlib import Path
from typing import Any, Dict, Optional, Union

from . import _lib
from ._lib import Err, Progress, check, err, lib
from .errors import CorruptError, NumPackError

PathLike = Union[str, Path]
_CODECS = ("zstd", "zlib", "none")


class PackageError(ValueError, RuntimeError):
    """A package that is no package, damaged, or cut short."""


class _Pack(ctypes.Structure):
    _fields_ = [("codec", c_int), ("level", c_int), ("version", c_uint), ("threads", c_uint), ("overwrite", c_bool),
                ("progress", Progress), ("ctx", c_void_p)]


class _Unpack(ctypes.Structure):
    _fields_ = [("overwrite", c_bool), ("no_verify", c_bool), ("progress", Progress), ("ctx", c_void_p)]


class _Info(ctypes.Structure):
    _fields_ = [("version", c_uint), ("compression", c_uint), ("nfiles", c_uint64), ("original_bytes", c_uint64),
                ("stored_bytes", c_uint64)]


class _File(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("codec", c_int), ("original_bytes", c_uint64), ("stored_bytes", c_uint64)]


_CALLS = {
    "npk_pack": ([c_void_p, c_char_p, POINTER(_Pack), POINTER(Err)], c_int),
    "npk_unpack": ([c_char_p, c_char_p, POINTER(_Unpack), POINTER(Err)], c_int),
    "npk_package_open": ([POINTER(c_void_p), c_char_p, POINTER(Err)], c_int),
    "npk_package_info": ([c_void_p], POINTER(_Info)),
    "npk_package_file": ([c_void_p, c_uint64, POINTER(_File), POINTER(Err)], c_int),
    "npk_package_close": ([c_void_p], None),
}


def _bind() -> None:
    for name, (args, result) in _CALLS.items():
        try:
            f = getattr(lib, name)
        except AttributeError:
            raise NumPackError(f"libnumpack {lib.npk_version().decode()} has no {name}", errno.ENOSYS) from None
        f.argtypes, f.restype = args, result


def _checked(rc: int) -> None:
    try:
        check(rc)
    except CorruptError as e:
        raise PackageError(f"Invalid package: {e}") from None
    except ValueError as e:
        if rc == -errno.EEXIST:
            raise FileExistsError(errno.EEXIST, str(e)) from None
        raise


def _source(path: PathLike) -> Path:
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: does not exist")
    if not path.is_file():
        raise ValueError(f"{path}: is not a file")
    return path


def pack(source: PathLike, target: Optional[PathLike] = None, compression: Union[bool, str] = True,
         overwrite: bool = False) -> Path:
    """Writes the store `source` into the one file `target` (default: beside it, `.npk` replaced by `.npkg`), and returns its
    path. It appears whole or not at all. `compression`: True for zstd, False for none, or "zstd", "zlib", "none".

    ValueError: `source` is missing, no directory, or no store; FileExistsError: `target` is there and not overwrite.
    """
    _bind()
    source = Path(source)
    if not source.exists():
        raise ValueError(f"{source}: does not exist")
    if not source.is_dir():
        raise ValueError(f"{source}: is not a directory")
    if not any((source / name).exists() for name in ("metadata.npkm", "numpackfs.journal")):
        raise ValueError(f"{source}: is not a NumPack directory, it has no metadata.npkm")
    named: Dict[Any, str] = {True: "zstd", False: "none", **{c: c for c in _CODECS}}
    codec = named.get(compression)
    if codec is None:
        raise ValueError(f"compression is True, False, or one of {', '.join(_CODECS)}, not {compression!r}")
    if target is None:
        target = source.resolve().with_suffix(".npkg") if source.suffix == ".npk" else Path(f"{source.resolve()}.npkg")
    target = Path(target)
    if target.exists() and not overwrite:
        raise FileExistsError(errno.EEXIST, "is there; use overwrite=True", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    store = c_void_p()
    check(lib.npk_store_open(byref(store), os.fsencode(source), _lib.RDONLY, err()))
    try:
        how = _Pack(codec=_CODECS.index(codec), overwrite=overwrite)
        _checked(lib.npk_pack(store, os.fsencode(target), byref(how), err()))
    finally:
        lib.npk_store_close(store)
    return target


def unpack(source: PathLike, target: Optional[PathLike] = None, overwrite: bool = False, verify: bool = True) -> Path:
    """Makes the store `target` (default: beside it, `.npkg` replaced by `.npk`) of a package, and returns its path. It appears
    whole or not at all; what was there stays until then. Without `verify` the checksum is not compared, all else is checked.

    ValueError: `source` is missing, no file, or no package; RuntimeError (also a ValueError): the checksum or another part
    of it is damaged; FileExistsError: `target` is there and not overwrite.
    """
    _bind()
    source = _source(source)
    if target is None:
        name = source.name[:-5] if source.name.endswith(".npkg") else source.name
        target = source.resolve().parent / (name if name.endswith(".npk") else name + ".npk")
    target = Path(target)
    if target.exists() and not overwrite:
        raise FileExistsError(errno.EEXIST, "is there; use overwrite=True", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    how = _Unpack(overwrite=overwrite, no_verify=not verify)
    _checked(lib.npk_unpack(os.fsencode(source), os.fsencode(target), byref(how), err()))
    return target


def get_package_info(source: PathLike) -> Dict[str, Any]:
    """What a package says of itself; its files are not decoded.

    version, compression (0: none, 1: files may be compressed), compression_name, file_count, files (each name, original_size,
    compressed_size (0: stored as it is), actual_size), total_original_size, total_compressed_size, compression_ratio.
    Errors as of unpack().
    """
    _bind()
    source = _source(source)
    p = c_void_p()
    _checked(lib.npk_package_open(byref(p), os.fsencode(source), err()))
    try:
        info = lib.npk_package_info(p).contents
        files, f, names = [], _File(), []
        for i in range(info.nfiles):
            _checked(lib.npk_package_file(p, i, byref(f), err()))
            raw = f.codec == _CODECS.index("none")
            names.append(_CODECS[f.codec])
            files.append({"name": os.fsdecode(f.name), "original_size": f.original_bytes,
                          "compressed_size": 0 if raw else f.stored_bytes, "actual_size": f.stored_bytes})
        used = [n for n in names if n != "none"]
        return {
            "version": info.version, "compression": info.compression,
            "compression_name": "none" if info.compression == 0 else "zlib" if used and used[0] == "zlib" else "zstd",
            "file_count": info.nfiles, "files": files, "total_original_size": info.original_bytes,
            "total_compressed_size": info.stored_bytes,
            "compression_ratio": info.stored_bytes / info.original_bytes if info.original_bytes else 1.0,
        }
    finally:
        lib.npk_package_close(p)
