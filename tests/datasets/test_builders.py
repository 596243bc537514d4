"""The builders for tensorflow-datasets, by its own test case and beyond it, over sets made up here."""

import importlib
import shutil
import subprocess
import sys
import tempfile
import unittest.mock

import fakes
import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("dill")  # its test case needs it

from rw_keras.datasets import oxford5k, oxford100k, oxford105k, paris6k, paris106k, roxford5k, rparis6k  # noqa: E402
from rw_keras.datasets.oxford import PARIS6K_CORRUPT  # noqa: E402

_SMALL = {"oxford5k": 20, "paris6k": 20, "oxford100k": 12, "queries": 4, "index": 16}
_BUILDERS = {
    "oxford5k": oxford5k.Oxford5k,
    "paris6k": paris6k.Paris6k,
    "oxford100k": oxford100k.Oxford100k,
    "oxford105k": oxford105k.Oxford105k,
    "paris106k": paris106k.Paris106k,
    "roxford5k": roxford5k.Roxford5k,
    "rparis6k": rparis6k.Rparis6k,
}


class _Small:
    """What the test cases share: the files of all sets, made once, and counts to fit them."""

    PACKED = True

    @classmethod
    def setUpClass(cls):
        cls._made = tempfile.TemporaryDirectory()
        cls.EXAMPLE_DIR = cls._made.name
        fakes.write_all(cls.EXAMPLE_DIR, cls.PACKED)
        cls._counts = unittest.mock.patch.object(cls.DATASET_CLASS, "COUNTS", _SMALL)
        cls._counts.start()
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls._counts.stop()
        cls._made.cleanup()


