"""Every exported form of one model on the same real photos: digits, mAP, time and size, against the Keras model.

    python benchmarks/formats.py --photos oxford5k/jpg --ground_truth oxford5k/gt --max_side 512

Each photo goes through all forms by turns. The SavedModels are given the file's bytes and decode them themselves, the other forms
the pixels that `rw_keras.describe` decodes; query boxes are cut out in both. Needs the extras `onnx`, `openvino` and `litert`.
"""

import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import tqdm
from absl import app, flags

import rw_keras
from rw_keras.datasets.oxford import photos_by_name, read_ground_truth
from rw_keras.photos.reading import read_image
from rw_keras.retrieval import Index, mean_average_precision
from rw_keras.runtimes.keras_model import batch_function

_PHOTOS = flags.DEFINE_string("photos", None, "Folder of the photos.", required=True)
_GROUND_TRUTH = flags.DEFINE_string("ground_truth", None, "Folder of the ground truth.", required=True)
_MAX_SIDE = flags.DEFINE_integer("max_side", 512, "Longer side, in pixels, that photos are reduced to.", lower_bound=16)
_LIMIT = flags.DEFINE_integer("limit", None, "Only the first so many photos: digits and times, no mAP.", lower_bound=1)


def _saved_model(model, folder, dtype):
    import tensorflow as tf

    rw_keras.export_saved_model(model, folder / "saved" / "1", max_side=_MAX_SIDE.value, dtype=dtype)
    loaded = tf.saved_model.load(str(folder / "saved" / "1"))

    def run(path, box, pixels):
        content = tf.constant([pathlib.Path(path).read_bytes()])
        if box is None:
            return loaded.signatures["serving_default"](image_bytes=content)["descriptor"].numpy()[0]
        return loaded.signatures["query"](image_bytes=content, box=tf.constant([box], tf.float32))["descriptor"].numpy()[0]

    run.loaded = loaded  # signatures do not keep the model alive
    return run


def _onnx(model, folder):
    import onnxruntime

    rw_keras.export_onnx(model, folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    return lambda path, box, pixels: session.run(["descriptor"], {"pixels": pixels})[0][0]


def _openvino(model, folder, int8):
    import openvino

    rw_keras.export_openvino(model, folder / "model.xml", int8=int8)
    # Left to itself OpenVINO computes in bfloat16 where the processor can.
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda path, box, pixels: compiled(pixels)[0][0].copy()


def _litert(model, folder, int8):
    from ai_edge_litert.interpreter import Interpreter

    rw_keras.export_litert(model, folder / "model.tflite", int8=int8)
    interpreter = Interpreter(str(folder / "model.tflite"), num_threads=2)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(path, box, pixels):
        interpreter.resize_tensor_input(taken["index"], pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(taken["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])[0]

    return run


_FORMS = {
    "SavedModel": lambda model, folder: _saved_model(model, folder, "float32"),
    "SavedModel float16": lambda model, folder: _saved_model(model, folder, "float16"),
    "SavedModel bfloat16": lambda model, folder: _saved_model(model, folder, "bfloat16"),
    "ONNX, onnxruntime": _onnx,
    "OpenVINO": lambda model, folder: _openvino(model, folder, False),
    "OpenVINO int8": lambda model, folder: _openvino(model, folder, True),
    "LiteRT": lambda model, folder: _litert(model, folder, False),
    "LiteRT int8": lambda model, folder: _litert(model, folder, True),
}

_CHOSEN = flags.DEFINE_multi_enum("form", None, list(_FORMS), "A form to measure; give it several times. Default: all.")


def main(_):
    model = rw_keras.build_descriptor()
    keras_graph = batch_function(model)
    queries = read_ground_truth(_GROUND_TRUTH.value)
    paths = photos_by_name(_PHOTOS.value)
    asked = [(path, None) for path in paths.values()][: _LIMIT.value]
    asked += [(paths[query.photo], query.box) for query in queries.values()] if not _LIMIT.value else []
    with tempfile.TemporaryDirectory() as scratch:
        runs, sizes = {"Keras": lambda path, box, pixels: keras_graph(pixels.astype("uint8"))[0]}, {"Keras": 0}
        for number, name in enumerate(_CHOSEN.value or _FORMS):
            folder = pathlib.Path(scratch, str(number))
            folder.mkdir()
            runs[name] = _FORMS[name](model, folder)
            sizes[name] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        vectors = {name: [] for name in runs}
        seconds = {name: [] for name in runs}
        for path, box in tqdm.tqdm(asked, file=sys.stderr, mininterval=10):
            pixels = read_image(path, box, _MAX_SIDE.value)[None].astype("float32")
            for name, run in runs.items():
                start = time.perf_counter()
                vectors[name].append(run(path, box, pixels))
                seconds[name].append(time.perf_counter() - start)
    usual = statistics.median(seconds["Keras"])
    truth = {name: (query.positives, query.junk) for name, query in queries.items()}
    print(f"{len(asked)} photos and boxes, longer side {_MAX_SIDE.value}; cosine with the Keras model; Keras {1000 * usual:.0f} ms")
    print("form                  MB   lowest cosine   mean cosine     mAP   mAP qe=5   time / Keras")
    for name in runs:
        cosines = np.sum(np.float64(vectors[name]) * np.float64(vectors["Keras"]), axis=1)
        cosines /= np.linalg.norm(np.float64(vectors[name]), axis=1) * np.linalg.norm(np.float64(vectors["Keras"]), axis=1)
        scores = ["      -", "      -"]
        if not _LIMIT.value:
            index = Index(paths, np.stack(vectors[name][: len(paths)]))
            found = dict(zip(queries, vectors[name][len(paths) :]))
            scores = [
                f"{mean_average_precision({query: index.rank(v, qe) for query, v in found.items()}, truth):7.4f}"
                for qe in (None, 5)
            ]
        ratio = statistics.median(b / a for a, b in zip(seconds["Keras"], seconds[name]))
        digits = f"{cosines.min():16.8f}{cosines.mean():14.8f}"
        print(f"{name:20s}{sizes[name] / 1e6:5.0f}{digits}  {scores[0]}    {scores[1]}{ratio:15.2f}")


if __name__ == "__main__":
    app.run(main)
