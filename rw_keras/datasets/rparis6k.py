"""RParis6k, for tensorflow-datasets: `tfds.load("rparis6k")` after this module is imported."""

from rw_keras.datasets import catalogue, citations
from rw_keras.datasets.builder import LandmarkBuilder


class Rparis6k(LandmarkBuilder):
    """Paris6k with the revisited ground truth: 6322 photos, 70 queries apart from them."""

    SET = catalogue.RPARIS6K
    ABOUT = (
        "Paris6k with the revisited ground truth: 70 queries, whose photos are kept apart from the index of 6322; "
        "positives are easy or hard. The Easy protocol counts hard as junk, Medium takes both, Hard counts easy as junk. "
        "The 20 photos that are damaged as published are left out."
    )
    HOMEPAGE = "http://cmp.felk.cvut.cz/revisitop/"
    CITATION = f"{citations.REVISITED}\n{citations.PARIS}"