class TestOxford5k(_Small, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = oxford5k.Oxford5k
    SPLITS = {"index": 20, "queries": 4}  # noqa: RUF012


class TestOxford5kUnpacked(_Small, tfds.testing.DatasetBuilderTestCase):
    PACKED = False
    DATASET_CLASS = oxford5k.Oxford5k
    SPLITS = {"index": 20, "queries": 4}  # noqa: RUF012


class TestParis6k(_Small, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = paris6k.Paris6k
    SPLITS = {"index": 20, "queries": 4}  # noqa: RUF012


class TestParis6kUnpacked(_Small, tfds.testing.DatasetBuilderTestCase):
    PACKED = False
    DATASET_CLASS = paris6k.Paris6k
    SPLITS = {"index": 20, "queries": 4}  # noqa: RUF012


class TestOxford100k(_Small, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = oxford100k.Oxford100k
    SPLITS = {"index": 12}  # noqa: RUF012


class TestOxford105k(_Small, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = oxford105k.Oxford105k
    SPLITS = {"index": 32, "queries": 4}  # noqa: RUF012


class TestParis106k(_Small, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = paris106k.Paris106k
    SPLITS = {"index": 32, "queries": 4}  # noqa: RUF012


class TestRoxford5k(_Small, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = roxford5k.Roxford5k
    SPLITS = {"index": 16, "queries": 4}  # noqa: RUF012


class TestRparis6k(_Small, tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = rparis6k.Rparis6k
    SPLITS = {"index": 16, "queries": 4}  # noqa: RUF012


class TestRparis6kUnpacked(_Small, tfds.testing.DatasetBuilderTestCase):
    PACKED = False  # and a .mat
    DATASET_CLASS = rparis6k.Rparis6k
    SPLITS = {"index": 16, "queries": 4}  # noqa: RUF012


@pytest.fixture
def manual(tmp_path):
    folder = tmp_path / "manual"
    folder.mkdir()
    return folder


@pytest.fixture
def prepare(tmp_path, manual, monkeypatch):
    """A function (name, counts) -> that builder, prepared from the manual folder."""

    def run(name, counts=_SMALL):
        monkeypatch.setattr(_BUILDERS[name], "COUNTS", counts)
        builder = tfds.builder(name, data_dir=tmp_path / "data")
        builder.download_and_prepare(
            download_dir=tmp_path / "downloads", download_config=tfds.download.DownloadConfig(manual_dir=manual)
        )
        return builder

    return run


def _examples(builder, split):
    """Name -> example, the photo as its bytes."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {example["name"].decode(): example for example in tfds.as_numpy(builder.as_dataset(split, decoders=decoders))}


def _names(array):
    return [name.decode() for name in array]


@pytest.mark.parametrize("packed", [True, False], ids=["archives", "unpacked"])
def test_oxford5k_is_what_was_published(prepare, manual, packed):
    fakes.write_oxford(manual, fakes.oxford(), packed)
    builder = prepare("oxford5k")
    index, queries = _examples(builder, "index"), _examples(builder, "queries")
    assert sorted(index) == sorted(fakes.oxford().names)
    for name, example in index.items():
        assert example["image"] == fakes.jpeg(name)
        assert example["photo"].decode() == name
        assert not example["box"].any()
        assert [len(example[kind]) for kind in ("good", "ok", "junk")] == [0, 0, 0]
    assert sorted(queries) == [f"landmark_{number}" for number in range(4)]
    query = queries["landmark_1"]
    assert query["photo"] == b"all_souls_000004"
    assert query["image"] == fakes.jpeg("all_souls_000004")
    np.testing.assert_array_equal(query["box"], np.array([1.5, 0, 7.25, 6], "float32"))
    assert _names(query["good"]) == ["all_souls_000004", "keble_000005"]
    assert _names(query["ok"]) == ["all_souls_000006"]
    assert _names(query["junk"]) == ["keble_000007"]
    decoded = next(iter(tfds.as_numpy(builder.as_dataset("queries"))))
    assert decoded["image"].shape == (8, 8, 3)


def test_corrupt_photos_of_paris6k_are_listed_and_left_out(prepare, manual):
    fakes.write_paris(manual, fakes.paris())
    builder = prepare("paris6k")
    assert builder.info.metadata["left_out"] == sorted(PARIS6K_CORRUPT)
    assert not PARIS6K_CORRUPT & set(_examples(builder, "index"))
    for query in _examples(builder, "queries").values():
        assert not PARIS6K_CORRUPT & {*_names(query["good"]), *_names(query["ok"]), *_names(query["junk"])}


def test_paris6k_where_the_corrupt_photos_were_removed_before(prepare, manual):
    fake = fakes.paris()
    fakes.write_paris(manual, fakes.Fake([name for name in fake.names if name not in PARIS6K_CORRUPT], fake.texts, 4))
    assert prepare("paris6k").info.splits["index"].num_examples == 20


def test_queries_of_a_revisited_set_are_kept_apart(prepare, manual):
    fakes.write_oxford(manual, fakes.oxford())
    fakes.write_pickle(manual / "roxford5k" / "gnd_roxford5k.pkl", fakes.revisited(fakes.oxford().names, 4))
    (manual / "gt_files_170407.tgz").unlink()  # the original ground truth is not needed
    builder = prepare("roxford5k")
    index, queries = _examples(builder, "index"), _examples(builder, "queries")
    assert not set(index) & set(queries)
    assert sorted({**index, **queries}) == sorted(fakes.oxford().names)
    query = queries["all_souls_000016"]
    assert query["photo"] == b"all_souls_000016"
    assert _names(query["easy"]) == ["keble_000015"]
    assert _names(query["hard"]) == ["all_souls_000014", "keble_000013"]
    assert len(query["junk"]) == 0


def test_distractors(prepare, manual):
    fakes.write_distractors(manual)
    (manual / "oxford100k" / "oxc1_100k" / "tag0" / "broken.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 files in .*oxc1_100k are no JPEG and are left out: oxc1_100k/tag0/broken"):
        index = _examples(prepare("oxford100k"), "index")
    assert len(index) == 12
    assert {"oxc1_100k/tag0/photo_000000", "oxc1_100k/tag1/photo_000000"} <= set(index)
    assert set(next(iter(index.values()))) == {"image", "name"}


def test_another_count_of_distractors_is_a_warning(prepare, manual):
    fakes.write_distractors(manual, 11)
    with pytest.warns(UserWarning, match="holds 11 photos, where 12 are published"):
        prepare("oxford100k")


def test_tfds_load(prepare, manual, tmp_path):
    fakes.write_oxford(manual, fakes.oxford())
    prepare("oxford5k")
    assert len(tfds.load("oxford5k", split="index", data_dir=tmp_path / "data", download=False)) == 20


class TestWhatIsMissing:
    def _message(self, prepare, name):
        with pytest.raises(FileNotFoundError) as caught:
            prepare(name)
        return str(caught.value)

    def test_all_of_it(self, prepare, manual):
        (manual / "something").touch()
        message = self._message(prepare, "oxford5k")
        assert message.startswith(f"oxford5k is not whole in {manual}; put there")
        for expected in ("oxbuild_images-v1.tgz or oxbuild_images.tgz (https://", "gt_files_170407.tgz (https://", "oxford5k/gt/"):
            assert expected in message
        assert "\n" not in message

    def test_an_empty_manual_folder_downloads_nothing(self, prepare, monkeypatch):
        monkeypatch.setattr(tfds.download.DownloadManager, "download", lambda *_: pytest.fail("it downloads"))
        assert "gt_files_170407.tgz" in self._message(prepare, "oxford5k")

    def test_one_archive(self, prepare, manual):
        fakes.write_paris(manual, fakes.paris())
        (manual / "paris_2.tgz").unlink()
        message = self._message(prepare, "paris106k")
        assert "paris_2-v1.tgz or paris_2.tgz" in message
        assert "oxford100k/oxc1_100k/" in message
        assert "unrar x oxc1_100k.part01.rar" in message
        assert "paris_1" not in message
        assert "paris_120310" not in message

    def test_rar_archives_alone_are_not_enough(self, prepare, manual):
        (manual / "oxc1_100k.part01.rar").touch()
        assert "Python cannot read .rar archives" in self._message(prepare, "oxford100k")

    def test_revisited_ground_truth(self, prepare, manual):
        fakes.write_oxford(manual, fakes.oxford())
        message = self._message(prepare, "roxford5k")
        assert "gnd_roxford5k.pkl or gnd_roxford5k.mat (http://cmp.felk.cvut.cz/revisitop/" in message
        assert "oxbuild" not in message

    @pytest.mark.parametrize("name", _BUILDERS)
    def test_instructions_name_every_file(self, name):
        instructions = _BUILDERS[name].MANUAL_DOWNLOAD_INSTRUCTIONS
        for part in _BUILDERS[name].SET.parts:
            for file in part.files:
                assert file.name in instructions


class TestWrongCounts:
    def test_photos(self, prepare, manual):
        fakes.write_oxford(manual, fakes.oxford(19))
        with pytest.raises(ValueError, match=r"oxbuild_images-v1\.tgz holds 19 photos, and the set has 20; .*read_folder"):
            prepare("oxford5k")

    def test_photos_besides_corrupt_ones(self, prepare, manual):
        fakes.write_paris(manual, fakes.paris(21))
        with pytest.raises(ValueError, match=r"paris_2\.tgz holds 21 photos, besides 20 that are damaged, and the set has 20"):
            prepare("paris6k")

    def test_the_real_counts(self, prepare, manual):
        fakes.write_oxford(manual, fakes.oxford())
        with pytest.raises(ValueError, match="is for 4 queries, and the set has 55 queries"):
            prepare("oxford5k", oxford5k.Oxford5k.SET.counts)

    def test_queries(self, prepare, manual):
        fakes.write_oxford(manual, fakes.oxford(queries=3))
        with pytest.raises(ValueError, match=r"gt_files_170407\.tgz is for 3 queries, and the set has 4 queries; get it again"):
            prepare("oxford5k")

    def test_the_index_of_a_revisited_set(self, prepare, manual):
        fakes.write_oxford(manual, fakes.oxford())
        fakes.write_pickle(manual / "gnd_roxford5k.pkl", fakes.revisited(fakes.oxford().names[1:], 4))
        with pytest.raises(ValueError, match="is for 4 queries and 15 photos, and the set has 4 queries and 16 photos"):
            prepare("roxford5k")

    def test_the_ground_truth_of_another_set(self, prepare, manual):
        fakes.write_oxford(manual, fakes.oxford())
        fakes.write_tgz(manual / "gt_files_170407.tgz", fakes.paris().texts)
        with pytest.raises(
            ValueError, match=r"photos of the ground truth .*gt_files_170407\.tgz are not in .*, paris_defense_000000 for"
        ):
            prepare("oxford5k")

    def test_a_photo_in_both_archives(self, prepare, manual):
        fakes.write_paris(manual, fakes.paris())
        (manual / "paris_2.tgz").write_bytes((manual / "paris_1.tgz").read_bytes())
        with pytest.raises(ValueError, match=r"paris_2\.tgz holds the photo paris_\w+ a second time"):
            prepare("paris6k")

    def test_an_archive_that_is_cut_off(self, prepare, manual):
        fakes.write_oxford(manual, fakes.oxford())
        path = manual / "oxbuild_images-v1.tgz"
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(ValueError, match=r"oxbuild_images-v1\.tgz cannot be read as a tar archive: .*; download it again"):
            prepare("oxford5k")


class TestDownload:
    """Where there is no manual folder. Nothing is downloaded here."""

    def _prepare(self, tmp_path, monkeypatch, download, name="roxford5k"):
        asked = {}

        def record(_, urls):
            asked.update(urls)
            return download(urls)

        monkeypatch.setattr(tfds.download.DownloadManager, "download", record)
        monkeypatch.setattr(_BUILDERS[name], "COUNTS", _SMALL)
        builder = tfds.builder(name, data_dir=tmp_path / "data")
        builder.download_and_prepare(download_dir=tmp_path / "downloads")
        return builder, asked

    def test_from_where_it_is_published(self, tmp_path, monkeypatch):
        net = tmp_path / "net"
        fakes.write_all(net)
        paths = {"oxbuild_images-v1.tgz": "a1", "gnd_roxford5k.pkl": "b2"}  # downloads have names of their own
        for name, saved in paths.items():
            (net / name).rename(net / saved)
        builder, asked = self._prepare(tmp_path, monkeypatch, lambda urls: {name: net / paths[name] for name in urls})
        assert asked == {
            "oxbuild_images-v1.tgz": "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/oxbuild_images-v1.tgz",
            "gnd_roxford5k.pkl": "http://cmp.felk.cvut.cz/revisitop/data/datasets/roxford5k/gnd_roxford5k.pkl",
        }
        assert builder.info.splits["queries"].num_examples == 4

    def test_that_fails(self, tmp_path, monkeypatch):
        def fail(_):
            raise tfds.download.DownloadError("HTTP code: 404")

        with pytest.raises(
            FileNotFoundError, match=r"roxford5k is not in .*manual.*404.*oxbuild_images-v1\.tgz.*gnd_roxford5k\.pkl"
        ):
            self._prepare(tmp_path, monkeypatch, fail)

    def test_of_what_cannot_be_downloaded(self, tmp_path, monkeypatch):
        with pytest.raises(FileNotFoundError, match=r"oxford105k is not in .*some files cannot be downloaded.*unrar"):
            self._prepare(tmp_path, monkeypatch, lambda _: pytest.fail("it downloads"), "oxford105k")


def test_what_the_sets_say_of_themselves(tmp_path):
    for name, cls in _BUILDERS.items():
        assert cls.__name__.lower() == name
        info = tfds.builder(name, data_dir=tmp_path).info
        assert "Flickr" in info.as_proto.redistribution_info.license
        assert "@inproceedings" in info.citation
        assert info.homepage.startswith("http")
        assert cls.SET.index == {"oxford105k": 5063 + 100_071, "paris106k": 6392 + 100_071}.get(name, cls.SET.index)


_WITHOUT = """
import sys
sys.modules["tensorflow_datasets"] = None
import rw_keras.datasets
assert "oxford5k" in dir(rw_keras.datasets)
try:
    rw_keras.datasets.oxford5k
except ImportError as error:
    print(error)
"""


def test_without_tensorflow_datasets():
    run = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    expected = 'The data-set builders need tensorflow-datasets; install it with: pip install "rw_keras[datasets]"\n'
    assert run.stdout == expected


def test_the_package_loads_builders_when_asked():
    package = importlib.import_module("rw_keras.datasets")
    assert package.paris6k is paris6k
    assert package.paris6k.Paris6k is package.builders.Paris6k
    with pytest.raises(AttributeError, match="no attribute 'berlin7k'"):
        package.berlin7k  # noqa: B018


@pytest.mark.parametrize("name", _BUILDERS)
def test_earlier_modules_go_on(name):
    with pytest.warns(FutureWarning, match=rf"rw_keras\.datasets\.{name} is called rw_keras\.datasets\.builders now"):
        module = importlib.import_module(f"rw_keras.datasets.{name}")
    assert module.__dict__[_BUILDERS[name].__name__] is _BUILDERS[name]


_FULL = {
    "oxford5k": (5063, 55),
    "paris6k": (6392, 55),
    "oxford100k": (100_071, None),
    "oxford105k": (105_134, 55),
    "paris106k": (106_463, 55),
    "roxford5k": (4993, 70),
    "rparis6k": (6322, 70),
}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Archives of the full counts, of tiny photos."""
    folder = tmp_path_factory.mktemp("full")
    fakes.write_all(
        folder,
        oxford=fakes.oxford(5063, 55),
        paris=fakes.paris(6392, 55),
        distractors=100_071,
        revisited_queries=70,
    )
    yield folder
    shutil.rmtree(folder)  # a hundred thousand files that pytest would keep for a while


@pytest.mark.full_counts
@pytest.mark.parametrize("name", _FULL)
@pytest.mark.filterwarnings("error::UserWarning:rw_keras")
def test_full_counts(full, tmp_path, name):
    builder = tfds.builder(name, data_dir=tmp_path)
    builder.download_and_prepare(download_dir=tmp_path / "downloads", download_config=tfds.download.DownloadConfig(manual_dir=full))
    index, queries = _FULL[name]
    expected = {"index": index} if queries is None else {"index": index, "queries": queries}
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == expected
