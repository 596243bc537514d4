"""Oxford100k, for tensorflow-datasets: `tfds.load("oxford100k")` after this module is imported."""

from rw_keras.datasets import catalogue, citations
from rw_keras.datasets.builder import LandmarkBuilder


class Oxford100k(LandmarkBuilder):
    """100 071 distractors from Flickr, without queries."""

    SET = catalogue.OXFORD100K
    ABOUT = (
        "Flickr100k: 100 071 photos of Flickr's most popular tags, distractors for Oxford5k and Paris6k; there are no "
        "queries. Files that are no JPEG are left out with a warning, and so is another count: publications differ in "
        "which of them they take."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/flickr100k.html"
    CITATION = citations.OXFORD
