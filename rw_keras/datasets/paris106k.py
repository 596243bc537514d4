"""Paris106k, for tensorflow-datasets: `tfds.load("paris106k")` after this module is imported."""

from rw_keras.datasets import catalogue, citations
from rw_keras.datasets.builder import LandmarkBuilder


class Paris106k(LandmarkBuilder):
    """Paris6k among the distractors of Oxford100k."""

    SET = catalogue.PARIS106K
    ABOUT = (
        "Paris6k and the distractors of Oxford100k in one index, 106 463 photos; the 55 queries of Paris6k. The names of "
        "distractors begin with oxc1_100k/."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/"
    CITATION = f"{citations.PARIS}\n{citations.OXFORD}"
