import json

import numpy as np
import pytest
from command_lines import only_line

from rw_keras.commands import evaluate
from rw_keras.evaluation import evaluate_index
from rw_keras.retrieval import Index

NAMES = [f"{folder}/{number}" for folder in ("cup", "key", "pin") for number in range(3)]


@pytest.fixture
def labelled(tmp_path):
    """Two indices of nine photos with region vectors: (folder, index) of each. The second is searched with re-ranking."""
    generator, made = np.random.default_rng(5), []
    for name in ("one", "other"):
        regions = generator.normal(size=(9, 2, 4))
        index = Index(NAMES, regions.sum(axis=1), regions=list(regions))
        index.search_defaults = {} if name == "one" else {"rerank": 4, "expand": 3, "alpha": 3}
        index.save(tmp_path / name)
        made.append((str(tmp_path / name), index))
    return made


def table(measured):
    return [
        f"{measure:10s}  {scores.mean:6.4f}  {scores.low:.3f} to {scores.high:.3f}"
        for measure in measured.scores
        for scores in [measured.interval(measure)]
    ]


def test_table(command, capsys, labelled):
    ((name, index), _) = labelled
    assert command("evaluate", name, "--labels", "folders") == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{name}: 9 photos, 9 queries of 3 landmarks",
        "not re-ranked, not expanded",
        "",
        "              mean  95 % interval",
        *table(evaluate_index(index, "folders")),
    ]
    assert captured.err == ""


@pytest.mark.parametrize(
    ("flags", "way", "words"),
    [
        (["--rerank=3"], {"rerank": 3}, "re-ranked 3, not expanded"),
        (["--expand=3", "--alpha=3"], {"expand": 3, "alpha": 3.0}, "not re-ranked, expanded over 3, alpha 3"),
        (["--rerank=3", "--expand=2", "--k=2"], {"rerank": 3, "expand": 2, "k": [2]}, "re-ranked 3, expanded over 2"),
        (["--expand=1"], {}, "not re-ranked, not expanded"),
    ],
)
def test_ways_to_search(command, capsys, labelled, flags, way, words):
    ((name, index), _) = labelled
    assert command("evaluate", name, "--labels=folders", *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == words
    assert lines[4:] == table(evaluate_index(index, "folders", **way))


@pytest.mark.parametrize(
    ("flags", "way"),
    [
        ([], {"rerank": 4, "expand": 3, "alpha": 3.0}),
        (["--rerank=none"], {"rerank": None, "expand": 3, "alpha": 3.0}),
        (["--expand=1"], {"rerank": 4, "expand": None, "alpha": 0.0}),
        (["--alpha=1"], {"rerank": 4, "expand": 3, "alpha": 1.0}),
    ],
)
def test_the_index_says_how_it_is_searched(command, capsys, labelled, flags, way):
    (_, (name, index)) = labelled
    assert command("evaluate", name, "--labels=folders", "--json", *flags) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in way} == way
    measured = evaluate_index(index, "folders", **way)
    expected = {measure: measured.interval(measure) for measure in measured.scores}
    assert {measure: (one["mean"], one["low"], one["high"]) for measure, one in found["measures"].items()} == {
        measure: (one.mean, one.low, one.high) for measure, one in expected.items()
    }
    assert (found["photos"], found["queries"], found["landmarks"], found["left_out"]) == (9, 9, 3, [])


