"""The real NumPack in a process of its own, for it has native code with defects of its own: one JSON command a line on
stdin, [verb, repetitions, arguments], and the seconds that the repetitions took together on stdout. Rows come by getitem()
of the store or by its lazy array, whichever is quicker: the latter once rows are deleted, as the caller says."""

import json
import sys
import time

import numpy as np


def main():
    from numpack import NumPack

    store = path = None
    lists = {}
    turn = 0
    for line in sys.stdin:
        verb, repeat, args = json.loads(line)
        try:
            if verb == "open":
                path = args[0]
                store = NumPack(path)
                store.open()
                call = None
            elif verb == "lists":
                lists[args[0], args[1]] = list(np.load(args[2]))
                call = None
            elif verb == "load":
                def call():
                    with NumPack(path) as s:
                        s.load(args[0])
            elif verb == "lazy":
                def call():
                    store.load(args[0], lazy=True)
            elif verb == "open+close":
                def call():
                    with NumPack(path) as s:
                        s.load(args[0], lazy=True)
            elif verb == "take":
                mine = lists[args[0], args[1]]

                view = store.load(args[0], lazy=True) if args[2] else None

                def call():
                    nonlocal turn
                    turn += 1
                    rows = mine[turn % len(mine)]
                    view[rows] if view else store.getitem(args[0], rows)
            elif verb == "slice":
                view = store.load(args[0], lazy=True) if args[3] else None

                def call():
                    nonlocal turn
                    turn += 1
                    first = turn * 7919 * 64 % (args[2] - args[1])
                    rows = slice(first, first + args[1])
                    np.array(view[rows]) if view else store.getitem(args[0], rows)
            elif verb == "scan":
                def call():
                    for _ in store.stream_load(args[0], args[1]):
                        pass
            else:
                raise ValueError(verb)
            start = time.perf_counter()
            for _ in range(repeat if call else 0):
                call()
            reply = {"seconds": time.perf_counter() - start}
        except Exception as e:  # whatever it is: the row says so
            reply = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(reply), flush=True)


main()
