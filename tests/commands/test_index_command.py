import json
import re
import subprocess
import sys
import tarfile

import keras
import numpy as np
import pytest
from command_lines import ALL_SIX, NAMES, only_line
from PIL import Image
from servers import web_server

import rw_keras
from rw_keras.commands import models
from rw_keras.retrieval import Index, store
from rw_keras.retrieval.writer import Writer

# Ctrl-C while the third photo is in the network, and while the descriptors are written.
INTERRUPTED = {
    "describing": """
from rw_keras.description import runner
real, runs = runner.describing, []
def interrupted(model, regions):
    def run(pixels):
        runs.append(pixels)
        if len(runs) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(model, regions)(pixels)
    return run
runner.describing = interrupted
""",
    "saving": """
from rw_keras.retrieval.writer import Writer
def interrupted(self):
    signal.raise_signal(signal.SIGINT)
Writer.commit = interrupted
""",
}


class TestIndex:
    @pytest.mark.slow
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

    @pytest.mark.cloud
    def test_an_archive_that_comes_as_a_stream(self, command, model_file, photo_folder, tmp_path, monkeypatch):
        pytest.importorskip("aiohttp", reason='object storage: pip install "rw_keras[cloud]"')
        (tmp_path / "served").mkdir()
        with tarfile.open(tmp_path / "served" / "photos.tar", "w") as archive:
            for name in NAMES:
                archive.add(photo_folder / name, name)
        with web_server(tmp_path / "served") as (url, _):
            arguments = ("index", f"{url}/photos.tar", "-o", tmp_path / "out", "--model", model_file, "-q")
            assert command(*arguments) == 0
            assert sorted(Index.load(tmp_path / "out").names) == NAMES
            assert command(*arguments, "--prune") == 0
            assert len(Index.load(tmp_path / "out")) == len(NAMES)

    def test_max_side(self, command, model, model_file, photo_folder, tmp_path):
        assert command("index", "--max_side=40", "--model", model_file, photo_folder, "-q", "--output", tmp_path / "out") == 0
        written = Index.load(tmp_path / "out")
        assert written.recipe["max_side"] == 40
        expected = rw_keras.describe(model, [photo_folder / name for name in NAMES], max_side=40)
        np.testing.assert_allclose(written.descriptors, expected, atol=1e-6)

    def test_json(self, command, capsys, model_file, photo_folder, tmp_path):
        assert command("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "--json") == 0
        captured = capsys.readouterr()
        counts = {"photos": 6, "described": 6, "changed": 0, "kept": 0, "removed": 0, "excluded": 0}
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
            "--whiten_on=global",
            "--scales=1,0.5",
        ],
    )
    def test_a_saved_model_has_its_own_parts(self, command, capsys, model_file, photo_folder, tmp_path, flag):
        assert command("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, flag) == 2
        only_line(capsys, f"{flag.partition('=')[0]} does not go with --model")

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--fragments=place"], "--fragments goes with --cluster"),
            (["--keep_fragments"], "--keep_fragments goes with --cluster"),
            (["--actor_processors=2"], "--actor_processors goes with --cluster"),
            (["--cluster=local", "--strict"], "--strict does not go with --cluster"),
        ],
    )
    def test_flags_of_a_cluster(self, command, capsys, model_file, photo_folder, tmp_path, flags, words):
        assert command("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, *flags) == 2
        only_line(capsys, words)
        assert not (tmp_path / "out").exists()

    def test_a_cluster_is_looked_for_before_photos_are(self, command, capsys, tmp_path):
        pytest.importorskip("ray", reason='runs on Ray: pip install "rw_keras[ray]"')
        assert command("index", tmp_path / "none", "-o", tmp_path / "out", "--cluster", "127.0.0.1:1") == 1
        assert "There is no Ray cluster at 127.0.0.1:1" in capsys.readouterr().err

    @pytest.mark.cluster
    def test_on_a_cluster(self, command, capsys, model_file, photo_folder, tmp_path):
        pytest.importorskip("ray", reason='runs Ray: pip install "rw_keras[ray]"')
        flags = ("--model", model_file, "--runtime", "tensorflow", "--cluster", "local", "--actor_processors", "1", "--quiet")
        assert command("index", photo_folder, "-o", tmp_path / "out", *flags) == 0
        captured = capsys.readouterr()
        assert re.fullmatch(ALL_SIX.format(re.escape(str(tmp_path / "out")), 0), captured.out)
        assert Index.load(tmp_path / "out").names == NAMES
        assert command("search", tmp_path / "out", photo_folder / NAMES[0], "--model", model_file) == 0
        assert NAMES[0] in capsys.readouterr().out

    @pytest.mark.slow
    def test_another_network_levels_weights_and_whitening(self, command, capsys, photo_folder, tmp_path):
        """The search builds the model again from the index's recipe and the same files."""
        network = rw_keras.backbones.alexnet(weights=None)
        parts = {w.path: keras.ops.convert_to_numpy(w) for w in network.weights}
        np.savez(tmp_path / "weights.npz", **parts)
        files = ("--weights", tmp_path / "weights.npz", "--whitening", tmp_path / "whitening.npz")
        plain = ("--runtime", "tensorflow")  # the others would be built and measured
        model = rw_keras.build_descriptor("alexnet", weights=tmp_path / "weights.npz", levels=2, whitening=None)
        with pytest.warns(UserWarning, match="next to no variance"):
            rw_keras.fit_whitening(model, photo_folder, progress=False)
        rw_keras.save_whitening(model, tmp_path / "whitening.npz")
        assert (
            command(
                "index",
                photo_folder,
                "-o",
                tmp_path / "out",
                "--preset",
                "paper",
                "--backbone",
                "alexnet",
                "--levels",
                "2",
                *files,
                *plain,
            )
            == 0
        )
        capsys.readouterr()
        assert command("search", tmp_path / "out", photo_folder / "b.png", *files, *plain, "--json") == 0
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
        # Seven photos leave most axes without variance, where a whitening without shrinkage enlarges rounding a thousand times.
        parts = {"levels": 2, "whiten_on": "global", "shrinkage": 0.5, "whitening": None}
        model = rw_keras.build_descriptor("alexnet", weights=tmp_path / "weights.npz", **parts)
        rw_keras.fit_whitening(model, photo_folder, progress=False)
        rw_keras.save_whitening(model, tmp_path / "whitening.npz")
        files = (*weights, "--whitening", tmp_path / "whitening.npz")
        made = (
            "--preset",
            "paper",
            "--backbone",
            "alexnet",
            "--levels",
            "2",
            "--whiten_on",
            "global",
            "--shrinkage",
            "0.5",
            "--scales",
            "1,0.7071,0.5",
            *files,
        )
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


class TestIndexAgain:
    """An update takes its settings from the index."""

    @pytest.fixture
    def made(self, command, model_file, photo_folder, tmp_path):
        """The arguments that update an index of the six photos, which was made with other settings than the default ones."""
        arguments = ["index", photo_folder, "-o", tmp_path / "out", "-q"]
        assert command(*arguments, "--model", model_file, "--max_side", 40, "--dtype", "float16", "--runtime", "tensorflow") == 0
        return arguments

    @pytest.mark.slow
    def test_without_a_flag(self, command, capsys, made, photo_folder, draw, tmp_path):
        Image.fromarray(draw(78)).save(photo_folder / "new.png")
        capsys.readouterr()
        assert command(*made) == 0
        assert "1 described, 6 kept" in capsys.readouterr().out
        index = Index.load(tmp_path / "out")
        assert (index.recipe["max_side"], str(index.descriptors.dtype)) == (40, "float16")
        assert index.described_with[-1]["runtime"] == "tensorflow"
        assert command("search", tmp_path / "out", photo_folder / "new.png", "--k", 1, "--json") == 0  # nor does a search
        assert json.loads(capsys.readouterr().out)[0]["name"] == "new.png"

    @pytest.mark.parametrize(
        ("flags_", "words"),
        [
            (["--max_side", 41], "max_side 40, and you asked for --max_side 41"),
            (["--dtype", "int8"], "dtype float16, and you asked for --dtype int8"),
            (["--levels", 2], "levels 3, and you asked for --levels 2"),
            (["--whiten_on", "global"], "whiten_on regions, and you asked for --whiten_on global"),
            (["--scales", "1,0.5"], "scales none, and you asked for --scales 1,0.5"),
            (["--precision", "fast"], "precision exact, and you asked for --precision fast"),
        ],
        ids=str,
    )
    def test_a_flag_that_contradicts_it(self, command, capsys, made, monkeypatch, flags_, words):
        monkeypatch.setattr(models, "load_keras_quietly", None)  # no model is built
        capsys.readouterr()
        assert command(*made, *flags_) == 1
        only_line(capsys, words, "--force")

    @pytest.mark.slow
    def test_force_makes_it_again(self, command, made, tmp_path):
        assert command(*made, "--force", "--max_side", 41) == 0
        index = Index.load(tmp_path / "out")
        assert (index.recipe["max_side"], str(index.descriptors.dtype), len(index)) == (41, "float16", 6)

    @pytest.mark.slow
    def test_most_photos_gone(self, command, capsys, made, photo_folder, monkeypatch, tmp_path):
        for name in NAMES[:4]:
            (photo_folder / name).unlink()
        with monkeypatch.context() as patch:
            patch.setattr(models, "load_keras_quietly", None)
            capsys.readouterr()
            assert command(*made) == 1
            only_line(capsys, "4 of the 6 photos", "--prune")
        assert command(*made, "--prune") == 0
        assert len(Index.load(tmp_path / "out")) == 2

    @pytest.mark.slow
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

    @pytest.mark.slow
    def test_metadata(self, command, capsys, made, photo_folder, tmp_path):
        (tmp_path / "photos.csv").write_text("name,city,year\na.png,Oxford,1900\nb.png,Paris,2005\n")
        assert command(*made, "--metadata", tmp_path / "photos.csv") == 0
        capsys.readouterr()
        for words, names in ((["city=Oxford"], ["a.png"]), (["year>1900"], ["b.png"]), (["more/"], ["more/a.png", "more/e.png"])):
            within = [argument for word in words for argument in ("--within", word)]
            assert command("search", tmp_path / "out", photo_folder / "d.png", "--json", *within) == 0
            assert sorted(hit["name"] for hit in json.loads(capsys.readouterr().out)) == names
        assert command(*made, "--metadata", tmp_path / "none.csv") == 1

    @pytest.mark.slow
    def test_second_run_is_an_update(self, command, capsys, model_file, photo_folder, tmp_path, draw):
        arguments = ("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "-q")
        assert command(*arguments) == 0
        (photo_folder / "a.png").unlink()
        Image.fromarray(draw(77, 90, 70)).save(photo_folder / "b.png")
        Image.fromarray(draw(78)).save(photo_folder / "new.png")
        capsys.readouterr()
        assert command(*arguments) == 0
        assert "2 described (1 of them had changed), 4 kept, 1 removed, 0 left out; 6 photos" in capsys.readouterr().out

    @pytest.mark.slow
    def test_photos_that_were_deleted_are_taken_back(self, command, capsys, index, model_file, photo_folder):
        folder = index[0]
        about = store.about(folder)
        with Writer(folder, about["recipe"], about["dimensions"]) as writer:
            writer.exclude(["a.png", "c.jpg", "more/e.png"])
            writer.commit()
        arguments = ("index", photo_folder, "-o", folder, "--model", model_file, "-q")
        for taken_back, left in ((), 3), (["c.jpg"], 2), (["--force"], 2), (["a.png", "more/e.png"], 0):
            named = [argument for name in taken_back for argument in (["--take_back", name] if name != "--force" else [name])]
            assert command(*arguments, *named, "--json") == 0
            found = json.loads(capsys.readouterr().out)
            assert (found["excluded"], found["photos"], len(store.excluded(folder))) == (left, 6 - left, left)
        assert sorted(Index.load(folder).names) == NAMES
        with Writer(folder, about["recipe"], about["dimensions"]) as writer:
            writer.exclude(NAMES[:3])
            writer.commit()
        assert command(*arguments) == 0
        assert "3 kept, 3 excluded, 0 left out; 3 photos in the index" in capsys.readouterr().out
        assert command(*arguments, "--take_back", "d.png") == 1
        assert "does not exclude 'd.png'; it excludes 3 names, such as 'a.png'" in capsys.readouterr().err
        assert command(*arguments, "--take_back", "all") == 0
        assert "3 described, 3 kept, 0 left out; 6 photos in the index" in capsys.readouterr().out
        assert command(*arguments[:3], f"{folder}-new", *arguments[4:], "--take_back", "a.png") == 1
        assert "excludes 0 names" in capsys.readouterr().err

    def test_another_size_is_refused_and_leaves_the_index(self, command, capsys, index, model_file, photo_folder):
        assert command("index", photo_folder, "-o", index[0], "--max_side=40", "--model", model_file, "-q") == 1
        assert "has max_side 1024, and you asked for --max_side 40" in capsys.readouterr().err
        kept = Index.load(index[0])
        assert kept.recipe == index[1].recipe
        assert kept.descriptors.tobytes() == index[1].descriptors.tobytes()


class TestProcess:
    """In processes of their own."""

    @pytest.mark.slow
    def test_none_of_tensorflows_start_up_lines(self, photo_folder, model_file, tmp_path):
        """In a process of its own: TensorFlow writes its lines when it is loaded."""
        run = self.process("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "--quiet")
        assert (run.returncode, run.stderr) == (0, "")
        assert re.fullmatch(ALL_SIX.format(re.escape(str(tmp_path / "out")), 0), run.stdout)

    def process(self, *arguments, before=""):
        """Runs `rw-keras` in a process of its own, after the Python statements `before`."""
        script = f"import sys\n{before}\nfrom rw_keras.commands.main import main\nmain()"
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
        arguments = ("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "--runtime", "tensorflow", "-q")
        self.interrupted(where, *arguments)
        assert len(Index.load(tmp_path / "out")) == 0
        assert command(*arguments) == 0
        assert sorted(Index.load(tmp_path / "out").names) == sorted(NAMES)
