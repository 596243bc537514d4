import json

import pytest
from command_lines import only_line
from PIL import Image

import rw_keras


@pytest.mark.parametrize(("name", "words"), [("a\0b.png", "No file can have the name"), ("a.txt", "call it a.png")])
def test_the_demos_picture_is_looked_at_first(command, capsys, tmp_path, monkeypatch, name, words):
    from rw_keras.model import build

    monkeypatch.setattr(build, "build_descriptor", lambda *arguments, **keywords: pytest.fail("a model was built"))
    for picture in (name, tmp_path / "none" / "a.png"):
        assert command("demo", "-o", picture) == 1
        only_line(capsys, words if picture == name else "There is no folder")


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
