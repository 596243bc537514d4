import json
import logging
import os
import pathlib
import re
import shlex
import subprocess
import sys

import keras
import numpy as np
import pytest
from absl import flags
from PIL import Image

import rw_keras
from rw_keras.commands import cli
from rw_keras.retrieval import Index

NEW_MODEL = ["model", "backbone", "weights", "levels", "shrinkage", "whitening", "whiten", "scales"]
EXTRACTION = ["dtype", "batch_size", "workers", "checksum", "force", "prune", "metadata", "strict", "engine", "precision"]
SHOWING = ["within", "min_score", "engine", "network_engine", "precision", "html", "sheet", "photos"]
# The summary of six photos described: the index, how many were left out.
ALL_SIX = r"{}: 6 described, {} left out; 6 photos in the index \(12 dimensions, \d+ s\)\n"
NAMES = ["a.png", "b.png", "c.jpg", "d.png", "more/a.png", "more/e.png"]


@pytest.fixture(autouse=True, scope="module")
def cache_folder(tmp_path_factory):
    """What is measured of engines here stays here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


# Ctrl-C while the third photo is in the network, and while the descriptors are written.
INTERRUPTED = {
    "describing": """
from rw_keras.description import runner
real, runs = runner.batch_function, []
def interrupted(model):
    def run(pixels):
        runs.append(pixels)
        if len(runs) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(model)(pixels)
    return run
runner.batch_function = interrupted
""",
    "saving": """
from rw_keras.retrieval.writer import Writer
def interrupted(self):
    signal.raise_signal(signal.SIGINT)
Writer.commit = interrupted
""",
}


@pytest.fixture(scope="module")
def model_file(tiny_model, tmp_path_factory):
    """A saved model, for `--model`."""
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    tiny_model().save(path)
    return str(path)


@pytest.fixture
def other_model_file(tiny_model, tmp_path):
    tiny_model(seed=1).save(tmp_path / "other.keras")
    return str(tmp_path / "other.keras")


@pytest.fixture
def index(model, photo_folder, tmp_path):
    """The folder of an index of the six photos, and the index."""
    made = Index.from_folder(model, photo_folder, progress=False)
    made.save(tmp_path / "index")
    return str(tmp_path / "index"), made


@pytest.fixture
def command(monkeypatch):
    """A function (arguments) -> the exit code of `rw-keras` with them."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rw-keras", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code

    return run


