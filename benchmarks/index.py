"""What an index of many photos costs to save, to open and to look a name up in.

    python benchmarks/index.py [--rows 1000000] [--dimensions 32]

Each step runs in a process of its own, on an index in a temporary folder with names such as "holiday/00012/photo_00012345.jpg" and
random descriptors. Memory is what the process holds beyond what it held before the step, and what Python objects cost is in it;
of the descriptors, which are memory-mapped, only what the step has read.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

_ROWS = flags.DEFINE_integer("rows", 1_000_000, "Photos in the index.", lower_bound=1)
_DIMENSIONS = flags.DEFINE_integer("dimensions", 32, "Elements of a descriptor.", lower_bound=1)
_STEP = flags.DEFINE_string("step", None, "One step, in the folder of an index; used by the program itself.")


def _names(count):
    return [f"holiday/{number // 1000:05d}/photo_{number:08d}.jpg" for number in range(count)]


def _resident():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _save(folder):
    from rw_keras.retrieval import Index

    vectors = np.random.default_rng(0).standard_normal((_ROWS.value, _DIMENSIONS.value), dtype="float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Index(_names(_ROWS.value), vectors)
    return lambda: index.save(folder)


def _load(folder):
    from rw_keras.retrieval import Index

    return lambda: Index.load(folder)


def _look_up(folder):
    from rw_keras.retrieval import Index

    index, name = Index.load(folder), _names(_ROWS.value)[_ROWS.value // 2]
    return lambda: index.position(name)


def _search(folder):
    from rw_keras.retrieval import Index

    index = Index.load(folder)
    query = np.ones(_DIMENSIONS.value)
    return lambda: index.search(query, 10)


_STEPS = {"save": _save, "load": _load, "look a name up": _look_up, "search once": _search}


def _run(step, folder):
    function = _STEPS[step](folder)
    before, began = _resident(), time.perf_counter()
    kept = function()
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, _resident() - before, type(kept).__name__]))


def main(arguments):
    if _STEP.value:
        _run(_STEP.value, arguments[1])
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "index")
        print(f"{_ROWS.value} x {_DIMENSIONS.value}\nstep               seconds   memory MiB")
        for step in _STEPS:
            command = [
                sys.executable,
                __file__,
                f"--step={step}",
                f"--rows={_ROWS.value}",
                f"--dimensions={_DIMENSIONS.value}",
                folder,
            ]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds, memory, _ = json.loads(output.splitlines()[-1])
            print(f"{step:16s}{seconds:10.2f}{memory:13.0f}")
        sizes = {path.name: path.stat().st_size for path in pathlib.Path(folder).iterdir()}
        rows = sum(size for name, size in sizes.items() if name.startswith(("rows-", "descriptors-")))
        print(f"{(sum(sizes.values()) - rows) / _ROWS.value:.0f} bytes a photo beside its descriptor, in {len(sizes)} files")


if __name__ == "__main__":
    app.run(main)
