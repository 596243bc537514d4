import keras
import numpy as np
import pytest
from PIL import Image

import rw_keras
from rw_keras.model.presets import Preset
from rw_keras.photos.reading import ImageError, read_image
from rw_keras.regions import region_windows
from rw_keras.views import explain

GRID_METHODS, METHODS = ("rw", "root_rw", "rmac"), tuple(rw_keras.methods.OF_RECTIFIED_MAPS)
CELL = 8  # pixels of the tiny network's


@pytest.fixture(scope="module")
def whitened(tiny_model, draw):
    """A model whose region vectors point everywhere, so that shares differ and some are below 0."""
    model = tiny_model(shrinkage=0.01)
    rw_keras.fit_whitening(model, [draw(seed, 80, 64) for seed in range(20)], progress=False)
    return model


def feature_map(model, pixels):
    """The map of a photo, by the network alone."""
    layer = model.get_layer(model.recipe["layer"])
    return keras.ops.convert_to_numpy(keras.Model(model.input, layer.output)(pixels[None]))[0].astype("float64")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "size", [(17, 40), *(pytest.param(size, marks=pytest.mark.slow) for size in ((64, 48), (40, 96), (8, 8)))], ids=str
)
def test_shares_are_what_regions_give_to_the_descriptor(known_model, draw, method, size):
    model, photo = known_model(method=method), draw(3, *size)
    regions = explain.region_shares(model, photo)
    assert regions.shares.sum() == pytest.approx(1, abs=1e-9)
    described = rw_keras.describe(model, photo).astype("float64")
    total = regions.vectors.astype("float64").sum(axis=0)
    np.testing.assert_allclose(total / np.linalg.norm(total), described, atol=1e-5)
    np.testing.assert_allclose(regions.shares, regions.vectors @ described / np.linalg.norm(total), atol=1e-5)
    assert len(regions.shares) == len(regions.windows) == len(regions.vectors)
    if method not in GRID_METHODS:
        assert regions.windows.tolist() == [[0, 0, *size]]


def test_shares_of_a_whitened_model_differ(whitened, draw):
    shares = explain.region_shares(whitened, draw(1)).shares
    assert shares.sum() == pytest.approx(1, abs=1e-9)
    assert shares.min() < 0
    assert shares.max() > 1.5 / len(shares)


@pytest.mark.parametrize("method", GRID_METHODS)
@pytest.mark.parametrize("levels", [1, 3, 4])
@pytest.mark.parametrize("size", [(96, 72), (72, 96), (100, 45)], ids=str)
def test_windows_are_the_grid_in_pixels(known_model, draw, method, levels, size):
    width, height = size
    regions = explain.region_shares(known_model(method=method, levels=levels), draw(0, width, height))
    rows, columns = height // CELL, width // CELL
    expected = [
        (left * width / columns, top * height / rows, right * width / columns, bottom * height / rows)
        for top, left, bottom, right in region_windows(rows, columns, levels).tolist()
    ]
    np.testing.assert_allclose(regions.windows, expected, rtol=1e-6)
    assert regions.windows[0].tolist() == [0, 0, width, height]


def test_without_the_whole_map(tiny_model, draw):
    method = rw_keras.layers.RegionalMaxPooling(2, include_whole_map=False)
    regions = explain.region_shares(tiny_model(method=lambda features: method(features)), draw(0, 96, 72))
    assert len(regions.windows) == len(region_windows(9, 12, 2, False))
    assert (regions.windows[:, 2] - regions.windows[:, 0]).max() == 72


def test_a_vector_is_that_of_its_window(known_model, draw):
    """What fires in one cell alone is in the vectors of the windows that hold this cell, and no others."""
    model = known_model()
    photo = np.zeros((72, 96, 3), "uint8")
    photo[40:48, 16:24] = draw(1, 8, 8)
    regions = explain.region_shares(model, photo)
    x1, y1, x2, y2 = regions.windows.T
    holds = (x1 < 20) & (x2 > 20) & (y1 < 44) & (y2 > 44)
    assert 1 < holds.sum() < len(holds)
    assert (regions.vectors.any(axis=1) == holds).all()
    np.testing.assert_allclose(regions.shares, holds / holds.sum(), atol=1e-6)
    assert (regions.weight > 0).nonzero() == ([5], [2])


