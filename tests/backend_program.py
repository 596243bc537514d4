"""What `test_backends.py` runs on each of Keras' backends: all that is done with a model, in one process, since starts take long.
`python backend_program.py FOLDER NUMBERS PHOTO...` leaves arrays in NUMBERS; what has to hold on one backend alone it asserts.

FOLDER has `alexnet.keras` and `tiny.keras`, which TensorFlow saved, `photos/`, and `index`, which TensorFlow described.
"""

import contextlib
import io
import json
import pathlib
import shutil
import sys
import warnings

import keras
import numpy as np
from PIL import Image

import rw_keras
from rw_keras import runtimes
from rw_keras.commands.main import run as command
from rw_keras.retrieval import Index
from rw_keras.views import explain, plot

FOLDER, NUMBERS, *REAL = sys.argv[1:]
FOLDER, BACKEND = pathlib.Path(FOLDER), keras.backend.backend()
OWN = FOLDER / BACKEND  # what this process writes
# Of odd and of even sides, upright and not; few, because JAX compiles for each.
SIZES = [(97, 64), (128, 131)]


def drawn(seed, width, height):
    spots = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype="uint8")
    return np.asarray(Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC))


def of_regions(name, descriptor):
    return {
        name: descriptor,
        f"{name} vectors": descriptor.regions.vectors,
        f"{name} boxes": descriptor.regions.boxes,
    }


def described(model):
    """Descriptors with their regions: drawn photos, real ones, a black one, and a batch."""
    found = {}
    photos = {f"drawn {size}": drawn(seed, *size) for seed, size in enumerate(SIZES)}
    photos |= {pathlib.Path(path).name: path for path in REAL} | {"black": np.zeros((64, 97, 3), "uint8")}
    for scales in (None, (1, 2**-0.5, 0.5)):
        several = model if scales is None else rw_keras.multi_scale(model, scales)
        for name, photo in photos.items():
            found |= of_regions(f"{scales} {name}", rw_keras.describe(several, photo, max_side=256, regions=True))
    return found


def saved_and_loaded(model):
    """The model once more by way of a file and of a folder."""
    model.save(OWN / "model.keras")
    model.save_to_preset(OWN / "preset")
    photo = drawn(7, 90, 71)
    expected = rw_keras.describe(model, photo)
    for again in (rw_keras.load_model(OWN / "model.keras"), rw_keras.DescriptorModel.from_preset(OWN / "preset")):
        assert again.recipe == model.recipe
        np.testing.assert_array_equal(rw_keras.describe(again, photo), expected)


def learned():
    """A whitening that is learned here, for the model and for one of three scales around it."""
    found = {}
    for name, scales in (("one scale", None), ("three scales", (1, 2**-0.5, 0.5))):
        model = rw_keras.load_model(FOLDER / "tiny.keras")
        model = model if scales is None else rw_keras.multi_scale(model, scales)
        whitening = rw_keras.fit_whitening(model, FOLDER / "photos", progress=False)
        found[f"{name} eigenvalues"] = whitening.eigenvalues / whitening.eigenvalues[0]
        found[f"{name} whitened"] = rw_keras.describe(model, drawn(3, 80, 64))
    return found


