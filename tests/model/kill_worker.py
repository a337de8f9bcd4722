"""One of those who keep a mount busy until its daemon is killed: kill_worker.py MOUNT ID SEED. Writes down what it is about
to do and, once it is acknowledged, that it is: "b N what" and "a N", a line each, on stdout. What every operation makes is a
function of ID, N and what was there, so that the test can work it out."""

import os
import sys

import numpy as np

import kill_model


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
    except OSError:
        os._exit(0)     # the daemon is dead


main()
