#!/usr/bin/env python3
"""An array of a mounted store from Python, with numpy and no other library: save, map, append, drop, search, write in place, a
transaction.

    python3 contrib/examples/tour.py MOUNTPOINT        # mounted read-write; writes the arrays `tour` and `kept`

A command is carried out when the write returns: a refused one is an OSError, and last_error says why.
"""

import os
import sys

import numpy as np

if len(sys.argv) != 2:
    sys.exit(f"usage: {sys.argv[0]} MOUNTPOINT")
mountpoint = sys.argv[1]
control = f"{mountpoint}/.numpack/arrays/tour"


def tell(path, command):
    with open(path, "w") as f:      # without `with`, Python drops the error of a write that it does late
        f.write(command + "\n")


def shape(name):
    with open(f"{mountpoint}/.numpack/arrays/{name}/shape") as f:
        return f.read().strip()


def rows(first, last):
    i = np.arange(first, last, dtype="f4")
    return np.column_stack([i, i * i, np.ones_like(i)])


try:
    np.save(f"{mountpoint}/tour.npy", rows(0, 6))
    print("saved", shape("tour"))

    x = np.load(f"{mountpoint}/tour.npy", mmap_mode="r")        # no copy: pages come as they are touched
    print(f"sum {x.sum():g}")

    with open(f"{control}/append", "wb") as f:
        np.save(f, rows(6, 8))
    print("appended", shape("tour"))

    tell(f"{control}/drop", "0,-1")
    print("dropped", shape("tour"))
    assert len(x) == 6                                          # an open map keeps the rows it was opened with

    with open(f"{control}/search", "r+b", buffering=0) as f:    # what is written is answered on the same handle
        f.write(b"k=2 metric=l2sq row=0\n")
        for line in f.read().decode().splitlines():
            print("near", line)

    x = np.load(f"{mountpoint}/tour.npy", mmap_mode="r+")
    x[0, 2] = 100
    x.flush()
    print(f"wrote {np.load(f'{mountpoint}/tour.npy')[0, 2]:g}")

    # A directory is a transaction: the whole tree again. Nobody outside sees what is done in it before the commit.
    transaction = f"{mountpoint}/.numpack/batch/tour.{os.getpid()}"
    os.mkdir(transaction)
    np.save(f"{transaction}/kept.npy", x)
    tell(f"{transaction}/.numpack/arrays/tour/drop", "0:2")
    tell(f"{transaction}/ctl", "commit")
    print("kept", shape("kept"))
    print("tour", shape("tour"))
except OSError as e:
    sys.exit(str(e))
