"""What the programs of an evaluation share: their flags, and the table that they print."""

import hashlib
import json
import os
import pathlib
import sys

from absl import flags

from rw_keras.commands.cli import define_levels, define_whiten_and_scales, in_flags
from rw_keras.description.learning import fit_whitening
from rw_keras.evaluation.protocol import MISSING, check_missing, evaluate
from rw_keras.model.build import build_descriptor, multi_scale
from rw_keras.model.recipe import recipe, whitening_layer
from rw_keras.model.whitening import Whitening, provenance_in_words
from rw_keras.photos.sources import folder_items
from rw_keras.retrieval import landmark_by_name


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
    define_levels(flags.FLAGS)
    flags.DEFINE_integer("components", None, "Dimensions that the whitening keeps. Default: all.", lower_bound=1)
    flags.DEFINE_float(
        "shrinkage", None, "How far the whitening's eigenvalues are drawn to their mean. Default: the method's own.", 0, 1
    )
    define_whiten_and_scales(flags.FLAGS)
    flags.DEFINE_integer("max_side", 1024, "Longer side, in pixels, that photos are reduced to.", lower_bound=1)
    flags.DEFINE_multi_integer("qe", qe, "Query expansion over so many vectors, the query among them; 1 is none.", lower_bound=1)
    define_missing(flags.FLAGS)
    flags.DEFINE_string("cache", ".rw_keras_cache", "Folder that keeps descriptors between runs; empty: nothing is kept.")
    flags.DEFINE_bool("per_query", False, "Print every query's average precision.")


def define_missing(values):
    """The flag `--missing`, and what it was called before."""
    words = (
        "Where photos of the ground truth are not there: refuse; drop_queries: leave out the queries that have any of them; allow: "
        "leave out the photos alone."
    )
    flags.DEFINE_enum("missing", "refuse", MISSING, words, flag_values=values)
    for earlier, now in _EARLIER_MISSING.items():
        flags.DEFINE_bool(earlier, False, f"The earlier name of --missing={now}.", flag_values=values)


# The flags that were before `--missing` -> what each meant.
_EARLIER_MISSING = {"allow_missing": "allow", "drop_incomplete": "drop_queries"}


def missing_of(values):
    """What the flags of `define_missing` ask for; an earlier name is said to be one."""
    for earlier, now in _EARLIER_MISSING.items():
        if values[earlier].value:
            if values["missing"].present:
                raise ValueError(f"--{earlier} is the earlier name of --missing={now}; leave it out, since --missing is given.")
            print(f"--{earlier} is called --missing={now} now.", file=sys.stderr)
            return now
    return values.missing


def run(title, corrupt=frozenset()):
    """Evaluates as the flags of `define_flags` say, and prints the table. Returns an exit code."""
    values = flags.FLAGS
    try:
        missing = missing_of(values)
        check_missing(values.photos, values.ground_truth, missing, corrupt)  # before a network is built, or a whitening learned
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
            missing=missing,
            corrupt=corrupt,
            cache=values.cache or None,
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"{pathlib.Path(sys.argv[0]).name}: {in_flags(str(error), set(values))}", file=sys.stderr)
        return 1
    print("\n".join(_table(title, model, values, missing, result)))
    return 0


def _table(title, model, values, missing, result):
    learned = model.recipe["whitening"]
    queries = result.average_precisions[values.qe[0]]
    yield f"{title}: {result.photos} photos, {len(queries)} queries, longer side {values.max_side}"
    backbone = model.recipe["backbone"].partition(" ")[0]
    scales = f", scales {' '.join(f'{scale:.4g}' for scale in model.recipe['scales'])}" if "scales" in model.recipe else ""
    yield f"{values.method} on {backbone} {model.recipe['layer']}, levels {model.recipe['levels']}{scales}"
    shrinkage = whitening_layer(model).shrinkage
    on = " of global vectors" if "whiten" in model.recipe else ""
    yield f"whitening{on}: {provenance_in_words(learned)}, shrinkage {shrinkage}" if learned else "whitening: none"
    if missing == "allow":
        yield f"{result.missing_positives} positives are not among the photos and are left out of the ground truth"
        yield f"{len(result.skipped_queries)} queries are skipped, without their own photo or any positive"
    elif missing == "drop_queries":
        yield f"{len(result.skipped_queries)} queries are left out, whose own photo or any positive is not among the photos"
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
    state = [[item.place, *(item.stamp or [])] for item in folder_items(folder)]
    kept_axes = whitening_layer(model).eigenvectors.shape[1]
    about = json.dumps([recipe(model), kept_axes, max_side, state], sort_keys=True)
    kept = pathlib.Path(cache or ".") / f"whitening-{hashlib.sha256(about.encode('utf8', 'surrogateescape')).hexdigest()[:16]}.npz"
    if cache and kept.exists():
        Whitening.load(kept).apply(model)
        return
    learned = fit_whitening(model, folder, max_side=max_side)
    if cache:
        learned.save(kept)
