"""What the methods for signed maps find, beside those for rectified ones, on one network: AlexNet cut before its last ReLU.

    python benchmarks/signed_maps.py --data oxford5k --whitening paris6k/jpg --weights alexnet.npz

It stands in for a vision transformer, whose maps are below 0 in places, too: of AlexNet's `conv5` both the map as the
convolution leaves it and the map after its ReLU are there, from one pass over each photo. What holds for it need not hold for a
transformer. Differences are from `rw` on the same queries, with a 95 % interval over landmarks. Nothing is tuned here: the
methods' arguments are their defaults, and the shrinkage of 0.2 is that of the other tables.
"""

import pathlib

import rw_keras
from rw_keras import backbones, layers
from rw_keras.commands.model_flags import add_max_side
from rw_keras.commands.parser import Parser, text
from rw_keras.commands.programs import refuse_arguments, run_program
from rw_keras.datasets import read_folder
from rw_keras.evaluation.experiment import Experiment, Setting
from rw_keras.evaluation.region_vectors import RegionVectors
from rw_keras.photos.sources import list_photos

_SETTINGS = ((None, 1), (0.0, 1), (0.2, 1), (0.2, 5))  # shrinkage, query expansion
_METHODS = ("rw", "root_rw", "rmac", "gem", "sum", "mean", "signed_gem", "signed_rmac", "signed_rw")


def flags():
    """The program's flags."""
    parser = Parser(description=__doc__)
    parser.flag(
        "data", "A folder that holds `jpg`, the photos, and `gt`, the ground truth, of Oxford5k.", text("FOLDER"), required=True
    )
    parser.flag("whitening", "Other photos, to learn each method's whitening on.", text("FOLDER"), required=True)
    parser.flag("weights", "A file of AlexNet's weights.", text("FILE"))
    parser.flag("cache", "Where region vectors are kept.", text("FOLDER"), "signed_maps")
    add_max_side(parser, 512, 32)
    return parser


def main(values):
    refuse_arguments("signed_maps.py", values)
    network = before_the_relu(backbones.network("alexnet", values.weights, None)[0])
    wanted = {name: (name, 3) for name in _METHODS}
    vectors = RegionVectors(network, wanted, pathlib.Path(values.cache), max_side=values.max_side)
    found = read_folder(values.data, "oxford5k")
    learned_on = [pathlib.Path(path) for path in list_photos(values.whitening)]
    experiment = Experiment({"oxford5k": found}, {"oxford5k": learned_on}, {"alexnet": vectors})
    experiment.compute("alexnet", list(_METHODS))
    print("| method | no whitening | whitened | shrinkage 0.2 | and QE 5 | difference |\n| --- | --- | --- | --- | --- | --- |")
    for name in _METHODS:
        scores = [experiment.scores(Setting("alexnet", name, shrinkage=own), "oxford5k", qe) for own, qe in _SETTINGS]
        means = [f"{sum(each.values()) / len(each):.3f}" for each in scores]
        base = experiment.scores(Setting("alexnet", "rw", shrinkage=0.2), "oxford5k")
        difference = "" if name == "rw" else rw_keras.retrieval.paired_difference(scores[2], base)
        print(f"| `{name}` | {' | '.join(means)} | {difference} |")


def before_the_relu(network):
    """The network with its last convolution's activation left out: a signed map."""
    last = network.get_layer("conv5")
    signed = layers.GroupedConv2D.from_config({**last.get_config(), "activation": "linear"})
    features = signed(last.input)
    signed.set_weights(last.get_weights())
    return layers.PhotoModel(network.input, features, name="alexnet_signed", min_side=network.min_side)


if __name__ == "__main__":
    run_program(flags(), main)
