"""Peak memory of describing a photo, against the network alone.

    python benchmarks/memory.py

Each side runs in a process of its own, three times by turns, on one 1024 x 768 photo; the peak is the operating system's
figure for the whole process (maximum resident set), TensorFlow and the weights among it. Medians.
"""

import resource
import statistics
import subprocess
import sys

import numpy as np
from absl import app, flags

_SIDE = flags.DEFINE_enum("side", None, ["network", "describe"], "Run this side and print its peak; used by the program itself.")


def _run(side):
    import keras

    import rw_keras
    from rw_keras.runtimes.keras_model import batch_function

    photo = np.random.default_rng(0).integers(0, 256, (768, 1024, 3), "uint8")
    model = rw_keras.build_descriptor("vgg16", weights=None, whitening=None)
    if side == "describe":
        rw_keras.describe(model, photo)
    else:
        network = keras.Model(model.input, model.get_layer(model.recipe["layer"]).output)
        batch_function(network)(photo[None])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(_):
    if _SIDE.value:
        _run(_SIDE.value)
        return
    peaks = {"network": [], "describe": []}
    for _ in range(3):
        for side, found in peaks.items():
            command = [sys.executable, __file__, f"--side={side}"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append(float(output.split()[-1]))
    network, describe = (statistics.median(peaks[side]) for side in ("network", "describe"))
    print(f"one 1024 x 768 photo, peak: network {network:.0f} MiB, describe {describe:.0f} MiB, ratio {describe / network:.3f}")


if __name__ == "__main__":
    app.run(main)
