import dataclasses

import numpy as np
import pytest
from small_sets import WANTED

import rw_keras
from rw_keras.evaluation.experiment import Experiment, Setting
from rw_keras.evaluation.protocol import evaluate
from rw_keras.evaluation.region_vectors import RegionVectors

pytestmark = pytest.mark.filterwarnings("ignore:PCAWhiten")  # 18 photos are few


def model_of(bench, network, name, method, **arguments):
    """The descriptor model with its whitening learned as the experiment's is."""
    model = rw_keras.build_descriptor(network, method=WANTED[method][0], levels=WANTED[method][1], whitening=None, **arguments)
    rw_keras.fit_whitening(model, bench.learned_on[name], name="another set", progress=False)
    return model


@pytest.mark.parametrize("name", ["oxford5k", "paris6k"])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("rw", {"shrinkage": 0.0}),
        ("rw", {"shrinkage": 0.2, "components": 5}),
        ("root_rw", {"shrinkage": 0.2}),
        ("rmac", {"shrinkage": 0.5}),
        ("crow", {"shrinkage": 0.2}),
        ("rw, 1 scale", {"shrinkage": 0.2}),
    ],
)
@pytest.mark.slow
def test_descriptors_are_the_models(bench, network, name, method, arguments):
    model = model_of(bench, network, name, method, **arguments)
    index, queries = bench.experiment.descriptors(Setting("vgg16", method, **arguments), name)
    found = bench.sets[name]
    assert index.names == list(found.photos)
    expected = rw_keras.describe(model, list(found.photos.values()))
    # Whitened from 18 photos: the smallest axes blow the last digits up.
    np.testing.assert_allclose(index.descriptors, expected, atol=2e-4)
    boxes = [query.box for query in found.queries.values()]
    np.testing.assert_allclose(queries, rw_keras.describe(model, list(found.query_photos.values()), boxes), atol=2e-4)


@pytest.mark.slow
def test_without_whitening(bench, network):
    model = rw_keras.build_descriptor(network, whitening=None)
    index, _ = bench.experiment.descriptors(Setting("vgg16", "rw", shrinkage=None), "oxford5k")
    expected = rw_keras.describe(model, list(bench.sets["oxford5k"].photos.values()))
    np.testing.assert_allclose(index.descriptors, expected, atol=2e-6)


@pytest.mark.slow
def test_scores_are_those_of_the_evaluation(bench, network, data):
    model = model_of(bench, network, "oxford5k", "rw", shrinkage=0.5)
    folder = data / "oxford5k_part"
    measured = evaluate(model, folder / "jpg", folder / "gt", qe=(1, 3), progress=False)
    for qe in (1, 3):
        own = bench.experiment.scores(Setting("vgg16", "rw", shrinkage=0.5), "oxford5k", qe)
        assert own == pytest.approx(measured.average_precisions[qe])
    assert 0 < np.mean(list(own.values())) < 1


@pytest.mark.slow
@pytest.mark.parametrize("rerank", [4, 99])
def test_reranked_scores_are_those_of_the_evaluation(bench, network, data, rerank):
    model = model_of(bench, network, "oxford5k", "rw", shrinkage=0.5)
    folder = data / "oxford5k_part"
    measured = evaluate(model, folder / "jpg", folder / "gt", qe=(1, 3), rerank=rerank, progress=False)
    for qe in (1, 3):
        own = bench.experiment.scores(Setting("vgg16", "rw", shrinkage=0.5), "oxford5k", qe, rerank=rerank)
        assert own == pytest.approx(measured.average_precisions[qe])
        assert own != bench.experiment.scores(Setting("vgg16", "rw", shrinkage=0.5), "oxford5k", qe)


def test_what_is_whitened_after_the_sum_has_no_regions_to_compare(bench):
    with pytest.raises(ValueError, match='whiten_on="global" whitens no region vectors to re-rank by'):
        bench.experiment.scores(Setting("vgg16", "rw", whiten_on="global"), "oxford5k", rerank=5)


