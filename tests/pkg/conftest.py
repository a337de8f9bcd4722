"""The packages' tests share one helper, packages.py, which lies beside them."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
