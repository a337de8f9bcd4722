"""The library under test in a process of its own (engine_worker.py), and the same calls for a mount: both have

    save append drop replace extend compact remove clone rename reset fsync sync names load close kill

so that one test can run over either."""

import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from harness import BUILD, MODE, PATIENCE, SANITIZED, TESTS, npy, saved

RDONLY, RDWR, CREATE = 1, 2, 4


class Refused(Exception):
    """args[0]: the errno's name"""


def worker_environment():
    """A library built with a sanitizer can only be loaded by a Python that began with that sanitizer's runtime."""
    env = dict(os.environ)
    if SANITIZED:
        runtime = subprocess.run(["gcc", f"-print-file-name=lib{MODE}.so"], capture_output=True, text=True, check=True)
        env["LD_PRELOAD"] = runtime.stdout.strip()
        env["OPENBLAS_NUM_THREADS"] = "1"
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"    # Python keeps memory to its end
    return env


class Library:
    def __init__(self, path, scratch, flags=RDWR | CREATE):
        self.path, self.scratch, self.files = pathlib.Path(path), pathlib.Path(scratch), 0
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.stderr = open(self.scratch / "engine.stderr", "ab")
        self.process = subprocess.Popen([sys.executable, str(TESTS / "engine_worker.py"), str(BUILD / "libnumpack.so")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True,
                                        env=worker_environment())
        self.call("open", str(path), flags)

    alive = property(lambda self: self.process.poll() is None)

    def call(self, verb, *args):
        self.process.stdin.write(json.dumps([verb, args]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the library died at {verb} {args}: {(self.scratch / 'engine.stderr').read_text()[-3000:]}")
        reply = json.loads(line)
        if "errno" in reply:
            raise Refused(reply["errno"], reply["message"])
        return reply["ok"]

    def file(self, array):
        path = self.scratch / "out.npy"
        np.save(path, array)
        return str(path)

    def save(self, name, array):
        self.call("save", name, self.file(array))

    def append(self, name, array):
        self.call("append", name, self.file(array))

    def drop(self, name, rows):
        self.call("drop", name, ",".join(str(int(r)) for r in rows))

    def replace(self, name, rows, array, atomic=False):
        self.call("replace", name, [int(r) for r in rows], self.file(array), int(atomic))

    def load(self, name):
        path = self.scratch / "in.npy"
        self.call("load", name, str(path))
        return np.load(path)

    def exchange(self, name, to):
        self.call("rename", name, to, 2)

    def __getattr__(self, verb):
        if verb in ("extend", "compact", "remove", "clone", "rename", "reset", "fsync", "sync", "names"):
            return lambda *args: self.call(verb, *args)
        raise AttributeError(verb)

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            status = self.process.wait(PATIENCE)
            assert status == 0, f"the library's process ended with {status}: {(self.scratch / 'engine.stderr').read_text()[-3000:]}"
        self.process.stdout.close()
        self.stderr.close()

    def close(self):
        self.call("close")
        self.end()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.stderr.close()


def write_once(path, data, flags=os.O_WRONLY):
    """One write(2) with all of it; an error of write or close raises Refused."""
    fd = os.open(path, flags)
    try:
        try:
            done = os.write(fd, data)
        except OSError as e:
            raise Refused(errno.errorcode[e.errno], os.strerror(e.errno)) from None
        assert done == len(data), f"{path}: {done} of {len(data)} bytes were taken"
    finally:
        try:
            os.close(fd)
        except OSError as e:
            if sys.exc_info()[0] is None:
                raise Refused(errno.errorcode[e.errno], os.strerror(e.errno)) from None


class Mounted:
    """The same calls through a mount, as a program would make them."""

    def __init__(self, mounter, store, *options):
        self.mounter, self.m = mounter, mounter.start(store, "create", *options, ro=False)

    alive = property(lambda self: self.m.process.poll() is None)

    def control(self, name, verb, data):
        write_once(self.m.control(name) / verb, data)

    def save(self, name, array):
        np.save(self.m.array(name), array)

    def append(self, name, array):
        self.control(name, "append", saved(array))

    def drop(self, name, rows):
        self.control(name, "drop", (" ".join(str(int(r)) for r in rows) + "\n").encode())

    def replace(self, name, rows, array, atomic=False):
        line = "rows=" + ",".join(str(int(r)) for r in rows) + (" atomic" if atomic else "") + "\n"
        self.control(name, "replace", line.encode() + saved(array))

    def extend(self, name, n):
        x = self.load(name)
        os.truncate(self.m.array(name), len(saved(x)) + n * x[:1].nbytes if len(x) else 0)

    def compact(self, name):
        self.control(name, "compact", b"1\n")

    def remove(self, name):
        os.unlink(self.m.array(name))

    def clone(self, name, to):
        self.control(name, "clone", ('"' + npy(to)[:-4] + '"\n').encode())

    def rename(self, name, to):
        os.rename(self.m.array(name), self.m.array(to))

    def exchange(self, name, to):
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.renameat2(-100, os.fsencode(self.m.array(name)), -100, os.fsencode(self.m.array(to)), 2) != 0:
            raise Refused(errno.errorcode[ctypes.get_errno()], "renameat2")

    def reset(self):
        write_once(self.m.control() / "reset", f"confirm={self.m.store.name}\n".encode())

    def fsync(self):
        fd = os.open(self.m.path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync(self):
        write_once(self.m.control() / "sync", b"1\n")

    def names(self):
        return (self.m.control() / "members").read_text().splitlines()

    def load(self, name):
        return np.load(self.m.array(name))

    def close(self):
        self.mounter.stop(self.m)

    def kill(self):
        self.mounter.kill(self.m)


def crashed(directory):
    """A store whose writer was killed, and left it with a journal. Its arrays as they must be are in `directory`/want.npz."""
    lib = Library(directory / "crashed.npk", directory / "scratch")
    x, more = np.arange(200, dtype="i4").reshape(50, 4), np.arange(100, 120, dtype="i4").reshape(5, 4)
    lib.save("x", x)
    lib.sync()
    lib.append("x", more)
    lib.save("y", np.arange(7.0))
    lib.drop("x", [1, 3, 52])
    lib.save("z", np.arange(9, dtype="u1"))
    lib.kill()
    np.savez(directory / "want.npz", x=np.delete(np.concatenate([x, more]), [1, 3, 52], axis=0), y=np.arange(7.0),
             z=np.arange(9, dtype="u1"))
    return directory / "crashed.npk"
