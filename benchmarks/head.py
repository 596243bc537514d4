"""What everything after the network costs, as a share of the network's time.

    python benchmarks/head.py

Network and whole model run by turns on the same photo, in one process, each as one compiled graph; the head alone runs on the
network's own map. Medians over all rounds. The weights are random: they change no time.
"""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import rw_keras

_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timed runs of each, after two that are not counted.", lower_bound=3)
_SIZES = ((224, 224), (384, 512), (768, 1024))


def _seconds(function, argument):
    start = time.perf_counter()
    function(argument)
    return time.perf_counter() - start


def _graph(model):
    return tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec(model.input_shape, tf.float32)])


def main(_):
    whole = rw_keras.build_descriptor("vgg16", weights=None, whitening=None)
    features = whole.get_layer(whole.recipe["layer"]).output
    network = keras.Model(whole.inputs, features)
    graphs = {"network": _graph(network), "head": _graph(keras.Model(features, whole.output)), "whole": _graph(whole)}
    print("height x width   network ms   whole ms    head ms   head / network")
    for height, width in _SIZES:
        photo = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, height, width, 3)), tf.float32)
        inputs = {"network": photo, "head": graphs["network"](photo), "whole": photo}
        times = {name: [] for name in graphs}
        for _ in range(_ROUNDS.value + 2):
            for name, graph in graphs.items():
                times[name].append(_seconds(graph, inputs[name]))
        median = {name: 1000 * statistics.median(taken[2:]) for name, taken in times.items()}
        print(
            f"{height:6d} x {width:<6d}{median['network']:12.1f}{median['whole']:11.1f}{median['head']:11.2f}"
            f"{median['head'] / median['network']:16.2%}"
        )


if __name__ == "__main__":
    app.run(main)
