"""What is loaded when, and that the names others rely on are there."""

import inspect
import subprocess
import sys
import zipfile

import pytest

import rw_keras

# The public names and their arguments, as documented: a call written against them goes on working.
CONTRACT = {
    "load_model": "(path)",
    "layers.SpatialWeight": "(alpha=2.0, beta=2.0)",
    "layers.IDFChannelWeight": "(epsilon=1.0)",
    "layers.RegionalSumPooling": "(levels=3, include_whole_map=True)",
    "layers.L2Norm": "(axis=-1)",
    "layers.PCAWhiten": "(components=None, shrinkage=0.0, mask_zero=True)",
    "build_descriptor": "(backbone='vgg16', *, weights='imagenet', layer=None, method='rw', levels=3, components=None, "
    "whitening='auto', whiten_on='regions', name=None)",
    "multi_scale": "(model, scales=(1, 0.7071067811865476, 0.5))",
    "layers.ImageScale": "(factor, min_side=1)",
    "describe": "(model, images, box=None, max_side='auto')",
    "fit_whitening": "(model, images, max_side='auto')",
    "save_whitening": "(model, path)",
    "export_saved_model": "(model, path, *, max_side=1024)",
    "retrieval.Index": "(names, descriptors)",
    "retrieval.Index.search": "(self, query, k, expand=None)",
    "retrieval.Index.rank": "(self, query)",
    "retrieval.Index.save": "(self, path)",
    "retrieval.Index.load": "(path)",
    "layers.RegionalMaxPooling": "(levels=3, include_whole_map=True)",
    "layers.GeMPooling": "(p=3.0)",
    "layers.CenterPrior": "(sigma=1 / 3)",
    "layers.CroWChannelWeight": "()",
    "layers.PowerNorm": "(exponent=0.5)",
    "methods.rw": "(features, levels=3, alpha=2.0, beta=2.0, epsilon=1.0, *, spatial_weight=True, channel_weight='counts', "
    "regions=True, pooling='sum')",
    "methods.root_rw": "(features, levels=3, alpha=2.0, beta=2.0, epsilon=1.0)",
    "methods.rmac": "(features, levels=3, include_whole_map=True)",
    "methods.crow": "(features)",
    "methods.spoc": "(features, sigma=1 / 3)",
    "methods.mac": "(features)",
    "methods.gem": "(features, p=3.0)",
    "layers.LocalResponseNormalization": "(depth_radius=2, bias=1.0, alpha=2e-05, beta=0.75)",
    "backbones.alexnet": "(layer='conv5', weights='imagenet', pooling='ceil')",
    "backbones.register": "(name, licence='not known')",
    "retrieval.Index.from_folder": "(model, folder)",
    "retrieval.average_precision": "(ranking, positives, junk)",
    "retrieval.mean_average_precision": "(rankings, ground_truth)",
    "retrieval.expand_query": "(query, index, qe)",
    "explain.region_shares": "(model, photo, box=None, max_side='auto')",
    "explain.region_agreement": "(model, photo, other, box=None, other_box=None, max_side='auto')",
    "explain.region_matches": "(model, query, photo, box=None, photo_box=None, max_side='auto')",
    "plot.weights": "(model, photo, box=None, max_side='auto', top=3, figure=None)",
    "plot.agreement": "(model, photo, other, box=None, other_box=None, max_side='auto', top=5, figure=None)",
    "plot.matches": "(model, query, photo, box=None, photo_box=None, max_side='auto', top=5, figure=None)",
    "retrieval.augment": "(index, neighbours=10, alpha=1.0)",
    "retrieval.Diffusion": "(index, neighbours=50, alpha=0.99, gamma=3.0, query_neighbours=10)",
    "retrieval.Diffusion.search": "(self, query, k=10)",
    "retrieval.Diffusion.rank": "(self, query)",
    "datasets.photos.load": "()",
    "datasets.read_folder": "(folder, dataset='oxford5k', drop_incomplete=False)",
}