def searched(model):
    """An index that is described here, one that TensorFlow described and this backend brings up to date, and their hits."""
    query = FOLDER / "photos" / "0.png"
    done = rw_keras.extract(model, FOLDER / "photos", OWN / "index", runtime="keras", regions="float16", progress=False)
    assert (done.described, done.failures) == (12, [])
    found = {"extracted": Index.load(OWN / "index").descriptors}
    of_folder = Index.from_folder(model, FOLDER / "photos", runtime=BACKEND, regions="int8", progress=False)
    np.testing.assert_allclose(of_folder.descriptors, found["extracted"], atol=1e-5)
    assert of_folder.described_with == [{"runtime": BACKEND, "precision": "exact", "computes_in": "float32"}]

    shutil.copytree(FOLDER / "index", OWN / "updated")
    shutil.copytree(FOLDER / "photos", OWN / "photos")
    Image.fromarray(drawn(99, 100, 75)).save(OWN / "photos" / "new.png")
    done = rw_keras.extract(model, OWN / "photos", OWN / "updated", progress=False)
    assert (done.described, done.kept) == (1, 12)
    updated = Index.load(OWN / "updated")
    assert [made["runtime"] for made in updated.described_with] == list(dict.fromkeys(["tensorflow", BACKEND]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # what `Index.check_model` says
        for name, index in (("own", Index.load(OWN / "index")), ("updated", updated)):
            hits = index.search_photo(model, query, k=5, rerank=10)
            found[f"{name} hits"] = np.array([[int(hit.partition(".")[0].replace("new", "99")), score] for hit, score in hits])
    return found


def explained(model):
    shares = explain.region_shares(model, drawn(5, 80, 64))
    agreement = explain.region_agreement(rw_keras.multi_scale(model), drawn(5, 80, 64), drawn(6, 64, 80))
    matches = explain.region_matches(model, drawn(5, 80, 64), drawn(6, 64, 80))
    assert plot.weights(model, drawn(5, 80, 64)).axes
    return {"shares": shares.shares, "weight": shares.weight, "agreement": agreement.parts, "matches": matches.cosines}


def commanded():
    """`rw-keras index`, `search` and `info`, as a user types them."""
    out = str(OWN / "by_command")
    flags = ["--runtime", "keras", "--model", str(OWN / "model.keras"), "--max_side", "128"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        assert command(["index", str(FOLDER / "photos"), "-o", out, "--quiet", *flags]) == 0
        assert command(["index", str(FOLDER / "photos"), "-o", out, "--quiet", "--model", flags[3]]) == 0
        search = ["search", out, str(FOLDER / "photos" / "3.png"), "--json", "--k", "3", *flags[:4]]
        printed.truncate(0), printed.seek(0)
        assert command(search) == 0
    hits = json.loads(printed.getvalue())
    assert hits[0]["name"] == "3.png"
    return {"command hits": np.array([list(hit.values())[2] for hit in hits])}


def in_batches(model):
    """Batches that are not full, more sizes than JAX keeps programs for, and devices that take batches in turn."""
    from rw_keras.runtimes import jax as jax_runtime
    from rw_keras.runtimes.keras_model import batch_function, regions_function

    jax_runtime._MOST_PROGRAMS = 1
    for width, height in ((40, 32), (48, 33), (40, 32)):
        photos = np.stack([drawn(seed, width, height) for seed in range(3)])
        alone = np.concatenate([batch_function(model)(photo[None]) for photo in photos])
        np.testing.assert_allclose(batch_function(model)(photos), alone, atol=1e-6)
        descriptors, vectors, boxes = regions_function(model)(photos)
        np.testing.assert_allclose(descriptors, alone, atol=1e-6)
        assert len(vectors) == 3 and vectors.shape[1] == len(boxes)
    devices = {"tensorflow": ["CPU:0"], "jax": ["cpu:0", "cpu:1"], "torch": ["cpu"]}[BACKEND]
    rw_keras.extract(model, FOLDER / "photos", OWN / "by_devices", devices=devices, progress=False)
    found = Index.load(OWN / "by_devices")
    np.testing.assert_allclose(found.descriptors, Index.load(OWN / "index").descriptors, atol=1e-5)


def refused(model):
    """What a backend cannot do is said before any work."""
    other = "tensorflow" if BACKEND != "tensorflow" else "jax"
    for refuse, error, words in (
        (lambda: rw_keras.describe(model, drawn(0, 64, 64), runtime=other), ValueError, f"set KERAS_BACKEND={other}"),
        (lambda: rw_keras.extract(model, FOLDER / "photos", OWN / "never", runtime=other), ValueError, "set KERAS_BACKEND"),
        *((lambda form=form: model.export(OWN / f"never{form}", format=form), RuntimeError, "KERAS_BACKEND=tensorflow")
          for form in ("tf_saved_model", "onnx", "openvino", "litert") if BACKEND != "tensorflow"),
    ):  # fmt: skip
        try:
            refuse()
        except error as raised:
            assert words in str(raised), raised
        else:
            raise AssertionError(f"{words} was not said")
    assert not list(OWN.glob("never*"))


def on_other_runtimes(model):
    """ncnn's network is written from the Keras layers on every backend; `auto` takes what keeps its promise."""
    photo = drawn(2, 80, 64)
    exact = rw_keras.describe(model, photo)
    with contextlib.suppress(ImportError):
        for precision in ("exact", "int8"):
            assert np.dot(rw_keras.describe(runtimes.load(model, "ncnn", precision), photo), exact) > 0.999
    chosen = runtimes.choose(model, size=(64, 80))
    assert {row["runtime"] for row in chosen.rows} == {BACKEND, "openvino", "ncnn"}
    assert np.dot(rw_keras.describe(runtimes.load(model, "auto", size=(64, 80)), photo), exact) > 0.999999


def in_mixed_precision(model):
    """A model that was built under a policy says so, and is that model when it is loaded."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = rw_keras.build_descriptor("alexnet", weights=None, whitening=None)
    finally:
        keras.config.set_dtype_policy(before)
    mixed.set_weights(model.get_weights())
    found = rw_keras.describe(mixed, drawn(2, *SIZES[0]))
    assert found.dtype == "float32" and 0.99 < np.dot(found, rw_keras.describe(model, drawn(2, *SIZES[0]))) < 0.999999
    assert mixed.recipe["weights"] == model.recipe["weights"]
    made = {"runtime": BACKEND, "precision": "mixed_bfloat16", "computes_in": "mixed_bfloat16"}
    assert runtimes.describer.described_with(mixed) == made
    assert runtimes.describer.described_with(runtimes.load(mixed)) == made


def main():
    OWN.mkdir()
    model, tiny = rw_keras.load_model(FOLDER / "alexnet.keras"), rw_keras.load_model(FOLDER / "tiny.keras")
    built = rw_keras.build_descriptor("alexnet", weights=None, whitening=None)
    assert {**built.recipe, "weights": 0, "whitening": None} == {**model.recipe, "weights": 0, "whitening": None}
    # The digests are in it.
    found = {"recipe": np.array(json.dumps(model.recipe.to_dict(), sort_keys=True)), **described(model)}
    saved_and_loaded(tiny)
    found |= {**learned(), **searched(tiny), **explained(tiny), **commanded()}
    on_other_runtimes(tiny)
    in_batches(tiny)
    in_mixed_precision(model)
    refused(tiny)
    if BACKEND != "tensorflow":
        assert "tensorflow" not in sys.modules
    np.savez(NUMBERS, **found)


if __name__ == "__main__":
    main()
