"""examples/fine_tune.py on a tiny network and drawn photos."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
from PIL import Image

import rw_keras
from rw_keras import backbones
from rw_keras.backbones import registry

_PROGRAM = pathlib.Path(__file__).parents[2] / "examples" / "fine_tune.py"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:PCAWhiten")]  # few vectors


@pytest.fixture(scope="module")
def program():
    found = importlib.util.spec_from_file_location("fine_tune", _PROGRAM)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def tiny(monkeypatch):
    """The name of a network of two convolutions."""
    for known in (backbones.BACKBONES, backbones.LICENCES, registry.FACTS):
        monkeypatch.setitem(known, "tiny_to_tune", None)

    @backbones.register("tiny_to_tune")
    def network(layer="second", weights=None):
        photos = keras.Input((None, None, 3), name="photos")
        features = keras.layers.Rescaling(1 / 255)(photos)
        for width, name in ((6, "first"), (8, "second")):
            features = keras.layers.Conv2D(width, 5, 4, activation="relu", name=name)(features)
        return keras.Model(photos, features, name="tiny_to_tune")

    return "tiny_to_tune"


@pytest.fixture
def tune(program, tiny, draw, tmp_path):
    """A function (output, flags) -> the model that the program wrote."""
    for thing in range(3):
        (tmp_path / "photos" / str(thing)).mkdir(parents=True)
        for view in range(4):
            photo = np.clip(np.roll(draw(thing, 60, 50), 4 * view, axis=1) * (1 - view / 9), 0, 255).astype("uint8")
            Image.fromarray(photo).save(tmp_path / "photos" / str(thing) / f"{view}.png")

    def run(output, *flags, **keywords):
        given = {"photos": tmp_path / "photos", "output": tmp_path / output, "backbone": tiny, "side": 48, "epochs": 3}
        given |= {"tuples": 6, "batch": 2, "negatives": 2, "learning_rate": 1e-3, "max_side": 64, **keywords}
        values = program.flags().parse_args([*(f"--{name}={value}" for name, value in given.items()), *flags])
        program.fine_tune(values)
        return rw_keras.load_model(tmp_path / output)

    return run


def vectors(model, draw):
    return rw_keras.describe(model, [draw(seed, 64, 48) for seed in range(5)], max_side=64)


def test_a_run_that_was_interrupted_goes_on_to_the_same_model(program, tune, draw, monkeypatch):
    whole = tune("whole.keras")
    begin, epochs = program.HardNegatives.on_epoch_begin, []

    def interrupted(callback, epoch, logs=None):
        epochs.append(epoch)
        if epochs == [0, 1]:
            raise KeyboardInterrupt
        begin(callback, epoch, logs)

    monkeypatch.setattr(program.HardNegatives, "on_epoch_begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune("parts.keras")
    again = tune("parts.keras")
    assert epochs == [0, 1, 1, 2]
    for one, other in zip(whole.weights, again.weights):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vectors(again, draw), vectors(whole, draw), atol=1e-5)


def test_without_a_step_the_learned_whitening_is_that_of_pca(tune, program, draw, tmp_path):
    tuned = tune("tuned.keras", learning_rate=0, epochs=1)
    keras.utils.set_random_seed(0)
    plain = rw_keras.build_descriptor("tiny_to_tune", weights=None, method="gem", whiten_on="global", shrinkage=0.2, whitening=None)
    rw_keras.fit_whitening(plain, tmp_path / "photos", 64, progress=False)
    np.testing.assert_allclose(vectors(tuned, draw), vectors(plain, draw), atol=1e-3)
    assert "fine-tuned" in tuned.recipe["whitening"]["name"]
    trained = tune("trained.keras", epochs=1)
    assert np.abs(vectors(trained, draw) - vectors(plain, draw)).max() > 1e-3


def test_mixed_precision_and_a_test_before_and_after(tune, draw, tmp_path, capsys):
    policy = keras.config.dtype_policy()
    try:
        model = tune(
            "tuned.keras",
            "--mixed_precision",
            f"--test={tmp_path / 'photos'}",
            "--labels=folders",
            method="rw",
            whiten_on="regions",
            epochs=1,
        )
    finally:
        keras.config.set_dtype_policy(policy)
    np.testing.assert_allclose(np.linalg.norm(vectors(model, draw), axis=1), 1, atol=1e-5)
    assert all(weight.dtype in ("float32", "int32") for weight in model.weights)
    printed = capsys.readouterr().out
    assert "before: mAP" in printed and "the difference:" in printed


def test_one_thing_is_refused(tune, program, tmp_path):
    with pytest.raises(ValueError, match="has 1 folders of two photos or more"):
        tune("tuned.keras", photos=tmp_path / "photos" / "0")
