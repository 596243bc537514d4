import os

import numpy as np
import pytest

from rw_keras import methods
from rw_keras.evaluation import region_vectors
from rw_keras.evaluation.region_vectors import RegionVectors
from rw_keras.photos.reading import read_image
from rw_keras.photos.sources import list_photos

WANTED = {"rw": ("rw", 2), "mac": ("mac", 3)}


def make(network, folder, wanted=WANTED, **arguments):
    return RegionVectors(network, wanted, folder, progress=False, **arguments)


@pytest.fixture
def photos(photo_folder):
    """Six photos of differing shapes, one of them with a box, in more than one file of vectors."""
    return [(path, (4, 5, 40, 38) if path.name == "b.png" else None) for path in list_photos(photo_folder)]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(region_vectors, "_CHUNK", 4)


@pytest.fixture
def runs(monkeypatch):
    """The photos that went through the network, a list that grows."""
    seen = []
    original = region_vectors.describe_each

    def watched(model, paths, *arguments, **named):
        paths = list(paths)
        seen.extend((path.name, len(model.outputs)) for path in paths)
        return original(model, paths, *arguments, **named)

    monkeypatch.setattr(region_vectors, "describe_each", watched)
    return seen


def by_hand(network, method, levels, path, box, max_side=1024):
    features = network(read_image(path, box, max_side)[None].astype("float32"))
    regions = np.asarray(methods.resolve(method, levels)[0](features))[0]
    length = np.linalg.norm(regions, axis=1, keepdims=True)
    return np.divide(regions, length, where=length > 0, out=np.zeros_like(regions))


@pytest.mark.slow
@pytest.mark.parametrize("max_side", [1024, 40])
def test_are_those_of_the_method(network, photos, tmp_path, small_chunks, max_side):
    vectors = make(network, tmp_path / "kept", max_side=max_side)
    vectors.compute(photos)
    for key, (method, levels) in WANTED.items():
        blocks = list(vectors.blocks(key, photos))
        assert [len(block) for block in blocks] == [4, 2]
        rows = [row for block in blocks for row in block]
        for (path, box), row in zip(photos, rows):
            expected = by_hand(network, method, levels, path, box, max_side)
            np.testing.assert_allclose(row[: len(expected)], expected, atol=2e-6)
            assert not row[len(expected) :].any()


def test_a_black_photo_has_zero_vectors(network, tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 48)).save(tmp_path / "black.png")
    vectors = make(network, tmp_path / "kept")
    photos = [(tmp_path / "black.png", None)]
    vectors.compute(photos)
    (block,) = vectors.blocks("rw", photos)
    assert block.shape[0] == 1 and not block.any()


def test_a_second_run_computes_nothing(network, photos, tmp_path, small_chunks, runs):
    make(network, tmp_path / "kept").compute(photos)
    assert len(runs) == 6
    make(network, tmp_path / "kept").compute(photos)
    assert len(runs) == 6


@pytest.mark.slow
def test_a_new_method_runs_alone(network, photos, tmp_path, runs):
    make(network, tmp_path / "kept").compute(photos)
    more = make(network, tmp_path / "kept", {**WANTED, "mine": (lambda features: methods.rw(features, levels=1), 3)})
    more.compute(photos)
    assert [outputs for _, outputs in runs] == [2] * 6 + [1] * 6


def test_methods_asked_for_only(network, photos, tmp_path, runs):
    make(network, tmp_path / "kept").compute(photos, ["mac"])
    assert {outputs for _, outputs in runs} == {1}
    (block,) = make(network, tmp_path / "kept").blocks("mac", photos)
    for (path, box), row in zip(photos, block):
        np.testing.assert_allclose(row, by_hand(network, "mac", 3, path, box), atol=2e-6)


@pytest.mark.slow
def test_what_has_changed_is_computed_again(network, photos, tmp_path, small_chunks, runs, draw):
    vectors = make(network, tmp_path / "kept")
    vectors.compute(photos)
    path = photos[0][0]
    before = next(vectors.blocks("mac", photos)).copy()
    from PIL import Image

    Image.fromarray(draw(77)).save(path)
    os.utime(path, ns=(1, 1))
    vectors.compute(photos)
    assert len(runs) == 6 + 4  # the four of its file
    assert not np.array_equal(before, next(vectors.blocks("mac", photos)))
    del runs[:]
    make(network, tmp_path / "kept", max_side=32).compute(photos)
    vectors.compute([(path, None) for path, _ in photos])  # without the box
    assert len(runs) == 6 + 4


@pytest.mark.slow
def test_other_weights_are_another_network(network, photos, tmp_path, runs):
    make(network, tmp_path / "kept").compute(photos)
    import keras

    other = keras.models.clone_model(network)
    other.set_weights([weight * 2 for weight in network.get_weights()])
    make(other, tmp_path / "kept").compute(photos)
    assert len(runs) == 12


def test_unreadable_photos_are_all_named_and_the_rest_is_kept(network, photos, tmp_path, small_chunks, runs):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    listed = [*photos, (broken, None), (tmp_path / "gone.jpg", None)]
    vectors = make(network, tmp_path / "kept")
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        vectors.compute(listed)
    listed.pop()
    with pytest.raises(ValueError, match=r"1 photos cannot be read.*remove them:\n.*broken\.jpg"):
        vectors.compute(listed)
    done = len(runs)
    vectors.compute(photos[:4])
    assert len(runs) == done


def test_the_same_layers_over_the_signed_and_the_rectified_map_are_kept_apart(photos, tmp_path):
    import keras

    inputs = keras.Input((None, None, 3), name="photos")
    signed = keras.Model(inputs, keras.layers.Conv2D(6, 8, strides=8, name="signed")(inputs), name="signed")
    vectors = make(signed, tmp_path / "kept", {"sum": ("sum", 3), "mean": ("mean", 3)})
    vectors.compute(photos)
    (rectified,), (as_it_is,) = vectors.blocks("sum", photos), vectors.blocks("mean", photos)
    for (path, box), one, other in zip(photos, rectified, as_it_is):
        features = np.asarray(signed(read_image(path, box, 1024)[None].astype("float32")))
        for found, of in ((one, np.maximum(features, 0)), (other, features)):
            mean = of.mean(axis=(1, 2))
            np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)
