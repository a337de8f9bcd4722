"""What every test of a mount needs: the built programs, stores with known contents, a mount that is surely gone afterwards.

Set NPK_BUILD to the directory of the build under test (tests/run.py does).
"""

import contextlib
import errno
import gc
import hashlib
import io
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
BUILD = (ROOT / os.environ.get("NPK_BUILD", "build/release")).resolve()
MODE = BUILD.name
SANITIZED = MODE in ("asan", "tsan")
PATIENCE = 120.0 if SANITIZED else 30.0     # seconds after which something that should happen will not
DAEMON_LIFE = 600.0 if SANITIZED else 150.0  # then the watchdog ends a test's daemon
REPORTS = os.environ.get("NPK_REPORTS")     # where sanitizers write; one file there is one failure
SCALE = float(os.environ.get("NPK_SCALE", "1"))  # of the number of random cases

INDEX = json.loads((GOLDEN / "index.json").read_text())
ARRAYS = INDEX["arrays"]
BAD = json.loads((GOLDEN / "bad" / "index.json").read_text())

# Arrays of the demo's store are golden as well.
for _name in ("images", "labels", "pixels"):
    ARRAYS.append({"store": "digits.npk", "array": _name, "physical_rows": 1797, "deleted": 97, "segmented": False,
                   "expected_npy": f"digits.npk.expected/{_name}.npy"})


def scaled(n):
    return max(1, int(n * SCALE))


def wait_for(what, condition, patience=None):
    """Polls until condition() is true, and returns what it returned."""
    deadline = time.monotonic() + (patience or PATIENCE)
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain until {what}")
        time.sleep(0.02)


# --- names ------------------------------------------------------------------------------------------------------------


def escape(name):
    """An array's name as one path component, by interface.md section 2. Takes str or bytes, returns bytes."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8")
    if raw == b"":
        return b"%"
    # Bytes that are not UTF-8 come out of surrogateescape as single code points U+DC80..U+DCFF.
    out = b""
    for i, ch in enumerate(raw.decode("utf-8", "surrogateescape")):
        code = ord(ch)
        if 0xDC80 <= code <= 0xDCFF:
            out += b"%%%02X" % (code - 0xDC00)
        elif ch in "/%" or code < 0x20 or code == 0x7F or (ch == "." and i == 0):
            out += b"%%%02X" % code
        else:
            out += ch.encode("utf-8")
    return out


def component(name):
    return os.fsdecode(escape(name))


def npy(name):
    return component(name) + ".npy"


# --- arrays -----------------------------------------------------------------------------------------------------------


def saved(array):
    """The bytes that np.save writes."""
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def same(got, want):
    """Equal in type, shape and every bit; NaN payloads and -0.0 count."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype and got.shape == want.shape, f"{got.dtype}{got.shape}, not {want.dtype}{want.shape}"
    if got.tobytes() != want.tobytes():
        flat = np.flatnonzero(np.frombuffer(got.tobytes(), "u1") != np.frombuffer(want.tobytes(), "u1"))
        raise AssertionError(f"{len(flat)} bytes differ, the first at {flat[0]}:\n{got!r}\nnot\n{want!r}")


# --- trees ------------------------------------------------------------------------------------------------------------


def tree(path):
    """Everything about a directory that reading must not change: names, kinds, modes, owners, times, contents, inodes."""
    out = {}
    for base, dirs, files in os.walk(os.fsencode(path)):
        for name in [b"."] + dirs + files:
            full = os.path.join(base, name)
            st = os.lstat(full)
            content = None
            if stat.S_ISREG(st.st_mode):
                with open(full, "rb") as f:
                    content = hashlib.sha256(f.read()).hexdigest()
            elif stat.S_ISLNK(st.st_mode):
                content = os.readlink(full)
            out[os.path.relpath(full, os.fsencode(path))] = (
                st.st_mode, st.st_uid, st.st_gid, st.st_ino, st.st_nlink, st.st_size, st.st_mtime_ns, content)
    return out


def differences(before, after):
    return {k: (before.get(k), after.get(k)) for k in sorted(before.keys() | after.keys()) if before.get(k) != after.get(k)}


@contextlib.contextmanager
def untouched(path):
    before = tree(path)
    yield
    assert differences(before, tree(path)) == {}, f"{path} changed on disk"


