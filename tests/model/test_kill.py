"""kill -9 of a busy daemon, again and again on one store: after each mount everything that was acknowledged is there, and of
what was under way all or nothing. NPK_KILLS=500 makes it so many."""

import copy
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import kill_model  # noqa: E402
import npkread  # noqa: E402
from harness import PATIENCE, Mounter, scaled, wait_for  # noqa: E402

KILLS = int(os.environ.get("NPK_KILLS", scaled(20)))
WORKERS = 3


class Worker:
    """The process, and the model brought forward by what it says."""

    def __init__(self, mount, who, seed, said):
        self.model, self.began, self.said = kill_model.Model(who), None, said
        with open(said, "wb") as out:
            self.process = subprocess.Popen([sys.executable, str(HERE / "kill_worker.py"), str(mount), str(who), str(seed)],
                                            stdout=out, stderr=subprocess.PIPE, text=True)

    def end(self):
        """How much of what it said was acknowledged; an operation that it began, and that was not, is kept in self.began."""
        err = self.process.communicate(timeout=60)[1]
        assert self.process.returncode == 0, err[-3000:]
        out = self.said.read_text()
        lines = out.splitlines()
        if lines and not out.endswith("\n"):
            lines.pop()
        done = 0
        for line in lines:
            kind, n, *op = line.split()
            if kind == "b":
                self.began = (int(n), tuple(op))
            else:
                self.model.apply(*self.began)
                self.began, done = None, done + 1
        return done

    def allowed(self):
        """The states in which its arrays may be: what was acknowledged, and that with the operation under way."""
        out = [self.model.arrays]
        if self.began:
            m = copy.deepcopy(self.model)
            m.apply(*self.began)
            out.append(m.arrays)
        return out


def mine(arrays, who):
    return {k: v for k, v in arrays.items() if k.startswith(f"w{who}_")}


def is_state(got, want):
    return got.keys() == want.keys() and all(got[k].shape == want[k].shape and (got[k] == want[k]).all() for k in want)


@pytest.mark.timeout(60 + 20 * KILLS)
def test_nothing_acknowledged_is_lost(watchdog, tmp_path):
    seed = int(os.environ.get("NPK_KILL_SEED", "1"))
    chance = random.Random(seed)
    mounter = Mounter(tmp_path / "mounts", watchdog)
    store, acknowledged = tmp_path / "s.npk", 0
    for kill in range(KILLS):
        sync = chance.choice(["commit", "fsync", "always"])
        m = mounter.start(store, "create", f"sync={sync}", "commit=1", ro=False)
        workers = [Worker(m.path, kill * WORKERS + i, seed * 1000 + kill * WORKERS + i, tmp_path / f"said{i}")
                   for i in range(WORKERS)]
        try:
            wait_for("everybody is at work", lambda: all(w.said.stat().st_size for w in workers))
            time.sleep(chance.uniform(0.02, 0.6))
            os.kill(m.pid, signal.SIGKILL)
            try:
                m.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                subprocess.run(["umount", "-f", str(m.path)])
                raise AssertionError("a daemon that was killed does not end")
        finally:
            m.process.kill()
            m.process.wait()
            try:    # the dead mount stays until they have met it: behind it is a directory into which one can save
                done = [w.end() for w in workers]
            finally:
                mounter.kill(m)
        acknowledged += sum(done)
        told = f"kill {kill} of seed {seed}, sync={sync}, {done} operations acknowledged"
        m = mounter.start(store, ro=False)
        try:
            got = {p.name[:-4]: np.load(p) for p in m.path.glob("w*.npy")}
            for i, w in enumerate(workers):
                who = kill * WORKERS + i
                assert any(is_state(mine(got, who), want) for want in w.allowed()), \
                    f"{told}: worker {who} began {w.began}: it has {[(k, v.shape) for k, v in mine(got, who).items()]}, " \
                    f"one of {[[(k, v.shape) for k, v in a.items()] for a in w.allowed()]} wanted"
                for name in mine(got, who):
                    os.unlink(m.path / f"{name}.npy")
        except BaseException:
            mounter.kill(m)
            raise
        if chance.random() < 0.5:
            mounter.stop(m)
            assert npkread.complaints(store) == [], told
        else:
            mounter.kill(m)
    assert acknowledged > 3 * KILLS, f"{acknowledged} operations in {KILLS} kills are no load"
    print(f"{KILLS} kills, {acknowledged} acknowledged operations")
