"""Oxford105k, for tensorflow-datasets: `tfds.load("oxford105k")` after this module is imported."""

from rw_keras.datasets import catalogue, citations
from rw_keras.datasets.builder import LandmarkBuilder


class Oxford105k(LandmarkBuilder):
    """Oxford5k among the distractors of Oxford100k."""

    SET = catalogue.OXFORD105K
    ABOUT = (
        "Oxford5k and the distractors of Oxford100k in one index, 105 134 photos; the 55 queries of Oxford5k. The names "
        "of distractors begin with oxc1_100k/."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/"
    CITATION = citations.OXFORD
