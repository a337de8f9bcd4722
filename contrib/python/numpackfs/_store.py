"""An open store, shared by all handles of this process that name the same directory.

Two stores of one process would exclude one another as writers, so handles share one. It knows nothing of NumPack's Python
interface but its exceptions.
"""

import atexit
import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
import threading
from ctypes import byref, c_size_t, c_uint64, c_void_p

import numpy as np

from . import _lib
from ._lib import Array, Gen, address, check, encode, err, fail, lib
from .errors import ArrayNotFoundError, InvalidNameError, NumPackError, ReadOnlyError, StoreBusyError

LOCK_FILE = ".numpackfs.lock"
PIECE = 1 << 20      # bytes of one in-place write

_open: dict = {}     # (device, inode) of the directory -> Store
_open_lock = threading.Lock()


def acquire(path, lock_timeout):
    """The store at `path`, made with its parents when it is not there; every acquire() is ended by one release()."""
    path = os.path.abspath(path)
    if os.path.exists(os.path.join(path, ".numpack", "version")):
        raise NumPackError(f"{path}: is a mounted store; open the directory it was mounted from, or its .npy files with numpy")
    try:
        os.makedirs(path, exist_ok=True)
        st = os.stat(path)
    except OSError as e:
        raise NumPackError(f"{path}: {e.strerror}", e.errno) from e
    with _open_lock:
        store = _open.get((st.st_dev, st.st_ino))
        if store is None:
            store = Store(path, (st.st_dev, st.st_ino), lock_timeout)
            _open[store.key] = store
        else:
            store.refresh()
        store.refs += 1
        return store


def release(store):
    with _open_lock:
        store.refs -= 1
        if store.refs > 0:
            return
        if _open.get(store.key) is store:
            del _open[store.key]
        store.finish()


def remove_tree(path):
    """What drop_if_exists does, unless somebody is using the store. True when there was something."""
    import shutil

    path = os.path.abspath(path)
    if not os.path.lexists(path):
        return
    if os.path.ismount(path):
        raise NumPackError(f"{path}: is a mountpoint, which drop_if_exists does not remove")
    if not os.path.isdir(path) or os.path.islink(path):
        os.unlink(path)
        return
    st = os.stat(path)
    with _open_lock:
        store = _open.get((st.st_dev, st.st_ino))
        if store is not None:      # another handle of this process: its arrays go, other files stay
            store.reset()
            return
    lock = os.path.join(path, LOCK_FILE)
    fd = None
    try:
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        if fd is not None:
            try:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            except (BlockingIOError, PermissionError):
                owner = os.pread(fd, 400, 0).decode("utf-8", "replace").strip() or "another process"
                raise busy(StoreBusyError(f"{path}: is being written by {owner}", 16)) from None
        shutil.rmtree(path)
    finally:
        if fd is not None:
            os.close(fd)


def busy(e):
    """Says how to write nevertheless, where the owner is a mount."""
    text = str(e)
    if "mounted at " in text:
        where = text.split("mounted at ", 1)[1]
        return StoreBusyError(f"{text}; write through that mount instead: {where}/<name>.npy and {where}/.numpack/", e.errno)
    return e


def name_bytes(name):
    raw = encode(name)
    if b"\0" in raw:
        raise InvalidNameError(f"array name {name!r}: has a NUL")
    return raw


class _Change:
    """A class and not a generator: it is entered in a third of the time, at every change."""

    __slots__ = ("store", "names")

    def __init__(self, store, names):
        self.store, self.names = store, names

    def __enter__(self):
        self.store.become_writer()
        return self.store.handle()

    def __exit__(self, kind, e, trace):
        self.store._changed(self.names)
        if isinstance(e, StoreBusyError):
            raise busy(e) from None


class _RowChange:
    """Of rows of one array, which stays what it is beside. `moves`: not only in place, where generations show it."""

    __slots__ = ("store", "name", "moves")

    def __init__(self, store, name, moves=True):
        self.store, self.name, self.moves = store, name, moves

    def __enter__(self):
        if not self.store.writing:
            self.store.become_writer()
        return self.store.array(self.name)

    def __exit__(self, kind, e, trace):
        if self.moves or e is not None:
            self.store._rows_changed(self.name)
        if isinstance(e, StoreBusyError):
            raise busy(e) from None


