"""Pictures of why a photo is described as it is, why two agree, and what re-ranking saw in them.

They draw the numbers of `rw_keras.views.explain`.

Needs matplotlib: `pip install "rw_keras[plot]"`. Nothing here touches pyplot: the functions return a `matplotlib.figure.Figure`,
which `figure.savefig("why.png")` writes with or without a screen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rw_keras.views import explain

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure, FigureBase

    from rw_keras.photos.reading import Box, Photo
    from rw_keras.runtimes.describer import Describer

# Okabe and Ito's colours, which the colour-blind tell apart, but for black and blue: a black number is to be read on them.
_COLOURS = ("#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#d55e00", "#f0e442")
# Inches: a photo's longer side; what stands below a narrow one; between photos, and to the edge; a title; from a photo to what is
# below it; a colour bar; its numbers and words; a line of a legend.
_PANEL, _NARROWEST, _SPACE, _TITLE, _GAP, _BAR, _SCALE, _LINE = 4.6, 2.6, 0.2, 0.4, 0.14, 0.14, 0.5, 0.225
_COLUMNS = 5  # of the legend below two photos


def weights(
    model: keras.Model,
    photo: Photo,
    box: Box | None = None,
    max_side: int | str | None = "auto",
    top: int = 3,
    figure: FigureBase | None = None,
) -> Figure | FigureBase:
    """Draws what counts in a photo: the photo, the weight of its places, and the regions that carry most of its descriptor.

    The weight lies over the grey photo, each cell of the map over its part of it. Where the method weighs no places (`rmac`, `mac`,
    `gem`, `sum`) it is the sum over channels; the colour bar says which. The legend gives each region's share of the descriptor;
    the shares of all regions add to 100 %.

    Args:
        model: a model of `rw_keras.build_descriptor`, with any backbone and method.
        photo: the path of a photo, or an array of its pixels.
        box: (x1, y1, x2, y2) in pixels of the upright full-size photo: what is described.
        max_side: see `rw_keras.describe`.
        top: how many regions to draw, 1 or more. Default 3.
        figure: a figure or subfigure to draw into. Default: a new one.

    Returns:
        The figure, with the axes "photo", "weight", "regions", "colour bar" and "legend".

    Raises:
        ImportError: without matplotlib.
        FileNotFoundError, ImageError, ValueError: as `rw_keras.views.explain.region_shares`.

    Example:

    >>> rw_keras.views.plot.weights(model, "query.jpg", box=(136, 34, 648, 955)).savefig("why.png")
    """
    new_figure = figure_class()
    regions = explain.region_shares(model, photo, box, max_side)
    best = regions.best(top)
    page = _Page(new_figure, figure, [regions.photo] * 3, 2 + len(best))
    plain, weighted, shared = page.panels
    _show(plain, regions.photo, "photo")
    _show(weighted, regions.photo.mean(axis=-1), "weight", cmap="gray", vmin=0, vmax=255)
    height, width = regions.photo.shape[:2]
    over = weighted.imshow(
        regions.weight,
        extent=(0, width, height, 0),  # the middle of a cell lies in the middle of its part of the photo
        interpolation="bilinear",
        cmap="viridis",
        alpha=0.65,
        vmin=0,
        vmax=regions.weight.max() or 1,
    )
    page.figure.colorbar(over, cax=page.bar(1), orientation="horizontal", label=regions.weight_meaning)
    _show(shared, regions.photo, "regions")
    drawn = [_outline(shared, regions.windows[region], rank) for rank, region in enumerate(best)]
    names = [f"{rank + 1}: {regions.shares[region]:.1%}" for rank, region in enumerate(best)]
    title = f"share of the descriptor\n({len(best)} of {len(regions.shares)} regions)"
    _legend(page.legend(2, 2), drawn, names, title)
    return page.figure


def agreement(
    model: keras.Model,
    photo: Photo,
    other: Photo,
    box: Box | None = None,
    other_box: Box | None = None,
    max_side: int | str | None = "auto",
    top: int = 5,
    figure: FigureBase | None = None,
) -> Figure | FigureBase:
    """Draws why two photos agree: side by side, with the pairs of regions that add most to their cosine.

    Both regions of a pair have one colour and number; the legend gives what it adds. The parts of all pairs add to the cosine.

    Args:
        model: a model of `rw_keras.build_descriptor`, with any backbone and method.
        photo, other: the photos: paths, or arrays of pixels.
        box, other_box: (x1, y1, x2, y2) in pixels of either upright full-size photo: what is described.
        max_side: see `rw_keras.describe`.
        top: how many pairs to draw, 1 or more. Default 5.
        figure: a figure or subfigure to draw into. Default: a new one.

    Returns:
        The figure, with the axes "photo", "other" and "legend".

    Raises:
        ImportError: without matplotlib.
        FileNotFoundError, ImageError, ValueError: as `rw_keras.views.explain.region_shares`.

    Example:

    >>> rw_keras.views.plot.agreement(model, "query.jpg", "hit.jpg", box=(136, 34, 648, 955)).savefig("why.png")
    """
    new_figure = figure_class()
    found = explain.region_agreement(model, photo, other, box, other_box, max_side)
    best = found.best(top)
    windows = [(found.first.windows[one], found.second.windows[two]) for one, two in best]
    names = [f"{found.parts[pair]:.4f}" for pair in best]
    title = f"what a pair adds to the cosine {found.cosine:.3f}\n({len(best)} of {found.parts.size} pairs)"
    return _pairs(new_figure, figure, {"photo": found.first.photo, "other": found.second.photo}, windows, names, title)


def matches(
    model: keras.Model | Describer,
    query: Photo,
    photo: Photo,
    box: Box | None = None,
    photo_box: Box | None = None,
    max_side: int | str | None = "auto",
    top: int = 5,
    figure: FigureBase | None = None,
) -> Figure | FigureBase:
    """Draws what re-ranking saw in a query and a photo: side by side, with the regions that are most like each other.

    For each region of the query the photo's best one counts, and the mean of their cosines is the photo's score. Drawn are the
    query's regions with the highest ones. Both regions of a pair have one colour and number; the legend gives their cosine.

    Args:
        model: a model of `rw_keras.build_descriptor` or `multi_scale`, or what `rw_keras.runtimes.load` made of one.
        query: the photo that is searched with: a path, or an array of pixels.
        photo: the one that is compared with it.
        box, photo_box: (x1, y1, x2, y2) in pixels of either upright full-size photo: what is described.
        max_side: see `rw_keras.describe`.
        top: how many pairs to draw, 1 or more. Default 5.
        figure: a figure or subfigure to draw into. Default: a new one.

    Returns:
        The figure, with the axes "query", "photo" and "legend".

    Raises:
        ImportError: without matplotlib.
        FileNotFoundError, ImageError, ValueError: as `rw_keras.views.explain.region_matches`.

    Example:

    >>> rw_keras.views.plot.matches(model, "query.jpg", "hit.jpg", box=(136, 34, 648, 955)).savefig("why.png")
    """
    new_figure = figure_class()
    found = explain.region_matches(model, query, photo, box, photo_box, max_side)
    best = found.best(top)
    windows = [(found.query_windows[region], found.photo_windows[region]) for region in best]
    names = [f"{found.cosines[region]:.3f}" for region in best]
    title = (
        f"cosine of the query's region and the photo's most like it; the mean of all {len(found.cosines)}, {found.score:.3f}, is "
        f"the score\n({len(best)} of {len(found.cosines)} regions)"
    )
    return _pairs(new_figure, figure, {"query": found.query, "photo": found.photo}, windows, names, title)


def figure_class() -> type[Figure]:
    """matplotlib's `Figure`, or an ImportError that says how to get it: asked for before the network runs for nothing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('rw_keras.views.plot draws with matplotlib; install it with: pip install "rw_keras[plot]"') from error
    return Figure