@pytest.mark.parametrize("alpha, beta, dimming", [(2.0, 2.0, 1), (1.0, 3.0, 1), (2.0, 2.0, 100)])
def test_the_weight_is_that_of_the_formula(tiny_model, draw, alpha, beta, dimming):
    model = tiny_model(method=lambda features: rw_keras.methods.rw(features, alpha=alpha, beta=beta))
    photo = draw(5, 80, 56) // dimming
    regions = explain.region_shares(model, photo)
    sums = feature_map(model, photo).sum(axis=-1)
    expected = (sums / (sums**alpha).sum() ** (1 / alpha)) ** (1 / beta)
    assert regions.weight.shape == (7, 10)
    np.testing.assert_allclose(regions.weight, expected, rtol=1e-5)
    assert "multiplied" in regions.weight_meaning


def test_the_weight_of_spoc_is_its_prior(known_model, draw):
    weight = explain.region_shares(known_model(method="spoc"), draw(5, 72, 56)).weight
    rows, columns = np.arange(7) - 3, np.arange(9) - 4
    expected = np.exp(-(rows[:, None] ** 2 + columns**2) / (2 * (7 / 6) ** 2))
    np.testing.assert_allclose(weight, expected, rtol=1e-4)


@pytest.mark.parametrize("method", ["rmac", "mac", "gem", "sum"])
def test_the_weight_of_a_method_without_one_is_the_sum_over_channels(known_model, draw, method):
    model, photo = known_model(method=method), draw(5, 72, 56)
    regions = explain.region_shares(model, photo)
    np.testing.assert_allclose(regions.weight, feature_map(model, photo).sum(axis=-1), rtol=1e-5)
    assert regions.weight_meaning == "sum over channels"


@pytest.mark.parametrize("method", METHODS)
def test_zero_maps_give_zeros(known_model, draw, method):
    model, black = known_model(method=method), np.zeros((48, 64, 3), "uint8")
    regions = explain.region_shares(model, black)
    assert not regions.shares.any()
    assert not np.isnan(regions.weight).any()
    assert regions.best(3) == []
    found = explain.region_agreement(model, black, draw(0))
    assert not found.parts.any()
    assert found.cosine == 0
    assert found.best(3) == []


@pytest.mark.parametrize("method", METHODS)
def test_agreement_adds_to_the_cosine(known_model, draw, method):
    model, photo, other = known_model(method=method), draw(1, 96, 64), draw(2, 40, 72)
    found = explain.region_agreement(model, photo, other, (5, 3, 90, 60), None, max_side=80)
    first, second = rw_keras.describe(model, [photo, other], [(5, 3, 90, 60), None], max_side=80)
    assert found.cosine == pytest.approx(float(first @ second), abs=1e-5)
    assert found.parts.shape == (len(found.first.shares), len(found.second.shares))
    lengths = [np.linalg.norm(regions.vectors.sum(axis=0)) for regions in (found.first, found.second)]
    pair = found.first.vectors[-1] @ found.second.vectors[0] / np.prod(lengths)
    assert found.parts[-1, 0] == pytest.approx(float(pair), abs=1e-6)


