"""Searching descriptors and measuring how well it went. NumPy only, and SciPy for `Diffusion`: nothing here loads TensorFlow."""

from rw_keras.retrieval.augmentation import augment
from rw_keras.retrieval.diffusion import Diffusion
from rw_keras.retrieval.expansion import expand_query
from rw_keras.retrieval.index import Index
from rw_keras.retrieval.intervals import Difference, Interval, bootstrap, landmark_by_name, paired_difference
from rw_keras.retrieval.metrics import (
    Revisited,
    average_precision,
    average_precisions,
    folder_ground_truth,
    holidays_ground_truth,
    landmarks,
    mean_average_precision,
    precision_at,
    recall_at,
    revisited,
    revisited_ground_truth,
)
from rw_keras.retrieval.orientations import search_orientations
from rw_keras.retrieval.rerank import QueryRegions, Rerank

__all__ = [
    "Difference",
    "Diffusion",
    "Index",
    "Interval",
    "QueryRegions",
    "Rerank",
    "Revisited",
    "augment",
    "average_precision",
    "average_precisions",
    "bootstrap",
    "expand_query",
    "folder_ground_truth",
    "holidays_ground_truth",
    "landmark_by_name",
    "landmarks",
    "mean_average_precision",
    "paired_difference",
    "precision_at",
    "recall_at",
    "revisited",
    "revisited_ground_truth",
    "search_orientations",
]