def _pairs(new_figure, figure, photos, windows, names, title):
    """Two photos by their titles, side by side, with the windows of each pair in both."""
    page = _Page(new_figure, figure, list(photos.values()), 2 + -(-len(windows) // _COLUMNS))
    drawn = []
    for side, (axes, (words, photo)) in enumerate(zip(page.panels, photos.items())):
        _show(axes, photo, words)
        drawn = [_outline(axes, pair[side], rank) for rank, pair in enumerate(windows)]
    _legend(page.legend(0, 1), drawn, [f"{rank}: {name}" for rank, name in enumerate(names, 1)], title, _COLUMNS)
    return page.figure


class _Page:
    """Photos side by side, and room below them.

    In inches, by hand: matplotlib's own layouts give a legend of two lines more room than a photo when a figure is small.
    """

    def __init__(self, new_figure, figure, photos, lines):
        sides = np.array([photo.shape[1::-1] for photo in photos], "float64")
        widths, heights = (sides * _PANEL / sides.max(axis=1, keepdims=True)).T
        widths, self._room = np.maximum(widths, _NARROWEST), max(_GAP + _LINE * lines, _GAP + _BAR + _SCALE) + _SPACE / 2
        spaces = _SPACE * (len(photos) + 1)
        self.figure = figure or new_figure((widths.sum() + spaces, heights.max() + _TITLE + self._room), dpi=120)
        self._size = self.figure.bbox.size / self.figure.dpi
        # A figure that was given has its own size: photos take what is left of it.
        self._widths = widths * (self._size[0] - spaces) / widths.sum()
        self._lefts = _SPACE + np.cumsum([0, *(self._widths[:-1] + _SPACE)])
        high = max(self._size[1] - _TITLE - self._room, self._size[1] / 3)
        self.panels = [self._axes(column, column, self._room, high) for column in range(len(photos))]

    def bar(self, column):
        """Axes for a colour bar below a photo."""
        return self._axes(column, column, self._room - _GAP - _BAR, _BAR, label="colour bar")

    def legend(self, first, last):
        """Axes for a legend below photos, from the one in the column `first` to the one in `last`."""
        return self._axes(first, last, 0, self._room - _GAP, label="legend")

    def _axes(self, first, last, bottom, height, **names):
        left, right = self._lefts[first], self._lefts[last] + self._widths[last]
        return self.figure.add_axes((*(left, bottom) / self._size, *(right - left, height) / self._size), anchor="S", **names)


def _show(axes, pixels, title, **colours):
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0), **colours)
    axes.set(xticks=[], yticks=[], label=title, xlim=(0, width), ylim=(height, 0))
    axes.set_title(title)


