"""Runs the real NumPack in a process of its own: one JSON command a line on stdin, one JSON answer a line on stdout.

It has native code with defects of its own (the format's description lists them), so it never shares a process with a test.
Arrays travel as .npy files.
"""

import json
import sys

import numpy as np


def main():
    from numpack import NumPack

    store = None
    for line in sys.stdin:
        try:
            verb, args = json.loads(line)
            answer = None
            if verb == "open":
                store = NumPack(args[0])
                store.open()
            elif verb == "close":
                store.close()
                store = None
            elif verb == "save":
                store.save({name: np.load(file) for name, file in args[0].items()})
            elif verb == "append":
                store.append({name: np.load(file) for name, file in args[0].items()})
            elif verb == "drop_rows":
                store.drop(args[0], args[1])
            elif verb == "drop_array":
                store.drop(args[0])
            elif verb == "update":
                store.update(args[0])
            elif verb == "load":
                np.save(args[1], np.asarray(store.load(args[0])))
            elif verb == "members":
                answer = sorted(store.get_member_list())
            elif verb == "metadata":
                answer = store.get_metadata()
            else:
                raise ValueError(f"unknown verb {verb}")
            reply = {"ok": answer}
        except Exception as e:  # whatever it is, the test shall see it
            reply = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(reply), flush=True)


main()
