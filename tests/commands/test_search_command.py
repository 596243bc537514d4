import json
import os
import re

import numpy as np
import pytest
from command_lines import only_line
from PIL import Image

from rw_keras.commands import search
from rw_keras.retrieval import Index


class TestSearch:
    def table(self, hits):
        return "rank  cosine  photo\n" + "".join(f"{rank:4d}  {score:6.3f}  {name}\n" for rank, (name, score) in enumerate(hits, 1))

    @pytest.mark.slow
    def test_table(self, command, capsys, index, model, model_file, photo_folder):
        assert command("search", index[0], photo_folder / "d.png", "--model", model_file) == 0
        captured = capsys.readouterr()
        assert captured.out == self.table(index[1].search_photo(model, photo_folder / "d.png"))
        assert captured.out.splitlines()[1] == "   1   1.000  d.png"
        assert captured.err == ""

    @pytest.mark.slow
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
        index = Index.from_folder(model, photo_folder, max_side=32, runtime="tensorflow", progress=False)
        index.save(tmp_path / "small")
        assert command("search", tmp_path / "small", photo_folder / "d.png", "--model", model_file) == 0
        assert capsys.readouterr().out.splitlines()[1] == "   1   1.000  d.png"

    @pytest.mark.slow
    def test_another_model_is_refused(self, command, capsys, index, other_model_file, photo_folder):
        assert command("search", index[0], photo_folder / "a.png", "--model", other_model_file) == 1
        only_line(capsys, "weights", "Use the model that made it")

    def test_a_model_that_cannot_be_built_from_the_index(self, command, capsys, index, photo_folder):
        # Any other engine may have kept what it needs.
        assert command("search", index[0], photo_folder / "a.png", "--runtime", "tensorflow") == 1
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

    def test_a_page_that_cannot_be_is_refused_first(self, command, capsys, index, model_file, photo_folder, monkeypatch):
        monkeypatch.setattr(search, "describer_of", lambda *arguments: pytest.fail("a model was built"))
        for flag, words in (
            ("--html=a\0b", "No file can"),
            ("--sheet=a\0b.png", "No file can"),
            ("--sheet=a.nope", "call it a.png"),
        ):
            assert command("search", index[0], photo_folder / "a.png", "--model", model_file, flag) == 1
            only_line(capsys, words)

    @pytest.mark.parametrize(
        ("field", "value"), [("whitening", "abc"), ("min_side", "x"), ("max_side", "big"), ("backbone", 7), ("method", None)]
    )
    def test_a_recipe_of_an_index_that_is_none(self, command, capsys, index, model_file, photo_folder, tmp_path, field, value):
        Index(["a"], np.ones((1, 12)), recipe={**index[1].recipe, field: value}).save(tmp_path / "odd")
        assert command("search", tmp_path / "odd", photo_folder / "a.png", "--model", model_file) == 1
        only_line(capsys, f"odd is damaged: its recipe has {field} {value!r}, which has to be")

    def test_levels_of_an_index_have_a_bound(self, command, capsys, index, photo_folder, tmp_path):
        Index(["a"], np.ones((1, 12)), recipe={**index[1].recipe, "backbone": "vgg16", "levels": 99999999}).save(tmp_path / "odd")
        assert command("search", tmp_path / "odd", photo_folder / "a.png", "--weights", tmp_path / "none.h5") == 1
        only_line(capsys, "from 1 to 16 as `levels`, but got 99999999")

    @pytest.mark.parametrize("flag", ["--html", "--sheet"])
    def test_a_page_makes_no_folder(self, command, capsys, index, photo_folder, tmp_path, flag, monkeypatch):
        """And nothing is computed before that is said."""
        monkeypatch.setattr(Index, "load", lambda *arguments, **options: pytest.fail("it went on"))
        assert command("search", index[0], photo_folder / "a.png", flag, tmp_path / "new" / "deep" / "out.png") == 1
        only_line(capsys, f"There is no folder {tmp_path / 'new' / 'deep'} to write {flag}", "make it first")
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

    @pytest.mark.slow
    def test_flags_of_one_run_are_gone_in_the_next(self, command, capsys, index, model_file, photo_folder):
        arguments = ["search", index[0], photo_folder / "a.png", "--model", model_file]
        assert command(*arguments, "--k", 2, "--json") == 0
        capsys.readouterr()
        assert command(*arguments) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + 6


class TestText:
    @pytest.fixture
    def of_words(self, tmp_path, monkeypatch):
        """An index of three vectors that share a space with texts, whose encoder takes the length of a text for its direction."""
        from rw_keras import backbones

        made = {"backbone": "hub:tiny", "layer": "joint", "method": "joint", "whitening": None}
        Index(["x.jpg", "y.jpg", "between.jpg"], np.array([[1, 0], [0, 1], [1, 1]]) + 0.0, recipe=made).save(tmp_path / "words")

        def of_preset(name):
            assert name == "tiny"
            return lambda text: np.array([1.0, 0.0] if len(text) == 7 else [0.0, 1.0])

        monkeypatch.setattr(backbones.TextPart, "of_preset", of_preset)
        return tmp_path / "words"

    def test_words_find_photos(self, command, capsys, of_words):
        assert command("search", of_words, "--text", "red box", "--k", 2, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert [(hit["name"], round(hit["cosine"], 3)) for hit in found] == [("x.jpg", 1.0), ("between.jpg", 0.707)]
        assert command("search", of_words, "--text", "a blue box", "--k", 1) == 0
        assert capsys.readouterr().out == "rank  cosine  photo\n   1   1.000  y.jpg\n"

    def test_flags_of_a_photo_are_refused(self, command, capsys, of_words):
        assert command("search", of_words, "--text", "red box", "--box", "0,0,9,9") == 2
        only_line(capsys, "--box goes with a photo, not with --text")
        assert command("search", of_words, "photo.jpg", "--text", "red box") == 2
        only_line(capsys, "--text takes an index alone, NAME, but got 2 arguments")

    def test_an_index_that_shares_no_space_with_texts(self, command, capsys, index):
        assert command("search", index[0], "--text", "red box") == 1
        only_line(capsys, "share no space with texts", "CLIP or SigLIP")
