"""Oxford5k, for tensorflow-datasets: `tfds.load("oxford5k")` after this module is imported."""

from rw_keras.datasets import catalogue, citations
from rw_keras.datasets.builder import LandmarkBuilder


class Oxford5k(LandmarkBuilder):
    """The Oxford Buildings: 5063 photos of Oxford from Flickr, 55 queries for 11 landmarks."""

    SET = catalogue.OXFORD5K
    ABOUT = (
        "The Oxford Buildings: 5063 photos of Oxford from Flickr, and 55 queries, five for each of 11 landmarks. A "
        "query's photo stays in the index."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/"
    CITATION = citations.OXFORD
