"""Runtimes on the command line, and in the index."""

import json
import subprocess
import sys

import numpy as np
import pytest
from runtimes.rounding import assert_same, tolerance

import rw_keras
from rw_keras import runtimes as engines
from rw_keras.commands import main
from rw_keras.commands.parser import UsageError
from rw_keras.description.cache import describe_cached
from rw_keras.description.extract import extract
from rw_keras.retrieval import Index, store


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    """A saved model, for `--model`."""
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    model.save(path)
    return str(path)


def exact(engine):
    return [{"runtime": engine, "precision": "exact", "computes_in": "float32"}]


class TestExtract:
    def test_the_index_notes_the_engine(self, engine, model, photo_folder, tmp_path):
        extract(model, photo_folder, tmp_path / "own", progress=False, runtime=engine)
        extract(model, photo_folder, tmp_path / "plain", runtime="tensorflow", progress=False)
        own, plain = Index.load(tmp_path / "own"), Index.load(tmp_path / "plain")
        assert own.described_with == exact(engine) and plain.described_with == exact("tensorflow")
        assert own.recipe == plain.recipe and own.names == plain.names
        assert_same(own.descriptors, plain.descriptors, model, 96, 96)
        own.save(tmp_path / "copy")
        assert Index.load(tmp_path / "copy").described_with == exact(engine)

    def test_another_engine_brings_it_up_to_date(self, engine, model, photo_folder, tmp_path):
        extract(model, photo_folder, tmp_path / "index", runtime="tensorflow", progress=False)
        (photo_folder / "b.png").unlink()
        (photo_folder / "a.png").rename(photo_folder / "z.png")
        done = extract(model, photo_folder, tmp_path / "index", progress=False, runtime=engine)
        assert (done.described, done.kept, done.removed) == (1, 4, 2)
        assert store.about(tmp_path / "index")["described_with"] == exact("tensorflow") + exact(engine)

    @pytest.mark.slow
    def test_regions_of_any_engine(self, engine, model, photo_folder, tmp_path):
        for name in (engine, "tensorflow"):
            extract(model, photo_folder, tmp_path / name, progress=False, runtime=name, regions="float16")
        own, plain = Index.load(tmp_path / engine), Index.load(tmp_path / "tensorflow")
        for position in range(len(plain)):
            np.testing.assert_allclose(own.regions[position].vectors, plain.regions[position].vectors, atol=0.002)
            np.testing.assert_array_equal(own.regions[position].boxes, plain.regions[position].boxes)
        describer = engines.load(model, engine)
        hits = [
            index.search_photo(asking, photo_folder / "a.png", rerank=6)
            for index, asking in ((own, describer), (plain, describer), (plain, model))
        ]
        for found in hits[1:]:
            assert [name for name, _ in found] == [name for name, _ in hits[0]]
            np.testing.assert_allclose([score for _, score in found], [score for _, score in hits[0]], atol=0.001)
        assert (tmp_path / engine / store.DATABASE).is_file()

    def test_a_new_index_takes_the_fastest(self, model, photo_folder, tmp_path):
        fastest = engines.choose(model, size=engines.usual_size(1024, 8)).runtime
        extract(model, photo_folder, tmp_path / "index", progress=False)
        assert [own["runtime"] for own in Index.load(tmp_path / "index").described_with] == [fastest]
        assert [own["runtime"] for own in Index.from_folder(model, photo_folder, progress=False).described_with] == [fastest]

    def test_devices_are_keras_alone(self, engine, model, photo_folder, tmp_path):
        with pytest.raises(ValueError, match=r"devices=\['CPU:0'\] goes with runtime=\"keras\""):
            extract(model, photo_folder, tmp_path / "index", runtime=engine, devices=["CPU:0"])

    def test_a_cached_descriptor_is_its_engines(self, engine, model, photo_folder, tmp_path):
        photos = [photo_folder / "a.png"]
        for describing in (model, engines.load(model, engine)):
            describe_cached(describing, photos, cache=tmp_path / "kept", progress=False)
        assert len(list((tmp_path / "kept").iterdir())) == 2