_WITHOUT_KERAS = """
import sys
import numpy as np
import rw_keras
assert "retrieval" in dir(rw_keras) and rw_keras.__version__
rw_keras.retrieval
rw_keras.photos.reading
from rw_keras.retrieval import Diffusion, Index, augment, average_precision, expand_query, mean_average_precision
index = Index.load(sys.argv[1])
ranking = index.rank(np.array([1.0, 0.1]), expand=2)
assert ranking == ["a", "b"], ranking
assert average_precision(ranking, {"a"}) == 1
assert augment(index).rank(np.array([1.0, 0.1]), expand=2, alpha=3) == ranking
index.save(sys.argv[1])
loaded = {"tensorflow", "keras", "jax", "torch", "scipy"} & set(sys.modules)
assert not loaded, loaded
"""


def test_retrieval_loads_no_tensorflow(tmp_path):
    rw_keras.retrieval.Index(["a", "b"], [[1.0, 0.0], [0.0, 1.0]]).save(tmp_path / "index")
    run = subprocess.run([sys.executable, "-c", _WITHOUT_KERAS, tmp_path / "index"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


_LOADED_BY_KERAS = """
import sys
import keras
import rw_keras
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
print(type(model).__name__)
assert "rw_keras.model.build" not in sys.modules  # the layers alone
"""

_LOADED_LATER = """
import sys
import rw_keras
assert "keras" not in sys.modules
import keras
import rw_keras.layers
print(type(keras.saving.load_model(sys.argv[1], safe_mode=True)).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [_LOADED_BY_KERAS, _LOADED_LATER], ids=["keras first", "rw_keras first"])
def test_keras_finds_the_layers(script, tiny_model, tmp_path):
    tiny_model().save(tmp_path / "model.keras")
    run = subprocess.run([sys.executable, "-c", script, tmp_path / "model.keras"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "DescriptorModel\n"), run.stderr


@pytest.mark.slow
def test_a_model_of_an_earlier_version(tiny_model, tmp_path):
    """Its descriptor model lay among the layers then."""
    model = rw_keras.multi_scale(tiny_model(whiten_on="global"))
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as now, zipfile.ZipFile(tmp_path / "earlier.keras", "w") as earlier:
        for name in now.namelist():
            content = now.read(name)
            if name == "config.json":
                assert content.count(b'"rw_keras.model.descriptor_model"') == content.count(b'"rw_keras>DescriptorModel"') == 2
                content = content.replace(b"rw_keras.model.descriptor_model", b"rw_keras.layers.descriptor_model")
            earlier.writestr(name, content)
    script = _LOADED_BY_KERAS.replace("print(", "print(model.recipe.weights, ")
    run = subprocess.run([sys.executable, "-c", script, tmp_path / "earlier.keras"], capture_output=True, text=True)
    assert run.stdout == f"{model.recipe.weights} DescriptorModel\n", run.stderr


def test_what_is_listed_is_public():
    assert {name for name in dir(rw_keras) if not name.startswith("__")} == set(rw_keras.__all__)


@pytest.mark.parametrize("name", CONTRACT)
def test_public_names_and_arguments(name):
    value = rw_keras
    for part in name.split("."):
        value = getattr(value, part)
    actual = inspect.signature(value).parameters
    promised = inspect.signature(eval(f"lambda {CONTRACT[name][1:-1]}: None")).parameters
    assert {argument: parameter.kind for argument, parameter in promised.items()}.items() <= {
        argument: parameter.kind for argument, parameter in actual.items()
    }.items()
    positional = [argument for argument, parameter in promised.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert list(actual)[: len(positional)] == positional
    for argument, parameter in promised.items():
        if parameter.default is not parameter.empty:
            assert actual[argument].default == parameter.default
    for argument, parameter in actual.items():
        if argument not in promised and parameter.kind is not parameter.VAR_KEYWORD:
            assert parameter.default is not parameter.empty, f"{argument} is required, and not in the contract"


@pytest.mark.parametrize("module", [rw_keras, rw_keras.layers, rw_keras.retrieval, rw_keras.datasets, rw_keras.backbones])
def test_all_names_exist(module):
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_unknown_name():
    with pytest.raises(AttributeError, match="'rw_keras' has no attribute 'nothing'"):
        rw_keras.nothing  # noqa: B018
