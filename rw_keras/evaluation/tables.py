"""The tables: every row measured in an `Experiment`, beside what is published."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from rw_keras import methods
from rw_keras.evaluation import published
from rw_keras.evaluation.experiment import Experiment, Setting
from rw_keras.evaluation.index_evaluation import interval
from rw_keras.evaluation.table import NONE, Point, Table, compared, digits, mean_and_interval, signed
from rw_keras.model.presets import PRESETS
from rw_keras.retrieval import Diffusion, Index, Interval, Rerank, augment
from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.rows import Rows

# The whitening as published, and with the shrinkage that fits one learned from few photos.
AS_PUBLISHED, SHRUNK = 0.0, 0.2


def _scales(number):
    return f"rw, {number} {'scale' if number == 1 else 'scales'}"


# key -> (method, scales), as `RegionVectors` takes them.
ABLATION: dict[str, tuple[str | methods.Method, int]] = {
    "without the spatial weight": (functools.partial(methods.rw, spatial_weight=False), 3),
    "without the channel weight": (functools.partial(methods.rw, channel_weight=None), 3),
    "with proportions for counts": (functools.partial(methods.rw, channel_weight="proportions"), 3),
    "without regions": (functools.partial(methods.rw, regions=False), 3),
    "with maxima for sums": (functools.partial(methods.rw, pooling="max"), 3),
}
SCALES = (1.0, 2**-0.5, 0.5)
_SCALES: dict[str, tuple[str | methods.Method, int]] = {_scales(levels): ("rw", levels) for levels in (1, 2, 4)}
METHODS: dict[str, dict[str, tuple[str | methods.Method, int]]] = {
    "vgg16": {
        **{name: (name, 3) for name in methods.OF_RECTIFIED_MAPS},
        "rmac without the whole map": (functools.partial(methods.rmac, include_whole_map=False), 3),
        **_SCALES,
        **ABLATION,
    },
    "alexnet": {**{name: (name, 3) for name in ("rw", "root_rw", "rmac", "crow")}, **_SCALES},
}
# What Table 2 needs of the distractors.
WITH_DISTRACTORS = ("rw", "root_rw", "rmac", "crow", "spoc")


def table_1(experiment: Experiment, networks: Sequence[str]) -> Table:
    """mAP by the number of scales, CroW beside."""
    rows, points = [], []
    for name in experiment.sets:
        for network in networks:
            three = {shrinkage: experiment.scores(Setting(network, "rw", shrinkage=shrinkage), name) for shrinkage in (0.0, SHRUNK)}
            for scales in range(5):
                value = published.TABLE_1.get((network, scales))
                method = {0: "crow", 3: "rw"}.get(scales) or _scales(scales)
                measured, differences = {}, []
                for shrinkage, baseline in three.items():
                    scores = experiment.scores(Setting(network, method, shrinkage=shrinkage), name)
                    measured[_words(shrinkage)] = interval(scores)
                    differences.append(NONE if scales == 3 else compared(scores, baseline))
                same = name == published.TABLE_1_SET
                plain, shrunk = measured.values()
                base = published.TABLE_1[network, 3]
                rows.append(
                    [
                        network,
                        "CroW" if scales == 0 else str(scales),
                        name,
                        digits(value),
                        *mean_and_interval(plain),
                        signed(plain.mean - value) if same and value else NONE,
                        *mean_and_interval(shrunk),
                        NONE if value is None or scales == 3 else signed(value - base),
                        *differences,
                    ]
                )
                label = f"{network}, {'CroW' if scales == 0 else _scales(scales)} ({name})"
                points.append(Point(label, value if same else None, measured))
    columns = ["network", "scales", "set", "published (Paris6k)", "measured", "95 % interval", "difference from published"]
    columns += [f"shrinkage {SHRUNK}", "95 % interval", "published: from 3 scales"]
    columns += ["measured: from 3 scales", f"the same, shrinkage {SHRUNK}"]
    notes = ["The publication's text calls these numbers Oxford5k's; they are Paris6k's, as its Table 2 shows."]
    if published.TABLE_1_SET not in experiment.sets:
        notes.append("So there is no difference from the published values: the differences from three scales are what compares.")
    return Table("table_1", "Table 1: mAP by the number of scales, without query expansion", columns, rows, notes, points)


def table_2(experiment: Experiment, networks: Sequence[str]) -> Table:
    """All rows of the publication, those that this package computes and those that are quoted."""
    rows, points = [], []
    places = [(name, False) for name in experiment.sets] + [(name, True) for name in experiment.sets if experiment.has_distractors]
    printed = {(name, distractors): published.COLUMNS[2 * distractors + (name == "oxford5k")] for name, distractors in places}
    ours = [
        published.Published("root_rw (VGG16)", 512, {}, network="vgg16", method="root_rw", note="not the publication's"),
        published.Published(
            "root_rw + QE (VGG16)", 512, {}, network="vgg16", method="root_rw", expanded=True, note="not the publication's"
        ),
    ]
    for (name, distractors), column in printed.items():
        for row in (*published.TABLE_2, *ours):
            expansions = [(published.QE[name] if row.expanded else 1, row.values.get(column))]
            if column in row.values_30:
                expansions.append((30, row.values_30[column]))
            for qe, value in expansions:
                label = row.name + (" (qe 30)" if qe == 30 else "")
                if row.network not in networks:
                    reason = "quoted" if row.network is None else f"quoted: no weights of {row.network}"
                    if value is not None:
                        rows.append([label, str(row.dimensions), column, digits(value), *[NONE] * 5, reason])
                    continue
                measured = {}
                for shrinkage in (AS_PUBLISHED, SHRUNK):
                    setting = Setting(row.network, row.method, row.dimensions, shrinkage)
                    measured[_words(shrinkage)] = interval(experiment.scores(setting, name, qe, distractors=distractors))
                plain, shrunk = measured.values()
                difference = NONE if value is None else signed(plain.mean - value)
                row_text = [label, str(row.dimensions), column, digits(value), *mean_and_interval(plain), difference]
                rows.append([*row_text, *mean_and_interval(shrunk), row.note or "computed"])
                points.append(Point(f"{label}, {row.dimensions} ({column})", value, measured))
    absent = [column for column in published.COLUMNS if column not in printed.values()]
    for column in absent:
        for row in published.TABLE_2:
            for label, value in ((row.name, row.values.get(column)), (f"{row.name} (qe 30)", row.values_30.get(column))):
                if value is not None:
                    reason = f"quoted: {column} is not in the data"
                    rows.append([label, str(row.dimensions), column, digits(value), *[NONE] * 5, reason])
    columns = ["method", "d", "set", "published", "measured", "95 % interval", "difference", f"shrinkage {SHRUNK}", "95 % interval"]
    notes = ["“Quoted” is the publication's own number, not measured here. Its 0.749 for neural codes on Oxford105k is a misprint."]
    notes.append(
        "CroW and SPoC are whitened as the others are here: on the vectors of the whole map, learned on the other set's photos."
    )
    return Table("table_2", "Table 2: mAP of all methods", [*columns, "source"], rows, notes, points)


def methods_table(
    experiment: Experiment, keys: Sequence[str], name: str, title: str, notes: Sequence[str] = (), baseline: str = "rw"
) -> Table:
    """Methods of VGG16 beside `baseline`, without whitening, whitened as published, shrunk, and with query expansion."""
    rows, points = [], []
    several = len(experiment.sets) > 1
    for found in experiment.sets:
        qe = published.QE[found]
        columns = [(None, 1), (AS_PUBLISHED, 1), (SHRUNK, 1), (SHRUNK, qe)]
        for key in keys:
            row, measured = [key, *([found] if several else [])], {}
            for shrinkage, expansion in columns:
                scores = experiment.scores(Setting("vgg16", key, shrinkage=shrinkage), found, expansion)
                base = experiment.scores(Setting("vgg16", baseline, shrinkage=shrinkage), found, expansion)
                here = interval(scores)
                row += [*mean_and_interval(here), NONE if key == baseline else compared(scores, base)]
                if expansion == 1 and shrinkage is not None:
                    measured[_words(shrinkage)] = here
            rows.append(row)
            points.append(Point(f"{key} ({found})" if several else key, None, measured))
    heads = ["method", *(["set"] if several else [])]
    for words in ("no whitening", "whitened", f"shrinkage {SHRUNK}", f"shrinkage {SHRUNK} and QE"):
        heads += [words, "95 % interval", f"difference from {baseline}"]
    return Table(name, title, heads, rows, notes, points)


Ranker = Callable[[Index, np.ndarray], list[list[str]]]


def options_table(experiment: Experiment, rankers: Mapping[str, Ranker], settings: Mapping[str, Mapping[str, object]]) -> Table:
    """What may be switched on, each beside the plain ranking of the same descriptors.

    Args:
        experiment: where it is measured.
        rankers: words -> another way to rank.
        settings: words -> fields of `Setting` that make other descriptors.
    """
    rows, points = [], []
    for name in experiment.sets:
        for method in ("rw", "root_rw"):
            plain = Setting("vgg16", method, shrinkage=SHRUNK)
            base = experiment.scores(plain, name)
            qe = published.QE[name]
            measured = {"plain": base, f"query expansion of {qe}": experiment.scores(plain, name, qe)}
            measured |= {words: experiment.scores(plain, name, rank=rank, tag=words) for words, rank in rankers.items()}
            measured |= {words: experiment.scores(dataclasses.replace(plain, **fields), name) for words, fields in settings.items()}
            for words, scores in measured.items():
                here = interval(scores)
                change = NONE if scores is base else compared(scores, base)
                rows.append([method, name, words, *mean_and_interval(here), change])
                points.append(Point(f"{method}: {words} ({name})", None, {_words(SHRUNK): here}))
    columns = ["method", "set", "option", "measured", "95 % interval", "difference from plain"]
    notes = [f"VGG16, whitened with shrinkage {SHRUNK}. All options are off by default; their constants are the usual ones."]
    return Table("options", "Options, off by default", columns, rows, notes, points)


# What is re-ranked: method -> the scales beside 1 that are tried.
RERANKED: dict[str, tuple[tuple[float, ...], ...]] = {"rw": (SCALES,), "root_rw": (SCALES,), "rmac": ()}


def rerank_table(experiment: Experiment, counts: Sequence[int]) -> Table:
    """Re-ranking by regions, of so many first photos, with query expansion after it and without.

    Args:
        experiment: where it is measured.
        counts: how many photos are re-ranked, a row each; the last row smooths the scores of the most as `recommended` does.
    """
    rows, points = [], []
    smooth = PRESETS["recommended"].smooth
    asked = [None, *map(Rerank, counts), Rerank(max(counts), smooth)]
    for name in experiment.sets:
        qe = published.QE[name]
        for method, more in RERANKED.items():
            for scales in ((1.0,), *more):
                setting = Setting("vgg16", method, shrinkage=SHRUNK, scales=scales)
                base = {number: experiment.scores(setting, name, number) for number in (1, qe)}
                for rerank in asked:
                    row, measured = [method, str(len(scales)), name, "none" if rerank is None else str(rerank)], {}
                    for number, words in ((1, _words(SHRUNK)), (qe, f"{_words(SHRUNK)}, QE")):
                        found = base[number] if rerank is None else experiment.scores(setting, name, number, rerank=rerank)
                        measured[words] = interval(found)
                        row += [*mean_and_interval(measured[words]), NONE if rerank is None else compared(found, base[number])]
                    rows.append(row)
                    label = f"{method}, {len(scales)} {'scale' if len(scales) == 1 else 'scales'}: {row[3]} re-ranked ({name})"
                    points.append(Point(label, None, measured))
    columns = ["method", "scales", "set", "re-ranked", "measured", "95 % interval", "difference from none"]
    columns += ["QE after it", "95 % interval", "difference from QE alone"]
    notes = [
        f"VGG16, whitened with shrinkage {SHRUNK}; the query is its box alone. The first photos are put in the order of the mean, "
        "over the query's region vectors, of the highest cosine to one of the photo's. Photos' region vectors are kept in 8 bits.",
        f"Smoothed: each score is averaged with those of the photo's reciprocal neighbours among its {smooth} nearest.",
    ]
    return Table("reranking", "Re-ranking by regions", columns, rows, notes, points)


Curve = dict[float, Interval]


def curves(experiment: Experiment, name: str, method: str) -> dict[str, Curve]:
    """mAP of a method of VGG16 by the whitening's shrinkage, by its photos, and by the dimensions that are kept."""
    setting = Setting("vgg16", method, shrinkage=SHRUNK)

    def curve(field: str, values: Iterable[float]) -> Curve:
        return {value: interval(experiment.scores(dataclasses.replace(setting, **{field: value}), name)) for value in values}

    count = experiment.whitening_photos(name)
    photos = sorted({max(1, round(count / 2**halvings)) for halvings in range(6)})
    return {
        "shrinkage": curve("shrinkage", (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)),
        "photos": curve("photos", photos),
        "components": curve("components", (512, 256, 128, 64, 32)),
    }


