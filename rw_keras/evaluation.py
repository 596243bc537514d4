"""The protocol of Oxford5k and Paris6k over a folder of photos and a folder of ground truth."""

import collections
import functools
import hashlib
import json
import os
import pathlib
import sys

import numpy as np
from absl import flags

from rw_keras.cli import define_whiten_and_scales
from rw_keras.datasets.oxford import photos_by_name, read_ground_truth
from rw_keras.described_cache import describe_cached
from rw_keras.descriptor import build_descriptor, multi_scale, recipe, whitening_layer
from rw_keras.images import list_photos
from rw_keras.retrieval import Index, average_precision, bootstrap, landmark_by_name
from rw_keras.whitening import Whitening, fit_whitening, photos_in_common, provenance_in_words


class Evaluation(collections.namedtuple("Evaluation", "average_precisions photos skipped_queries missing_positives")):
    """What `evaluate` measured: qe -> query -> AP, and over how much of the set.

    Attributes:
        average_precisions: qe -> {query: AP}.
        photos: how many photos were ranked.
        skipped_queries: queries without their own photo, or without any positive in the folder.
        missing_positives: how many different positives are not in the folder.
    """

    __slots__ = ()

    def mean(self, qe):
        """The mAP at `qe`."""
        return float(np.mean(list(self.average_precisions[qe].values())))

    def interval(self, qe):
        """The mAP at `qe` with its 95 % interval over landmarks; see `rw_keras.retrieval.bootstrap`."""
        return bootstrap(self.average_precisions[qe])


def evaluate(
    model,
    photos,
    ground_truth,
    *,
    max_side=1024,
    qe=(1, 5),
    allow_missing=False,
    corrupt=frozenset(),
    cache=None,
    progress=True,
):
    """Measures a model's mAP by the protocol of Oxford5k and Paris6k.

    Each query's box is cut out of its photo before the network; the photo stays in the index. Junk is removed from a
    ranking before it is scored.

    Args:
        model: a model of `build_descriptor`.
        photos: a folder with the photos, and those below it.
        ground_truth: a folder with the `*_query.txt`, `*_good.txt`, `*_ok.txt`, `*_junk.txt` files.
        max_side: see `rw_keras.describe`.
        qe: the expansions to measure; 1 is none.
        allow_missing: whether to go on where positives are not among the photos. They are then left out of the ground
            truth, and queries without their own photo or any positive are skipped.
        corrupt: names of photos that the set itself knows to be damaged: left out of photos and ground truth.
        cache: a folder that keeps descriptors between runs; `None`: nothing is kept.
        progress: whether to show a progress bar on standard error.

    Raises:
        ValueError: when the model's whitening was learned on photos of this set, when positives are missing and
            `allow_missing` is not given, or no query is left.
    """
    _refuse_whitening_of_the_same_set(model, photos_by_name(photos).keys() - corrupt)
    described = functools.partial(describe_cached, model, max_side=max_side, cache=cache, progress=progress)
    return evaluate_described(described, photos, ground_truth, qe=qe, allow_missing=allow_missing, corrupt=corrupt)


def evaluate_described(describe, photos, ground_truth, *, qe=(1, 5), allow_missing=False, corrupt=frozenset()):
    """`evaluate` for descriptors of any origin.

    Args:
        describe: a function (paths, boxes or `None`) -> what `rw_keras.described_cache.describe_cached` returns.
        photos, ground_truth, qe, allow_missing, corrupt: see `evaluate`.

    Raises:
        ValueError: when positives are missing and `allow_missing` is not given, or no query is left.
    """
    queries = {name: query.without(corrupt) for name, query in read_ground_truth(ground_truth).items()}
    paths = {name: path for name, path in photos_by_name(photos).items() if name not in corrupt}
    vectors, failures = describe(list(paths.values()), None)
    for _, reason in failures:
        print(f"left out: {reason}", file=sys.stderr)
    names = [name for name, vector in zip(paths, vectors) if vector is not None]
    if not names:
        raise ValueError(f"None of the {len(paths)} photos in {photos} can be read; pass the folder of the set's photos.")
    index = Index(names, np.stack([vector for vector in vectors if vector is not None]))

    present = set(names)
    missing = {name for query in queries.values() for name in query.positives - present}
    skipped = [name for name, query in queries.items() if query.photo not in present or not query.positives & present]
    if (missing or skipped) and not allow_missing:
        raise ValueError(
            f"{len(missing)} positives and the photos of {len(skipped)} queries are not in {photos}, "
            f"{min(missing or {queries[skipped[0]].photo})} for one, so an mAP would be of another set; get the missing photos, or "
            "pass --allow_missing to leave them out."
        )
    asked = {name: query for name, query in queries.items() if name not in skipped}
    if not asked:
        raise ValueError(f"No query of {ground_truth} has its photo and a positive in {photos}; pass the folders of one set.")
    vectors, failures = describe([paths[query.photo] for query in asked.values()], [query.box for query in asked.values()])
    if failures:
        raise ValueError(f"{len(failures)} queries cannot be described: {failures[0][1]}")
    measured = {
        expansion: {
            name: average_precision(index.rank(vector, expansion), query.positives & present, query.junk)
            for (name, query), vector in zip(asked.items(), vectors)
        }
        for expansion in qe
    }
    return Evaluation(measured, len(names), skipped, len(missing))


def _refuse_whitening_of_the_same_set(model, names):
    provenance = model.recipe.get("whitening")
    if not provenance:
        return
    common = photos_in_common(provenance, names)
    # A stray IMG_0001 that both sets have does not make them one set.
    if common and 10 * common >= min(len(provenance["photo_ids"]), len(names)):
        raise ValueError(
            f"The model is whitened as learned on {provenance_in_words(provenance)}, which has {common} photos in common with the "
            "set it would be tested on; learn the whitening on another set, or pass whitening=None."
        )


