"""python -m numpackfs.io import|export [--format NAME] STORE FILE [ARRAY...], which `npk import` and `npk export` call."""

import argparse
import sys

from .common import DEFAULT_CHUNK_SIZE
from .formats import NAMES, export_file, import_file


class Bar:
    """As npk's own: on a terminal, how far it is."""

    def __init__(self, what):
        self.what, self.percent = what, -1

    def __call__(self, done, total):
        percent = 100 * done // total if total else 100
        if percent != self.percent and sys.stderr.isatty():
            full = percent * 40 // 100
            print(f"\r{self.what} [{'#' * full:40}] {percent:3} %", end="", file=sys.stderr, flush=True)
            self.percent = percent

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.percent >= 0:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m numpackfs.io", description=__doc__)
    parser.add_argument("verb", choices=["import", "export"])
    parser.add_argument("--format", choices=["auto", *NAMES], default="auto", help="default: what FILE's suffix tells")
    parser.add_argument("--chunk-size", type=int, default=DEFAULT_CHUNK_SIZE, metavar="BYTES", help="of rows in memory at a time")
    parser.add_argument("--drop-if-exists", action="store_true", help="of import: remove STORE first")
    parser.add_argument("store", metavar="STORE")
    parser.add_argument("file", metavar="FILE", help="a path, or a URL that fsspec knows")
    parser.add_argument("arrays", metavar="ARRAY", nargs="*")
    args = parser.parse_args(argv)
    if args.verb == "export" and args.drop_if_exists:
        parser.error("--drop-if-exists is of import")
    try:
        with Bar(f"{args.verb}ing") as bar:
            if args.verb == "import":
                import_file(args.file, args.store, args.format, args.arrays, chunk_size=args.chunk_size,
                            drop_if_exists=args.drop_if_exists, progress=bar)
            else:
                export_file(args.store, args.file, args.format, args.arrays, chunk_size=args.chunk_size, progress=bar)
    except KeyError as e:
        print(f"numpackfs.io: {e.args[0]}", file=sys.stderr)
        return 1
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as e:
        print(f"numpackfs.io: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
