"""A mounted array in scikit-learn: a model that learns block by block, and neighbours on the map compared with the mount's search.

    python3 contrib/python/examples/learn.py MOUNTPOINT FEATURES LABELS      # names of two arrays of equal length
"""

import os
import sys

import numpy as np
from sklearn.linear_model import SGDClassifier
from sklearn.neighbors import NearestNeighbors


def blocks(mountpoint, name, rows):
    """The blocks of an array, one map at a time."""
    directory = f"{mountpoint}/.numpack/arrays/{name}/batches/{rows}"
    for i in range(len(os.listdir(directory))):
        yield np.load(f"{directory}/{i}.npy", mmap_mode="r")


def search(mountpoint, name, row, k):
    """[row] of the k nearest, by the mount."""
    with open(f"{mountpoint}/.numpack/arrays/{name}/search", "r+b", buffering=0) as f:
        f.write(b"k=%d metric=l2 row=%d\n" % (k, row))
        return [int(line.split()[0]) for line in f.read().splitlines()]


def main(mountpoint, features, labels):
    x = np.load(f"{mountpoint}/{features}.npy", mmap_mode="r")
    y = np.load(f"{mountpoint}/{labels}.npy", mmap_mode="r")
    model = SGDClassifier(random_state=0)
    for _ in range(3):
        for part, answers in zip(blocks(mountpoint, features, 256), blocks(mountpoint, labels, 256)):
            model.partial_fit(part, answers, classes=np.unique(y))
    print(f"learnt from {len(x)} rows, {(model.predict(x) == y).sum()} right")

    neighbours = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(x)
    rows = neighbours.kneighbors(x[17:18], return_distance=False)[0]
    print(f"nearest to row 17: {', '.join(map(str, rows))}")
    print(f"of the mount:      {', '.join(map(str, search(mountpoint, features, 17, 5)))}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} MOUNTPOINT FEATURES LABELS")
    main(*sys.argv[1:])
