"""ROxford5k, for tensorflow-datasets: `tfds.load("roxford5k")` after this module is imported."""

from rw_keras.datasets import catalogue, citations
from rw_keras.datasets.builder import LandmarkBuilder


class Roxford5k(LandmarkBuilder):
    """Oxford5k with the revisited ground truth: 4993 photos, 70 queries apart from them."""

    SET = catalogue.ROXFORD5K
    ABOUT = (
        "Oxford5k with the revisited ground truth: 70 queries, whose photos are kept apart from the index of 4993; "
        "positives are easy or hard. The Easy protocol counts hard as junk, Medium takes both, Hard counts easy as junk."
    )
    HOMEPAGE = "http://cmp.felk.cvut.cz/revisitop/"
    CITATION = f"{citations.REVISITED}\n{citations.OXFORD}"
