"""Runs libnumpack in a process of its own: one JSON command a line on stdin, one JSON answer a line on stdout. A test can
kill it in the middle of anything, and a sanitizer's runtime can be given to it alone. Arrays travel as .npy files."""

import ctypes
import errno
import json
import os
import sys

import numpy as np

from npkwrite import DTYPES

VOID, U64 = ctypes.c_void_p, ctypes.c_uint64


class Err(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("msg", ctypes.c_char * 512)]


class Shape(ctypes.Structure):
    _fields_ = [("ndim", ctypes.c_uint), ("dim", U64 * 32)]


class GenInfo(ctypes.Structure):    # as far as it is needed
    _fields_ = [("number", U64), ("dtype", ctypes.c_uint), ("shape", Shape), ("rows", U64), ("slots", U64), ("row_bytes", U64)]


class Failed(Exception):
    pass


class Store:
    def __init__(self, so):
        self.so = ctypes.CDLL(so)
        for name in ("npk_store_close", "npk_array_put", "npk_gen_put", "npk_store_list_free"):
            getattr(self.so, name).restype = None
        self.so.npk_gen_info.restype = ctypes.POINTER(GenInfo)
        self.so.npk_array_name.restype = ctypes.c_char_p
        self.store = VOID()

    def call(self, name, *args):
        err = Err()
        rc = getattr(self.so, name)(*args, ctypes.byref(err))
        if rc != 0:
            assert rc == -err.code and err.msg and b"\n" not in err.msg, (name, rc, err.code, err.msg)
            raise Failed(errno.errorcode.get(-rc, str(-rc)), err.msg.decode(errors="replace"))

    def array(self, name, call):
        a = VOID()
        self.call("npk_array_get", ctypes.byref(a), self.store, name.encode())
        try:
            return call(a)
        finally:
            self.so.npk_array_put(a)

    # --- verbs ---

    def open(self, path, flags):
        self.call("npk_store_open", ctypes.byref(self.store), os.fsencode(path), flags)

    def close(self):
        store, self.store = self.store, VOID()
        self.call("npk_store_finish", store)

    def save(self, name, file):
        x = np.ascontiguousarray(np.load(file)).reshape(np.load(file, mmap_mode="r").shape)
        shape = Shape(x.ndim, (U64 * 32)(*x.shape))
        self.call("npk_store_save", self.store, name.encode(), DTYPES.index(x.dtype.name), ctypes.byref(shape), VOID(x.ctypes.data))

    def append(self, name, file):
        x = np.ascontiguousarray(np.load(file))
        self.array(name, lambda a: self.call("npk_array_append", a, VOID(x.ctypes.data), U64(len(x))))

    def drop(self, name, sel):
        n = U64()
        self.array(name, lambda a: self.call("npk_array_drop", a, sel.encode(), ctypes.byref(n)))
        return n.value

    def replace(self, name, rows, file, flags=0):
        x = np.ascontiguousarray(np.load(file))
        at = (ctypes.c_int64 * len(rows))(*rows)
        self.array(name, lambda a: self.call("npk_array_replace", a, at, ctypes.c_size_t(len(rows)), VOID(x.ctypes.data), flags))

    def extend(self, name, n):
        self.array(name, lambda a: self.call("npk_array_extend", a, U64(n)))

    def compact(self, name):
        self.array(name, lambda a: self.call("npk_array_compact", a))

    def remove(self, name):
        self.call("npk_store_remove", self.store, name.encode())

    def clone(self, name, to):
        self.call("npk_store_clone", self.store, name.encode(), to.encode())

    def rename(self, name, to, flags=0):
        self.call("npk_store_rename", self.store, name.encode(), to.encode(), flags)

    def reset(self):
        self.call("npk_store_reset", self.store)

    def fsync(self):
        self.call("npk_store_fsync", self.store)

    def sync(self):
        self.call("npk_store_sync", self.store)

    def names(self):
        out, n = VOID(), ctypes.c_size_t()
        self.call("npk_store_list", self.store, ctypes.byref(out), ctypes.byref(n))
        arrays = ctypes.cast(out, ctypes.POINTER(VOID))
        found = [self.so.npk_array_name(VOID(arrays[i]), None).decode() for i in range(n.value)]
        self.so.npk_store_list_free(out, n)
        return found

    def load(self, name, file):
        def read(a):
            g = VOID()
            self.call("npk_gen_get", ctypes.byref(g), a)
            try:
                info = self.so.npk_gen_info(g).contents
                x = np.empty(tuple(info.shape.dim[:info.shape.ndim]), DTYPES[info.dtype])
                self.call("npk_gen_read_rows", g, U64(0), U64(info.rows), VOID(x.ctypes.data))
                return x
            finally:
                self.so.npk_gen_put(g)
        np.save(file, self.array(name, read))


def main():
    store = Store(sys.argv[1])
    for line in sys.stdin:
        verb, args = json.loads(line)
        try:
            reply = {"ok": getattr(store, verb)(*args)}
        except Failed as e:
            reply = {"errno": e.args[0], "message": e.args[1]}
        print(json.dumps(reply), flush=True)


main()
