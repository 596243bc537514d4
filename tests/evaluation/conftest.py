"""Two small sets laid out as the originals, and a small network."""

import dataclasses

import keras
import pytest
from small_sets import WANTED, write_set

from rw_keras.datasets import read_folder
from rw_keras.evaluation.experiment import Experiment
from rw_keras.evaluation.region_vectors import RegionVectors


@pytest.fixture(scope="session")
def data(tmp_path_factory, draw):
    """A folder with both sets, for reading."""
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "oxford5k_part", draw, "oxc1_")
    write_set(folder / "paris6k", lambda seed, *size: draw(seed + 5000, *size))
    return folder


@pytest.fixture(scope="session")
def network():
    """Photos -> a map of 12 channels, one cell for 8 x 8 pixels."""
    photos = keras.Input((None, None, 3), name="photos")
    kernel = keras.initializers.RandomNormal(stddev=0.01, seed=3)
    convolution = keras.layers.Conv2D(12, 8, strides=8, activation="relu", use_bias=False, kernel_initializer=kernel)
    return keras.Model(photos, convolution(photos), name="tiny")


@dataclasses.dataclass
class Bench:
    """An experiment, and what it is made of."""

    experiment: Experiment
    vectors: RegionVectors
    sets: dict
    learned_on: dict


@pytest.fixture(scope="session")
def bench(data, network, tmp_path_factory):
    """Both sets in an experiment, their region vectors computed once; what tests ask of it is kept in it, and changes nothing."""
    sets = {name: read_folder(data / folder, name) for name, folder in (("oxford5k", "oxford5k_part"), ("paris6k", "paris6k"))}
    learned_on = {name: list(sets[other].photos.values()) for name, other in (("oxford5k", "paris6k"), ("paris6k", "oxford5k"))}
    vectors = RegionVectors(network, WANTED, tmp_path_factory.mktemp("kept"), progress=False)
    experiment = Experiment(sets, learned_on, {"vgg16": vectors})
    experiment.compute("vgg16", list(WANTED))
    return Bench(experiment, vectors, sets, learned_on)
