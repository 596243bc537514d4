import logging
import re
import sys

import numpy as np
import pytest
from PIL import Image

import rw_keras
from rw_keras.commands.evaluation_program import evaluation_program
from rw_keras.evaluation import protocol
from rw_keras.evaluation.protocol import Evaluation, evaluate, evaluate_described
from rw_keras.model.presets import PRESETS
from rw_keras.retrieval import Index, Rerank, average_precision, bootstrap


class Collection:
    """Photos and ground truth in two folders, laid out as the originals."""

    def __init__(self, folder, prefix):
        self.photos, self.truth, self.prefix = folder / "jpg", folder / "gt", prefix
        self.photos.mkdir()
        self.truth.mkdir()
        self.queries = {}

    def add_query(self, name, photo, box, good, ok=(), junk=()):
        self.queries[name] = (photo, box, {*good, *ok}, set(junk))
        (self.truth / f"{name}_query.txt").write_text(" ".join([f"{self.prefix}{photo}", *map(str, box)]))
        for kind, names in (("good", good), ("ok", ok), ("junk", junk)):
            (self.truth / f"{name}_{kind}.txt").write_text("".join(f"{one}\n" for one in names))

    def path(self, name):
        (path,) = self.photos.rglob(f"{name}.jpg")
        return path

    def by_hand(self, model, qe, max_side=1024, names=None, positives=lambda names: names, rerank=None):
        """Query -> AP, without any of what `evaluate` is made of but the descriptor and the index."""
        names = sorted(path.stem for path in self.photos.rglob("*.jpg")) if names is None else names
        compared = rerank is not None
        described = rw_keras.describe(model, [self.path(name) for name in names], max_side=max_side, regions=compared)
        index = Index(names, described, regions=described.regions)
        found = {}
        for query, (photo, box, right, junk) in self.queries.items():
            vector = rw_keras.describe(model, self.path(photo), box, max_side=max_side, regions=compared)
            ranking = index.rank(vector, qe if qe > 1 else None, rerank=rerank)
            found[query] = average_precision(ranking, positives(right), junk)
        return found


