"""The publication's tables and figures, measured: one page with everything, and each table as Markdown, CSV and PNG.

    python examples/reproduce_tables.py --data data --out report/ \\
        --alexnet_weights bvlc_alexnet.caffemodel

`--data` holds a folder for each set, whole or a part of it, laid out as the original (`jpg/`, `gt/`): one whose name begins with
`oxford5k`, one with `paris6k`, and, for the last two columns of Table 2, one with `oxford100k`. Each is whitened on the other's
photos; a set without `gt/` serves for that alone. Region vectors of every method are computed in one pass of each network, and
kept: the next run takes a few minutes. They take about 0.5 MB a photo.

A method of your own stands in the table of methods with `--also my_methods.py`, a file with functions from a feature map to region
vectors, such as

    import rw_keras

    def rw_alpha_1(features):
        return rw_keras.methods.rw(features, alpha=1.0)
"""

import dataclasses
import importlib.util
import inspect
import os
import pathlib
import warnings

import keras

import rw_keras
from rw_keras import backbones
from rw_keras.commands.evaluation_flags import add_missing
from rw_keras.commands.model_flags import add_max_side
from rw_keras.commands.parser import Parser, text, whole_number
from rw_keras.commands.programs import refuse_arguments, run_program
from rw_keras.datasets import read_folder
from rw_keras.datasets.oxford import PARIS6K_CORRUPT, photos_by_name
from rw_keras.evaluation import figures, tables
from rw_keras.evaluation import protocol as evaluation
from rw_keras.evaluation.experiment import Experiment, Setting
from rw_keras.evaluation.region_vectors import RegionVectors
from rw_keras.evaluation.report import Report
from rw_keras.layers import ImageScale
from rw_keras.photos.sources import list_photos

_OTHER = {"oxford5k": "paris6k", "paris6k": "oxford5k"}


def flags():
    """The program's flags."""
    parser = Parser(description=__doc__)
    parser.flag("data", "Folder with a folder of each set.", text("FOLDER"), required=True)
    parser.flag("out", "Folder of the report.", text("FOLDER"), required=True)
    parser.flag("cache", "Folder that keeps region vectors between runs.", text("FOLDER"), ".rw_keras_cache")
    add_max_side(parser)
    parser.flag("weights", "VGG16's weights: `imagenet` or a file.", text("FILE"), "imagenet")
    parser.flag("alexnet_weights", "AlexNet's weights, a file. Without one its rows are left out.", text("FILE"))
    words = "How many of the first photos are re-ranked by their regions. May be repeated."
    parser.flag("rerank", words, whole_number(1), (100, 400), repeat=True)
    parser.flag("also", "A Python file with methods of your own.", text("FILE"))
    add_missing(parser)
    return parser


def make_report(values):
    """Measures everything, writes the report, and tells the path of its page."""
    refuse_arguments("reproduce_tables.py", values)
    rw_keras.views.plot.figure_class()  # before hours go by: what draws is there
    sets, learned_on, facts = _sets(values)
    distractors = _folder_of(pathlib.Path(values.data), "oxford100k")
    own = _own_methods(values.also)
    wanted = {**tables.METHODS["vgg16"], **own}
    vectors = {"vgg16": _region_vectors(values, "vgg16", values.weights, wanted)}
    if values.alexnet_weights:
        vectors["alexnet"] = _region_vectors(values, "alexnet", values.alexnet_weights, tables.METHODS["alexnet"])
    scales = {
        ("vgg16", scale): _region_vectors(values, "vgg16", values.weights, {key: (key, 3) for key in ("rw", "root_rw")}, scale)
        for scale in tables.SCALES[1:]
    }
    more = list_photos(distractors) if distractors else []
    experiment = Experiment(sets, learned_on, {**vectors, **scales}, more)
    for network, keys in (("vgg16", wanted), ("alexnet", tables.METHODS["alexnet"])):
        if network in vectors:
            experiment.compute(network, list(keys), [key for key in tables.WITH_DISTRACTORS if key in keys])
    for _, scale in scales:
        experiment.compute("vgg16", ["rw", "root_rw"], scale=scale)
    facts.append(f"Photos are reduced to a longer side of {values.max_side} pixels. The networks are {' and '.join(vectors)}.")
    facts.append("Intervals are of 95 %, over landmarks: the five queries of one are not independent.")

    data = "; ".join([*map(str, sets.values()), *([f"{len(more)} distractors"] if more else [])])
    report = Report(pathlib.Path(values.out), "Feature weighting and regional integration, measured", facts, data)
    networks = list(vectors)
    # Few photos to learn from leave flat axes. Every table says how many there were; a warning for each setting says no more.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="PCAWhiten .* has learned", category=UserWarning)
        report.add_table(tables.claims(experiment, networks))
        for table in _tables(experiment, networks, own, values.rerank):
            report.add_table(table, figures.png(figures.chart(table, data)))
        _add_figures(report, experiment)
    print(f"{report.finish()}: open it in a browser")


