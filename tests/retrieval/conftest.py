"""What the tests of indices share."""

import numpy as np
import pytest


@pytest.fixture
def folder(tmp_path):
    """Where an index may come to lie."""
    return tmp_path / "index"


@pytest.fixture
def published_labels(data_folder):
    """A function (name) -> the photos of a revisited set, and query -> (easy, hard, junk), from the published file."""
    from scipy.io import loadmat

    def read(name):
        path = data_folder / "groundtruth" / f"gnd_{name}.mat"
        if not path.is_file():
            pytest.skip(f"there is no {path}")
        published = loadmat(path, simplify_cells=True)
        photos = [str(photo) for photo in published["imlist"]]
        labels = {}
        for query, lists in zip(published["qimlist"], published["gnd"]):
            labels[str(query)] = tuple(
                [photos[int(place) - 1] for place in np.atleast_1d(lists[kind])] for kind in ("easy", "hard", "junk")
            )
        return photos, labels

    return read
