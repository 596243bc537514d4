"""Keras' backends side by side: how long a photo takes, the first of its size and the later ones, and how their values compare.

    python benchmarks/backends.py --photos FOLDER
    python benchmarks/backends.py --photos FOLDER --policies float32,mixed_bfloat16,mixed_float16

Each backend is a process of its own, and they take turns, so that what else the machine does falls on all alike. Cosines are to the
first backend under the first policy, over all the photos. VGG16 with its ImageNet weights, `rw`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

from absl import app, flags

_PHOTOS = flags.DEFINE_string("photos", None, "Folder of photos.", required=True)
_COUNT = flags.DEFINE_integer("count", 6, "How many of them.", lower_bound=1)
_SIDES = flags.DEFINE_list("sides", ["224", "512"], "Longer sides of photos, in pixels.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns.", lower_bound=1)
_POLICIES = flags.DEFINE_list("policies", ["float32"], "Dtype policies that the model is built under.")
_WORKER = "RW_KERAS_BENCHMARK_POLICY"


def _work():
    """One backend: answers each photo and side on standard input with seconds and a descriptor."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    import keras

    import rw_keras
    from rw_keras.photos.reading import read_image
    from rw_keras.runtimes.keras_model import batch_function

    keras.config.set_dtype_policy(os.environ[_WORKER])
    model = rw_keras.build_descriptor("vgg16")
    run = batch_function(model)
    for line in sys.stdin:
        path, side = json.loads(line)
        pixels = read_image(path, None, side)[None]
        began = time.perf_counter()
        vector = run(pixels)[0]
        answers.write(json.dumps([time.perf_counter() - began, vector.tolist()]) + "\n")
        answers.flush()


def _started(backend, policy):
    environment = {**os.environ, "KERAS_BACKEND": backend, _WORKER: policy}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen([sys.executable, __file__], env=environment, **pipes)


def _asked(process, path, side):
    process.stdin.write(json.dumps([str(path), side]) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("A backend's process ended; run it alone to see why.")
    return json.loads(line)


def main(_):
    """Prints a line a backend, a policy and a side."""
    import numpy as np

    photos = sorted(pathlib.Path(_PHOTOS.value).glob("*.jpg"))[: _COUNT.value]
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    workers = {(name, policy): _started(name, policy) for policy in _POLICIES.value for name in backends}
    print("backend     policy          side   first s   later s   lowest cosine")
    for side in map(int, _SIDES.value):
        first, later = {}, {key: [] for key in workers}
        cosines, expected = {key: [] for key in workers}, {}
        for place, path in enumerate(photos):
            for key, process in workers.items():
                seconds, vector = _asked(process, path, side)
                if place == 0:
                    first[key] = seconds
                expected.setdefault(place, vector)
                cosines[key].append(float(np.dot(vector, expected[place])))
        for _ in range(_ROUNDS.value):
            for key, process in workers.items():
                later[key].append(_asked(process, photos[0], side)[0])
        for key in workers:
            times = f"{first[key]:9.2f} {statistics.median(later[key]):9.3f}"
            print(f"{key[0]:11} {key[1]:15} {side:4} {times}   {min(cosines[key]):.7f}", flush=True)
    for process in workers.values():
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    if _WORKER in os.environ:
        _work()
    else:
        app.run(main)
