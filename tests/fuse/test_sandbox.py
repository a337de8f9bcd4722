"""A serving daemon has given up what serving does not need; every other test of this directory runs in the sandbox, too."""

import os
import signal

import numpy as np
import pytest

from harness import SANITIZED, wait_for
from npkwrite import write_store


def status(m, word):
    for line in open(f"/proc/{m.process.pid}/status"):
        if line.startswith(word + ":"):
            return int(line.split()[1])
    raise KeyError(word)


unsanitized = pytest.mark.skipif(SANITIZED, reason="a sanitizer's runtime does more than the sandbox allows")


@pytest.fixture
def store(tmp_path):
    x = np.arange(30, dtype="f4").reshape(10, 3)
    write_store(tmp_path / "s", {"x": x})
    return tmp_path / "s", x


@unsanitized
@pytest.mark.parametrize("ro", [True, False])
def test_on(mount, store, ro):
    path, x = store
    with mount(path, "sandbox", ro=ro) as m:
        assert (status(m, "NoNewPrivs"), status(m, "Seccomp")) == (1, 2)
        np.testing.assert_array_equal(m.load("x"), x)


def test_built_in(mount, store):
    """Sanitizers report with system calls of their own: only there is it off."""
    with mount(store[0]) as m:
        assert status(m, "Seccomp") == (0 if SANITIZED else 2)
        assert f"sandbox = {'off' if SANITIZED else 'on'}  # built-in" in m.control().joinpath("config").read_text()


def test_off(mount, store):
    with mount(store[0], "sandbox=off") as m:
        assert status(m, "Seccomp") == 0
        np.testing.assert_array_equal(m.load("x"), store[1])


@unsanitized
def test_a_log_is_made_anew_in_it(mount, store, tmp_path):
    log = tmp_path / "log" / "numpackfs.log"
    log.parent.mkdir()
    with mount(store[0], "sandbox", f"log_file={log}") as m:
        log.rename(log.with_suffix(".1"))
        os.kill(m.process.pid, signal.SIGHUP)
        wait_for("a new log", log.exists)


@unsanitized
def test_it_unmounts_itself(mount, store):
    with mount(store[0], "sandbox") as m:
        os.kill(m.process.pid, signal.SIGTERM)
        assert m.process.wait(30) == 0
        assert not os.path.ismount(m.path)


@unsanitized
def test_nobody_is_left(mount, store):
    """The process that unmounts goes with the daemon, however that ends."""
    m = mount.start(store[0], "sandbox")
    try:
        children = open(f"/proc/{m.process.pid}/task/{m.process.pid}/children").read().split()
        assert len(children) == 1
        wait_for("its name", lambda: open(f"/proc/{children[0]}/comm").read() == "numpackfs-umnt\n")  # after the mount answers, perhaps
    finally:
        mount.kill(m)

    def gone():
        try:
            return open(f"/proc/{children[0]}/stat").read().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for("its end", gone)