def only_line(capsys, *words):
    """Checks that nothing went to standard output, and one line that holds the words to standard error."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("rw-keras: ")
    for word in words:
        assert str(word) in line


class TestIndex:
    def test_writes_the_index(self, command, capsys, model, model_file, photo_folder, tmp_path):
        assert command("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "--quiet") == 0
        captured = capsys.readouterr()
        assert re.fullmatch(ALL_SIX.format(re.escape(str(tmp_path / "out")), 0), captured.out)
        assert captured.err == ""
        written = Index.load(tmp_path / "out")
        assert written.names == NAMES
        assert written.recipe["max_side"] == 1024
        expected = rw_keras.describe(model, [photo_folder / name for name in NAMES])
        np.testing.assert_allclose(written.descriptors, expected, atol=1e-6)  # by whichever engine is the fastest

    def test_max_side(self, command, model, model_file, photo_folder, tmp_path):
        assert command("index", "--max_side=40", "--model", model_file, photo_folder, "-q", "--output", tmp_path / "out") == 0
        written = Index.load(tmp_path / "out")
        assert written.recipe["max_side"] == 40
        expected = rw_keras.describe(model, [photo_folder / name for name in NAMES], max_side=40)
        np.testing.assert_allclose(written.descriptors, expected, atol=1e-6)

    def test_json(self, command, capsys, model_file, photo_folder, tmp_path):
        assert command("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "--json") == 0
        captured = capsys.readouterr()
        counts = {"photos": 6, "described": 6, "changed": 0, "kept": 0, "removed": 0}
        assert json.loads(captured.out) == {
            "index": str(tmp_path / "out"),
            **counts,
            "left_out": [],
            "unread": [],
            "undecodable": [],
        }

    @pytest.mark.parametrize("as_json", [False, True])
    def test_lists_what_was_left_out(self, command, capsys, recwarn, model_file, photo_folder, tmp_path, as_json):
        (photo_folder / "text.jpg").write_text("no photo")
        (photo_folder / "more" / "empty.png").touch()
        arguments = ["index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "--quiet"]
        assert command(*arguments, *(["--json"] if as_json else [])) == 3
        out = capsys.readouterr().out
        if as_json:
            left_out = {one["name"]: one["reason"] for one in json.loads(out)["left_out"]}
            assert list(left_out) == ["more/empty.png", "text.jpg"]
            assert "0 bytes" in left_out["more/empty.png"]
        else:
            first, second, *_ = out.splitlines()
            assert re.fullmatch(ALL_SIX.format(re.escape(str(tmp_path / "out")), 2), first + "\n")
            assert second == "2 left out:"
            assert re.search(r"\n  .*more/empty\.png.*0 bytes.*\n  .*text\.jpg", out)
        assert Index.load(tmp_path / "out").names == NAMES
        assert not [warning for warning in recwarn if "left out" in str(warning.message)]

    def test_replaces_an_index(self, command, index, model_file, photo_folder):
        (photo_folder / "a.png").unlink()
        assert command("index", photo_folder, "-o", index[0], "--model", model_file, "--quiet") == 0
        assert Index.load(index[0]).names == NAMES[1:]

    def test_needs_an_output(self, command, capsys, photo_folder):
        assert command("index", photo_folder) == 2
        only_line(capsys, "-o NAME")

    @pytest.mark.parametrize("folders", [[], ["one", "two"]])
    def test_takes_one_folder(self, command, capsys, folders):
        assert command("index", *folders, "-o", "out") == 2
        only_line(capsys, f"{len(folders)} arguments")

    def test_no_folder(self, command, capsys, tmp_path):
        assert command("index", tmp_path / "none", "-o", tmp_path / "out") == 1
        only_line(capsys, tmp_path / "none")
        assert not (tmp_path / "out").exists()

    def test_no_photo(self, command, capsys, tmp_path):
        assert command("index", tmp_path, "-o", tmp_path / "out") == 1
        only_line(capsys, "no photo", tmp_path)

    def test_no_readable_photo(self, command, capsys, model_file, tmp_path):
        (tmp_path / "text.jpg").write_text("no photo")
        assert command("index", tmp_path, "-o", tmp_path / "out", "--model", model_file, "--quiet") == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "rw-keras: None of the 1 photos" in captured.err
        assert not (tmp_path / "out").exists()

    def test_output_that_is_no_index(self, command, capsys, photo_folder):
        before = sorted(photo_folder.rglob("*"))
        assert command("index", photo_folder, "-o", photo_folder) == 1
        only_line(capsys, photo_folder, "is not an index")
        assert sorted(photo_folder.rglob("*")) == before

    @pytest.mark.parametrize(
        "flag",
        [
            "--shrinkage=0.2",
            "--backbone=alexnet",
            "--levels=2",
            "--weights=weights.npz",
            "--whitening=whitening.npz",
            "--whiten=global",
            "--scales=1,0.5",
        ],
    )
    def test_a_saved_model_has_its_own_parts(self, command, capsys, model_file, photo_folder, tmp_path, flag):
        assert command("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, flag) == 2
        only_line(capsys, f"{flag.partition('=')[0]} does not go with --model")

    @pytest.mark.slow
    def test_another_network_levels_weights_and_whitening(self, command, capsys, photo_folder, tmp_path):
        """The search builds the model again from the index's recipe and the same files."""
        network = rw_keras.backbones.alexnet(weights=None)
        parts = {w.path: keras.ops.convert_to_numpy(w) for w in network.weights}
        np.savez(tmp_path / "weights.npz", **parts)
        files = ("--weights", tmp_path / "weights.npz", "--whitening", tmp_path / "whitening.npz")
        plain = ("--engine", "tensorflow")  # the others would be built and measured
        model = rw_keras.build_descriptor("alexnet", weights=tmp_path / "weights.npz", levels=2, whitening=None)
        with pytest.warns(UserWarning, match="next to no variance"):
            rw_keras.fit_whitening(model, photo_folder, progress=False)
        rw_keras.save_whitening(model, tmp_path / "whitening.npz")
        assert command("index", photo_folder, "-o", tmp_path / "out", "--backbone", "alexnet", "--levels", "2", *files, *plain) == 0
        capsys.readouterr()
        assert command("search", tmp_path / "out", photo_folder / "b.png", *files, "--json") == 0
        hits = json.loads(capsys.readouterr().out)
        assert hits[0]["name"] == "b.png"
        assert hits[0]["cosine"] == pytest.approx(1, abs=1e-5)
        assert Index.load(tmp_path / "out").recipe["levels"] == 2

    @pytest.mark.slow
    def test_levels_scales_and_what_is_whitened(self, command, capsys, photo_folder, tmp_path):
        """The search builds the model again from the index's recipe."""
        network = rw_keras.backbones.alexnet(weights=None)
        np.savez(tmp_path / "weights.npz", **{w.path: keras.ops.convert_to_numpy(w) for w in network.weights})
        weights = ("--weights", tmp_path / "weights.npz")
        model = rw_keras.build_descriptor("alexnet", weights=tmp_path / "weights.npz", levels=2, whiten="global", whitening=None)
        with pytest.warns(UserWarning, match="next to no variance"):
            rw_keras.fit_whitening(model, photo_folder, progress=False)
        rw_keras.save_whitening(model, tmp_path / "whitening.npz")
        files = (*weights, "--whitening", tmp_path / "whitening.npz")
        made = ("--backbone", "alexnet", "--levels", "2", "--whiten", "global", "--scales", "1,0.7071,0.5", *files)
        assert command("index", photo_folder, "-o", tmp_path / "out", *made) == 0
        index = Index.load(tmp_path / "out")
        assert (index.recipe["levels"], index.recipe["whiten"], index.recipe["scales"]) == (2, "global", [1.0, 0.7071, 0.5])
        expected = rw_keras.describe(rw_keras.multi_scale(model, (1, 0.7071, 0.5)), [photo_folder / name for name in NAMES])
        np.testing.assert_allclose(index.descriptors, expected, atol=1e-5)
        capsys.readouterr()
        assert command("search", tmp_path / "out", photo_folder / "b.png", *files, "--json") == 0
        hits = json.loads(capsys.readouterr().out)
        assert hits[0]["name"] == "b.png"
        assert hits[0]["cosine"] == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("scales", ["1,half", "", "1,"])
    def test_scales_that_are_no_numbers(self, command, capsys, photo_folder, tmp_path, scales):
        assert command("index", photo_folder, "-o", tmp_path / "out", f"--scales={scales}") == 2
        only_line(capsys, f"--scales={scales}", "takes numbers with commas between, such as 1,0.7071,0.5")

    def test_a_model_that_describes_nothing(self, command, capsys, photo_folder, tmp_path):
        photos = keras.Input((None, None, 3))
        keras.Model(photos, keras.layers.GlobalAveragePooling2D()(photos), name="average").save(tmp_path / "average.keras")
        assert command("index", photo_folder, "-o", tmp_path / "out", "--model", tmp_path / "average.keras") == 1
        only_line(capsys, "'average'", "none that rw_keras.build_descriptor made")

    def test_no_model_file(self, command, capsys, photo_folder, tmp_path):
        assert command("index", photo_folder, "-o", tmp_path / "out", "--model", tmp_path / "none.keras") == 1
        only_line(capsys, tmp_path / "none.keras")

    def test_a_model_file_that_is_none(self, command, capsys, photo_folder, tmp_path):
        (tmp_path / "text.keras").write_text("no model")
        assert command("index", photo_folder, "-o", tmp_path / "out", "--model", tmp_path / "text.keras") == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("rw-keras: ")
        assert "text.keras" in captured.err