def define_flags(qe):
    """Defines the flags of an evaluation program; `qe`: the expansions it measures by default."""
    flags.DEFINE_string("photos", None, "Folder of the photos, and those below it.", required=True)
    flags.DEFINE_string("ground_truth", None, "Folder of the *_query.txt, *_good.txt, *_ok.txt, *_junk.txt.", required=True)
    flags.DEFINE_string(
        "whitening",
        "auto",
        "What the whitening is learned on, another set than the one tested: a folder of photos, or a file of "
        "rw_keras.save_whitening; `auto`: the one that ships with the package; `none`: no whitening.",
    )
    flags.DEFINE_string("backbone", "vgg16", "The network.")
    flags.DEFINE_string("weights", "imagenet", "The network's weights: `imagenet` or a file.")
    flags.DEFINE_string("layer", None, "The layer to cut the network at. Default: the network's own.")
    flags.DEFINE_string("method", "rw", "The method.")
    flags.DEFINE_integer("levels", 3, "Scales of the regional grid.", lower_bound=1)
    flags.DEFINE_integer("components", None, "Dimensions that the whitening keeps. Default: all.", lower_bound=1)
    flags.DEFINE_float(
        "shrinkage", None, "How far the whitening's eigenvalues are drawn to their mean. Default: the method's own.", 0, 1
    )
    define_whiten_and_scales(flags.FLAGS)
    flags.DEFINE_integer("max_side", 1024, "Longer side, in pixels, that photos are reduced to.", lower_bound=1)
    flags.DEFINE_multi_integer("qe", qe, "Query expansion over so many vectors, the query among them; 1 is none.", lower_bound=1)
    flags.DEFINE_bool("allow_missing", False, "Go on where positives are not among the photos, and say how many.")
    flags.DEFINE_string("cache", ".rw_keras_cache", "Folder that keeps descriptors between runs; empty: nothing is kept.")
    flags.DEFINE_bool("per_query", False, "Print every query's average precision.")


def run(title, corrupt=frozenset()):
    """Evaluates as the flags of `define_flags` say, and prints the table. Returns an exit code."""
    values = flags.FLAGS
    try:
        model = build_descriptor(
            values.backbone,
            weights=values.weights,
            layer=values.layer,
            method=values.method,
            levels=values.levels,
            components=values.components,
            shrinkage=values.shrinkage,
            whitening=None if values.whitening == "none" or os.path.isdir(values.whitening) else values.whitening,
            whiten=values.whiten,
        )
        if os.path.isdir(values.whitening):
            _learn_whitening(model, values.whitening, values.max_side, values.cache)
        if values.scales is not None:
            model = multi_scale(model, values.scales)
        result = evaluate(
            model,
            values.photos,
            values.ground_truth,
            max_side=values.max_side,
            qe=values.qe,
            allow_missing=values.allow_missing,
            corrupt=corrupt,
            cache=values.cache or None,
        )
    except (ValueError, OSError) as error:
        print(f"{pathlib.Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 1
    print("\n".join(_table(title, model, values, result)))
    return 0


def _table(title, model, values, result):
    learned = model.recipe["whitening"]
    queries = result.average_precisions[values.qe[0]]
    yield f"{title}: {result.photos} photos, {len(queries)} queries, longer side {values.max_side}"
    backbone = model.recipe["backbone"].partition(" ")[0]
    scales = f", scales {' '.join(f'{scale:.4g}' for scale in model.recipe['scales'])}" if "scales" in model.recipe else ""
    yield f"{values.method} on {backbone} {model.recipe['layer']}, levels {model.recipe['levels']}{scales}"
    shrinkage = whitening_layer(model).shrinkage
    on = " of global vectors" if "whiten" in model.recipe else ""
    yield f"whitening{on}: {provenance_in_words(learned)}, shrinkage {shrinkage}" if learned else "whitening: none"
    if values.allow_missing:
        yield f"{result.missing_positives} positives are not among the photos and are left out of the ground truth"
        yield f"{len(result.skipped_queries)} queries are skipped, without their own photo or any positive"
    yield ""
    landmarks = len({landmark_by_name(query) for query in queries})
    yield f"  qe    mAP  95 % interval ({landmarks} landmarks)" if landmarks > 1 else "  qe    mAP  (no interval: one landmark)"
    for qe in values.qe:
        interval = result.interval(qe) if landmarks > 1 else None
        yield f"{qe:4d}  {result.mean(qe):.4f}" + (f"  {interval.low:.3f} to {interval.high:.3f}" if interval else "")
    if values.per_query:
        yield ""
        yield " ".join([f"{'query':24s}", *(f"qe={qe:<4d}" for qe in values.qe)])
        for query in queries:
            yield " ".join([f"{query:24s}", *(f"{result.average_precisions[qe][query]:.4f} " for qe in values.qe)])


def _learn_whitening(model, folder, max_side, cache):
    """Learns the model's whitening from a folder, or takes what an earlier run has kept of the very same."""
    photos = list_photos(folder)
    state = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in photos]
    kept_axes = whitening_layer(model).eigenvectors.shape[1]
    about = json.dumps([recipe(model), kept_axes, max_side, state], sort_keys=True)
    kept = pathlib.Path(cache or ".") / f"whitening-{hashlib.sha256(about.encode('utf8', 'surrogateescape')).hexdigest()[:16]}.npz"
    if cache and kept.exists():
        Whitening.load(kept).apply(model)
        return
    learned = fit_whitening(model, folder, max_side=max_side)
    if cache:
        learned.save(kept)
