"""The real NumPack, writing, in a process of its own: as upstream.py, [verb, repetitions, arguments] on stdin and the seconds
on stdout."""

import json
import sys
import time

import numpy as np


def main():
    from numpack import NumPack

    store, rows, arrays = None, None, {}
    for line in sys.stdin:
        verb, repeat, args = json.loads(line)
        try:
            call = None
            if verb == "open":
                store = NumPack(args[0])
                store.open()
            elif verb == "rows":
                rows = np.load(args[0])
            elif verb == "save":
                x = arrays.setdefault(args[1], np.load(args[1]))

                def call():
                    store.save({args[0]: x})
            elif verb == "append":
                def call():
                    store.append({args[0]: rows})
            elif verb == "replace":
                def call():
                    store.replace({args[0]: rows}, args[1])
            elif verb == "drop":
                def call():
                    store.drop(args[0], args[1])
            elif verb == "drop_tenth":
                tenth = list(range(0, args[1], 10))

                def call():
                    store.drop(args[0], tenth)
            elif verb == "update":
                def call():
                    store.update(args[0])
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
