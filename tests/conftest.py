"""What all tests share: one thread a process, since the matrices here are tiny."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