class Store:
    def __init__(self, path, key, lock_timeout, flags=_lib.RDWR | _lib.CREATE):
        self.path, self.key, self.lock_timeout = path, key, lock_timeout
        self.refs = 0
        self.why_not = None           # why nothing can be written through this one
        self._fresh()
        self._open(flags)

    def _fresh(self):
        self.ptr = None
        self.lock = threading.RLock()
        self.writing = False          # the library has the writer's lock
        self.epoch = 0                # counts changes made through this store
        self.arrays = {}              # name -> Array, of this epoch; changed under `lock`
        self.inside = threading.local()      # .ptr: the store of this thread's transaction
        self.mapped_files = set()     # data files written through a map, to be synced at close

    def _open(self, flags):
        ptr = c_void_p()
        rc = lib.npk_store_open(byref(ptr), os.fsencode(self.path), flags, err())
        check(rc)
        self.ptr = ptr.value
        if flags & _lib.RDWR:
            lib.npk_store_lock_timeout(self.ptr, max(0, int(self.lock_timeout * 1000)))

    def forked(self):
        """In the child: the parent's library state is left alone, and a store of our own is opened for reading."""
        self._fresh()
        self.why_not = "this handle was inherited by fork; close() and open() it here to write"

    def handle(self):
        inside = getattr(self.inside, "ptr", None)
        if inside is not None:
            return inside
        if self.ptr is None:
            with self.lock:
                if self.ptr is None:
                    self._open(_lib.RDONLY)
        return self.ptr

    def finish(self):
        """Brings everything to disk and closes; the store is closed also when that fails."""
        with self.lock:
            ptr, self.ptr = self.ptr, None
            self.arrays.clear()
            if ptr is None:
                return
            try:
                self._sync_maps()
            finally:
                rc = lib.npk_store_finish(ptr, err())
            check(rc)

    def _sync_maps(self):
        while self.mapped_files:
            with contextlib.suppress(FileNotFoundError):      # compacted or removed since
                fd = os.open(os.path.join(self.path, self.mapped_files.pop()), os.O_RDWR | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def sync(self):
        self._sync_maps()
        check(lib.npk_store_sync(self.handle(), err()))

    def refresh(self):
        """Takes over what another process changed."""
        check(lib.npk_store_refresh(self.handle(), None, None, err()))
        self._changed(None)

    # --- reading ---

    def array(self, name):
        """The array's Array. KeyError when there is no such array."""
        inside = getattr(self.inside, "ptr", None) is not None      # a transaction has arrays of its own
        got = None if inside else self.arrays.get(name)
        if got is not None:
            return got
        epoch = self.epoch
        raw = encode(name)
        ptr = c_void_p()
        rc = lib.npk_array_get_n(byref(ptr), self.handle(), raw, len(raw), err())
        if rc == -2:
            raise ArrayNotFoundError(name)
        check(rc)
        got = Array(ptr.value)
        with self.lock:
            if self.epoch == epoch and not inside:
                self.arrays[name] = got
        return got

    def gen(self, name):
        """The array's current generation. KeyError when there is no such array."""
        for attempt in range(3):
            epoch = self.epoch
            array = self.array(name)
            got = array.gen
            if got is not None:
                return got
            ptr = c_void_p()
            rc = lib.npk_gen_get(byref(ptr), array.ptr, err())
            if rc == -2:
                raise ArrayNotFoundError(name)
            check(rc)
            got = Gen(ptr.value)
            rc = lib.npk_gen_map(got.ptr, err())
            if rc != -116 or attempt == 2:      # ESTALE: another process replaced the data
                check(rc)
                break
            self.refresh()
        with self.lock:
            if self.epoch == epoch:
                array.dtype, array.ndim, array.inner, array.gen = got.dtype, got.ndim, got.inner, got
        return got

    def kind(self, name):
        """Something with the array's `dtype`, `ndim` and `inner`, which appending does not change. KeyError as gen()."""
        got = self.arrays.get(name)
        return got if got is not None and got.dtype is not None else self.gen(name)

    def has(self, name):
        try:
            self.array(name)
            return True
        except ArrayNotFoundError:
            return False

    def names(self):
        out, n = ctypes.POINTER(c_void_p)(), c_size_t()
        check(lib.npk_store_list(self.handle(), byref(out), byref(n), err()))
        try:
            names, length = [], c_size_t()
            for i in range(n.value):
                p = lib.npk_array_name(out[i], byref(length))
                names.append(ctypes.string_at(p, length.value).decode("utf-8", "surrogateescape"))
            return names
        finally:
            lib.npk_store_list_free(out, n)

    def metadata(self):
        return _lib.json_of(lib.npk_store_metadata_json, self.handle())

    def info(self, name):
        array = self.array(name)      # held during the call
        return _lib.json_of(lib.npk_array_info_json, array.ptr)

    # --- changing ---

    def _changed(self, names):
        """After a change of these arrays; None: of any."""
        with self.lock:
            self.epoch += 1
            if names is None:
                self.arrays.clear()
            else:
                for name in names:
                    self.arrays.pop(name, None)

    def _rows_changed(self, name):
        """After one that left the array in its place: its dtype and the shape of a row are what they were."""
        with self.lock:
            self.epoch += 1
            array = self.arrays.get(name)
            if array is not None:
                array.gen = None

    @staticmethod
    def _refuse(rc):
        """Raises what the library said of a change."""
        try:
            fail(rc)
        except StoreBusyError as e:
            raise busy(e) from None

    def become_writer(self):
        """Before a change. True: this process was not the writer before, and what the caller knew of the arrays may be of the time
        before another one changed them."""
        if self.writing:
            return False
        if self.why_not:
            raise ReadOnlyError(f"{self.path}: {self.why_not}", 30)
        try:
            check(lib.npk_store_lock(self.handle(), err()))
        except StoreBusyError as e:
            raise busy(e) from None
        finally:
            self._changed(None)
        self.writing = True
        return True

    def change(self, names):
        """with store.change(names) as handle: whatever changes these arrays."""
        return _Change(self, names)

    @contextlib.contextmanager
    def together(self, names):
        """What this thread changes inside becomes one change, which is made at the end, or not at all after an exception."""
        if getattr(self.inside, "ptr", None) is not None:
            yield
            return
        t = c_void_p()
        with self.change(names) as s:
            check(lib.npk_txn_begin(byref(t), s, err()))
            self.inside.ptr = lib.npk_txn_store(t)
            try:
                yield
                self.inside.ptr = None
                check(lib.npk_txn_commit(t, None, None, err()))
            except BaseException:
                lib.npk_txn_abort(t)
                raise
            finally:
                self.inside.ptr = None

    def lock_now(self):
        """Becomes the store's writer, which the first change otherwise does."""
        self.become_writer()

    def save(self, name, a):
        a = np.ascontiguousarray(a)
        raw = name_bytes(name)
        with self.change([name]) as s:
            rc = lib.npk_store_save(s, raw, _lib.CODES[a.dtype], byref(_lib.shape_struct(a.shape)), address(a), err())
            if rc == -22:
                try:
                    check(rc)
                except ValueError as e:
                    raise InvalidNameError(str(e)) from None
            check(rc)

    def append(self, name, a):
        a = np.ascontiguousarray(a)
        if not self.writing:
            self.become_writer()
        array = self.array(name)
        try:      # what _RowChange does, without the calls
            rc = lib.npk_array_append(array.ptr, address(a), len(a), err())
        finally:
            self._rows_changed(name)
        if rc < 0:
            self._refuse(rc)

    def replace(self, name, rows, a, atomic=False):
        """Row j of `a` to row rows[j]; `rows` is a range with step 1 or an int64 array."""
        a = np.ascontiguousarray(a)
        flags = _lib.REPLACE_ATOMIC if atomic else 0
        with _RowChange(self, name, moves=False) as array:      # in a transaction together() tells of it
            if isinstance(rows, range):
                rc = lib.npk_array_replace_range(array.ptr, rows.start, len(rows), address(a), flags, err())
            else:
                rc = lib.npk_array_replace(array.ptr, address(rows), len(rows), address(a), flags, err())
            if rc < 0:
                fail(rc)

    def drop_rows(self, name, rows):
        """How many rows went; `rows` is a range or an int64 array of rows that are there."""
        count = c_uint64()
        with _RowChange(self, name) as array:
            if isinstance(rows, range):
                if len(rows) == 0:
                    return 0
                if rows.step < 0:
                    rows = rows[::-1]
                text = f"{rows.start}:{rows[-1] + 1}:{rows.step}".encode()
                check(lib.npk_array_drop(array.ptr, text, byref(count), err()))
            else:
                check(lib.npk_array_drop_rows(array.ptr, address(rows), len(rows), byref(count), err()))
        return count.value

    def remove(self, name):
        with self.change([name]) as s:
            rc = lib.npk_store_remove(s, name_bytes(name), err())
            if rc == -2:
                raise ArrayNotFoundError(name)
            check(rc)

    def clone(self, source, target):
        with self.change([target]) as s:
            rc = lib.npk_store_clone(s, name_bytes(source), name_bytes(target), err())
            if rc == -2:
                raise ArrayNotFoundError(source)
            check(rc)

    def rename(self, source, target):
        with self.change([source, target]) as s:
            rc = lib.npk_store_rename(s, name_bytes(source), name_bytes(target), 1, err())
            if rc == -2:
                raise ArrayNotFoundError(source)
            check(rc)

    def compact(self, name):
        with _RowChange(self, name) as array:
            check(lib.npk_array_compact(array.ptr, err()))

    def reset(self):
        with self.change(None) as s:
            check(lib.npk_store_reset(s, err()))

    # --- piece by piece ---

    @contextlib.contextmanager
    def saving(self, name, dtype, inner):
        """with store.saving(name, dtype, inner_shape) as write: write(block) ...; the array appears whole at the end, or not
        at all after an exception. Blocks are arrays (n, *inner) of that dtype."""
        dtype = np.dtype(dtype)
        raw = name_bytes(name)
        w = c_void_p()
        with self.change([name]) as s:
            check(lib.npk_save_open(byref(w), s, _lib.CODES[dtype], byref(_lib.shape_struct((0,) + tuple(inner))), err()))

            def write(block):
                block = np.ascontiguousarray(block)
                if block.dtype != dtype or block.shape[1:] != tuple(inner):
                    raise ValueError(f"array {name}: a block is {block.dtype}{block.shape}, not {dtype}(n, *{tuple(inner)})")
                check(lib.npk_save_write(w, address(block), block.nbytes, err()))

            try:
                yield write
            except BaseException:
                lib.npk_save_abort(w)
                raise
            rc = lib.npk_save_commit(w, raw, err())
            if rc == -22:
                raise InvalidNameError(_lib._tls.err.msg.decode("utf-8", "replace"))
            check(rc)

    # --- writing in place ---

    def writable_map(self, name):
        """All rows as an array over a writable shared map of the data file, or None where deleted rows or segments lie between
        them. What is written is in the file at once."""
        gen = self.gen(name)
        info = self.info(name)
        if info["deleted"] or info["segments"] or gen.rows == 0 or gen.row_bytes == 0:
            return None
        with self.change([]) as s:
            # Bytes that a journal record still vouches for must not change under it.
            check(lib.npk_store_fsync(s, err()))
        info = self.info(name)
        file = info["data_file"]
        fd = os.open(os.path.join(self.path, file), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            m = mmap.mmap(fd, gen.rows * gen.row_bytes)
        finally:
            os.close(fd)
        self.mapped_files.add(file)
        return np.frombuffer(m, gen.dtype).reshape(gen.shape)

    def write_back(self, name, gen, a):
        """Writes all rows of `gen` in place, piece by piece."""
        a = np.ascontiguousarray(a)
        flat = a.reshape(-1).view(np.uint8)
        view = c_void_p()
        with _RowChange(self, name) as array:
            check(lib.npk_view_open(byref(view), gen.ptr, None, err()))
            try:
                for off in range(0, len(flat), PIECE):
                    piece = flat[off:off + PIECE]
                    check(lib.npk_view_pwrite(view, array.ptr, off, address(piece), len(piece), err()))
            finally:
                lib.npk_view_close(view)

    def touch(self, name, mtime_us):
        with _RowChange(self, name) as array:
            check(lib.npk_array_set_mtime(array.ptr, mtime_us, err()))


def _after_fork():
    global _open_lock
    _open_lock = threading.Lock()
    for store in list(_open.values()):
        store.forked()
    _open.clear()


def _at_exit():
    for store in list(_open.values()):
        with contextlib.suppress(Exception):      # what could not be finished is in the journal
            store.finish()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


@contextlib.contextmanager
def reading(path):
    """A store for reading only: the one that this process has open, or one of our own. ValueError: there is none."""
    path = os.path.abspath(path)
    if not any(os.path.isfile(os.path.join(path, name)) for name in ("metadata.npkm", "numpackfs.journal")):
        raise ValueError(f"{path}: is no NumPack store")
    st = os.stat(path)
    with _open_lock:
        store = _open.get((st.st_dev, st.st_ino))
        if store is not None:
            store.refs += 1
    if store is not None:
        try:
            yield store
        finally:
            release(store)
        return
    store = Store(path, None, 0, _lib.RDONLY)
    try:
        yield store
    finally:
        store.finish()