class TestSearch:
    def table(self, hits):
        return "rank  cosine  photo\n" + "".join(f"{rank:4d}  {score:6.3f}  {name}\n" for rank, (name, score) in enumerate(hits, 1))

    def test_table(self, command, capsys, index, model, model_file, photo_folder):
        assert command("search", index[0], photo_folder / "d.png", "--model", model_file) == 0
        captured = capsys.readouterr()
        assert captured.out == self.table(index[1].search_photo(model, photo_folder / "d.png"))
        assert captured.out.splitlines()[1] == "   1   1.000  d.png"
        assert captured.err == ""

    def test_names_stay_on_one_line(self, command, capsys, model_file, photo_folder, tmp_path):
        photos = tmp_path / "odd"
        photos.mkdir()
        for name in (b"two\nlines.png", b"not\xffutf8.png"):
            (photos / os.fsdecode(name)).write_bytes((photo_folder / "a.png").read_bytes())
        assert command("index", photos, "-o", tmp_path / "odd.index", "--model", model_file, "--quiet") == 0
        capsys.readouterr()
        assert command("search", tmp_path / "odd.index", photos / "two\nlines.png", "--model", model_file) == 0
        assert {line[14:] for line in capsys.readouterr().out.splitlines()[1:]} == {"two\\nlines.png", "not\\xffutf8.png"}

    def test_json(self, command, capsys, index, model, model_file, photo_folder):
        assert command("search", "--json", index[0], photo_folder / "a.png", "--model", model_file, "--k", 3) == 0
        expected = index[1].search_photo(model, photo_folder / "a.png", k=3)
        printed = json.loads(capsys.readouterr().out)
        assert printed == [{"rank": rank, "name": name, "cosine": cosine} for rank, (name, cosine) in enumerate(expected, 1)]
        assert len(printed) == 3

    @pytest.mark.parametrize("box", ["8,4,60,40", "8.2, 4, 60, 40", "-0.5,0,64,48"])
    def test_box(self, command, capsys, index, model, model_file, photo_folder, box):
        arguments = ["search", index[0], photo_folder / "a.png", f"--box={box}", "--model", model_file]
        assert command(*arguments) == 0
        corners = tuple(float(corner) for corner in box.split(","))
        assert capsys.readouterr().out == self.table(index[1].search_photo(model, photo_folder / "a.png", corners))

    def test_expand(self, command, capsys, index, model, model_file, photo_folder):
        assert command("search", index[0], photo_folder / "a.png", "--expand", 4, "--model", model_file) == 0
        out = capsys.readouterr().out
        assert out == self.table(index[1].search_photo(model, photo_folder / "a.png", expand=4))
        assert out != self.table(index[1].search_photo(model, photo_folder / "a.png"))

    def test_alpha(self, command, capsys, index, model, model_file, photo_folder):
        arguments = ["search", index[0], photo_folder / "a.png", "--expand", 4, "--model", model_file, "--json"]
        assert command(*arguments, "--alpha", 3) == 0
        hits = [(hit["name"], hit["cosine"]) for hit in json.loads(capsys.readouterr().out)]
        assert hits == index[1].search_photo(model, photo_folder / "a.png", expand=4, alpha=3)
        assert hits != index[1].search_photo(model, photo_folder / "a.png", expand=4)

    @pytest.mark.parametrize("expand", [[], ["--expand", 1]], ids=str)
    @pytest.mark.parametrize("alpha", ["3", "0"])
    def test_alpha_without_expansion_is_refused(self, command, capsys, index, photo_folder, expand, alpha):
        assert command("search", index[0], photo_folder / "a.png", "--alpha", alpha, *expand) == 2
        only_line(capsys, f"--alpha {alpha} weighs what --expand averages", "a number above 1")

    def test_the_size_is_the_indexs(self, command, capsys, model, model_file, photo_folder, tmp_path):
        index = Index.from_folder(model, photo_folder, max_side=32, progress=False)
        index.save(tmp_path / "small")
        assert command("search", tmp_path / "small", photo_folder / "d.png", "--model", model_file) == 0
        assert capsys.readouterr().out.splitlines()[1] == "   1   1.000  d.png"

    def test_another_model_is_refused(self, command, capsys, index, other_model_file, photo_folder):
        assert command("search", index[0], photo_folder / "a.png", "--model", other_model_file) == 1
        only_line(capsys, "weights", "Use the model that made it")

    def test_a_model_that_cannot_be_built_from_the_index(self, command, capsys, index, photo_folder):
        # Any other engine may have kept what it needs.
        assert command("search", index[0], photo_folder / "a.png", "--network_engine", "tensorflow") == 1
        only_line(capsys, "'tiny ", "--model")

    def test_an_index_that_does_not_say_what_made_it(self, command, capsys, photo_folder, tmp_path):
        Index(["a"], [[1.0]]).save(tmp_path / "plain")
        assert command("search", tmp_path / "plain", photo_folder / "a.png") == 1
        only_line(capsys, tmp_path / "plain", "Index.search")

    def test_no_index(self, command, capsys, photo_folder, tmp_path):
        assert command("search", tmp_path / "none", photo_folder / "a.png") == 1
        only_line(capsys, tmp_path / "none", "rw-keras index")

    def test_a_damaged_index(self, command, capsys, index, photo_folder, tmp_path):
        next((tmp_path / "index").glob("rows-*")).unlink()
        assert command("search", index[0], photo_folder / "a.png") == 1
        only_line(capsys, index[0], "is missing", "make the index again")

    def test_no_photo(self, command, capsys, index, tmp_path):
        assert command("search", index[0], tmp_path / "none.jpg") == 1
        only_line(capsys, tmp_path / "none.jpg")

    def test_an_unreadable_photo(self, command, capsys, index, tmp_path):
        (tmp_path / "text.jpg").write_text("no photo")
        assert command("search", index[0], tmp_path / "text.jpg") == 1
        only_line(capsys, tmp_path / "text.jpg")

    def test_a_box_outside_the_photo(self, command, capsys, index, photo_folder):
        assert command("search", index[0], photo_folder / "a.png", "--box", "0,0,99,9") == 1
        only_line(capsys, "(0.0, 0.0, 99.0, 9.0)", "64 x 48", photo_folder / "a.png")

    @pytest.mark.parametrize("box", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "", "1 2 3 4"])
    def test_a_box_that_is_none(self, command, capsys, index, photo_folder, box):
        assert command("search", index[0], photo_folder / "a.png", f"--box={box}") == 2
        only_line(capsys, "--box takes four numbers x1,y1,x2,y2", repr(box))

    @pytest.mark.parametrize("arguments", [[], ["index"], ["index", "photo", "photo"]])
    def test_takes_an_index_and_a_photo(self, command, capsys, arguments):
        assert command("search", *arguments) == 2
        only_line(capsys, "NAME PHOTO", f"{len(arguments)} arguments")