def test_global_whitening_is_learned_after_the_sum(bench):
    plain, _ = bench.experiment.descriptors(Setting("vgg16", "rw", shrinkage=None), "oxford5k")
    learned = bench.experiment.vectors["vgg16"]
    vectors = np.concatenate(
        [block.sum(axis=1) for block in learned.blocks("rw", [(path, None) for path in bench.learned_on["oxford5k"]])]
    ).astype("float64")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    values = 0.7 * values + 0.3 * values.mean()
    expected = (np.asarray(plain.descriptors, "float64") - vectors.mean(axis=0)) @ axes / np.sqrt(values)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    index, _ = bench.experiment.descriptors(Setting("vgg16", "rw", shrinkage=0.3, whiten_on="global"), "oxford5k")
    np.testing.assert_allclose(np.asarray(index.descriptors) @ index.descriptors.T, expected @ expected.T, atol=2e-4)


def test_whitening_from_some_of_the_photos(bench):
    some = Setting("vgg16", "rw", shrinkage=0.5, photos=9)
    chosen = np.linspace(0, 17, 9).round().astype(int)
    learned_on = {**bench.learned_on, "oxford5k": [bench.learned_on["oxford5k"][number] for number in chosen]}
    other = Experiment(bench.sets, learned_on, {"vgg16": bench.vectors})
    other.compute("vgg16", ["rw"])
    expected, _ = other.descriptors(dataclasses.replace(some, photos=None), "oxford5k")
    index, _ = bench.experiment.descriptors(some, "oxford5k")
    np.testing.assert_allclose(index.descriptors, expected.descriptors, atol=2e-4)
    everything, _ = bench.experiment.descriptors(dataclasses.replace(some, photos=None), "oxford5k")
    assert np.abs(index.descriptors - everything.descriptors).max() > 0.01


def test_distractors_join_the_index_and_lower_the_score(bench):
    more = [path for path in bench.learned_on["oxford5k"][:7]]
    experiment = Experiment(bench.sets, bench.learned_on, {"vgg16": bench.vectors}, more)
    experiment.compute("vgg16", ["rw"], ["rw"])
    setting = Setting("vgg16", "rw", shrinkage=0.5)
    index, _ = experiment.descriptors(setting, "oxford5k", distractors=True)
    assert len(index) == 18 + 7
    plain, harder = (
        np.mean(list(experiment.scores(setting, "oxford5k", distractors=with_them).values())) for with_them in (False, True)
    )
    assert harder <= plain


def test_another_way_to_rank(bench):
    setting = Setting("vgg16", "rw")
    worst = bench.experiment.scores(
        setting, "oxford5k", rank=lambda index, queries: [r[::-1] for r in index.rank_batch(queries)], tag="w"
    )
    assert np.mean(list(worst.values())) < np.mean(list(bench.experiment.scores(setting, "oxford5k").values()))


@pytest.mark.slow
def test_scales_are_those_of_the_multi_scale_model(bench, network, tmp_path):
    import keras

    scales = (1.0, 0.5)
    small = keras.Model(network.input, network(rw_keras.layers.ImageScale(0.5, 8)(network.input)), name="half")
    vectors = RegionVectors(small, {"rw": ("rw", 3)}, tmp_path / "kept", progress=False)
    experiment = Experiment(bench.sets, bench.learned_on, {"vgg16": bench.vectors, ("vgg16", 0.5): vectors})
    experiment.compute("vgg16", ["rw"], scale=0.5)
    model = rw_keras.multi_scale(model_of(bench, network, "oxford5k", "rw", shrinkage=0.5), scales)
    index, queries = experiment.descriptors(Setting("vgg16", "rw", shrinkage=0.5, scales=scales), "oxford5k")
    found = bench.sets["oxford5k"]
    np.testing.assert_allclose(index.descriptors, rw_keras.describe(model, list(found.photos.values())), atol=2e-4)
    boxes = [query.box for query in found.queries.values()]
    np.testing.assert_allclose(queries, rw_keras.describe(model, list(found.query_photos.values()), boxes), atol=2e-4)
