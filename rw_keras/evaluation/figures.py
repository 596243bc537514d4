"""The figures: tables drawn, curves, and photos that are found."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rw_keras.evaluation import published
from rw_keras.evaluation.experiment import Experiment, Setting
from rw_keras.evaluation.table import Table
from rw_keras.evaluation.tables import Curve
from rw_keras.photos.reading import read_image
from rw_keras.retrieval import landmark_by_name
from rw_keras.views.contact_sheet import RIGHT, Hit, Row, contact_sheet
from rw_keras.views.plot import figure_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart for the colour-blind.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
WRONG, JUNK = (213, 94, 0), (150, 150, 158)
FRAMES = "green: right, orange: wrong, grey: junk, which counts neither way"
_TILE_SIDE = 180


def chart(table: Table, data: str) -> Figure:
    """A table's values as dots with their intervals, those published as diamonds; `data`: how much of the sets was there."""
    kinds = list(dict.fromkeys(kind for point in table.points for kind in point.measured))
    figure = figure_class()(figsize=(9, 1.6 + 0.34 * len(table.points)), layout="constrained")
    axes = figure.subplots()
    for place, kind in enumerate(kinds):
        offset = (place - (len(kinds) - 1) / 2) * 0.3
        rows = [(row, point.measured[kind]) for row, point in enumerate(table.points) if kind in point.measured]
        means = np.array([found.mean for _, found in rows])
        ends = np.nan_to_num([[found.mean - found.low, found.high - found.mean] for _, found in rows]).T.clip(0)
        at = [row + offset for row, _ in rows]
        axes.errorbar(means, at, xerr=ends, fmt="o", ms=5, lw=1.4, capsize=2.5, color=_COLOURS[place], label=f"measured, {kind}")
    known = [(row, point.published) for row, point in enumerate(table.points) if point.published is not None]
    if known:
        rows, values = zip(*known)
        axes.plot(values, rows, "D", ms=6, mfc="none", mec="black", mew=1.3, label="published (the whole set)")
    axes.set_yticks(range(len(table.points)), [point.label for point in table.points])
    axes.set_ylim(len(table.points) - 0.5, -0.5)
    axes.set_xlabel("mAP, with its 95 % interval over landmarks")
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    figure.suptitle(f"{table.title}\n{data}", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


def expansion_curve(experiment: Experiment, methods: Sequence[str], shrinkages: Sequence[float], most: int = 50) -> Figure:
    """Figure 3: mAP against the number of vectors that a query is expanded by, 1 to `most`, for each set."""
    figure = figure_class()(figsize=(5.6 * len(experiment.sets) + 1, 4.4), layout="constrained")
    for axes, name in zip(np.ravel(figure.subplots(1, len(experiment.sets), squeeze=False)), experiment.sets):
        number = 0
        for method in methods:
            for shrinkage in shrinkages:
                setting = Setting("vgg16", method, shrinkage=shrinkage)
                values = [float(np.mean(list(experiment.scores(setting, name, qe).values()))) for qe in range(1, most + 1)]
                words = f"{method}, {'as published' if shrinkage == 0 else f'shrinkage {shrinkage}'}"
                axes.plot(range(1, most + 1), values, color=_COLOURS[number], label=words, lw=1.8)
                number += 1
        qe = published.QE[name]
        axes.axvline(qe, color="#888888", lw=1, ls=":")
        axes.annotate(f"qe {qe}", (qe, axes.get_ylim()[0]), xytext=(4, 4), textcoords="offset points", color="#555555")
        _finish(axes, name, "qe: vectors averaged, the query among them")
    return figure


def curve_figure(found: Mapping[str, Mapping[str, Curve]], name: str) -> Figure:
    """mAP by shrinkage, by the photos that the whitening is learned from, and by dimensions; `found`: method -> its curves."""
    words = {"shrinkage": "shrinkage of the whitening", "photos": "photos it is learned from", "components": "dimensions kept"}
    figure = figure_class()(figsize=(13, 4.2), layout="constrained")
    for axes, (kind, label) in zip(figure.subplots(1, 3, sharey=True), words.items()):
        for colour, (method, all_curves) in zip(_COLOURS, found.items()):
            values, measured = zip(*all_curves[kind].items())
            axes.plot(values, [one.mean for one in measured], "o-", color=colour, label=method, ms=4)
            axes.fill_between(values, [one.low for one in measured], [one.high for one in measured], color=colour, alpha=0.12, lw=0)
        if kind != "shrinkage":
            axes.set_xscale("log", base=2)
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
        _finish(axes, name, label)
    return figure


def _finish(axes, title, label):
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(label)
    axes.set_ylabel("mAP")
    axes.yaxis.set_tick_params(labelleft=True)
    axes.grid(color="#e5e5e5")
    axes.legend(frameon=False, fontsize=9)


def top_ten(experiment: Experiment, setting: Setting, name: str) -> Image.Image:
    """Figure 4: the first ten of one query a landmark, right, wrong and junk framed in three colours."""
    queries = {landmark_by_name(query): query for query in reversed(experiment.sets[name].queries)}  # the first of each
    rows = [_row(experiment, setting, name, query, 1, range(10)) for query in sorted(queries.values())]
    return contact_sheet(rows, f"{name}, the first ten of one query a landmark; {FRAMES}", columns=10)


def before_and_after(experiment: Experiment, setting: Setting, name: str, queries: int = 5) -> Image.Image:
    """Figure 2: ranks 6 to 10 without and with query expansion, of the landmarks that it moves most there."""
    qe = published.QE[name]
    plain, expanded = (_right_of(experiment, setting, name, number) for number in (1, qe))
    by_landmark: dict[str, list[str]] = {}
    for query in sorted(plain, key=lambda query: -abs(expanded[query] - plain[query])):
        by_landmark.setdefault(landmark_by_name(query), []).append(query)
    chosen = [own[0] for own in by_landmark.values()][:queries]
    rows = [_row(experiment, setting, name, query, number, range(5, 10)) for query in chosen for number in (1, qe)]
    return contact_sheet(rows, f"{name}, ranks 6 to 10 without and with query expansion of {qe}; {FRAMES}")


def _right_of(experiment, setting, name, qe):
    """query -> how many of its ranks 6 to 10 are right."""
    index, vectors = experiment.descriptors(setting, name)
    rankings = index.rank_batch(vectors, qe)
    return {
        query: sum(found in experiment.truth[name][query][0] for found in ranking[5:10])
        for query, ranking in zip(experiment.sets[name].queries, rankings)
    }


def _row(experiment, setting, name, query, qe, ranks):
    found = experiment.sets[name]
    index, vectors = experiment.descriptors(setting, name)
    hits = index.search(vectors[list(found.queries).index(query)], ranks.stop, qe)[ranks.start :]
    positives, junk = experiment.truth[name][query]

    def frame(photo):
        return RIGHT if photo in positives else JUNK if photo in junk else WRONG

    whole = read_image(found.query_photos[query], max_side=None)
    scale = min(1.0, _TILE_SIDE / max(whole.shape[:2]))
    words = query if len(ranks) == 10 else f"{query}, {'no QE' if qe == 1 else f'QE {qe}'}"
    return Row(
        read_image(found.query_photos[query], max_side=_TILE_SIDE),
        words,
        tuple(corner * scale for corner in found.queries[query].box),
        [
            Hit(read_image(found.photos[photo], max_side=_TILE_SIDE), photo, score, rank=rank + 1, frame=frame(photo))
            for rank, (photo, score) in zip(ranks, hits)
        ],
    )


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def jpeg(picture: Image.Image) -> bytes:
    """A picture as JPEG."""
    file = io.BytesIO()
    picture.save(file, "jpeg", quality=88)
    return file.getvalue()
