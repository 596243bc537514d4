"""What each method costs after the network, and what it finds.

    python benchmarks/methods.py [--network]
    python benchmarks/methods.py --data oxford5k --whitening paris6k/jpg --max_side 512

Times are those of the head: the method, L2, whitening, L2, the sum over regions, L2, as one compiled graph, on the maps that VGG16
makes of photos of 512 x 384 and 1024 x 768. All heads run by turns on the same map, in one process, with the network too where
`--network` asks for it. A head is run twice and the second run counts, or what came before it would change its time: after the
network, nothing is in the caches. What starting a graph costs is in it, some 0.1 ms. Medians over all rounds. The maps are made up:
what is in them changes no time.

With `--data`, a folder that holds `jpg` and `gt` as Oxford5k's archives do, the mAP stands beside. One model gives the descriptors
of all methods, so the network runs once a photo. Descriptors are kept in `--cache`, whitenings are learned anew.
"""

import functools
import pathlib
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

import rw_keras
from rw_keras import backbones
from rw_keras.commands.evaluation_flags import add_cache, add_missing
from rw_keras.commands.model_flags import add_max_side
from rw_keras.commands.parser import Parser, UsageError, number, one_of, text, whole_number
from rw_keras.commands.programs import refuse_arguments, run_program
from rw_keras.description.cache import describe_cached
from rw_keras.evaluation import protocol as evaluation
from rw_keras.model.descriptor_model import DescriptorModel
from rw_keras.model.recipe import smallest_side, whitening_layer
from rw_keras.photos.reading import read_image
from rw_keras.photos.sources import list_photos

_MAPS = ((24, 32), (48, 64))
_STRIDE = 16  # pixels of the photo to a cell of the map


def flags():
    """The program's flags."""
    parser = Parser(description=__doc__)
    known = rw_keras.methods.OF_RECTIFIED_MAPS
    words = f"A method to measure beside rw: {', '.join(known)}. May be repeated. Default: all."
    parser.flag("method", words, one_of(known), repeat=True)
    parser.flag("rounds", "Timed runs of each, after two that are not counted.", whole_number(9), 25)
    parser.switch("network", "Time VGG16 as well, and give each head's share of its time.")
    parser.section("The mAP")
    parser.flag("data", "A folder that holds `jpg`, the photos, and `gt`, the ground truth.", text("FOLDER"))
    parser.flag("whitening", "A folder of other photos to learn each method's whitening on. Default: none.", text("FOLDER"))
    parser.flag("shrinkage", "The whitenings' shrinkage. Default: each method's own.", number(0, 1))
    add_max_side(parser, 512, 16)
    add_missing(parser)
    add_cache(parser, "descriptors")
    return parser


def _graph(model):
    call = tf.function(lambda x: model(x, training=False))
    return call.get_concrete_function(tf.TensorSpec(model.input_shape, tf.float32))


def _heads(models, last):
    """Method -> the part of its model from the feature map to the layer that `last` chooses, as a model of the method's name."""
    return {
        name: keras.Model(model.get_layer(model.recipe["layer"]).output, last(model), name=name) for name, model in models.items()
    }


def _times(values, network, heads, height, width):
    """Name -> milliseconds of each head, and of the network, on one photo."""
    random = np.random.default_rng(0)
    channels = network.output_shape[-1]
    features = tf.constant(np.maximum(random.normal(size=(1, height, width, channels)), 0), tf.float32)
    photo = tf.constant(random.uniform(0, 255, (1, _STRIDE * height, _STRIDE * width, 3)), tf.float32)
    runs = {name: (_graph(head), features) for name, head in heads.items()}
    if values.network:
        runs["network"] = (_graph(network), photo)
    seconds = {name: [] for name in runs}
    for _ in range(values.rounds + 2):
        for name, (run, argument) in runs.items():
            if name in heads:
                run(argument)
            began = time.perf_counter()
            run(argument)
            seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(taken[2:]) for name, taken in seconds.items()}