def test_agreement_of_a_whitened_model(whitened, draw):
    photo, other = draw(1), draw(2)
    found = explain.region_agreement(whitened, photo, other)
    first, second = rw_keras.describe(whitened, [photo, other])
    assert found.cosine == pytest.approx(float(first @ second), abs=1e-5)
    assert found.parts.min() < 0 < found.parts.max()
    itself = explain.region_agreement(whitened, photo, photo)
    np.testing.assert_allclose(itself.parts.sum(axis=1), itself.first.shares, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("scales", [(1, 2**-0.5, 0.5), (0.7,)], ids=str)
def test_a_multi_scale_model(whitened, draw, scales):
    several = rw_keras.multi_scale(whitened, scales)
    photo, other = draw(1, 96, 64), draw(2, 40, 72)
    regions = explain.region_shares(several, photo)
    assert len(regions.windows) == len(regions.vectors) > 21 * (len(scales) - 1)
    assert regions.shares.sum() == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(regions.parts.sum(axis=0), rw_keras.describe(several, photo), atol=1e-5)
    np.testing.assert_array_equal(regions.windows[0], [0, 0, 96, 64])
    found = explain.region_agreement(several, photo, other, (5, 3, 90, 60))
    first, second = rw_keras.describe(several, [photo, other], [(5, 3, 90, 60), None])
    assert found.cosine == pytest.approx(float(first @ second), abs=1e-5)


class TestMatches:
    @pytest.mark.slow
    @pytest.mark.parametrize("is_multi_scale", [False, True])
    def test_the_score_is_the_mean_of_the_best_cosines(self, whitened, draw, is_multi_scale):
        model = rw_keras.multi_scale(whitened) if is_multi_scale else whitened
        query, photo, box = draw(1, 96, 64), draw(2, 40, 72), (5, 3, 90, 60)
        found = explain.region_matches(model, query, photo, box)
        cut = query[3:60, 5:90]
        assert (found.query == cut).all() and (found.photo == photo).all()
        vectors = [np.asarray(model.with_regions()(pixels[None])[1])[0].astype("float64") for pixels in (cut, photo)]
        expected, regions, windows = [], [], explain.region_shares(model, photo).windows
        for vector in vectors[0]:
            cosines = [float(vector @ other) for other in vectors[1]]
            expected.append(max(cosines))
            regions.append(int(np.argmax(cosines)))
        assert found.score == pytest.approx(np.mean(expected), abs=1e-5)
        np.testing.assert_allclose(found.cosines, expected, atol=1e-5)
        assert found.photo_regions.tolist() == regions
        assert found.query_regions.tolist() == list(range(len(vectors[0])))
        np.testing.assert_array_equal(found.photo_windows, windows[regions])
        np.testing.assert_array_equal(found.query_windows, explain.region_shares(model, query, box).windows)

    def test_a_photo_and_itself(self, whitened, draw):
        found = explain.region_matches(whitened, draw(1), draw(1))
        assert found.score == pytest.approx(1, abs=1e-6)
        np.testing.assert_array_equal(found.photo_windows, found.query_windows)

    def test_a_runtime_in_place_of_the_model(self, whitened, draw):
        found = explain.region_matches(rw_keras.runtimes.load(whitened, "tensorflow"), draw(1), draw(2))
        expected = explain.region_matches(whitened, draw(1), draw(2))
        np.testing.assert_array_equal(found.cosines, expected.cosines)

    def test_black_photos_match_nothing(self, model, draw):
        black = np.zeros((48, 64, 3), "uint8")
        for query, photo, score in ((black, draw(0), 0), (draw(0), black, -1), (black, black, 0)):
            found = explain.region_matches(model, query, photo)
            assert (found.score, found.best(3)) == (score, [])

    def test_regions_where_nothing_is_count_for_nothing(self, model, draw):
        """Of the query they are left out, and of the photo nobody's best, though its others point away."""
        corner = np.zeros((72, 96, 3), "uint8")
        corner[40:48, 16:24] = draw(1, 8, 8)
        vectors = np.asarray(model.with_regions()(corner[None])[1])[0]
        fires = np.flatnonzero(vectors.any(axis=1))
        assert 1 < len(fires) < len(vectors)
        found = explain.region_matches(model, corner, draw(2))
        assert found.query_regions.tolist() == fires.tolist()
        assert set(explain.region_matches(model, draw(2), corner).photo_regions) <= set(fires)

    def test_a_method_of_one_region(self, known_model, draw):
        model = known_model(method="mac")
        found = explain.region_matches(model, draw(1), draw(2))
        first, second = rw_keras.describe(model, [draw(1), draw(2)])
        assert found.score == pytest.approx(float(first @ second), abs=1e-5)
        assert found.query_windows.tolist() == [[0, 0, 64, 48]]

    def test_regions_of_no_grid_are_refused(self, tiny_model, draw):
        model = tiny_model(method=lambda features: keras.layers.Reshape((-1, 12))(features))
        with pytest.raises(ValueError, match="has 48 regions, which are not those of one RegionalSumPooling"):
            explain.region_matches(model, draw(0), draw(1))


def test_the_size_is_the_one_that_the_model_notes(tiny_model, draw):
    model = tiny_model()
    model.note_max_side(40)
    assert explain.region_shares(model, draw(0)).photo.shape == (30, 40, 3)
    assert explain.region_shares(model, draw(0), max_side=None).photo.shape == (48, 64, 3)
    assert explain.region_matches(model, draw(0), draw(1)).query.shape == (30, 40, 3)


@pytest.mark.slow
def test_the_size_is_that_of_the_models_preset(tiny_model, draw):
    """As `describe` has it, or what is explained is another descriptor."""
    model = tiny_model()
    model.note_preset(Preset("small photos", max_side=40))
    assert explain.region_shares(model, draw(0)).photo.shape == (30, 40, 3)
    assert explain.region_matches(model, draw(0), draw(1)).query.shape == (30, 40, 3)


def test_a_sum_that_is_whitened_has_no_parts(tiny_model, draw):
    model = tiny_model(whiten_on="global")
    for explained in (explain.region_shares, lambda model, photo: explain.region_matches(model, photo, photo)):
        with pytest.raises(ValueError, match=r'no whitened region vectors.*whiten_on="global"'):
            explained(model, draw(0))


def test_best_are_the_largest_above_zero(whitened, draw):
    regions = explain.region_shares(whitened, draw(1))
    assert regions.best(2) == np.argsort(-regions.shares)[:2].tolist()
    assert len(regions.best(1000)) == (regions.shares > 0).sum()
    found = explain.region_agreement(whitened, draw(1), draw(2, 96, 40))
    assert found.parts[found.best(1)[0]] == found.parts.max()
    parts = [found.parts[pair] for pair in found.best(1000)]
    assert parts == sorted(parts, reverse=True)
    assert len(parts) == (found.parts > 0).sum()


@pytest.mark.parametrize("top", [0, -1, 1.5, True, "3"])
def test_top_is_a_whole_number(model, draw, top):
    with pytest.raises(ValueError, match="top is a whole number of at least 1, but got"):
        explain.region_shares(model, draw(0)).best(top)


def test_photo_is_what_the_model_saw(model, tmp_path, draw):
    upright = Image.fromarray(draw(4, 120, 90))
    exif = Image.Exif()
    exif[0x0112] = 6  # the file holds it turned by 90 degrees
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    regions = explain.region_shares(model, tmp_path / "turned.png", (10, 10, 110, 80), max_side=60)
    assert (regions.photo == read_image(np.asarray(upright), (10, 10, 110, 80), 60)).all()
    assert regions.photo.shape == (35, 50, 3)
    assert regions.windows[0].tolist() == [0, 0, 50, 35]


def test_grey_photos(model, draw):
    grey = draw(0)[..., 0]
    same = explain.region_shares(model, np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(explain.region_shares(model, grey).shares, same.shares)


def test_a_map_with_values_below_zero(draw):
    photos = keras.Input((None, None, 3))
    network = keras.Model(photos, keras.layers.Conv2D(6, 8, strides=8, activation="tanh")(photos))
    model = rw_keras.build_descriptor(network, method="rmac", whitening=None)
    regions = explain.region_shares(model, draw(0))
    assert regions.shares.sum() == pytest.approx(1, abs=1e-9)
    assert (regions.weight >= 0).all()  # that of the map which is pooled


def test_a_saved_model(model, tmp_path, draw):
    model.save(tmp_path / "model.keras")
    loaded = explain.region_shares(rw_keras.load_model(tmp_path / "model.keras"), draw(0))
    kept = explain.region_shares(model, draw(0))
    np.testing.assert_array_equal(loaded.windows, kept.windows)
    np.testing.assert_allclose(loaded.shares, kept.shares, atol=1e-7)


def test_bad_photos(model, draw, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        explain.region_shares(model, tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="leaves"):
        explain.region_shares(model, draw(0), (0, 0, 500, 500))
    with pytest.raises(ImageError, match="too small: each side needs 8"):
        explain.region_agreement(model, draw(0), draw(0, 7, 30))


def test_models_without_regions_are_refused(draw):
    photos = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="has no RegionSum layer that adds regions; build it with"):
        explain.region_shares(keras.Model(photos, keras.layers.GlobalMaxPooling2D()(photos)), draw(0))


def test_regions_of_no_grid_are_refused(tiny_model, draw):
    model = tiny_model(method=lambda features: keras.layers.Reshape((-1, 12))(features))
    with pytest.raises(ValueError, match="has 48 regions, which are not those of one RegionalSumPooling"):
        explain.region_shares(model, draw(0))
