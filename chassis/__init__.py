import os

# Processes are forked, and nothing here needs the threads of numpy's linear algebra.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
