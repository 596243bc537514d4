import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import rw_keras
from rw_keras.photos.reading import ImageError
from rw_keras.views import explain, plot

figures = pytest.importorskip("matplotlib.figure")
METHODS = tuple(rw_keras.methods.OF_RECTIFIED_MAPS)
BLACK = np.zeros((48, 64, 3), "uint8")


def axes_of(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def picture(figure):
    """The figure as pixels; also shows that it can be written."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return np.asarray(Image.open(buffer).convert("RGB"))


def outlines(axes):
    """x1, y1, x2, y2 of the drawn windows."""
    boxes = [patch.get_bbox() for patch in axes.patches]
    return np.array([[box.x0, box.y0, box.x1, box.y1] for box in boxes]).reshape(-1, 4)


def words(legend):
    return [text.get_text() for text in legend.get_texts()]


def assert_lie_just_inside(drawn, windows):
    sides = np.tile((windows[:, 2:] - windows[:, :2]).min(axis=1, keepdims=True), 2)
    inward = (drawn - windows) * [1, 1, -1, -1]
    assert (inward >= 0).all()
    assert (inward <= 0.4 * np.tile(sides, 2)).all()
    assert len(set(map(tuple, drawn.tolist()))) == len(drawn)


@pytest.mark.parametrize("method", METHODS)
def test_weights_shows_photo_weight_and_regions(known_model, draw, method):
    model, photo = known_model(method=method), draw(1, 96, 64)
    figure, regions = plot.weights(model, photo), explain.region_shares(model, photo)
    axes = axes_of(figure)
    assert list(axes) == ["photo", "weight", "regions", "colour bar", "legend"]
    assert (axes["photo"].get_images()[0].get_array() == photo).all()
    grey, over = axes["weight"].get_images()
    assert grey.get_array().shape == (64, 96)
    np.testing.assert_array_equal(over.get_array(), regions.weight)
    assert over.get_extent() == [0, 96, 64, 0]  # the grid of cells over all of the photo, upright
    assert over.get_clim() == (0, regions.weight.max())
    assert axes["colour bar"].get_xlabel() == regions.weight_meaning
    best = regions.best(3)
    assert_lie_just_inside(outlines(axes["regions"]), regions.windows[best])
    legend = axes["legend"].get_legend()
    assert words(legend) == [f"{rank}: {regions.shares[region]:.1%}" for rank, region in enumerate(best, 1)]
    assert f"{len(best)} of {len(regions.shares)} regions" in legend.get_title().get_text()
    assert [text.get_text() for text in axes["regions"].texts] == [str(rank + 1) for rank in range(len(best))]
    for name in ("photo", "weight", "regions"):
        assert (axes[name].get_xlim(), axes[name].get_ylim()) == ((0, 96), (64, 0))
        assert axes[name].get_aspect() == 1
    assert picture(figure).std() > 10


@pytest.mark.parametrize("method", ["rw", "crow"])
def test_agreement_shows_pairs_in_one_colour(known_model, draw, method):
    model, photo, other = known_model(method=method), draw(1, 96, 64), draw(2, 40, 72)
    figure, found = plot.agreement(model, photo, other, top=4), explain.region_agreement(model, photo, other)
    axes = axes_of(figure)
    assert list(axes) == ["photo", "other", "legend"]
    assert (axes["other"].get_images()[0].get_array() == other).all()
    best = found.best(4)
    for name, regions, side in (("photo", found.first, 0), ("other", found.second, 1)):
        assert_lie_just_inside(outlines(axes[name]), regions.windows[[pair[side] for pair in best]])
    colours = [[patch.get_edgecolor() for patch in axes[name].patches] for name in ("photo", "other")]
    legend = axes["legend"].get_legend()
    assert colours[0] == colours[1] == [handle.get_edgecolor() for handle in legend.legend_handles]
    assert len(set(colours[0])) == len(best)
    assert words(legend) == [f"{rank}: {found.parts[pair]:.4f}" for rank, pair in enumerate(best, 1)]
    assert f"cosine {found.cosine:.3f}" in legend.get_title().get_text()
    assert picture(figure).std() > 10


@pytest.mark.slow
def test_matches_shows_the_best_pairs(known_model, draw):
    model, query, photo = rw_keras.multi_scale(known_model()), draw(1, 96, 64), draw(2, 40, 72)
    figure, found = plot.matches(model, query, photo, top=4), explain.region_matches(model, query, photo)
    axes = axes_of(figure)
    assert list(axes) == ["query", "photo", "legend"]
    best = found.best(4)
    assert_lie_just_inside(outlines(axes["query"]), found.query_windows[best])
    assert_lie_just_inside(outlines(axes["photo"]), found.photo_windows[best])
    legend = axes["legend"].get_legend()
    assert words(legend) == [f"{rank}: {found.cosines[region]:.3f}" for rank, region in enumerate(best, 1)]
    assert f"{found.score:.3f}" in legend.get_title().get_text()
    assert picture(figure).std() > 10


@pytest.mark.parametrize(
    "size", [(300, 16), *(pytest.param(size, marks=pytest.mark.slow) for size in ((17, 40), (40, 17), (8, 8)))], ids=str
)
def test_odd_photos(model, draw, size):
    for photo in (draw(0, *size), draw(0, *size)[..., 0]):
        drawn = picture(plot.weights(model, photo))
        assert max(drawn.shape) < 20 * 60  # inches
        picture(plot.agreement(model, photo, draw(1)))


@pytest.mark.slow
def test_nothing_fires(model, draw):
    figure = plot.weights(model, BLACK)
    assert len(axes_of(figure)["regions"].patches) == 0
    assert "nothing" in axes_of(figure)["legend"].get_legend().get_title().get_text()
    picture(figure)
    figure = plot.agreement(model, BLACK, draw(0))
    assert len(axes_of(figure)["other"].patches) == 0
    picture(figure)


def test_box_and_size_are_those_of_the_numbers(model, draw):
    photo, box = draw(0, 120, 90), (10, 10, 110, 80)
    assert axes_of(plot.weights(model, photo, box, 60))["photo"].get_xlim() == (0, 50)
    axes = axes_of(plot.agreement(model, photo, photo, box, (0, 0, 60, 60), 60))
    assert (axes["photo"].get_xlim(), axes["other"].get_xlim()) == ((0, 50), (0, 30))


def test_more_windows_than_colours(model, draw):
    figure = plot.weights(model, draw(0, 96, 72), top=20)
    assert len(axes_of(figure)["regions"].patches) == 20
    picture(figure)
    assert len(axes_of(plot.agreement(model, draw(0), draw(1), top=12))["photo"].patches) == 12


def test_what_is_drawn_does_not_leave_the_figure(model, draw):
    tall = draw(1, 48, 96)
    for figure in (plot.weights(model, draw(0)), plot.weights(model, tall), plot.agreement(model, draw(0), tall)):
        picture(figure)
        whole = figure.bbox.padded(0.5)
        drawn = [axes.get_tightbbox() for axes in figure.axes]
        for place, box in enumerate(drawn):
            assert whole.x0 <= box.x0 < box.x1 <= whole.x1
            assert whole.y0 <= box.y0 < box.y1 <= whole.y1
            assert not any(box.overlaps(other.padded(-1)) for other in drawn[:place])


def test_draws_into_a_figure_or_a_part_of_one(model, draw):
    figure = figures.Figure(figsize=(9, 6))
    left, right = figure.subfigures(1, 2)
    assert plot.weights(model, draw(0), figure=left) is left
    assert plot.agreement(model, draw(0), draw(1), figure=right) is right
    assert figure.get_size_inches().tolist() == [9, 6]
    picture(figure)


def test_bad_arguments(model, draw, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        plot.weights(model, tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="leaves"):
        plot.agreement(model, draw(0), draw(1), other_box=(0, 0, 500, 500))
    with pytest.raises(ValueError, match="top is a whole number"):
        plot.weights(model, draw(0), top=0)


@pytest.mark.parametrize("function, photos", [(plot.weights, 1), (plot.agreement, 2)])
def test_without_matplotlib(model, draw, monkeypatch, function, photos):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(explain, "region_shares", lambda *_: pytest.fail("the network ran for nothing"))
    with pytest.raises(ImportError, match=r'install it with: pip install "rw_keras\[plot\]"$'):
        function(model, *[draw(0)] * photos)


def test_pyplot_knows_nothing_of_it(model, draw):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plot.weights(model, draw(0))
    plot.agreement(model, draw(0), draw(1))
    assert pyplot.get_fignums() == before


_WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None
import keras, numpy, rw_keras
photos = keras.Input((None, None, 3))
network = keras.Model(photos, keras.layers.Conv2D(4, 8, strides=8, activation="relu")(photos))
model = rw_keras.build_descriptor(network, whitening=None)
photo = numpy.arange(48 * 64 * 3, dtype="float32").reshape(48, 64, 3) % 256
assert rw_keras.views.explain.region_agreement(model, photo, photo).cosine > 0.99
try:
    rw_keras.views.plot.weights(model, photo)
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_the_numbers_need_no_matplotlib():
    run = subprocess.run([sys.executable, "-c", _WITHOUT_MATPLOTLIB], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == 'rw_keras.views.plot draws with matplotlib; install it with: pip install "rw_keras[plot]"\n'