def curve_table(experiment: Experiment, name: str, found: Mapping[str, Mapping[str, Curve]], kind: str, title: str) -> Table:
    """One of the curves as a table; `found`: method -> what `curves` returned."""
    rows = []
    for method, all_curves in found.items():
        for value, measured in all_curves[kind].items():
            rows.append([method, f"{value:g}", *mean_and_interval(measured)])
    return Table(f"curve_{kind}_{name}", title, ["method", kind, "measured", "95 % interval"], rows)


def claims(experiment: Experiment, networks: Sequence[str]) -> Table:
    """What the publication claims, and whether it is shown on this data."""
    rows = []
    for name in experiment.sets:
        qe = published.QE[name]
        two = {(row.name, row.dimensions): row.values.get(name) for row in published.TABLE_2}
        for network, d, printed in (("vgg16", 512, "VGG16"), ("alexnet", 256, "AlexNet")):
            if network not in networks:
                continue
            rw, expanded, rmac = (two.get(key) for key in ((f"RW ({printed})", d), (f"RW + QE ({printed})", d), ("R-MAC", d)))
            asked = [
                ("RW above R-MAC", ("rw", 1), ("rmac", 1), _minus(rw, rmac)),
                (f"query expansion of {qe} gains", ("rw", qe), ("rw", 1), _minus(expanded, rw)),
            ]
            scales = {number: value for (own, number), value in published.TABLE_1.items() if own == network}
            here = name == published.TABLE_1_SET
            asked.append(("RW above CroW", ("rw", 1), ("crow", 1), _minus(scales[3], scales.get(0)) if here else None))
            for number in (1, 2, 4):
                value = _minus(scales[3], scales[number]) if here else None
                asked.append((f"3 scales above {number}", ("rw", 1), (_scales(number), 1), value))
            if network == "vgg16":
                crow = two.get(("CroW + QE", 512))
                asked.append(("RW + QE above CroW + QE", ("rw", qe), ("crow", qe), _minus(expanded, crow)))
                asked.append(("the spatial weight gains", ("rw", 1), ("without the spatial weight", 1), None))
                asked.append(("the channel weight gains", ("rw", 1), ("without the channel weight", 1), None))
                asked.append(("counts above proportions", ("rw", 1), ("with proportions for counts", 1), None))
                asked.append(("regions gain", ("rw", 1), ("without regions", 1), None))
                asked.append(("sums above maxima", ("rw", 1), ("with maxima for sums", 1), None))
                more = (30, "grows up to 30") if name == "paris6k" else (30, "falls beyond 5")
                asked.append((f"query expansion {more[1]}: {more[0]} above {qe}", ("rw", more[0]), ("rw", qe), None))
            for words, (method, expansion), (other, other_expansion), value in asked:
                row = [words, network, name, NONE if value is None else signed(value)]
                for shrinkage in (AS_PUBLISHED, SHRUNK):
                    one = experiment.scores(Setting(network, method, shrinkage=shrinkage), name, expansion)
                    base = experiment.scores(Setting(network, other, shrinkage=shrinkage), name, other_expansion)
                    row.append(compared(one, base))
                rows.append(row)
    columns = ["claim", "network", "set", "published", "measured", f"measured, shrinkage {SHRUNK}"]
    notes = [
        "Differences of mAP over the same queries, with their 95 % interval over landmarks. “Better” shows the claim, “worse” its "
        "contrary; “no difference shown” is no result. Where the publication prints no such pair of numbers, there is a dash."
    ]
    return Table("claims", "What the publication claims, on this data", columns, rows, notes)


