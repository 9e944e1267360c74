"""Thin entry points: parse the flags, call lasps, print, exit.

OpenMP's threads wait for each other asleep after a short spin. Spinning for as long as they like, on two cores with one
other busy process, they trained ten times slower (213 against 1,500 samples/s); alone it costs nothing measurable. It
must be said before torch is loaded.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")
