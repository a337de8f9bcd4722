"""One NumPack for Python in a process of its own, `python_worker.py MODULE` with numpack or numpackfs: the same calls for both. As
upstream.py: [verb, repetitions, arguments] on stdin and the seconds on stdout."""

import importlib
import json
import sys
import time

import numpy as np


class Library:
    """What numpackfs calls, with all arguments ready: the library's part of a call, and what ctypes adds."""

    def __init__(self, worker):
        from numpackfs import _lib, _speed

        self.lib, self.err, self.fast, self.address = _lib.lib, _lib.err, _speed.fast, _speed.address
        self.gen, self.array, self.turn = worker.store._store.gen("x"), worker.store._store.array("x"), 0
        self.lists = {n: [np.array(rows, np.int64) for rows in lists] for n, lists in worker.lists.items()}
        self.where = {n: [self.address(rows) for rows in lists] for n, lists in self.lists.items()}
        self.room = np.ones_like(worker.x[:10000])
        self.to, self.none, self.last = self.address(self.room), np.empty(0, np.int64), len(worker.x) - 10000

    def next(self, n):
        self.turn += 1
        return self.where[n][self.turn % 16]

    @staticmethod
    def good(rc):
        if rc != 0:
            raise RuntimeError(f"the library returned {rc}")

    def ctypes(self):
        self.lib.npk_array_put(None)

    def extension(self):
        self.fast.indexes([], 0, self.none)

    def getitem(self, n):
        self.good(self.lib.npk_gen_take(self.gen.ptr, self.next(n), n, self.to, self.err()))

    def slice(self, n):
        self.turn += 1
        self.good(self.lib.npk_gen_read_rows(self.gen.ptr, self.turn * 7919 * 64 % self.last, n, self.to, self.err()))

    def append(self, n):
        self.good(self.lib.npk_array_append(self.array.ptr, self.to, n, self.err()))

    def replace(self, n):
        self.good(self.lib.npk_array_replace(self.array.ptr, self.next(n), n, self.to, 0, self.err()))


class Worker:
    def __init__(self, module):
        self.NumPack = importlib.import_module(module).NumPack
        self.engine = importlib.import_module(module + ".vector_engine").VectorEngine()
        self.turn, self.view, self.library = 0, None, None

    def open(self, path, rows):
        """The store `path` with the array x, which is in `rows`."""
        self.path, self.x = path, np.load(rows)
        self.store = self.NumPack(path, drop_if_exists=True)
        self.store.open()
        self.store.save({"x": self.x})
        rng = np.random.default_rng(1)
        self.lists = {n: [rng.choice(len(self.x) // 2, n, replace=False).tolist() for _ in range(16)] for n in (10, 100, 1000, 10000)}

    def next(self, n):
        self.turn += 1
        return self.lists[n][self.turn % 16]

    def again(self):
        """x as it was at first. The real NumPack keeps the old bitmap when it saves over dropped rows, so it goes first."""
        self.view = self.library = None
        self.store.drop("x")
        self.store.save({"x": self.x})

    def drop_tenth(self):
        self.again()
        self.store.drop("x", list(range(0, len(self.x), 10)))

    # --- what is timed ---

    def nothing(self):
        pass

    def alone(self, what, *args):
        if self.library is None:
            self.library = Library(self)
        getattr(self.library, what)(*args)

    def has_array(self):
        self.store.has_array("x")

    def save_new(self):
        self.turn += 1
        self.store.save({f"n{self.turn}": self.x})

    def unsave(self):
        for name in self.store.get_member_list():
            if name != "x":
                self.store.drop(name)

    def load(self):
        self.store.load("x")

    def lazy(self):
        self.store.load("x", lazy=True)

    def get_shape(self):
        self.store.get_shape("x")

    def lazy_rows(self, n):
        if self.view is None:
            self.view = self.store.load("x", lazy=True)
        self.view[self.next(n) if n > 1 else 12345]

    def open_load_close(self):
        other = self.NumPack(self.path)
        other.open()
        other.load("x", lazy=True)
        other.close()

    def getitem(self, n):
        self.store.getitem("x", self.next(n))

    def slice(self, n):
        self.turn += 1
        first = self.turn * 7919 * 64 % (len(self.x) - n)
        self.store.getitem("x", slice(first, first + n))

    def append(self, n):
        self.store.append({"x": self.x[:n]})

    def replace(self, n):
        self.store.replace({"x": self.x[:n]}, self.next(n))

    def drop(self, n):
        self.store.drop("x", self.next(n))

    def update(self):
        self.store.update("x")

    def modify(self, mode):
        """100 times ten rows."""
        if mode == "replace":
            for _ in range(100):
                self.store.replace({"x": self.x[:10]}, self.next(10))
        elif mode == "batch_mode":
            with self.store.batch_mode():
                for _ in range(100):
                    a = self.store.load("x")
                    a[self.next(10)] = self.x[:10]
                    self.store.save({"x": a})
        else:
            with self.store.writable_batch_mode() as w:
                for _ in range(100):
                    w.load("x")[self.next(10)] = self.x[:10]

    def vectors(self, path):
        self.candidates = np.load(path)

    def search(self, queries, metric):
        if queries == 1:
            self.engine.top_k_search(self.candidates[17], self.candidates, metric, k=10)
        else:
            self.engine.multi_query_top_k(self.candidates[:queries], self.candidates, metric, k=10)


def main():
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        verb, repeat, args = json.loads(line)
        try:
            call = getattr(worker, verb)
            start = time.perf_counter()
            for _ in range(repeat):
                call(*args)
            reply = {"seconds": time.perf_counter() - start}
        except Exception as e:  # whatever it is: the row says so
            reply = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(reply), flush=True)


main()
