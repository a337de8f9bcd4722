"""One of those who keep a mount busy until its daemon is killed: kill_worker.py MOUNT ID SEED. Writes down what it is about
to do and, once it is acknowledged, that it is: "b N what" and "a N", a line each, on stdout. What every operation makes is a
function of ID, N and what was there, so that the test can work it out."""

import errno
import os
import sys

import numpy as np

import kill_model

DEAD = (errno.ENOTCONN, errno.ECONNABORTED)     # of a request that comes after the death, and of one that was under way


def dead(path, error):
    """Whether it is the daemon's death, and not an answer of it. numpy's tofile() does not tell which error it got."""
    if error.errno is not None:
        return error.errno in DEAD
    try:
        os.statvfs(path)
    except OSError as e:
        return e.errno in DEAD
    return False


def main():
    path, who, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    m = kill_model.Model(who)
    rng = np.random.default_rng(seed)
    n = 0
    try:
        while True:
            n += 1
            op = m.choose(rng)
            print("b", n, *op, flush=True)
            kill_model.perform(path, m, n, op)
            m.apply(n, op)
            print("a", n, flush=True)
    except OSError as e:
        if not dead(path, e):
            raise


main()
