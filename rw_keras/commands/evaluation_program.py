"""What the programs of an evaluation share: they read flags, evaluate, and print a table."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Collection, Sequence
from typing import NoReturn

from rw_keras.commands.evaluation_flags import add_evaluation, rerank_of
from rw_keras.commands.models import NO_WHITENING, build, load_keras_quietly
from rw_keras.commands.parser import Parser
from rw_keras.commands.programs import refuse_arguments, run_program
from rw_keras.model.presets import PRESETS, preset_of


def evaluation_program(description: str, title: str, qe: Sequence[int], corrupt: Collection[str] = frozenset()) -> NoReturn:
    """Runs an evaluation program by `sys.argv`, prints its table, and exits.

    Args:
        description: for its `--help`.
        title: what the set is called.
        qe: the query expansions that it measures by default.
        corrupt: names of photos that are left out.
    """
    parser = Parser(description=description)
    add_evaluation(parser, qe)
    run_program(parser, lambda values: _run(parser.prog, title, values, frozenset(corrupt)))


def _run(program, title, values, corrupt):
    refuse_arguments(program, values)
    load_keras_quietly()
    from rw_keras.evaluation.protocol import check_missing, evaluate

    # Before a network is built, or a whitening learned.
    photos = check_missing(values.photos, values.ground_truth, values.missing, corrupt)
    if values.max_side is None:
        values.max_side = PRESETS[values.preset or "paper"].max_side
    model = _model(values)
    preset = preset_of(model)
    values.rerank = rerank_of(values, {} if preset is None else preset.search)
    result = evaluate(
        model,
        photos,
        values.ground_truth,
        max_side=values.max_side,
        qe=values.qe,
        rerank=values.rerank,
        missing=values.missing,
        corrupt=corrupt,
        cache=values.cache or None,
    )
    print("\n".join(_table(title, model, values, result)))


def _model(values):
    """The model as the flags say, whitened as it is to be."""
    learned_here = os.path.isdir(values.whitening)
    model = build(values, values.preset, NO_WHITENING if learned_here else values.whitening)
    if learned_here:
        _learn_whitening(model, values.whitening, values.max_side, values.cache)
    return model


def _table(title, model, values, result):
    from rw_keras.model.recipe import provenance_in_words, whitening_layer
    from rw_keras.retrieval import landmark_by_name

    made = model.recipe
    learned = made["whitening"]
    queries = result.average_precisions[values.qe[0]]
    yield f"{title}: {result.photos} photos, {len(queries)} queries, longer side {values.max_side}"
    backbone = made["backbone"].partition(" ")[0]
    scales = f", scales {' '.join(f'{scale:.4g}' for scale in made['scales'])}" if "scales" in made else ""
    yield f"{made['method']} on {backbone} {made['layer']}, levels {made['levels']}{scales}"
    shrinkage = whitening_layer(model).shrinkage
    on = " of global vectors" if "whiten" in made else ""
    yield f"whitening{on}: {provenance_in_words(learned)}, shrinkage {shrinkage}" if learned else "whitening: none"
    if values.rerank is not None:
        smoothed = f", smoothed over {values.rerank.smooth}," if values.rerank.smooth else ""
        yield f"the first {values.rerank.count}{smoothed} are re-ranked by their regions"
    if values.missing == "allow":
        yield f"{result.missing_positives} positives are not among the photos and are left out of the ground truth"
        yield f"{len(result.skipped_queries)} queries are skipped, without their own photo or any positive"
    elif values.missing == "drop_queries":
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
    from rw_keras.description.learning import fit_whitening
    from rw_keras.model.recipe import recipe, whitening_layer
    from rw_keras.model.whitening import Whitening
    from rw_keras.photos.sources import folder_items

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
