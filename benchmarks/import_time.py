"""How long `import rw_keras` and `import rw_keras.retrieval` take, against `import numpy` and `import keras`.

    python benchmarks/import_time.py

Each in a fresh process, by turns; medians of the whole process, Python's own start taken off.
"""

import statistics
import subprocess
import sys
import time

from absl import app, flags

_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed runs of each.", lower_bound=3)
_STATEMENTS = ("pass", "import rw_keras", "import numpy", "import rw_keras.retrieval", "import keras")


def main(_):
    times = {statement: [] for statement in _STATEMENTS}
    for _ in range(_ROUNDS.value):
        for statement, taken in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True)
            taken.append(time.perf_counter() - start)
    empty = statistics.median(times.pop("pass"))
    numpy = statistics.median(times["import numpy"]) - empty
    for statement, taken in times.items():
        seconds = statistics.median(taken) - empty
        print(f"{statement:28s}{1000 * seconds:9.1f} ms{seconds / numpy:9.2f} x numpy")


if __name__ == "__main__":
    app.run(main)
