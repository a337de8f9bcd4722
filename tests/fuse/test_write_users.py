"""What a normal user, who is not root, is told: EROFS by a read-only mount, EACCES by permissions, and what the owner may do."""

import errno
import os

import numpy as np
import pytest

from harness import same

USER = 65534
AS_USER = os.geteuid() == 0
A = np.arange(300, dtype="f4").reshape(100, 3)

def opener(flags):
    return lambda p: os.close(os.open(p, flags))


def say(path):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"0\n")


def copy(p):
    with open(p, "rb") as f, open(p + ".npy", "wb", buffering=0) as to:
        to.write(f.read())


CALLS = {"copy": copy, "write": opener(os.O_WRONLY), "read and write": opener(os.O_RDWR), "create": opener(os.O_WRONLY | os.O_CREAT),
         "read": opener(os.O_RDONLY), "unlink": os.unlink, "chmod": lambda p: os.chmod(p, 0o600), "truncate": lambda p: os.truncate(p, 0),
         "mkdir": os.mkdir, "utime": lambda p: os.utime(p, (1, 1)), "rename": lambda p: os.rename(p, p + "x.npy"), "say": say}


def attempt(what, path):
    """The name of the errno that the user gets, or OK. A fork: the interpreter itself may be out of the user's reach."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if AS_USER:
                os.setgroups([])
                os.setgid(USER)
                os.setuid(USER)
            try:
                CALLS[what](str(path))
                os.write(write, b"OK")
            except OSError as e:
                os.write(write, errno.errorcode[e.errno].encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with open(read) as f:
        got = f.read()
    assert os.waitpid(child, 0)[1] == 0
    return got


def theirs(path):
    """Gives a tree to the user."""
    if AS_USER:
        for base, dirs, files in os.walk(path):
            for name in [""] + files:
                os.chown(os.path.join(base, name), USER, USER)


@pytest.fixture
def reachable(tmp_path):
    """pytest's directories are closed to others."""
    p = tmp_path
    while p != p.parent and os.stat(p).st_uid == os.getuid() and not os.stat(p).st_mode & 1:
        p.chmod(0o755)
        p = p.parent
    return tmp_path


OPTIONS = ["allow_other"] if AS_USER else []
ON_READ_ONLY = [("write", "int32_5x3.npy"), ("read and write", "int32_5x3.npy"), ("create", "new.npy"), ("create", "scratch"),
                ("unlink", "int32_5x3.npy"), ("chmod", "int32_5x3.npy"), ("truncate", "int32_5x3.npy"), ("utime", "int32_5x3.npy"),
                ("rename", "int32_5x3.npy"), ("write", ".numpack/arrays/int32_5x3/shape"), ("say", ".numpack/arrays/int32_5x3/drop"),
                ("say", ".numpack/arrays/int32_5x3/append.raw"), ("say", ".numpack/sync"), ("write", ".numpack/arrays/int32_5x3/view/0:2.npy"),
                ("write", ".numpack/arrays/int32_5x3/deleted.npy"), ("write", ".numpack/export/store.safetensors")]


def test_a_read_only_mount_says_erofs_to_the_owner(mount, golden_copy, reachable):
    store = golden_copy("dtypes.npk")
    theirs(store)
    with mount(store, *OPTIONS) as m:
        got = {(what, name): attempt(what, m.path / name) for what, name in ON_READ_ONLY}
        assert got == {k: "EROFS" for k in got}
        assert attempt("read", m.array("int32_5x3")) == "OK"
        assert os.stat(m.array("int32_5x3")).st_mode == os.stat(store / "data_int32_5x3.npkd").st_mode


def test_permissions_count_on_a_writing_mount(mount, reachable):
    if not AS_USER:
        pytest.skip("only root can make files that are another user's")
    store = reachable / "s.npk"
    with mount(store, "create,allow_other", ro=False) as m:
        np.save(m.array("x"), A)
        for what, name in (("write", "x.npy"), ("truncate", "x.npy"), ("create", "new.npy"), ("unlink", "x.npy"),
                           ("write", ".numpack/arrays/x/drop"), ("write", ".numpack/arrays/x/append"), ("write", ".numpack/ctl"),
                           ("write", ".numpack/arrays/x/view/0:2.npy")):
            assert attempt(what, m.path / name) == "EACCES", (what, name)
        assert attempt("chmod", m.array("x")) == "EPERM" and attempt("read", m.array("x")) == "OK"
        same(m.load("x"), A)
    theirs(store)
    with mount(store, "allow_other", ro=False) as m:
        assert attempt("say", m.control("x") / "drop") == "OK"
        assert attempt("write", m.array("x")) == "OK"
        assert attempt("write", m.control("x") / "shape") == "EACCES"
        same(m.load("x"), A[1:])


def test_who_creates_an_array_owns_it(mount, reachable):
    if not AS_USER:
        pytest.skip("only root can make files that are another user's")
    store = reachable / "s.npk"
    with mount(store, "create,allow_other", ro=False) as m:
        np.save(m.array("x"), A)
        os.chmod(m.path, 0o777)
        assert attempt("copy", m.array("x")) == "OK"
        st = os.stat(m.path / "x.npy.npy")
        assert (st.st_uid, st.st_gid) == (USER, USER)
        assert attempt("write", m.path / "x.npy.npy") == "OK" and attempt("write", m.array("x")) == "EACCES"
