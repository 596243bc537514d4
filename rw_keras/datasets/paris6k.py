"""Paris6k, for tensorflow-datasets: `tfds.load("paris6k")` after this module is imported."""

from rw_keras.datasets import catalogue, citations
from rw_keras.datasets.builder import LandmarkBuilder


class Paris6k(LandmarkBuilder):
    """The Paris Buildings: 6392 usable photos of Paris from Flickr, 55 queries for 11 landmarks."""

    SET = catalogue.PARIS6K
    ABOUT = (
        "The Paris Buildings: 6412 photos of Paris from Flickr, and 55 queries, five for each of 11 landmarks. 20 of the "
        "photos are damaged as published and are left out, 6392 remain; the metadata lists them as `left_out`. A query's "
        "photo stays in the index."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/"
    CITATION = citations.PARIS