def copy_golden(name, to):
    """A private, writable copy of a golden store in the directory `to`."""
    to = pathlib.Path(to)
    archive = GOLDEN / (name + ".tar")
    if archive.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(to)
    else:
        shutil.copytree(GOLDEN / name, to / pathlib.Path(name).name)
    return to / pathlib.Path(name).name


# --- sanitizers -------------------------------------------------------------------------------------------------------


def fresh_reports():
    """What sanitizers wrote since the last call, one text a file. What is told here is not left for tests/run.py to tell."""
    texts = []
    for path in sorted(pathlib.Path(REPORTS).iterdir()) if REPORTS else []:
        texts.append(f"{path.name}:\n{path.read_text(errors='replace')[:6000]}")
        path.unlink()
    return texts


# --- mounts -----------------------------------------------------------------------------------------------------------


class MountFailed(AssertionError):
    def __init__(self, status, message):
        super().__init__(f"the daemon ended with status {status}: {message}")
        self.status, self.message = status, message


def mounted(path):
    """The mountinfo line of what is mounted on `path`, or None."""
    want = os.fsencode(path)
    for ch in b"\\ \t\n":
        want = want.replace(bytes([ch]), b"\\%03o" % ch)
    with open("/proc/self/mountinfo", "rb") as f:
        lines = [line for line in f if line.split()[4] == want]
    return lines[-1] if lines else None


class Mount:
    def __init__(self, path, store, process, log):
        self.path, self.store, self.process, self.log = pathlib.Path(path), pathlib.Path(store), process, log

    pid = property(lambda self: self.process.pid)

    def array(self, name):
        return self.path / npy(name)

    def control(self, name=None):
        base = self.path / ".numpack"
        return base if name is None else base / "arrays" / component(name)

    def view(self, name, selection):
        return self.control(name) / "view" / (selection + ".npy")

    def load(self, name, **kw):
        return np.load(self.array(name), **kw)

    def last_errors(self):
        return [json.loads(line) for line in (self.control() / "last_error").read_text().splitlines()]

    def log_text(self):
        return self.log.read_text(errors="replace")


class Watchdog:
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, str(TESTS / "watchdog.py")], stdin=subprocess.PIPE)

    def say(self, *words):
        self.process.stdin.write((" ".join(str(w) for w in words) + "\n").encode())
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="session")
def watchdog():
    """One for all mounts; a fixture of the suites that import it."""
    dog = Watchdog()
    yield dog
    dog.close()


def require_fuse():
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as e:
        pytest.skip(f"/dev/fuse: {e.strerror}")
    if not shutil.which("fusermount3"):
        pytest.skip("fusermount3 is not installed")


def program(name):
    path = BUILD / name
    assert path.exists(), f"{path} is not built"
    return path