@pytest.fixture(params=["oxford", "paris"])
def collection(request, tmp_path, draw):
    """Twelve photos of three things, three queries; Paris' photos lie in folders below."""
    made = Collection(tmp_path, "oxc1_" if request.param == "oxford" else "")
    for number in range(12):
        folder = made.photos / f"paris_{number % 3}" if request.param == "paris" else made.photos
        folder.mkdir(exist_ok=True)
        Image.fromarray(draw(number % 3 * 100 + number // 6, 96 - number, 64 + number)).save(folder / f"photo_{number:06d}.jpg")
    made.add_query(
        "one_1", "photo_000000", (3.5, 2.2, 60.1, 50.9), ["photo_000000", "photo_000003"], ["photo_000006"], ["photo_000009"]
    )
    made.add_query("one_2", "photo_000003", (0, 0, 93, 67), ["photo_000000", "photo_000003"], ["photo_000006"], ["photo_000001"])
    made.add_query("two_1", "photo_000004", (10, 10, 50, 50), ["photo_000004"], ["photo_000010", "photo_000002"])
    return made


def measure(model, collection, **arguments):
    return evaluate(model, collection.photos, collection.truth, progress=False, **arguments)


def test_is_what_is_computed_by_hand(model, collection):
    measured = measure(model, collection, qe=(1, 8))
    assert measured.photos == 12
    assert (measured.skipped_queries, measured.missing_positives) == ([], 0)
    assert list(measured.average_precisions) == [1, 8]
    for qe in (1, 8):
        by_hand = collection.by_hand(model, qe)
        assert measured.average_precisions[qe] == by_hand
        assert measured.mean(qe) == pytest.approx(np.mean(list(by_hand.values())))
    assert 0 < measured.mean(1) < 1
    assert measured.mean(1) != measured.mean(8)


def test_box_and_size_count(model, collection):
    measured = measure(model, collection, qe=(1,), max_side=32)
    assert measured.average_precisions == {1: collection.by_hand(model, 1, max_side=32)}
    assert measured.average_precisions != measure(model, collection, qe=(1,)).average_precisions


@pytest.mark.parametrize("collection", ["oxford"], indirect=True)
def test_reranking(model, collection, tmp_path, computed):
    """Also with the descriptors and regions that an earlier run has kept."""
    expected = {qe: collection.by_hand(model, qe, rerank=9) for qe in (1, 3)}
    computed.clear()
    for _ in range(2):
        measured = measure(model, collection, qe=(1, 3), rerank=9, cache=tmp_path / "cache")
        assert measured.average_precisions == expected
        assert len(computed) <= 12 + 3
    assert measured.average_precisions != measure(model, collection, qe=(1, 3)).average_precisions


@pytest.mark.parametrize("collection", ["oxford"], indirect=True)
def test_reranking_by_regions_that_are_not_whitened_is_refused_first(tiny_model, collection, computed):
    with pytest.raises(ValueError, match="whiten_on"):
        measure(tiny_model(whiten_on="global"), collection, rerank=9)
    assert computed == []


@pytest.mark.parametrize("collection", ["oxford"], indirect=True)
def test_a_folder_is_listed_once(model, collection, monkeypatch):
    listed, real = [], protocol.photos_by_name
    monkeypatch.setattr(protocol, "photos_by_name", lambda folder: listed.append(folder) or real(folder))
    photos = protocol.check_missing(collection.photos, collection.truth)
    evaluate(model, photos, collection.truth, progress=False)
    assert listed == [collection.photos]


def test_missing_positives_are_refused_and_named(model, collection):
    collection.path("photo_000006").unlink()
    with pytest.raises(
        ValueError, match=r"1 positives and the photos of 0 queries are not in .*jpg, photo_000006 for one.*missing='drop_queries'"
    ):
        measure(model, collection)


@pytest.mark.parametrize("missing", ["refuse", "drop_queries"])
def test_missing_photos_are_found_before_any_is_described(model, collection, computed, missing):
    for name in ("photo_000000", "photo_000004"):
        collection.path(name).unlink()
    with pytest.raises(ValueError, match=r"are not in|has its photo and all its positives in"):
        measure(model, collection, missing=missing)
    assert computed == []


def test_queries_that_are_not_whole_are_dropped(model, collection):
    for name in ("photo_000002", "photo_000004"):
        collection.path(name).unlink()
    measured = measure(model, collection, qe=(1,), missing="drop_queries")
    assert (measured.photos, measured.skipped_queries, measured.missing_positives) == (10, ["two_1"], 2)
    del collection.queries["two_1"]
    assert measured.average_precisions == {1: collection.by_hand(model, 1)}
    collection.path("photo_000006").unlink()
    assert sorted(measure(model, collection, qe=(1,), missing="allow").average_precisions[1]) == ["one_1", "one_2"]


def test_an_unknown_switch(model, collection):
    with pytest.raises(ValueError, match=r"missing is one of 'refuse', 'drop_queries', 'allow', but got 'skip'"):
        measure(model, collection, missing="skip")


def test_a_missing_query_photo_is_refused_and_named(model, collection):
    collection.add_query("three_1", "photo_000077", (0, 0, 9, 9), ["photo_000005"])
    with pytest.raises(ValueError, match=r"0 positives and the photos of 1 queries are not in .*, photo_000077 for one"):
        measure(model, collection)


def test_missing_ones_are_left_out_where_that_is_allowed(model, collection):
    for name in ("photo_000006", "photo_000004"):
        collection.path(name).unlink()
    collection.add_query("three_1", "photo_000005", (0, 0, 40, 40), ["photo_000088"], ["photo_000006"])
    measured = measure(model, collection, qe=(1,), missing="allow")
    assert measured.photos == 10
    assert measured.missing_positives == 3  # 4, 6 and 88
    assert sorted(measured.skipped_queries) == ["three_1", "two_1"]
    for query in measured.skipped_queries:
        del collection.queries[query]
    by_hand = collection.by_hand(model, 1, positives=lambda names: names - {"photo_000006"})
    assert measured.average_precisions == {1: by_hand}


def test_missing_junk_does_not_matter(model, collection):
    collection.path("photo_000009").unlink()
    assert measure(model, collection, qe=(1,)).average_precisions == {1: collection.by_hand(model, 1)}


def test_corrupt_photos_are_left_out(model, collection):
    collection.path("photo_000006").write_bytes(b"damaged in the original archive")
    measured = measure(model, collection, qe=(1,), corrupt=frozenset({"photo_000006", "photo_000099"}))
    assert measured.photos == 11
    assert (measured.skipped_queries, measured.missing_positives) == ([], 0)
    names = sorted(path.stem for path in collection.photos.rglob("*.jpg") if path.stem != "photo_000006")
    by_hand = collection.by_hand(model, 1, names=names, positives=lambda right: right - {"photo_000006"})
    assert measured.average_precisions == {1: by_hand}


def test_an_unreadable_photo_is_named(model, collection, capsys):
    collection.path("photo_000011").write_bytes(b"no photo")
    measured = measure(model, collection)
    assert measured.photos == 11
    assert "left out: " in (err := capsys.readouterr().err)
    assert "photo_000011.jpg" in err
    collection.path("photo_000006").write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"1 positives .*photo_000006 for one"):
        measure(model, collection)


def test_no_readable_photo_is_said_so(model, collection):
    for path in collection.photos.rglob("*.jpg"):
        path.write_bytes(b"no photo")
    with pytest.raises(ValueError, match=re.escape(str(collection.photos))):
        measure(model, collection)


def test_a_box_outside_its_photo_is_named(model, collection):
    collection.add_query("three_1", "photo_000005", (0, 0, 500, 40), ["photo_000005"])
    refused = r"query three_1 cannot be described: The box \(0.0, 0.0, 500.0, 40.0\) leaves .*photo_000005"
    with pytest.raises(ValueError, match=refused):
        evaluate_described(None, collection.photos, collection.truth)  # before anything is described


def test_folders_of_two_sets(model, collection, photo_folder):
    (photo_folder / "more" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"No query has its photo and a positive in"):
        evaluate(model, photo_folder, collection.truth, missing="allow", progress=False)


class TestWhitening:
    @pytest.mark.slow
    def test_learned_on_the_same_set_is_refused(self, tiny_model, collection, tmp_path):
        whitened = tiny_model(shrinkage=0.2)
        rw_keras.fit_whitening(whitened, collection.photos, name="oxford5k", progress=False)
        rw_keras.save_whitening(whitened, tmp_path / "whitening.npz")
        whitened.save(tmp_path / "model.keras")
        read = tiny_model(shrinkage=0.2, whitening=tmp_path / "whitening.npz")
        for model in (whitened, read, rw_keras.load_model(tmp_path / "model.keras")):
            with pytest.raises(ValueError, match=r"learned on oxford5k \(12 photos.* 12 photos in common.*whitening=None"):
                measure(model, collection)

    def test_learned_on_some_of_its_photos_is_refused(self, tiny_model, collection, photo_folder):
        whitened = tiny_model(shrinkage=0.2)
        rw_keras.fit_whitening(whitened, [*photo_folder.glob("*.png"), collection.path("photo_000007")], progress=False)
        with pytest.raises(ValueError, match="1 photos in common"):
            measure(whitened, collection)

    @pytest.mark.slow
    def test_learned_on_another_set_is_taken(self, tiny_model, collection, photo_folder):
        whitened = tiny_model(shrinkage=0.2)
        rw_keras.fit_whitening(whitened, photo_folder, progress=False)
        measured = measure(whitened, collection, qe=(1,))
        assert measured.average_precisions == {1: collection.by_hand(whitened, 1)}


def test_the_cache_is_used(model, collection, tmp_path, monkeypatch):
    first = measure(model, collection, cache=tmp_path / "cache")
    read, real = [], rw_keras.description.describe.read_image
    monkeypatch.setattr(rw_keras.description.describe, "read_image", lambda path, *rest: read.append(path) or real(path, *rest))
    assert measure(model, collection, cache=tmp_path / "cache") == first
    assert read == []
    assert measure(model, collection) == first
    assert len(read) == 12 + 3


def test_progress_goes_to_standard_error(model, collection, capsys):
    evaluate(model, collection.photos, collection.truth)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "describing photos" in captured.err


def test_defaults_are_without_and_with_expansion(model, collection):
    assert list(measure(model, collection).average_precisions) == [1, 5]
    assert Evaluation({1: {"a": 0.25, "b": 0.75}}, 2, [], 0).mean(1) == 0.5


def test_interval_is_over_landmarks():
    precisions = {f"landmark{number}_{query}": 0.05 * number + 0.02 * query for number in range(9) for query in range(1, 6)}
    measured = Evaluation({1: {}, 5: precisions}, 99, [], 0)
    assert measured.interval(5) == bootstrap(precisions)
    assert measured.interval(5).mean == pytest.approx(measured.mean(5))
    assert (measured.interval(5).queries, measured.interval(5).landmarks) == (45, 9)


@pytest.mark.parametrize("collection", ["oxford"], indirect=True)
class TestProgram:
    """What the evaluation programs run: flags in, a table out."""

    @pytest.fixture
    def program(self, tiny_model, collection, monkeypatch, tmp_path):
        """A function (flags) -> the exit code; its network is the tiny one."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(logging.getLogger(), "handlers", list(logging.getLogger().handlers))
        assert rw_keras.build_descriptor  # which the tiny one is built by, not what takes its place

        def build(*, weights, **arguments):
            assert weights == "imagenet"
            assert not arguments.keys() & {"backbone", "layer"}
            return tiny_model(**arguments)

        def run(*arguments, corrupt=frozenset()):
            given = [f"--photos={collection.photos}", f"--ground_truth={collection.truth}", *map(str, arguments)]
            monkeypatch.setattr(sys, "argv", ["eval.py", *given])
            with pytest.raises(SystemExit) as caught:
                evaluation_program("Evaluates.", "Tiny set", qe=[1, 8], corrupt=corrupt)
            return caught.value.code

        monkeypatch.setattr(rw_keras.model.build, "build_descriptor", build)
        return run

    def row(self, by_hand):
        """mAP, and its interval: over two landmarks, what their means span."""
        one, two = (by_hand["one_1"] + by_hand["one_2"]) / 2, by_hand["two_1"]
        return f"{np.mean(list(by_hand.values())):.4f}  {min(one, two):.3f} to {max(one, two):.3f}"

    def test_table(self, program, model, collection, capsys):
        assert program("--whitening=none") == 0
        assert capsys.readouterr().out.splitlines() == [
            "Tiny set: 12 photos, 3 queries, longer side 1024",
            "rw on tiny convolution, levels 3",
            "whitening: none",
            "",
            "  qe    mAP  95 % interval (2 landmarks)",
            f"   1  {self.row(collection.by_hand(model, 1))}",
            f"   8  {self.row(collection.by_hand(model, 8))}",
        ]

    @pytest.mark.slow
    def test_preset(self, program, tiny_model, collection, capsys):
        assert program("--whitening=none", "--preset=recommended", "--qe=1", "--scales=1,0.5") == 0
        lines = capsys.readouterr().out.splitlines()
        side = PRESETS["recommended"].max_side
        assert lines[:2] == [
            f"Tiny set: 12 photos, 3 queries, longer side {side}",
            "root_rw on tiny convolution, levels 3, scales 1 0.5",
        ]
        model = tiny_model(method="root_rw", scales=(1, 0.5))
        rerank = Rerank.of_defaults(PRESETS["recommended"].search)
        assert f"the first {rerank.count}, smoothed over 9, are re-ranked by their regions" in lines
        assert lines[-1] == f"   1  {self.row(collection.by_hand(model, 1, max_side=side, rerank=rerank))}"
        assert program("--whitening=none", "--preset=recommended", "--qe=1", "--scales=1,0.5", "--rerank=none") == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"   1  {self.row(collection.by_hand(model, 1, max_side=side))}"

    @pytest.mark.slow
    def test_flags_count(self, program, tiny_model, collection, capsys):
        assert program("--whitening=none", "--max_side=32", "--qe=3", "--levels=2", "--per_query") == 0
        lines = capsys.readouterr().out.splitlines()
        by_hand = collection.by_hand(tiny_model(levels=2), 3, max_side=32)
        assert lines[:2] == ["Tiny set: 12 photos, 3 queries, longer side 32", "rw on tiny convolution, levels 2"]
        assert f"   3  {self.row(by_hand)}" in lines
        for query, precision in by_hand.items():
            assert [query, f"{precision:.4f}"] in [line.split() for line in lines]

    def test_rerank(self, program, model, collection, capsys):
        assert program("--whitening=none", "--rerank=9", "--qe=1") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[3] == "the first 9 are re-ranked by their regions"
        assert lines[-1] == f"   1  {self.row(collection.by_hand(model, 1, rerank=9))}"

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:PCAWhiten")  # six photos are six vectors
    def test_scales(self, program, tiny_model, collection, photo_folder, capsys):
        """The whitening is learned at all scales."""
        flags_given = ("--scales=1,0.7071", "--whiten_on=global", "--shrinkage=0.3")
        assert program("--whitening=none", *flags_given) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1] == "rw on tiny convolution, levels 3, scales 1 0.7071"
        single = tiny_model(whiten="global", shrinkage=0.3)
        several = rw_keras.multi_scale(single, (1, 0.7071))
        assert lines[5] == f"   1  {self.row(collection.by_hand(several, 1))}"
        assert program(f"--whitening={photo_folder}", *flags_given) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[2] == "whitening of global vectors: photos (6 photos, 12 vectors, max_side 1024, 2 scales), shrinkage 0.3"
        rw_keras.fit_whitening(several, photo_folder, progress=False)
        assert lines[5] == f"   1  {self.row(collection.by_hand(several, 1))}"
        assert program("--whitening=none", "--scales=1,3") == 1
        assert "takes numbers above 0, up to 2, as --scales" in capsys.readouterr().err

    @pytest.mark.slow
    def test_whitening_learned_on_a_folder_is_kept(self, program, tiny_model, collection, photo_folder, capsys, monkeypatch):
        arguments = (f"--whitening={photo_folder}", "--shrinkage=0.2", "--qe=1")
        assert program(*arguments) == 0
        first = capsys.readouterr().out
        monkeypatch.setattr(
            rw_keras.description.learning, "fit_whitening", lambda *arguments, **keywords: pytest.fail("learned again")
        )
        assert program(*arguments) == 0
        assert capsys.readouterr().out == first
        whitened = tiny_model(shrinkage=0.2)
        rw_keras.fit_whitening(whitened, photo_folder, progress=False)
        assert "whitening: photos (6 photos, 126 regions, max_side 1024), shrinkage 0.2" in first.splitlines()
        assert f"   1  {self.row(collection.by_hand(whitened, 1))}" in first.splitlines()

    @pytest.mark.slow
    def test_a_changed_folder_is_learned_from_again(self, program, photo_folder, capsys):
        assert program(f"--whitening={photo_folder}", "--shrinkage=0.2") == 0
        (photo_folder / "a.png").unlink()
        capsys.readouterr()
        assert program(f"--whitening={photo_folder}", "--shrinkage=0.2") == 0
        assert "whitening: photos (5 photos" in capsys.readouterr().out

    @pytest.mark.slow
    def test_whitening_kept_with_fewer_components_is_not_taken_for_all(self, program, photo_folder, capsys):
        arguments = (f"--whitening={photo_folder}", "--shrinkage=0.2")
        assert program(*arguments, "--cache=") == 0
        alone = capsys.readouterr().out
        assert program(*arguments, "--components=4") == 0
        fewer = capsys.readouterr().out
        assert program(*arguments) == 0
        assert capsys.readouterr().out == alone != fewer

    @pytest.mark.slow
    def test_whitening_in_a_file(self, program, tiny_model, collection, photo_folder, capsys, tmp_path):
        whitened = tiny_model(shrinkage=0.2)
        rw_keras.fit_whitening(whitened, photo_folder, name="elsewhere", progress=False)
        rw_keras.save_whitening(whitened, tmp_path / "learned.npz")
        assert program(f"--whitening={tmp_path / 'learned.npz'}", "--shrinkage=0.2", "--qe=1") == 0
        lines = capsys.readouterr().out.splitlines()
        assert "whitening: elsewhere (6 photos, 126 regions, max_side 1024), shrinkage 0.2" in lines
        assert f"   1  {self.row(collection.by_hand(whitened, 1))}" in lines

    def test_whitening_of_the_same_set_is_refused(self, program, collection, capsys):
        assert program(f"--whitening={collection.photos}", "--shrinkage=0.2") == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "12 photos in common" in captured.err

    def test_missing_ones(self, program, collection, capsys):
        collection.path("photo_000006").unlink()
        collection.path("photo_000004").unlink()
        assert program("--whitening=none") == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "or pass --missing='drop_queries'" in captured.err
        assert "or --missing='allow'" in captured.err
        assert program("--whitening=none", "--missing=allow") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "Tiny set: 10 photos, 2 queries, longer side 1024"
        assert lines[3:5] == [
            "2 positives are not among the photos and are left out of the ground truth",
            "1 queries are skipped, without their own photo or any positive",
        ]
        assert lines[6] == "  qe    mAP  (no interval: one landmark)"
        assert [len(line.split()) for line in lines[7:]] == [2, 2]

    def test_missing_ones_are_found_before_a_network_is_built(self, program, collection, capsys, monkeypatch):
        collection.path("photo_000006").unlink()
        monkeypatch.setattr(
            rw_keras.model.build, "build_descriptor", lambda *arguments, **keywords: pytest.fail("a network was built")
        )
        assert program("--whitening=none") == 1
        assert "1 positives and the photos of 0 queries are not in" in capsys.readouterr().err

    @pytest.mark.parametrize(("earlier", "now"), [("allow_missing", "allow"), ("drop_incomplete", "drop_queries")])
    def test_the_earlier_names_of_the_switch(self, program, collection, capsys, earlier, now):
        collection.path("photo_000004").unlink()
        assert program("--whitening=none", f"--missing={now}") == 0
        expected = capsys.readouterr().out
        assert program("--whitening=none", f"--{earlier}") == 0
        captured = capsys.readouterr()
        assert captured.out == expected
        assert captured.err.startswith(f"--{earlier} is called --missing={now} now.\n")
        assert program("--whitening=none", f"--{earlier}", "--missing=refuse") == 2
        assert f"--{earlier} is the earlier name of --missing={now}; leave it out" in capsys.readouterr().err

    def test_errors_name_flags(self, program, collection, capsys):
        assert program(f"--whitening={collection.photos}", "--shrinkage=0.2") == 1
        assert "or pass --whitening=none." in capsys.readouterr().err
        assert program("--levels=99999999") == 2
        assert re.search(r"levels=99999999.*\[1, 16\]", capsys.readouterr().err)

    def test_corrupt_photos(self, program, collection, capsys):
        collection.path("photo_000006").write_bytes(b"damaged in the original archive")
        assert program("--whitening=none", corrupt=frozenset({"photo_000006"})) == 0
        assert capsys.readouterr().out.startswith("Tiny set: 11 photos, 3 queries")

    @pytest.mark.slow
    def test_cache(self, program, tmp_path):
        assert program("--whitening=none", "--cache=") == 0
        assert not (tmp_path / ".rw_keras_cache").exists()
        assert program("--whitening=none") == 0
        assert len(list((tmp_path / ".rw_keras_cache").iterdir())) == 1

    def test_no_ground_truth(self, program, tmp_path, capsys):
        assert program(f"--ground_truth={tmp_path / 'none'}", "--whitening=none") == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert str(tmp_path / "none") in captured.err
