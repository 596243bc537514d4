import collections
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from rw_keras.photos import embedded

_SIDE = 160

_DIGEST = f"""
import hashlib, sys
from rw_keras.photos import embedded as photos
digest = hashlib.sha256()
loaded, queries = photos.load({_SIDE})
for name, view in queries.items():
    digest.update(f"{{name}} {{view.box}}".encode() + view.photo.tobytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def loaded():
    return embedded.load(_SIDE)


def test_ten_photos(loaded):
    photos, _ = loaded
    assert len(photos) == 10
    for photo in photos.values():
        assert photo.dtype == np.uint8
        assert photo.shape[2] == 3
        assert max(photo.shape) == _SIDE
    assert len({photo.tobytes() for photo in photos.values()}) == 10


def test_61_queries(loaded):
    photos, queries = loaded
    assert len(queries) == 61
    kinds = collections.Counter(name.rpartition(", ")[2] for name in queries)
    assert kinds == {"half": 10, "perspective": 10, "rotated": 10, "blurred": 10, "jpeg": 10, "dimmed": 10, "other eye": 1}
    for name, view in queries.items():
        assert view.positives == {name.rpartition(", ")[0]}
        assert view.positives <= set(photos)
        assert view.photo.dtype == np.uint8
        assert view.photo.ndim == 3


def test_boxes_lie_inside_the_photos(loaded):
    _, queries = loaded
    boxed = {name: view for name, view in queries.items() if view.box is not None}
    assert sorted(boxed) == sorted(name for name in queries if name.endswith(", half"))
    for view in boxed.values():
        height, width = view.photo.shape[:2]
        x1, y1, x2, y2 = view.box
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (width // 2, height // 2)


def test_views_are_harder_ones(loaded):
    """None is the photo itself, and none is left with the black corners of a turned frame."""
    photos, queries = loaded
    for name, view in queries.items():
        photo = photos[name.rpartition(", ")[0]]
        if view.box is None:
            assert view.photo.shape != photo.shape or (view.photo != photo).any()
    for name in ("temple, rotated", "flower, rotated"):
        corners = queries[name].photo[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.any(axis=1).all()


@pytest.mark.slow
def test_the_same_ones_in_every_run():
    digests = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", _DIGEST], capture_output=True, text=True, env=environment)
        assert run.returncode == 0, run.stderr
        digests.append(run.stdout.strip())
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]


def test_what_carries_them_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "rw_keras\[demo\]"'):
        embedded.load()
