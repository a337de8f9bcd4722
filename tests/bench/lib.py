"""libnumpack through ctypes: the reading calls that the benchmarks time. Buffers and arguments are made once by the caller,
so that a timed call is one foreign call and little else; call_cost() tells what that one costs."""

import ctypes
import time

import numpy as np

VOID = ctypes.c_void_p
U64 = ctypes.c_uint64


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("msg", ctypes.c_char * 512)]


class Shape(ctypes.Structure):
    _fields_ = [("ndim", ctypes.c_uint), ("dim", U64 * 32)]


class GenInfo(ctypes.Structure):    # as far as it is needed
    _fields_ = [("number", U64), ("dtype", ctypes.c_uint), ("shape", Shape), ("rows", U64), ("slots", U64),
                ("row_bytes", U64)]


class Library:
    def __init__(self, path):
        so = ctypes.CDLL(str(path))
        for name, result, arguments in (
                ("npk_version", ctypes.c_char_p, []),
                ("npk_store_open", ctypes.c_int, [VOID, ctypes.c_char_p, ctypes.c_uint, VOID]),
                ("npk_store_close", None, [VOID]),
                ("npk_array_get", ctypes.c_int, [VOID, VOID, ctypes.c_char_p, VOID]),
                ("npk_array_put", None, [VOID]),
                ("npk_gen_get", ctypes.c_int, [VOID, VOID, VOID]),
                ("npk_gen_put", None, [VOID]),
                ("npk_gen_info", ctypes.POINTER(GenInfo), [VOID]),
                ("npk_gen_borrow", ctypes.c_int, [VOID, U64, VOID, VOID, VOID]),
                ("npk_gen_read_rows", ctypes.c_int, [VOID, U64, U64, VOID, VOID]),
                ("npk_gen_take", ctypes.c_int, [VOID, VOID, ctypes.c_size_t, VOID, VOID])):
            f = getattr(so, name)
            f.restype, f.argtypes = result, arguments
            setattr(self, name[4:], f)
        self.err = Error()
        self.err_at = ctypes.addressof(self.err)
        self.out, self.count = VOID(), U64()
        self.out_at, self.count_at = ctypes.addressof(self.out), ctypes.addressof(self.count)

    def check(self, rc):
        if rc != 0:
            raise OSError(-rc, self.err.msg.decode(errors="replace"))

    def call_cost(self):
        """Seconds of the cheapest call there is."""
        best = 1.0
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(1000):
                self.version()
            best = min(best, time.perf_counter() - start)
        return best / 1000

    def open(self, path):
        self.check(self.store_open(self.out_at, path, 1, self.err_at))
        return self.out.value

    def generation(self, store, name):
        self.check(self.array_get(self.out_at, store, name, self.err_at))
        array = self.out.value
        rc = self.gen_get(self.out_at, array, self.err_at)
        self.array_put(array)
        self.check(rc)
        return self.out.value

    def borrow(self, gen):
        """Maps the data as far as that has not happened, as a lazy view has to."""
        self.check(self.gen_borrow(gen, 0, self.out_at, self.count_at, self.err_at))
        return self.out.value


class Array:
    """A held generation."""

    def __init__(self, lib, store, name):
        self.lib, self.gen = lib, lib.generation(store, name)
        info = lib.gen_info(self.gen).contents
        self.rows, self.slots, self.row_bytes = info.rows, info.slots, info.row_bytes

    def taker(self, index_lists, out):
        """take(): the rows of one list after another."""
        call, gen, err, at, check = self.lib.gen_take, self.gen, self.lib.err_at, out.ctypes.data, self.lib.check
        lists = [(i.ctypes.data, len(i), i) for i in index_lists]    # the arrays themselves only to keep them
        turn = [0]

        def take():
            where, n, _ = lists[turn[0]]
            turn[0] = (turn[0] + 1) % len(lists)
            check(call(gen, where, n, at, err))
        return take

    def read(self, first, n, at):
        self.lib.check(self.lib.gen_read_rows(self.gen, first, n, at, self.lib.err_at))

    def close(self):
        self.lib.gen_put(self.gen)


def load(lib, path, name, dtype, columns):
    """The whole array from a store that is not open: what np.load does with a file."""
    store = lib.open(path)
    gen = lib.generation(store, name)
    rows = lib.gen_info(gen).contents.rows
    out = np.empty((rows, columns), dtype)
    lib.check(lib.gen_read_rows(gen, 0, rows, out.ctypes.data, lib.err_at))
    lib.gen_put(gen)
    lib.store_close(store)
    return out
