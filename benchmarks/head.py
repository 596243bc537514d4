"""What everything after the network costs, as a share of the network's time.

    python benchmarks/head.py

Network, whole model and head run by turns on the same photo, in one process, each as one compiled graph; the head runs on the
network's own map, and what starting a graph costs is taken off (that of one which does nothing to the map): in the whole model
it is paid once. Medians over all rounds. The weights are random: they change no time.
"""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import rw_keras

_ROUNDS = flags.DEFINE_integer("rounds", 25, "Timed runs of each, after two that are not counted.", lower_bound=3)
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
    network = keras.Model(whole.input, features)
    graphs = {"network": _graph(network), "head": _graph(keras.Model(features, whole.output)), "whole": _graph(whole)}
    graphs["start"] = tf.function(lambda x: tf.shape(x), input_signature=[tf.TensorSpec(features.shape, tf.float32)])
    print("height x width   network ms   whole ms    head ms   head / network")
    for height, width in _SIZES:
        photo = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, height, width, 3)), tf.float32)
        map_of_photo = graphs["network"](photo)
        inputs = {"network": photo, "head": map_of_photo, "whole": photo, "start": map_of_photo}
        times = {name: [] for name in graphs}
        for _ in range(_ROUNDS.value + 2):
            for name, graph in graphs.items():
                times[name].append(_seconds(graph, inputs[name]))
        median = {name: 1000 * statistics.median(taken[2:]) for name, taken in times.items()}
        median["head"] -= median["start"]
        print(
            f"{height:6d} x {width:<6d}{median['network']:12.1f}{median['whole']:11.1f}{median['head']:11.2f}"
            f"{median['head'] / median['network']:16.2%}"
        )


if __name__ == "__main__":
    app.run(main)