def test_several_are_compared_with_the_first(command, capsys, labelled):
    ((one, first), (other, second)) = labelled
    assert command("evaluate", one, other, "--labels=folders", "--rerank=none", "--expand=1") == 0
    out = capsys.readouterr().out
    difference = evaluate_index(second, "folders", rerank=None).difference(evaluate_index(first, "folders"))
    assert out.count("mAP") == 2
    assert f"   over {one}: {difference}\n" in out
    assert command("evaluate", one, other, "--labels=folders", "--rerank=none", "--expand=1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "difference" not in found[0]["measures"]["mAP"]
    assert found[1]["measures"]["mAP"]["difference"] == {
        "mean": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "significant": False,
    }


def test_indices_of_other_photos_are_refused(command, capsys, labelled, tmp_path, monkeypatch):
    Index([*NAMES, "pin/9"], np.eye(10)).save(tmp_path / "more")
    monkeypatch.setattr(Index, "nearest_batch", lambda *arguments, **options: pytest.fail("it searched"))
    assert command("evaluate", labelled[0][0], tmp_path / "more", "--labels=folders") == 1
    only_line(capsys, "1 queries are asked of", "'pin/9' first")


def test_per_query(command, capsys, labelled):
    ((name, index), _) = labelled
    assert command("evaluate", name, "--labels=folders", "--per_query", "--queries=2", "--k=1") == 0
    lines = capsys.readouterr().out.splitlines()
    scores = evaluate_index(index, "folders").scores
    assert lines[0].endswith("9 photos, 2 queries of 2 landmarks")
    assert lines[-3].split() == ["mAP", "mP@1", "recall@1", "query"]
    assert [line.split() for line in lines[-2:]] == [
        [*(f"{scores[measure][query]:.4f}" for measure in ("mAP", "mP@1", "recall@1")), query] for query in ("cup/0", "pin/2")
    ]
    assert command("evaluate", name, "--labels=folders", "--per_query", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["per_query"]["mAP"] == scores["mAP"]


def test_one_landmark_has_no_interval(command, capsys, labelled, tmp_path):
    (tmp_path / "labels.csv").write_text("query,positives\ncup/0,cup/1\n")
    assert command("evaluate", labelled[0][0], "--labels", tmp_path / "labels.csv") == 0
    assert "(no interval: one landmark)" in capsys.readouterr().out
    assert command("evaluate", labelled[0][0], "--labels", tmp_path / "labels.csv", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["measures"]["mAP"]["low"] is None


def test_missing_photos(command, capsys, labelled, tmp_path, monkeypatch):
    (tmp_path / "labels.csv").write_text("query,positives\ncup/0,cup/1|cup/9\nkey/0,key/1\npin/0,pin/1\n")
    assert command("evaluate", labelled[0][0], "--labels", tmp_path / "labels.csv") == 1
    only_line(capsys, "names 1 photos that are not in the index of 9, 'cup/9' first", "or pass --missing='drop_queries'")
    assert command("evaluate", labelled[0][0], "--labels", tmp_path / "labels.csv", "--missing=drop_queries") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("9 photos, 2 queries of 2 landmarks")
    assert lines[2] == "1 photos that the labels name are not there, and 1 queries are left out"


@pytest.mark.slow
def test_queries_with_a_box_are_described(command, capsys, index, model, model_file, photo_folder):
    (photo_folder / "labels.csv").write_text("query,positives,box\na.png,c.jpg,4 4 60 44\nb.png,d.png,\n")
    arguments = ["evaluate", index[0], "--labels", photo_folder / "labels.csv", "--json"]
    assert command(*arguments, "--model", model_file, "--photos", photo_folder) == 0
    (found,) = json.loads(capsys.readouterr().out)
    expected = evaluate_index(index[1], photo_folder / "labels.csv", model=model, photos=photo_folder)
    assert found["measures"]["mAP"]["mean"] == pytest.approx(expected.interval().mean)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--alpha=3"], 2, "--alpha 3 weighs what --expand averages"),
        (["--rerank=-1"], 2, "flag --rerank=-1: give a whole number of 1 or more, or none"),
        (["--labels=none.csv"], 1, "no labels none.csv"),
        (["--model=x", "--weights=y"], 2, "--weights does not go with --model"),
    ],
)
def test_what_cannot_be(command, capsys, labelled, flags, code, words):
    assert command("evaluate", labelled[0][0], "--labels=folders", *flags) == code
    only_line(capsys, words)


def test_no_region_vectors(command, capsys, tmp_path, monkeypatch):
    Index(NAMES, np.eye(9)).save(tmp_path / "plain")
    assert command("evaluate", tmp_path / "plain", "--labels=folders", "--rerank=5") == 1
    only_line(capsys, "--rerank is 5, and the index holds no region vectors")


def test_takes_an_index_and_labels(command, capsys, labelled):
    assert command("evaluate", "--labels=folders") == 2
    only_line(capsys, "NAME", "0 arguments")
    assert command("evaluate", labelled[0][0]) == 2
    only_line(capsys, "give --labels")
    assert evaluate.__doc__.startswith("rw-keras evaluate NAME --labels LABELS")
