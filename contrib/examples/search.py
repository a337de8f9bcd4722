#!/usr/bin/env python3
"""The five rows most like a row, or like a vector of yours: a line each, its index and its cosine.

    python3 contrib/examples/search.py MOUNTPOINT ARRAY ROW
    python3 contrib/examples/search.py MOUNTPOINT ARRAY VECTOR.npy

A vector goes by value, as np.save() writes it, in the array's dtype. A file of several vectors is one search: a line
then starts with the number of its vector.
"""

import io
import sys

import numpy as np


def ask(path, query):
    """Writes a query and reads the answer on the same handle. A refused query says why there, too."""
    answer = b""
    try:
        with open(path, "r+b", buffering=0) as f:
            try:
                f.write(query)
            finally:
                answer = f.read()
        return answer
    except OSError as e:
        sys.exit(answer.decode().strip() or str(e))


def like_row(path, row):
    return ask(path, b"k=5 metric=cosine row=%d\n" % row).decode()


def like_vector(path, vector):
    payload = io.BytesIO()
    np.save(payload, vector)
    data = payload.getvalue()
    answer = ask(path, b"k=5 metric=cosine fmt=npy npy=%d\n" % len(data) + data)
    return np.load(io.BytesIO(answer))      # records of index and score


if len(sys.argv) != 4:
    sys.exit(f"usage: {sys.argv[0]} MOUNTPOINT ARRAY ROW|VECTOR.npy")
mountpoint, array, what = sys.argv[1:]
search = f"{mountpoint}/.numpack/arrays/{array}/search"
if what.endswith(".npy"):
    hits = like_vector(search, np.load(what))
    for *query, rank in np.ndindex(hits.shape):
        print(*query, *hits[(*query, rank)].tolist())
else:
    print(like_row(search, int(what)), end="")
