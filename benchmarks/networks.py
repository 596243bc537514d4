"""What works with which network, with random weights: the table of docs/networks.md.

    python benchmarks/networks.py --write                            # the smallest of each family, into docs/networks.md
    python benchmarks/networks.py --networks vgg16,resnet50 --write  # the rows of these alone

Each network is built, describes photos of three shapes by one graph, is saved and loaded, exported as SavedModel and as ONNX, and
run on JAX and on PyTorch, in processes of their own; every value is compared with the model's own on TensorFlow. Needs the extra
`onnx`, jax and torch, and `hub` for KerasHub's networks, which are tiny ones of each family, made at random.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

from rw_keras.commands.parser import Kind, Parser, text
from rw_keras.commands.programs import refuse_arguments, run_program

# The smallest of each family.
SMALLEST = (
    "vgg16 vgg19 alexnet resnet50 resnet50v2 inceptionv3 inceptionresnetv2 xception mobilenet mobilenetv2 mobilenetv3small "
    "densenet121 efficientnetb0 efficientnetv2b0 convnexttiny"
).split()
COLUMNS = ("builds", "any size", "save, load", "SavedModel", "ONNX", "JAX", "PyTorch")
BACKENDS = {"JAX": "jax", "PyTorch": "torch"}
DOCS = pathlib.Path(__file__).parents[1] / "docs" / "networks.md"
# Of a cosine: float32 through a hundred layers, in another order.
_LEAST = 0.9999
# Any network takes the first one; JAX compiles a program for each shape, so the other backends get that alone.
_SHAPES = ((96, 128), (128, 96), (101, 117))


def flags():
    """The program's flags."""
    parser = Parser(description=__doc__)
    words = "Networks, with commas between. Default: the smallest of each family."
    parser.flag("networks", words, Kind(lambda given: given.split(","), "NAME,..."), [*SMALLEST, *FAMILIES])
    parser.switch("write", "Write the rows into the table of docs/networks.md.")
    parser.flag("describe", "For its own use: a folder of models to describe a photo with.", text("FOLDER"))
    return parser


def main(values):
    """Fills the table."""
    refuse_arguments("networks.py", values)
    if values.describe is not None:
        describe_with(pathlib.Path(values.describe))
        return
    found = table(values.networks)
    lines = rows(found)
    if values.write:
        DOCS.write_text(replaced(DOCS.read_text("utf8"), lines), "utf8")
    print("\n".join(lines))


def table(names):
    """Network -> column -> "yes", or what went wrong."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in names:
            found[name] = on_tensorflow(name, folder)
            print(name, found[name], file=sys.stderr, flush=True)
        for column, backend in BACKENDS.items():
            environment = {**os.environ, "KERAS_BACKEND": backend}
            run = subprocess.run(
                [sys.executable, __file__, f"--describe={folder}"], env=environment, capture_output=True, text=True
            )
            answers = json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else {}
            for name, columns in found.items():
                columns[column] = answers.get(name, "not run") if run.returncode == 0 else reason(run.stderr.splitlines()[-1])
    return found


def on_tensorflow(name, folder):
    """The columns of one network but for the other backends; leaves `NAME.keras` and `NAME.npy` for those."""
    import keras

    import rw_keras
    from rw_keras.runtimes.keras_model import batch_function

    keras.utils.set_random_seed(0)
    columns, photos = {}, [made_up(*shape) for shape in _SHAPES]
    model = None

    def check(column, function):
        if columns and columns["builds"] != "yes":
            columns[column] = "no"
            return
        try:
            least = min(cosine(one, other) for one, other in function())
            columns[column] = "yes" if least >= _LEAST else f"no: a cosine of {least:.4f}"
        except Exception as error:  # whatever it is, it is the answer
            columns[column] = f"no: {reason(error)}"

    def builds():
        nonlocal model
        model = rw_keras.build_descriptor(
            network_of(name), **({} if name in FAMILIES else {"weights": None}), method="auto", whitening=None
        )
        return [(model(photos[0])[0], model(photos[0])[0])]

    def saved():
        path = folder / f"{name}.keras"
        model.save(path)
        np.save(folder / f"{name}.npy", model(photos[0])[0])
        return [(rw_keras.load_model(path)(photo)[0], model(photo)[0]) for photo in photos]

    def saved_model():
        import tensorflow as tf

        rw_keras.export_saved_model(model, folder / name / "1")
        served = tf.saved_model.load(folder / name / "1")
        return [(served.signatures["pixels"](pixels=photo)["descriptor"][0], model(photo)[0]) for photo in map(tf.constant, photos)]

    def onnx():
        import onnxruntime

        rw_keras.export_onnx(model, folder / name / "model.onnx")
        session = onnxruntime.InferenceSession(folder / name / "model.onnx")
        return [(session.run(None, {"pixels": photo})[0][0], model(photo)[0]) for photo in photos]

    check("builds", builds)
    graph = None if model is None else batch_function(model)
    check("any size", lambda: [(graph(photo)[0], model(photo)[0]) for photo in photos])
    check("save, load", saved)
    check("SavedModel", saved_model)
    check("ONNX", onnx)
    return columns


def describe_with(folder):
    """On the backend of this process: the models of a folder, each compared with the descriptor beside it; prints JSON."""
    import rw_keras

    found = {}
    for path in sorted(folder.glob("*.keras")):
        try:
            vector = rw_keras.describe(rw_keras.load_model(path), made_up(*_SHAPES[0])[0], max_side=None)
            least = cosine(vector, np.load(path.with_suffix(".npy")))
            found[path.stem] = "yes" if least >= _LEAST else f"no: a cosine of {least:.4f}"
        except Exception as error:
            found[path.stem] = f"no: {reason(error)}"
    print(json.dumps(found))


def made_up(height, width):
    """A photo `(1, height, width, 3)`, 0..255, of soft spots."""
    from PIL import Image

    spots = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype="uint8")
    return np.asarray(Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC), "float32")[None]


def cosine(one, other):
    one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))  # NaN for a zero vector, which is no "yes"


def reason(error):
    """The first line of an error, without what a table cannot hold."""
    words = str(error).strip().partition("\n")[0].replace("|", "/") or type(error).__name__
    return words if len(words) <= 80 else f"{words[:77]}..."


def rows(found):
    """The table in Markdown."""
    head = ["network", *COLUMNS]
    body = [[f"`{name}`", *(columns[column] for column in COLUMNS)] for name, columns in found.items()]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


def replaced(page, lines):
    """The page with these rows in its table of the same head, in place of those of the same networks; other rows stay."""
    head = re.escape("\n".join(lines[:2]))
    tables = list(re.finditer(rf"^{head}\n((?:\|.*\n)*)", page, flags=re.MULTILINE))
    if len(tables) != 1:
        raise ValueError(f"docs/networks.md has {len(tables)} tables with the head {lines[0]!r}; give it one.")
    known = {row.split("`")[1]: row for row in [*tables[0][1].splitlines(), *lines[2:]]}
    order = [*SMALLEST, *(name for name in known if name not in [*SMALLEST, *FAMILIES]), *FAMILIES]
    kept = "".join(f"{known[name]}\n" for name in order if name in known)
    return page[: tables[0].start(1)] + kept + page[tables[0].end(1) :]


def _hub(class_name, **arguments):
    """A tiny network of a family of KerasHub's, and its vision part where it has two."""

    def build():
        import keras_hub

        import rw_keras

        return rw_keras.backbones.hub(getattr(keras_hub.models, class_name)(**arguments), None)

    return build