class TestDuplicates:
    @pytest.fixture
    def twins(self, tmp_path):
        """An index of 400 photos that are all the same: 79,800 pairs."""
        Index([f"photo {number}" for number in range(400)], np.ones((400, 2))).save(tmp_path / "twins")
        return str(tmp_path / "twins")

    @pytest.mark.parametrize("flag", [[], ["--groups"]])
    def test_where_there_are_none_it_says_so(self, command, capsys, index, flag):
        assert command("duplicates", index[0], "--threshold=1", *flag) == 0
        captured = capsys.readouterr()
        assert captured.out == ""  # which is for the duplicates alone
        assert captured.err == f"{index[0]}: no two photos have a cosine of 1 or more\n"
        assert command("duplicates", index[0], "--threshold=1", "--json", *flag) == 0
        assert capsys.readouterr() == ("[]\n", "")

    def test_a_reader_that_has_seen_enough(self, twins):
        program = f"{shlex.quote(sys.executable)} -c 'from rw_keras.commands.cli import main; main()'"
        line = f"{program} duplicates {shlex.quote(twins)} | head -n 1"
        run = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True)
        assert run.stdout == " 1.000  photo 0  photo 1\n"
        assert (run.returncode, run.stderr) == (141, "")

    @pytest.mark.parametrize("arguments", [["--help"], ["duplicates", "--help"]])
    def test_no_reader_at_all(self, arguments):
        """What is printed waits in a buffer, and fails only as it is written."""
        reading, writing = os.pipe()
        os.close(reading)
        script = "from rw_keras.commands.cli import main; main()"
        run = subprocess.run([sys.executable, "-c", script, *arguments], stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        assert (run.returncode, run.stderr) == (141, "")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
    def test_a_full_disk(self):
        with open("/dev/full", "w") as full:
            script = "from rw_keras.commands.cli import main; main()"
            run = subprocess.run([sys.executable, "-c", script, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
        assert (run.returncode, run.stderr) == (1, "rw-keras: [Errno 28] No space left on device\n")


class TestExport:
    def test_a_name_that_no_file_can_have(self, command, capsys, model_file):
        assert command("export", "a\0b", "--model", model_file) == 1
        only_line(capsys, r"No file can have the name 'a\x00b'")

    @pytest.mark.slow
    def test_writes_what_the_function_writes(self, command, capsys, model, model_file, draw, tmp_path):
        path = tmp_path / "serving" / "1"
        assert command("export", path, "--model", model_file, "--max_side", 64, "--batching") == 0
        assert capsys.readouterr().out == f"{path}: rw_tiny, 12 dimensions\n"
        import tensorflow as tf

        pixels = tf.saved_model.load(path).signatures["pixels"]
        served = pixels(pixels=tf.constant(draw(1)[None], tf.float32))["descriptor"][0]
        np.testing.assert_allclose(served, rw_keras.describe(model, draw(1)), atol=1e-6)
        card = json.loads((path / "assets.extra" / "model_card.json").read_text())
        assert (card["max_side"], card["dtype"]) == (64, "float32")
        assert (path / "assets.extra" / "batching_params.pbtxt").is_file()

    def test_an_existing_path_is_refused(self, command, capsys, model_file, tmp_path):
        assert command("export", tmp_path, "--model", model_file) == 1
        only_line(capsys, f"{tmp_path} exists already")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("flag", "form"), [("--int8", "saved_model"), ("--int8", "onnx"), ("--batching", "litert"), ("--max_side=64", "openvino")]
    )
    def test_flags_of_another_format_are_refused(self, command, capsys, model_file, tmp_path, flag, form):
        assert command("export", tmp_path / "1", "--model", model_file, "--format", form, flag) == 2
        only_line(capsys, flag.partition("=")[0], f"--format {form}")
        assert not (tmp_path / "1").exists()

    @pytest.mark.parametrize("paths", [[], ["1", "2"]])
    def test_takes_one_path(self, command, capsys, paths):
        assert command("export", *paths) == 2
        only_line(capsys, f"{len(paths)} arguments")


class TestIndexAgain:
    """An update takes its settings from the index."""

    @pytest.fixture
    def made(self, command, model_file, photo_folder, tmp_path):
        """The arguments that update an index of the six photos, which was made with other settings than the default ones."""
        arguments = ["index", photo_folder, "-o", tmp_path / "out", "-q"]
        assert command(*arguments, "--model", model_file, "--max_side", 40, "--dtype", "float16", "--engine", "tensorflow") == 0
        return arguments

    def test_without_a_flag(self, command, capsys, made, photo_folder, draw, tmp_path):
        Image.fromarray(draw(78)).save(photo_folder / "new.png")
        capsys.readouterr()
        assert command(*made) == 0
        assert "1 described, 6 kept" in capsys.readouterr().out
        index = Index.load(tmp_path / "out")
        assert (index.recipe["max_side"], str(index.descriptors.dtype)) == (40, "float16")
        assert index.described_with[-1]["engine"] == "tensorflow"
        assert command("search", tmp_path / "out", photo_folder / "new.png", "--k", 1, "--json") == 0  # nor does a search
        assert json.loads(capsys.readouterr().out)[0]["name"] == "new.png"

    @pytest.mark.parametrize(
        ("flags_", "words"),
        [
            (["--max_side", 41], "max_side 40, and you asked for --max_side 41"),
            (["--dtype", "int8"], "dtype float16, and you asked for --dtype int8"),
            (["--levels", 2], "levels 3, and you asked for --levels 2"),
            (["--whiten", "global"], "whiten regions, and you asked for --whiten global"),
            (["--scales", "1,0.5"], "scales None, and you asked for --scales 1,0.5"),
            (["--precision", "fast"], "precision exact, and you asked for --precision fast"),
        ],
        ids=str,
    )
    def test_a_flag_that_contradicts_it(self, command, capsys, made, monkeypatch, flags_, words):
        monkeypatch.setattr(cli, "_load_keras_quietly", None)  # no model is built
        capsys.readouterr()
        assert command(*made, *flags_) == 1
        only_line(capsys, words, "--force")

    def test_force_makes_it_again(self, command, made, tmp_path):
        assert command(*made, "--force", "--max_side", 41) == 0
        index = Index.load(tmp_path / "out")
        assert (index.recipe["max_side"], str(index.descriptors.dtype), len(index)) == (41, "float16", 6)
        assert command(*made, "--anew") == 0  # the flag's earlier name

    def test_most_photos_gone(self, command, capsys, made, photo_folder, monkeypatch, tmp_path):
        for name in NAMES[:4]:
            (photo_folder / name).unlink()
        with monkeypatch.context() as patch:
            patch.setattr(cli, "_load_keras_quietly", None)
            capsys.readouterr()
            assert command(*made) == 1
            only_line(capsys, "4 of the 6 photos", "--prune")
        assert command(*made, "--prune") == 0
        assert len(Index.load(tmp_path / "out")) == 2

    def test_unread_photos(self, command, capsys, model_file, photo_folder, tmp_path):
        listed = tmp_path / "list.txt"
        listed.write_text("".join(f"{photo_folder / name}\n" for name in NAMES))
        arguments = ["index", listed, "-o", tmp_path / "out", "--model", model_file, "-q"]
        assert command(*arguments) == 0
        (photo_folder / "a.png").unlink()
        capsys.readouterr()
        assert command(*arguments) == 3
        out = capsys.readouterr().out
        assert "6 kept, 0 left out; 6 photos in the index; 1 could not be read now, what the index holds of them was kept" in out
        assert re.search(r"\n1 could not be read now; .*:\n  .*a\.png: There is no file", out)

    def test_metadata(self, command, capsys, made, photo_folder, tmp_path):
        (tmp_path / "photos.csv").write_text("name,city,year\na.png,Oxford,1900\nb.png,Paris,2005\n")
        assert command(*made, "--metadata", tmp_path / "photos.csv") == 0
        capsys.readouterr()
        for words, names in ((["city=Oxford"], ["a.png"]), (["year>1900"], ["b.png"]), (["more/"], ["more/a.png", "more/e.png"])):
            within = [argument for word in words for argument in ("--within", word)]
            assert command("search", tmp_path / "out", photo_folder / "d.png", "--json", *within) == 0
            assert sorted(hit["name"] for hit in json.loads(capsys.readouterr().out)) == names
        assert command(*made, "--metadata", tmp_path / "none.csv") == 1


class TestKeeping:
    """check, merge and export-vectors; what they do is in tests/retrieval."""

    def test_check(self, command, capsys, index):
        assert command("check", index[0]) == 0
        assert capsys.readouterr().out == f"{index[0]}: no damage found\n"
        file = next(pathlib.Path(index[0]).glob("rows-*"))
        content = bytearray(file.read_bytes())
        content[5] ^= 1
        file.write_bytes(content)
        assert command("check", index[0]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines == [f"{index[0]}: {file.name}: rows 0 to 5 are not as they were written", *(f"  {name}" for name in NAMES)]
        assert command("check", index[0], "--json") == 1
        assert json.loads(capsys.readouterr().out)[0]["photos"] == NAMES
        assert command("check") == 2

    def test_merge(self, command, capsys, index, tmp_path):
        made = Index(["other"], np.ones((1, 12)), recipe=index[1].recipe)
        made.save(tmp_path / "other")
        capsys.readouterr()
        assert command("merge", index[0], tmp_path / "other", "-o", tmp_path / "all") == 0
        assert capsys.readouterr().out == f"{tmp_path / 'all'}: 7 photos of 2 indices\n"
        assert Index.load(tmp_path / "all").names == [*NAMES, "other"]
        for arguments in (["merge", index[0], "-o", tmp_path / "all"], ["merge", index[0], index[0]]):
            assert command(*arguments) == 2

    def test_export_vectors(self, command, capsys, index, tmp_path):
        assert command("export-vectors", index[0], tmp_path / "vectors.npy") == 0
        assert capsys.readouterr().out == f"{tmp_path / 'vectors.npy'}: 6 descriptors of {index[0]}\n"
        np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), index[1].descriptors)
        assert command("export-vectors", index[0]) == 2


class TestCommandLine:
    def test_no_command(self, command, capsys):
        assert command() == 2
        assert "rw-keras index PHOTOS -o NAME" in capsys.readouterr().out

    @pytest.mark.parametrize("flag", ["--help", "-h", "help"])
    def test_help(self, command, capsys, flag):
        assert command(flag) == 0
        out = capsys.readouterr().out
        for words in ("index PHOTOS -o NAME", "search NAME PHOTO", "export PATH", "rw-keras demo", "Exit codes: 0 done"):
            assert words in out

    @pytest.mark.parametrize(
        ("name", "defined"),
        [
            ("index", ["output", "json", "quiet", "max_side", *EXTRACTION, *NEW_MODEL, "help"]),
            ("export", ["format", "dtype", "int8", "batching", "max_side", *NEW_MODEL, "help"]),
            ("search", ["box", "k", "expand", "alpha", "model", "weights", "whitening", "json", *SHOWING, "help"]),
            ("engines", ["max_side", "precision", "anew", "json", *NEW_MODEL, "help"]),
            ("duplicates", ["threshold", "groups", "json", "help"]),
            ("check", ["json", "help"]),
            ("merge", ["output", "help"]),
            ("export-vectors", ["help"]),
            ("demo", ["output", "json", "help"]),
        ],
    )
    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_help_of_a_command_names_its_flags(self, command, capsys, name, defined, flag):
        assert command(name, flag) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith(f"rw-keras {name}")
        assert sorted(re.findall(r"^ +(?:-\w, )?--(\w+)", captured.out, re.MULTILINE)) == sorted(defined)
        assert captured.err == ""

    def test_help_states_the_defaults(self, command, capsys):
        assert command("index", "--help") == 0
        assert re.search(r"-o, --output .*\n", out := capsys.readouterr().out)
        assert re.search(r"--max_side .*Default: 1024\.", out)

    def test_version(self, command, capsys):
        assert command("--version") == 0
        assert capsys.readouterr().out == f"{rw_keras.__version__}\n"

    def test_unknown_command(self, command, capsys):
        assert command("find", "photo.jpg") == 2
        only_line(capsys, "'find'", "index, search, duplicates, check, merge, export-vectors, engines, export, demo")

    @pytest.mark.parametrize(
        "arguments",
        [
            ["index", "photos", "-o", "out", "--maxside", "512"],
            ["index", "photos", "-o", "out", "--max_side", "0"],
            ["index", "photos", "-o", "out", "--max_side", "big"],
            ["index", "photos", "-o", "out", "--shrinkage", "1.5"],
            ["index", "photos", "-o"],
            ["search", "index", "photo", "--k", "0"],
            ["search", "index", "photo", "--expand", "0"],
            ["search", "index", "photo", "--alpha", "-1", "--expand", "5"],
            ["search", "index", "photo", "--alpha", "high", "--expand", "5"],
            ["search", "index", "photo", "--verbose"],
            ["export", "1", "--format", "caffe"],
            ["export", "1", "--dtype", "int4"],
            ["demo", "photos"],
        ],
        ids=" ".join,
    )
    def test_a_wrong_command_line(self, command, capsys, arguments):
        assert command(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("rw-keras: ")
        flag = next((argument for argument in arguments if argument.startswith("--")), arguments[-1])
        assert flag.lstrip("-") in captured.err

    @pytest.mark.parametrize("levels", [0, 17, 99999999])
    def test_levels_have_a_bound(self, command, capsys, levels):
        for arguments in (["index", "photos", "-o", "out"], ["export", "out"], ["engines"]):
            assert command(*arguments, f"--levels={levels}") == 2
            only_line(capsys, f"flag --levels={levels}", "[1, 16]")

    def test_levels_of_an_index_have_a_bound(self, command, capsys, index, photo_folder, tmp_path):
        Index(["a"], np.ones((1, 12)), recipe={**index[1].recipe, "backbone": "vgg16", "levels": 99999999}).save(tmp_path / "odd")
        assert command("search", tmp_path / "odd", photo_folder / "a.png", "--weights", tmp_path / "none.h5") == 1
        only_line(capsys, "from 1 to 16 as `levels`, but got 99999999")

    @pytest.mark.parametrize(("name", "words"), [("a\0b.png", "No file can have the name"), ("a.txt", "call it a.png")])
    def test_the_demos_picture_is_looked_at_first(self, command, capsys, tmp_path, monkeypatch, name, words):
        from rw_keras.commands import demo

        monkeypatch.setattr(demo, "build_descriptor", lambda *arguments, **keywords: pytest.fail("a model was built"))
        for picture in (name, tmp_path / "none" / "a.png"):
            assert command("demo", "-o", picture) == 1
            only_line(capsys, words if picture == name else "There is no folder")

    @pytest.mark.parametrize(
        ("field", "value"), [("whitening", "abc"), ("min_side", "x"), ("max_side", "big"), ("backbone", 7), ("method", None)]
    )
    def test_a_recipe_of_an_index_that_is_none(self, command, capsys, index, model_file, photo_folder, tmp_path, field, value):
        Index(["a"], np.ones((1, 12)), recipe={**index[1].recipe, field: value}).save(tmp_path / "odd")
        assert command("search", tmp_path / "odd", photo_folder / "a.png", "--model", model_file) == 1
        only_line(capsys, f"odd is damaged: its recipe has {field} {value!r}; make it again")

    def test_a_page_that_cannot_be_is_refused_first(self, command, capsys, index, model_file, photo_folder, monkeypatch):
        monkeypatch.setattr(cli, "_describer_of", lambda *arguments: pytest.fail("a model was built"))
        for flag, words in (
            ("--html=a\0b", "No file can"),
            ("--sheet=a\0b.png", "No file can"),
            ("--sheet=a.nope", "call it a.png"),
        ):
            assert command("search", index[0], photo_folder / "a.png", "--model", model_file, flag) == 1
            only_line(capsys, words)

    def test_what_a_terminal_would_act_upon_is_escaped(self, command, capsys):
        assert command("export", "out", "--model", "a\x1b[31m\0") == 1
        only_line(capsys, r"a\x1b[31m\x00")

    def test_a_whitening_file_is_looked_for_first(self, command, capsys, monkeypatch, tmp_path):
        from rw_keras import backbones

        monkeypatch.setattr(backbones, "network", lambda *arguments: pytest.fail("a network was built"))
        assert command("export", tmp_path / "1", "--whitening", tmp_path / "none.npz") == 1
        only_line(capsys, "There is no whitening file", "none.npz")

    def test_errors_name_flags(self):
        names = {"levels", "max_side", "scales", "weights"}
        assert cli.in_flags("it has max_side=5 and a.levels=3, pass `scales`, weights='x'", names) == (
            "it has --max_side=5 and a.levels=3, pass --scales, --weights='x'"
        )

    def test_run_raises_what_main_prints(self):
        with pytest.raises(cli.UsageError, match="'find'"):
            cli.run(["find"])
        with pytest.raises(flags.Error):
            cli.run(["index", "--maxside", "3"])

    @pytest.mark.parametrize("flag", ["--html", "--sheet"])
    def test_a_page_makes_no_folder(self, command, capsys, index, photo_folder, tmp_path, flag, monkeypatch):
        """And nothing is computed before that is said."""
        monkeypatch.setattr(Index, "load", lambda *arguments, **options: pytest.fail("it went on"))
        assert command("search", index[0], photo_folder / "a.png", flag, tmp_path / "new" / "deep" / "out.png") == 1
        only_line(capsys, f"there is no folder {tmp_path / 'new' / 'deep'} to write {flag}", "make it first")
        assert not (tmp_path / "new").exists()
        assert command("search", index[0], photo_folder / "a.png", flag, tmp_path) == 1
        only_line(capsys, f"{flag} {tmp_path} is a folder")

    def test_a_name_that_climbs_shows_no_photo(self, command, capsys, index, model_file, photo_folder, tmp_path, draw):
        """An index may come from anyone, and its page may go to anyone."""
        Image.fromarray(draw(1)).save(tmp_path / "secret.png")
        names = ["../secret.png", str(tmp_path / "secret.png"), "a.png"]
        found = Index(names, index[1].descriptors[:3], recipe=index[1].recipe)
        found.save(tmp_path / "climbing")
        arguments = (
            "--model",
            model_file,
            "--photos",
            photo_folder,
            "--html",
            tmp_path / "out.html",
            "--sheet",
            tmp_path / "out.png",
        )
        assert command("search", tmp_path / "climbing", photo_folder / "a.png", *arguments) == 0
        page = (tmp_path / "out.html").read_text()
        assert page.count("<img") == 1 + 1
        assert page.count("leads out of the photos’ folder") == 2
        assert "secret.png" not in "".join(re.findall('href="([^"]*)"', page))

    def test_flags_of_one_run_are_gone_in_the_next(self, command, capsys, index, model_file, photo_folder):
        arguments = ["search", index[0], photo_folder / "a.png", "--model", model_file]
        assert command(*arguments, "--k", 2, "--json") == 0
        capsys.readouterr()
        assert command(*arguments) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + 6

    @pytest.mark.slow
    def test_none_of_tensorflows_start_up_lines(self, photo_folder, model_file, tmp_path):
        """In a process of its own: TensorFlow writes its lines when it is loaded."""
        run = self.process("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "--quiet")
        assert (run.returncode, run.stderr) == (0, "")
        assert re.fullmatch(ALL_SIX.format(re.escape(str(tmp_path / "out")), 0), run.stdout)

    def process(self, *arguments, before=""):
        """Runs `rw-keras` in a process of its own, after the Python statements `before`."""
        script = f"import sys\n{before}\nfrom rw_keras.commands.cli import main\nmain()"
        return subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=300)

    def interrupted(self, moment, *arguments):
        """Runs `rw-keras`, interrupted at that moment, and checks what it says."""
        # A shell that starts tests in the background has them ignore SIGINT, and its children inherit that.
        before = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n{INTERRUPTED[moment]}"
        run = self.process(*arguments, before=before)
        assert (run.returncode, run.stdout) == (130, "")
        assert "Traceback" not in run.stderr
        assert run.stderr.endswith("rw-keras: interrupted; an index keeps what was finished, anything else was not written\n")

    @pytest.mark.slow
    @pytest.mark.parametrize("where", ["describing", "saving"])
    def test_an_interrupted_index_goes_on(self, command, capsys, model_file, photo_folder, tmp_path, where):
        arguments = ("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "--engine", "tensorflow", "-q")
        self.interrupted(where, *arguments)
        assert len(Index.load(tmp_path / "out")) == 0
        assert command(*arguments) == 0
        assert sorted(Index.load(tmp_path / "out").names) == sorted(NAMES)

    def test_second_run_is_an_update(self, command, capsys, model_file, photo_folder, tmp_path, draw):
        arguments = ("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "-q")
        assert command(*arguments) == 0
        (photo_folder / "a.png").unlink()
        Image.fromarray(draw(77, 90, 70)).save(photo_folder / "b.png")
        Image.fromarray(draw(78)).save(photo_folder / "new.png")
        capsys.readouterr()
        assert command(*arguments) == 0
        assert "2 described (1 of them had changed), 4 kept, 1 removed, 0 left out; 6 photos" in capsys.readouterr().out

    def test_another_size_is_refused_and_leaves_the_index(self, command, capsys, index, model_file, photo_folder):
        assert command("index", photo_folder, "-o", index[0], "--max_side=40", "--model", model_file, "-q") == 1
        assert "has max_side 1024, and you asked for --max_side 40" in capsys.readouterr().err
        kept = Index.load(index[0])
        assert kept.recipe == index[1].recipe
        assert kept.descriptors.tobytes() == index[1].descriptors.tobytes()


@pytest.mark.imagenet
@pytest.mark.slow
class TestDemo:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        """At this size the demo takes seconds."""
        from rw_keras.commands import demo

        monkeypatch.setattr(demo, "_MAX_SIDE", 96)

    @pytest.mark.slow
    def test_json(self, command, capsys, tmp_path):
        assert command("demo", "-o", tmp_path / "demo.png", "--json") == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["photos"], result["queries"], result["picture"]) == (10, 61, str(tmp_path / "demo.png"))
        assert list(result["measured"]) == ["rw", "rw + QE", "plain sum (baseline)"]
        for measured in result["measured"].values():
            assert 0.9 < measured["map"] <= 1
            assert 55 < measured["right"] <= 61
        with Image.open(tmp_path / "demo.png") as picture:
            assert min(picture.size) > 500

    def test_three_of_the_photos(self, command, capsys, tmp_path, monkeypatch):
        photos, queries = rw_keras.photos.embedded.load()
        few = dict(list(photos.items())[:3])
        asked = {name: query for name, query in queries.items() if set(query.positives) <= set(few)}
        monkeypatch.setattr(rw_keras.photos.embedded, "load", lambda: (few, asked))
        assert command("demo", "-o", tmp_path / "demo.png", "--json") == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["photos"], result["queries"]) == (3, len(asked))
        assert len(asked) > 10
        assert all(0.9 < measured["map"] <= 1 for measured in result["measured"].values())
        with Image.open(tmp_path / "demo.png") as picture:
            assert min(picture.size) > 500
