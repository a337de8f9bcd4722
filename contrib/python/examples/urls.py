"""Mounted arrays behind fsspec URLs: whatever opens a URL opens an array, and the converters take arrays to and from any other URL.

    python3 contrib/python/examples/urls.py MOUNTPOINT ARRAY URL      # URL: where a copy goes, as s3://bucket/x.npy

mounted read-write; makes the array ARRAY_back.
"""

import os
import shutil
import sys

import fsspec
import numpy as np


def main(mountpoint, name, url):
    mounted = "file://" + os.path.abspath(mountpoint)
    with fsspec.open(f"{mounted}/{name}.npy", "rb") as f:
        x = np.load(f)
    print(f"{name} {x.shape}")

    files, root = fsspec.url_to_fs(mounted)
    print(f"{len(files.glob(root + '/*.npy'))} arrays, {files.size(f'{root}/{name}.npy')} bytes")
    with fsspec.open(f"{mounted}/.numpack/arrays/{name}/view/0:3.npy", "rb") as f:      # a selection is a file, too
        assert (np.load(f) == x[:3]).all()

    fsspec.filesystem(fsspec.utils.get_protocol(url)).makedirs(os.path.dirname(url.split("://", 1)[-1]), exist_ok=True)
    with fsspec.open(f"{mounted}/{name}.npy", "rb") as source, fsspec.open(url, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    with fsspec.open(url, "rb") as source, fsspec.open(f"{mounted}/{name}_back.npy", "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)     # the array is there when its last byte is written
    print(f"{name}_back is {'equal' if (np.load(f'{mountpoint}/{name}_back.npy') == x).all() else 'another'}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} MOUNTPOINT ARRAY URL")
    main(*sys.argv[1:])