def _outline(axes, window, rank):
    """Draws a region's window with its number; returns the line for the legend."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Stroke, withStroke

    x1, y1, x2, y2 = window
    # Each a little inside the one before, so that windows of one place, or with a common edge, can all be seen.
    steps = 0.5 + rank % len(_COLOURS)
    inset = steps * min(0.01 * max(axes.get_images()[0].get_extent()), 0.05 * min(x2 - x1, y2 - y1))
    colour = _COLOURS[rank % len(_COLOURS)]
    width, height = x2 - x1 - 2 * inset, y2 - y1 - 2 * inset
    outline = Rectangle((x1 + inset, y1 + inset), width, height, fill=False, edgecolor=colour, linewidth=2.2)
    outline.set_path_effects([Stroke(linewidth=3.8, foreground="black"), withStroke(linewidth=2.2, foreground=colour)])
    axes.add_patch(outline)
    # Numbers go along the upper edge, by rank: two windows of one corner would else have them in one place.
    place = (0.08 + 0.16 * (rank % len(_COLOURS))) * (x2 - x1)
    note = {"boxstyle": "round,pad=0.2", "facecolor": colour, "edgecolor": "black", "linewidth": 0.8}
    axes.text(x1 + place, y1 + inset, str(rank + 1), ha="center", va="top", fontsize=8, fontweight="bold", bbox=note)
    return outline


def _legend(axes, drawn, names, title, columns=1):
    axes.set_axis_off()
    if not drawn:
        title, columns = "nothing to draw: no region fires", 1
    legend = axes.legend(
        drawn, names, title=title, ncols=columns, loc="upper center", alignment="center", borderaxespad=0, frameon=False
    )
    legend.get_title().set_multialignment("center")