def _with_text(family):
    """A tiny CLIP or SigLIP, cut at the embedding that it shares with texts."""

    def build():
        import keras_hub
        from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
        from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder
        from keras_hub.src.models.siglip.siglip_text_encoder import SigLIPTextEncoder
        from keras_hub.src.models.siglip.siglip_vision_encoder import SigLIPVisionEncoder

        import rw_keras

        sizes = {"num_layers": 1, "num_heads": 2, "intermediate_dim": 16, "max_sequence_length": 8}
        if family == "CLIP":
            text = CLIPTextEncoder(64, 16, 16, **sizes, name="text")
            whole = keras_hub.models.CLIPBackbone(CLIPVisionEncoder(**_TINY, image_shape=(20, 20, 3), name="vision"), text, 10)
        else:
            text = SigLIPTextEncoder(64, 16, 16, **sizes, projection_dim=16, name="text")
            whole = keras_hub.models.SigLIPBackbone(SigLIPVisionEncoder(**_TINY, image_shape=(20, 20, 3), name="vision"), text)
        for variable in whole.weights:
            if variable.path.endswith("position_ids"):  # which a preset's weights set, and a new network does not
                variable.assign(np.arange(variable.shape[1])[None])
        return rw_keras.backbones.hub(whole, None, layer="joint")

    return build


_TINY = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "intermediate_dim": 24, "patch_size": 4}
_BLOCKS = {"stackwise_num_filters": [64, 128], "stackwise_num_blocks": [1, 1], "stackwise_num_strides": [1, 2]}
# KerasHub's families by the classes of their backbones -> a tiny network of each.
FAMILIES = {
    "DINOV2Backbone": _hub("DINOV2Backbone", **_TINY, image_shape=(20, 20, 3), position_embedding_shape=(20, 20)),
    "DINOV3Backbone": _hub("DINOV3Backbone", **_TINY, image_shape=(20, 20, 3)),
    "ViTBackbone": _hub("ViTBackbone", image_shape=(20, 20, 3), patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24),
    "CLIPBackbone": _with_text("CLIP"),
    "SigLIPBackbone": _with_text("SigLIP"),
    "ResNetBackbone": _hub(
        "ResNetBackbone", input_conv_filters=[64], input_conv_kernel_sizes=[7], block_type="basic_block", **_BLOCKS
    ),
}


def network_of(name):
    """What `build_descriptor` takes for a name in the table."""
    return FAMILIES[name]() if name in FAMILIES else name


if __name__ == "__main__":
    run_program(flags(), main)
