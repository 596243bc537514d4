"""The SavedModel: a descriptor model for processes that have TensorFlow and not this package."""

import os
import pathlib
import shutil
import tempfile

import keras


def export_saved_model(model: keras.Model, path: str | os.PathLike[str], *, max_side: int = 1024) -> None:
    """Writes a descriptor model as a TensorFlow SavedModel that needs nothing of this package.

    Signature `pixels`: `pixels` `(B, H, W, 3)` float32, RGB 0..255, of any size -> `descriptor` `(B, D)` float32; the same
    digits as the Keras model. The caller has reduced the photos to `max_side`, as `rw_keras.describe` does.

    Args:
        model: a model of `build_descriptor`.
        path: the version folder to make, such as "serving/rw_vgg16/1". It appears whole or not at all.
        max_side: the size that photos are to be reduced to, for the record.

    Raises:
        FileExistsError: when `path` is there already: a server may be using it.
        RuntimeError: when Keras does not run on TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"A SavedModel is written by Keras on TensorFlow, but it runs on {keras.backend.backend()}; save the model, and export "
            "it with KERAS_BACKEND=tensorflow."
        )
    import tensorflow as tf

    path = pathlib.Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already; choose the next version's folder, such as {path.parent / '2'}.")
    path.parent.mkdir(parents=True, exist_ok=True)

    def pixels(pixels):
        return {"descriptor": model(pixels, training=False)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("pixels", pixels, [tf.TensorSpec(model.input_shape, tf.float32, name="pixels")])
    folder = tempfile.mkdtemp(prefix=".export-", dir=path.parent)
    try:
        archive.write_out(folder, verbose=False)
        os.chmod(folder, 0o755)
        os.rename(folder, path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