def _tables(experiment, networks, own, reranked):
    yield tables.table_1(experiment, networks)
    yield tables.table_2(experiment, networks)
    yield tables.methods_table(
        experiment, ["rw", *tables.ABLATION], "ablation", "Ablation: RW with each part taken away or changed"
    )
    names = [*rw_keras.methods.OF_RECTIFIED_MAPS, "rmac without the whole map", *own]
    yield tables.methods_table(experiment, names, "methods", "Methods, on the same feature maps")
    yield tables.rerank_table(experiment, reranked)
    yield tables.options_table(experiment, tables.rankers(), tables.SETTINGS)


def _add_figures(report, experiment):
    plain, root = Setting("vgg16", "rw"), Setting("vgg16", "root_rw", shrinkage=tables.SHRUNK)
    for name in experiment.sets:
        for setting, words in ((plain, "RW as published"), (root, "root_rw")):
            tag = f"{name}_{setting.method}"
            picture = figures.jpeg(figures.before_and_after(experiment, setting, name))
            title = f"Figure 2, {name}, {words}: ranks 6 to 10 before and after query expansion"
            report.add_figure(f"figure_2_{tag}", title, picture, "jpeg", figures.FRAMES)
            picture = figures.jpeg(figures.top_ten(experiment, setting, name))
            title = f"Figure 4, {name}, {words}: the first ten of one query a landmark"
            report.add_figure(f"figure_4_{tag}", title, picture, "jpeg", figures.FRAMES)
    picture = figures.png(figures.expansion_curve(experiment, ("rw", "root_rw"), (tables.AS_PUBLISHED, tables.SHRUNK)))
    caption = (
        "The dotted line is the publication's choice. There, mAP grows slowly up to 30 on Paris6k, and falls beyond 5 on Oxford5k."
    )
    report.add_figure("figure_3", "Figure 3: mAP by query expansion", picture, "png", caption)
    for name in experiment.sets:
        found = {method: tables.curves(experiment, name, method) for method in ("rw", "root_rw")}
        for kind, words in (("shrinkage", "shrinkage"), ("photos", "photos of the whitening"), ("components", "dimensions")):
            report.add_table(tables.curve_table(experiment, name, found, kind, f"mAP by {words}, {name}"))
        title = f"Curves of all three, {name}"
        caption = "Bands are 95 % intervals of each value, not of differences. Shrinkage is 0.2 where it does not vary."
        report.add_figure(f"curves_{name}", title, figures.png(figures.curve_figure(found, name)), "png", caption)


def _sets(values):
    """The sets that are searched, the photos that each is whitened on, and facts about both."""
    data = pathlib.Path(values.data)
    if not data.is_dir():
        raise FileNotFoundError(f"There is no folder {data}; pass --data the one with a folder of each set.")
    folders = {name: _folder_of(data, name) for name in _OTHER}
    sets, learned_on, facts = {}, {}, []
    for name, folder in folders.items():
        other = folders[_OTHER[name]]
        if folder is None or not _has_ground_truth(folder, name):
            continue
        if other is None:
            raise FileNotFoundError(f"There is no {_OTHER[name]} in {data}, and {name} is whitened on its photos; put some there.")
        found = read_folder(folder, name)
        asked, absent = evaluation.asked_queries(found.queries, found.photos.keys(), values.missing, folder)
        if absent and values.missing == "allow":
            facts.append(f"{absent} positives of {name} are not there, and are left out of the ground truth.")
        dropped = len(found.queries) - len(asked)
        sets[name] = dataclasses.replace(found, queries=asked, dropped=dropped) if dropped or absent else found
        learned_on[name] = [path for stem, path in photos_by_name(other).items() if stem not in PARIS6K_CORRUPT]
        facts.append(f"The whitening for {name} is learned on {len(learned_on[name])} photos of {_OTHER[name]}.")
    if not sets:
        raise FileNotFoundError(f"There is no oxford5k or paris6k with jpg/ and gt/ in {data}; put one there, whole or a part.")
    return sets, learned_on, facts


def _folder_of(data, name):
    """The one folder of a set, or `None`."""
    found = [folder for folder in sorted(data.iterdir()) if folder.is_dir() and folder.name.startswith(name)]
    if len(found) > 1:
        raise ValueError(f"{found[0]} and {found[1]} are both {name}; keep one of them in {data}.")
    return found[0] if found else None


def _has_ground_truth(folder, name):
    try:
        read_folder(folder, name)
    except FileNotFoundError:
        return False
    return True


def _region_vectors(values, name, weights, wanted, scale=1.0):
    network, _ = backbones.network(name, weights, None)
    if scale != 1:
        resized = ImageScale(scale, backbones.smallest_side(network))(network.input)
        network = keras.Model(network.input, network(resized), name=f"{name}_at_{scale:.6f}")
    return RegionVectors(network, wanted, os.path.join(values.cache, "regions"), max_side=values.max_side)


def _own_methods(file):
    """The functions of the file `--also`, as methods."""
    if file is None:
        return {}
    if not os.path.isfile(file):
        raise FileNotFoundError(f"There is no file {file}; pass --also a Python file with methods.")
    spec = importlib.util.spec_from_file_location("own_methods", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    own = {
        name: (function, 3)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    if not own or own.keys() & tables.METHODS["vgg16"].keys():
        raise ValueError(f"{file} has to define functions, named as no method is yet, but has {', '.join(own) or 'none'}.")
    return own


if __name__ == "__main__":
    run_program(flags(), make_report)