def _learn_whitenings(values, network, models):
    """Learns the whitening of every model on the photos of `--whitening`, in one pass."""
    photos = list_photos(values.whitening)
    tested = {path.stem for path in list_photos(pathlib.Path(values.data, "jpg"))}
    if tested & {path.stem for path in photos}:
        raise UsageError(f"--whitening={values.whitening} has photos of the set that is tested; learn on another set")
    whitenings = {name: whitening_layer(model) for name, model in models.items()}
    heads = _heads(models, lambda model: whitening_layer(model).input)
    learn = _graph(keras.Model(network.input, [head(network.output) for head in heads.values()]))
    smallest = smallest_side(models["rw"])
    for path in tqdm(photos, desc="learning whitenings", unit="photo", mininterval=10):
        pixels = read_image(path, None, values.max_side, smallest)
        for layer, vectors in zip(whitenings.values(), learn(tf.constant(pixels[None], tf.float32))):
            layer.update_state(vectors)
    for layer in whitenings.values():
        layer.finalize_state()


def _mean_average_precisions(values, network, models, cache):
    """Method -> its mAP."""
    heads = _heads(models, lambda model: model.output)
    # What a cached descriptor depends on beside the weights, the whitenings' among them.
    settings = ", ".join(f"{name} shrinkage {whitening_layer(model).shrinkage}" for name, model in models.items())
    vectors = [head(network.output) for head in heads.values()]
    joined = DescriptorModel(
        network.input,
        keras.layers.Concatenate(name="side_by_side")(vectors) if len(vectors) > 1 else vectors[0],
        recipe={**models["rw"].recipe, "method": settings},
    )
    ends = np.cumsum([head.output_shape[-1] for head in heads.values()]).tolist()

    def describe(paths, boxes, start, stop):
        vectors, failures = describe_cached(joined, paths, boxes, max_side=values.max_side, cache=cache)
        return [None if vector is None else vector[start:stop] for vector in vectors], failures

    measured = {}
    for name, start, stop in zip(heads, [0, *ends], ends):
        found = evaluation.evaluate_described(
            functools.partial(describe, start=start, stop=stop),
            pathlib.Path(values.data, "jpg"),
            pathlib.Path(values.data, "gt"),
            qe=(1,),
            missing=values.missing,
        )
        measured[name] = found.mean(1)
    return measured


def main(values):
    refuse_arguments("methods.py", values)
    if values.whitening and not values.data:
        raise UsageError("--whitening goes with --data")
    # Weights change no time, so without photos random ones do.
    network, _ = backbones.network("vgg16", "imagenet" if values.data else None, None)
    chosen = dict.fromkeys(["rw", *(values.method or rw_keras.methods.OF_RECTIFIED_MAPS)])
    models = {name: rw_keras.build_descriptor(network, method=name, shrinkage=values.shrinkage, whitening=None) for name in chosen}
    heads = _heads(models, lambda model: model.output)
    times = [_times(values, network, heads, *size) for size in _MAPS]
    measured = {}
    if values.data:
        if values.whitening:
            _learn_whitenings(values, network, models)
        with tempfile.TemporaryDirectory() as scratch:
            measured = _mean_average_precisions(values, network, models, values.cache or scratch)
    print(f"Head of one photo, by the size of its map (x {network.output_shape[-1]}), median of {values.rounds}")
    share = "   / network" if values.network else ""
    print(
        f"{'method':9s}" + "".join(f"{f'{height} x {width} ms':>14s}   / rw{share}" for height, width in _MAPS) + "           mAP"
    )
    for name in models:
        row = f"{name:9s}"
        for taken in times:
            row += f"{taken[name]:14.2f}{taken[name] / taken['rw']:7.2f}"
            row += f"{taken[name] / taken['network']:12.2%}" if values.network else ""
        print(row + (f"{measured[name]:14.4f}" if measured else "  not measured"))
    if values.network:
        print(
            f"{'network':9s}" + "".join(f"{taken['network']:14.2f}{taken['network'] / taken['rw']:7.0f}{'':12s}" for taken in times)
        )
    if measured:
        learned = f"whitening learned on {values.whitening}" if values.whitening else "no whitening"
        print(f"mAP on {values.data}: longer side {values.max_side}, {learned}")


if __name__ == "__main__":
    run_program(flags(), main)