def clean_environment(home):
    """The environment without what a user may have configured."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NUMPACKFS_", "XDG_"))}
    return {**env, "HOME": str(home)}


class Mounter:
    """mount(store, "watch=poll:50", at=directory): a context manager that gives a Mount."""

    def __init__(self, base, watchdog, life=DAEMON_LIFE):
        self.base, self.watchdog, self.life, self.count = pathlib.Path(base), watchdog, life, 0

    def start(self, store, *options, at=None, ro=True, env=None, foreground="-f", under=()):
        require_fuse()
        self.count += 1
        self.base.mkdir(parents=True, exist_ok=True)
        if at is None:
            at = self.base / f"mnt{self.count}"
            at.mkdir()
        log = self.base / f"daemon{self.count}.log"
        opts = (["ro"] if ro else []) + list(options)
        argv = [*under, str(program("numpackfs")), foreground] + (["-o", ",".join(opts)] if opts else []) + [str(store), str(at)]
        with open(log, "wb") as err:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                                       env={**clean_environment(self.base), **(env or {})})
        self.watchdog.say("arm", process.pid, self.life, at)

        def answers():
            if process.poll() is not None:
                return True
            return mounted(at) and (pathlib.Path(at) / ".numpack" / "version").exists()

        wait_for(f"the mount of {store} answers", answers)
        if process.poll() is not None:
            self.watchdog.say("disarm", process.pid)
            assert not mounted(at), "the daemon is gone, the mount is still there"
            raise MountFailed(process.returncode, log.read_text(errors="replace").strip())
        return Mount(at, store, process, log)

    def stop(self, m):
        """Unmounts as a user does; the daemon must end by itself with status 0."""
        gc.collect()    # maps of numpy keep the mount busy
        deadline = time.monotonic() + PATIENCE
        while m.process.poll() is None and mounted(m.path):
            done = subprocess.run(["fusermount3", "-u", str(m.path)], capture_output=True, text=True)
            if done.returncode == 0:
                break
            if time.monotonic() > deadline:
                self.kill(m)
                raise AssertionError(f"cannot unmount: {done.stderr}")
            time.sleep(0.05)
        try:
            status = m.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill(m)
            raise AssertionError("the daemon does not end after its mount is gone:\n" + m.log_text())
        self.watchdog.say("disarm", m.pid)
        if mounted(m.path):
            subprocess.run(["fusermount3", "-u", "-z", str(m.path)], check=True)
            raise AssertionError(f"the daemon ended with status {status} and left its mount:\n{m.log_text()}")
        assert status == 0, f"the daemon ended with status {status}:\n{m.log_text()}"

    def kill(self, m):
        m.process.kill()
        m.process.wait()
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(m.path)], check=False)
        self.watchdog.say("disarm", m.pid)

    @contextlib.contextmanager
    def __call__(self, store, *options, **kw):
        m = self.start(store, *options, **kw)
        try:
            yield m
        except BaseException:
            # The first failure is the one to tell; a second one from unmounting would hide it.
            with contextlib.suppress(AssertionError):
                self.stop(m)
            raise
        self.stop(m)

    def refused(self, store, *options, **kw):
        """The status and the message of a mount that must not come up."""
        try:
            m = self.start(store, *options, **kw)
        except MountFailed as e:
            return e.status, e.message
        self.stop(m)
        raise AssertionError(f"{store} was mounted")


def expect_error(code, call, *args, **kw):
    """call() must fail with that errno; returns the exception."""
    try:
        result = call(*args, **kw)
    except OSError as e:
        got = errno.errorcode.get(e.errno, e.errno)
        assert e.errno == code, f"{got} ({e}), not {errno.errorcode[code]}"
        return e
    raise AssertionError(f"{errno.errorcode[code]} expected, but it worked: {result!r:.200}")


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def say(path, text):
    """One write to a control file; returns what write(2) does."""
    fd = os.open(path, os.O_WRONLY)
    try:
        return os.write(fd, as_bytes(text))
    finally:
        os.close(fd)


def ask(path, text):
    """One write to a control file, and the answer on the same handle: (errno or 0, bytes)."""
    fd, code, data = os.open(path, os.O_RDWR), 0, as_bytes(text)
    try:
        try:
            assert os.write(fd, data) == len(data)
        except OSError as e:
            code = e.errno
        return code, os.pread(fd, 1 << 24, 0)
    finally:
        with contextlib.suppress(OSError if code else ()):     # the error of a write is told by close(2) again
            os.close(fd)


# --- the real NumPack -------------------------------------------------------------------------------------------------


class RealNumPack:
    """The real library, in another process. Every method is one call of it; errors of the library raise."""

    def __init__(self, directory):
        self.directory, self.files = pathlib.Path(directory), 0
        self.directory.mkdir(parents=True, exist_ok=True)
        self.stderr = open(self.directory / "stderr", "wb")
        self.process = subprocess.Popen([sys.executable, str(TESTS / "real_worker.py")], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.stderr, text=True)

    def call(self, verb, *args):
        self.process.stdin.write(json.dumps([verb, args]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the real NumPack died at {verb} {args}: {(self.directory / 'stderr').read_text()[-2000:]}")
        reply = json.loads(line)
        if "error" in reply:
            raise AssertionError(f"the real NumPack refuses {verb} {args}: {reply['error']}")
        return reply["ok"]

    def file(self, array=None):
        self.files += 1
        path = self.directory / f"{self.files}.npy"
        if array is not None:
            np.save(path, array)
        return str(path)

    def open(self, path):
        self.call("open", str(path))

    def close(self):
        self.call("close")

    def save(self, arrays):
        self.call("save", {k: self.file(v) for k, v in arrays.items()})

    def append(self, arrays):
        self.call("append", {k: self.file(v) for k, v in arrays.items()})

    def drop_rows(self, name, rows):
        self.call("drop_rows", name, [int(r) for r in rows])

    def drop_array(self, name):
        self.call("drop_array", name)

    def update(self, name):
        self.call("update", name)

    def load(self, name):
        path = self.file()
        self.call("load", name, path)
        return np.load(path)

    def members(self):
        return self.call("members")

    def metadata(self):
        return self.call("metadata")

    def end(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.stderr.close()
