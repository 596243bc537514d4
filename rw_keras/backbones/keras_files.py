"""Reading Keras' files, whoever wrote them: nothing in them runs, and nothing but the file itself is read."""

import os
import zipfile
from typing import BinaryIO

import h5py
import keras

from rw_keras import layers  # noqa: F401  registers them
from rw_keras.backbones.keras_alone import keras_alone

# A dataset that says it is larger than this, and so many times larger than what is stored, would fill the memory with nothing.
_BOMB_BYTES = 1 << 30
_BOMB_FACTOR = 1000


@keras_alone()
def load(path: str | os.PathLike[str], *, compile: bool = True) -> keras.Model:
    """A model that `model.save` wrote as a `.keras` file, in Keras' safe mode.

    Only such files are read: a whole model in the older `.h5` format is not.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no `.keras` file, or its weights lie outside it.
        Whatever Keras raises for a file that it cannot load.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no model file {path}; write one with model.save.")
    if not os.fspath(path).endswith(".keras") or not zipfile.is_zipfile(path):
        raise ValueError(f'{path} is no .keras file, or is cut short; write one with model.save("NAME.keras").')
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith((".h5", ".hdf5")):
                    with archive.open(member) as file:
                        check_hdf5(file, f"{member} in {path}")
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is cut short or damaged: {error}; write it again with model.save.") from error
    return keras.saving.load_model(path, compile=compile, safe_mode=True)


def reason(error: Exception) -> str:
    """What Keras says is wrong with a file, without the configuration that it shows before."""
    text = str(error).strip()
    if "module keras_hub." in text and "cannot be imported" in text:
        return 'it holds layers of KerasHub, which is not installed; install it with: pip install "rw_keras[hub]"'
    return text.rpartition("Exception encountered: ")[2].strip().partition("\n")[0]


def check_hdf5(file: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> None:
    """Refuses an HDF5 file whose values would be read from another file of this machine, or would fill the memory.

    HDF5 has links to other files, datasets whose values lie in other files of any kind, and views of other files' datasets.
    Weights have no use for any of them.

    Args:
        file: its path, or the file open for reading.
        name: what to call it. Default: its path.

    Raises:
        ValueError: when there is one of these in it; it names the place.
        OSError: when it is no HDF5 file.
    """

    with h5py.File(file, "r") as opened:
        # A callback that raises within `visititems_links` loses its exception, so both return what they find.
        fault = opened.visititems_links(_fault_of_link) or opened.visititems(_fault_of_item)
    if fault:
        raise ValueError(f"{name or file} is refused: {fault}; save the weights again with Keras.")


def _fault_of_link(place, link):
    if isinstance(link, h5py.ExternalLink):
        return f"{place!r} in it is a link to the file {link.filename!r}"
    if isinstance(link, h5py.SoftLink):
        return f"{place!r} in it is a link to {link.path!r}"
    return None


def _fault_of_item(place, item):
    if not isinstance(item, h5py.Dataset):
        return None
    if item.external:
        return f"{place!r} in it is read from the file {item.external[0][0]!r}"
    if item.is_virtual:
        return f"{place!r} in it is read from the file {item.virtual_sources()[0].file_name!r}"
    if item.nbytes > max(_BOMB_BYTES, _BOMB_FACTOR * item.id.get_storage_size()):
        return f"{place!r} in it claims to be {item.nbytes} bytes, of which next to none are stored"
    return None