class TestQuery:
    def test_any_engine_asks_any_index(self, engine, model, photo_folder):
        index = Index.from_folder(model, photo_folder, runtime="tensorflow", progress=False)
        describe = engines.load(model, engine)
        hits = index.search_photo(describe, photo_folder / "c.jpg")
        expected = index.search_photo(model, photo_folder / "c.jpg")
        assert [name for name, _ in hits] == [name for name, _ in expected]
        np.testing.assert_allclose([score for _, score in hits], [score for _, score in expected], atol=tolerance(model, 96, 96))
        assert Index.from_folder(describe, photo_folder, progress=False).described_with == exact(engine)

    @pytest.mark.slow
    def test_another_model_is_refused(self, engine, model, tiny_model, photo_folder):
        index = Index.from_folder(model, photo_folder, runtime="tensorflow", progress=False)
        with pytest.raises(ValueError, match=r"made by another model: .*its weights"):
            index.search_photo(engines.load(tiny_model(seed=1), engine), photo_folder / "c.jpg")

    def test_a_precision_that_promises_nothing_known(self, model, photo_folder):
        index = Index.from_folder(model, photo_folder, runtime="tensorflow", progress=False)
        index.described_with = [{"runtime": "other", "precision": "int4"}]
        with pytest.warns(UserWarning, match="described by 'other' at the precision 'int4', and only exact, fast, int8 are known"):
            index.search_photo(model, photo_folder / "c.jpg")

    def test_describe(self, engine, model, draw):
        photos = [draw(1), draw(2, 40, 30)]
        described = rw_keras.describe(model, photos, runtime=engine)
        assert_same(described, rw_keras.describe(model, photos), model, 64, 64)


_SEARCH_WITHOUT_KERAS = """
import sys
from rw_keras.commands import main
assert main.run(["search", *sys.argv[1:]]) == 0
loaded = {"tensorflow", "keras", "jax", "torch"} & set(sys.modules)
assert not loaded, loaded
"""


class TestCommands:
    @pytest.mark.slow
    def test_index_and_search(self, engine, model_file, photo_folder, tmp_path, capsys):
        out, photo = str(tmp_path / "index"), str(photo_folder / "d.png")
        assert main.run(["index", str(photo_folder), "-o", out, "--model", model_file, "--runtime", engine, "-q"]) == 0
        assert store.about(tmp_path / "index")["described_with"] == exact(engine)
        capsys.readouterr()
        found = []
        for name in ("tensorflow", engine, "auto"):
            assert main.run(["search", out, photo, "--model", model_file, "--runtime", name, "--json"]) == 0
            found.append(json.loads(capsys.readouterr().out))
        assert [hit["name"] for hit in found[0]] == [hit["name"] for hit in found[1]] == [hit["name"] for hit in found[2]]
        # The model's file is needed no more, and Keras neither.
        command = [sys.executable, "-c", _SEARCH_WITHOUT_KERAS, out, photo, "--runtime", engine, "--json"]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout) == found[1]

    @pytest.mark.slow
    def test_runtimes(self, model_file, capsys):
        assert main.run(["runtimes", "--model", model_file, "--max_side", "64"]) == 0
        printed = capsys.readouterr().out
        assert "tensorflow  float32" in printed and "taken" in printed and "one photo of 64 x 48" in printed
        assert main.run(["runtimes", "--model", model_file, "--max_side", "64", "--json"]) == 0
        table = json.loads(capsys.readouterr().out)
        assert {"tensorflow", "openvino", "ncnn"} == {row["runtime"] for row in table["rows"]}

    @pytest.mark.slow
    def test_earlier_names(self, engine, model_file, photo_folder, tmp_path, capsys):
        out, photo = str(tmp_path / "index"), str(photo_folder / "d.png")
        assert main.run(["index", str(photo_folder), "-o", out, "--model", model_file, "--engine", engine, "-q"]) == 0
        assert store.about(tmp_path / "index")["described_with"] == exact(engine)
        assert "--engine is called --runtime now.\n" in capsys.readouterr().err
        assert main.run(["search", out, photo, "--engine=numpy", "--network-engine", engine, "--json"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out)[0]["name"] == "d.png"
        assert captured.err == "--engine is called --searcher now.\n--network_engine is called --runtime now.\n"
        assert main.run(["index", str(photo_folder), "-o", out, "--model", model_file, "--anew", "-q"]) == 0
        assert "6 described" in capsys.readouterr().out

    def test_a_wrong_command_line(self, photo_folder, tmp_path):
        with pytest.raises(UsageError, match="runtimes takes no arguments, but got 'photos'"):
            main.run(["runtimes", "photos"])
        with pytest.raises(UsageError, match=r"value should be one of <keras\|tensorflow\|jax\|torch\|openvino\|ncnn\|auto>"):
            main.run(["index", str(photo_folder), "-o", str(tmp_path / "index"), "--runtime", "caffe"])