def rankers() -> dict[str, Ranker]:
    """Other ways to rank, for `options_table`."""

    def in_bits(dtype: str) -> Ranker:
        def rank(index: Index, queries: np.ndarray) -> list[list[str]]:
            rows = encoded(index.descriptors, dtype)
            return Index(index.names, Rows.of(rows) if dtype == "int8" else rows).rank_batch(queries)

        return rank

    def augmented(index: Index, queries: np.ndarray) -> list[list[str]]:
        return augment(index).rank_batch(queries)

    def augmented_and_expanded(index: Index, queries: np.ndarray) -> list[list[str]]:
        return augment(index).rank_batch(queries, 5, alpha=3.0)

    def diffused(index: Index, queries: np.ndarray) -> list[list[str]]:
        diffusion = Diffusion(index)
        return [diffusion.rank(query) for query in queries]

    return {
        "query expansion of 5, alpha 3": lambda index, queries: index.rank_batch(queries, 5, alpha=3.0),
        "query expansion of 10, alpha 3": lambda index, queries: index.rank_batch(queries, 10, alpha=3.0),
        "database-side augmentation": augmented,
        "augmentation, then expansion of 5, alpha 3": augmented_and_expanded,
        "diffusion": diffused,
        "float16 descriptors": in_bits("float16"),
        "int8 descriptors": in_bits("int8"),
    }


SETTINGS: dict[str, dict[str, object]] = {
    "three scales": {"scales": SCALES},
    "whitening after the sum over regions": {"whiten_on": "global"},
}


def _words(shrinkage):
    return "not whitened" if shrinkage is None else "as published" if shrinkage == 0 else f"shrinkage {shrinkage}"


def _minus(one, other):
    return None if one is None or other is None else one - other
