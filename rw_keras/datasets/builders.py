"""The sets for tensorflow-datasets: `tfds.load("oxford5k")` and so on, after this module is imported."""

import pathlib
from typing import ClassVar

import numpy as np

from rw_keras.datasets import catalogue

try:
    import tensorflow_datasets as tfds
except ModuleNotFoundError as error:
    if error.name != "tensorflow_datasets":
        raise
    raise ImportError(
        'The data-set builders need tensorflow-datasets; install it with: pip install "rw_keras[datasets]"'
    ) from error

_LICENCE = (
    "The photos are Flickr users', each under its own licence, and are not to be passed on: their use must respect Flickr's terms "
    "of use and the Visual Geometry Group's terms of access, which the set's page links to. For research."
)
_OXFORD = r"""@inproceedings{philbin2007object,
  title = {Object retrieval with large vocabularies and fast spatial matching},
  author = {Philbin, James and Chum, Ond{\v{r}}ej and Isard, Michael and Sivic, Josef and Zisserman, Andrew},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2007}
}"""
_PARIS = r"""@inproceedings{philbin2008lost,
  title = {Lost in quantization: Improving particular object retrieval in large scale image databases},
  author = {Philbin, James and Chum, Ond{\v{r}}ej and Isard, Michael and Sivic, Josef and Zisserman, Andrew},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2008}
}"""
_REVISITED = r"""@inproceedings{radenovic2018revisiting,
  title = {Revisiting {Oxford} and {Paris}: Large-scale image retrieval benchmarking},
  author = {Radenovi{\'c}, Filip and Iscen, Ahmet and Tolias, Giorgos and Avrithis, Yannis and Chum, Ond{\v{r}}ej},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2018}
}"""
_FEATURES = """
Splits: `index`, the photos that are searched{splits}.

Features: `image`, the bytes of the photo as published, decoded to RGB; `name`, the photo's name without folder and
ending{features}.
"""
_QUERIES = ", and `queries`"
_QUERY_FEATURES = """, or the query's; and of a query
`photo`, the name of the photo it is cut from, whole in `image`; `box`, the part that is asked for: x1, y1, x2, y2 in pixels of that
photo; {kinds}: names of photos of the index. A photo of the index has its own name as `photo`, a box of zeros, and empty lists"""


class LandmarkBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds a set from a manual folder, or from where it is published.

    With a manual folder (`tfds.download.DownloadConfig(manual_dir=...)`, by default `manual/` in the download folder), the set's
    files are taken from there: archives as published, or unpacked, in the folder itself or in one below it that is named after
    the set. With none, they are downloaded where that is possible.

    A subclass is a set: `SET`, its `ABOUT`, `HOMEPAGE`, `CITATION`.

    Raises:
        FileNotFoundError: from `download_and_prepare`, when files are missing; it names all of them.
        ValueError: when there are not as many photos or queries as the set has, or a photo of the ground truth is not there.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "The set as published."}
    SET: ClassVar[catalogue.Set]
    ABOUT: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    CITATION: ClassVar[str]

    def __init_subclass__(cls, **rest):
        super().__init_subclass__(**rest)
        cls.COUNTS = cls.SET.counts
        cls.MANUAL_DOWNLOAD_INSTRUCTIONS = cls.SET.instructions()

    def download_and_prepare(self, *, download_config=None, **rest):
        """As every builder's; a manual folder that is asked for has to hold the set, and nothing is downloaded then."""
        manual = download_config and download_config.manual_dir
        if manual and not self.is_prepared():
            self.SET.find(pathlib.Path(manual).expanduser())
        super().download_and_prepare(download_config=download_config, **rest)

    def _info(self):
        features = {"image": tfds.features.Image(encoding_format="jpeg"), "name": tfds.features.Text()}
        splits = described = ""
        if self.SET.truth is not None:
            kinds = self.SET.truth.kinds
            features["photo"] = tfds.features.Text()
            # float32, as a served model takes boxes.
            features["box"] = tfds.features.Tensor(shape=(4,), dtype=np.float32)
            features |= {kind: tfds.features.Sequence(tfds.features.Text()) for kind in kinds}
            splits, described = _QUERIES, _QUERY_FEATURES.format(kinds=", ".join(f"`{kind}`" for kind in kinds))
        left_out = sorted(name for part in self.SET.photos for name in part.corrupt)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.ABOUT + _FEATURES.format(splits=splits, features=described),
            features=tfds.features.FeaturesDict(features),
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
            license=_LICENCE,
            metadata=tfds.core.MetadataDict({"left_out": left_out}) if left_out else None,
        )

    def _split_generators(self, dl_manager):
        found = self._find(dl_manager)
        splits = {"index": self._generate_examples("index", found)}
        if self.SET.truth is not None:
            splits["queries"] = self._generate_examples("queries", found)
        return splits

    def _find(self, dl_manager):
        try:
            folder = dl_manager.manual_dir
        except AssertionError:  # there is none, or it is empty
            return self._download(dl_manager)
        return self.SET.find(folder)

    def _download(self, dl_manager):
        files = {part: list(part.files) for part in self.SET.parts}
        try:
            if any(file.url is None for part in files for file in part.files):
                raise FileNotFoundError("some files cannot be downloaded")
            paths = dl_manager.download({file.name: file.url for part in files for file in part.files})
        except (OSError, tfds.download.DownloadError) as error:
            raise FileNotFoundError(
                f"{self.name} is not in the folder {dl_manager.download_dir / 'manual'}, and is not to be had from where it is "
                f"published ({error}); put there: {'; '.join(part.in_words(files[part]) for part in files)}."
            ) from error
        return {part: [pathlib.Path(paths[file.name]) for file in files[part]] for part in files}

    def _generate_examples(self, split, found):
        index, queries = None, {}
        if self.SET.truth is not None:
            index, queries = self._read_truth(found)
        return self._queries(queries, found) if split == "queries" else self._index(index, queries, found)

    def _read_truth(self, found):
        places = found[self.SET.truth]
        index, queries = self.SET.truth.read(places)
        held, expected = [len(queries)], [self.COUNTS["queries"]]
        if index is not None:
            held, expected = [*held, len(index)], [*expected, self.COUNTS["index"]]
        if held != expected:
            held, expected = (" and ".join(f"{n} {what}" for n, what in zip(n, ("queries", "photos"))) for n in (held, expected))
            raise ValueError(f"{places[0]} is for {held}, and the set has {expected}; get it again.")
        corrupt = self.SET.photos[0].corrupt
        return index, {name: query.without(corrupt) for name, query in queries.items()}

    def _index(self, index, queries, found):
        wanted = set().union(index or (), *(query.positives | query.junk | {query.photo} for query in queries.values()))
        listed = None if index is None else set(index)
        for part in self.SET.photos:
            count = 0
            for name, content in part.read(found[part]):
                count += 1
                wanted.discard(name)
                if listed is None or name in listed:
                    yield name, self._example(content, name)
            part.check(count, self.COUNTS[part.home], found[part])
        if wanted:
            where = " and ".join(map(str, found[self.SET.photos[0]]))
            raise ValueError(
                f"{len(wanted)} photos of the ground truth {found[self.SET.truth][0]} are not in {where}, {min(wanted)} for one; "
                "put the photos and the ground truth of one set there."
            )

    def _queries(self, queries, found):
        of_photo = {}
        for name, query in queries.items():
            of_photo.setdefault(query.photo, []).append(name)
        part = self.SET.photos[0]  # no distractor is asked for
        for photo, content in part.read(found[part]):
            for name in of_photo.pop(photo, ()):
                yield name, self._example(content, name, queries[name])
            if not of_photo:
                return

    def _example(self, content, name, query=None):
        example = {"image": content, "name": name}
        if self.SET.truth is not None:
            kinds = self.SET.truth.kinds
            example["photo"] = name if query is None else query.photo
            example["box"] = [0.0] * 4 if query is None else query.box
            example |= {kind: [] if query is None else sorted(getattr(query, kind)) for kind in kinds}
        return example


class Oxford5k(LandmarkBuilder):
    """The Oxford Buildings: 5063 photos of Oxford from Flickr, 55 queries for 11 landmarks."""

    SET = catalogue.OXFORD5K
    ABOUT = (
        "The Oxford Buildings: 5063 photos of Oxford from Flickr, and 55 queries, five for each of 11 landmarks. A "
        "query's photo stays in the index."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/"
    CITATION = _OXFORD


class Paris6k(LandmarkBuilder):
    """The Paris Buildings: 6392 usable photos of Paris from Flickr, 55 queries for 11 landmarks."""

    SET = catalogue.PARIS6K
    ABOUT = (
        "The Paris Buildings: 6412 photos of Paris from Flickr, and 55 queries, five for each of 11 landmarks. 20 of the "
        "photos are damaged as published and are left out, 6392 remain; the metadata lists them as `left_out`. A query's "
        "photo stays in the index."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/"
    CITATION = _PARIS


class Oxford100k(LandmarkBuilder):
    """100 071 distractors from Flickr, without queries."""

    SET = catalogue.OXFORD100K
    ABOUT = (
        "Flickr100k: 100 071 photos of Flickr's most popular tags, distractors for Oxford5k and Paris6k; there are no "
        "queries. Files that are no JPEG are left out with a warning, and so is another count: publications differ in "
        "which of them they take."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/flickr100k.html"
    CITATION = _OXFORD


class Oxford105k(LandmarkBuilder):
    """Oxford5k among the distractors of Oxford100k."""

    SET = catalogue.OXFORD105K
    ABOUT = (
        "Oxford5k and the distractors of Oxford100k in one index, 105 134 photos; the 55 queries of Oxford5k. The names "
        "of distractors begin with oxc1_100k/."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/oxbuildings/"
    CITATION = _OXFORD


class Paris106k(LandmarkBuilder):
    """Paris6k among the distractors of Oxford100k."""

    SET = catalogue.PARIS106K
    ABOUT = (
        "Paris6k and the distractors of Oxford100k in one index, 106 463 photos; the 55 queries of Paris6k. The names of "
        "distractors begin with oxc1_100k/."
    )
    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/parisbuildings/"
    CITATION = f"{_PARIS}\n{_OXFORD}"


class Roxford5k(LandmarkBuilder):
    """Oxford5k with the revisited ground truth: 4993 photos, 70 queries apart from them."""

    SET = catalogue.ROXFORD5K
    ABOUT = (
        "Oxford5k with the revisited ground truth: 70 queries, whose photos are kept apart from the index of 4993; "
        "positives are easy or hard. The Easy protocol counts hard as junk, Medium takes both, Hard counts easy as junk."
    )
    HOMEPAGE = "http://cmp.felk.cvut.cz/revisitop/"
    CITATION = f"{_REVISITED}\n{_OXFORD}"


class Rparis6k(LandmarkBuilder):
    """Paris6k with the revisited ground truth: 6322 photos, 70 queries apart from them."""

    SET = catalogue.RPARIS6K
    ABOUT = (
        "Paris6k with the revisited ground truth: 70 queries, whose photos are kept apart from the index of 6322; "
        "positives are easy or hard. The Easy protocol counts hard as junk, Medium takes both, Hard counts easy as junk. "
        "The 20 photos that are damaged as published are left out."
    )
    HOMEPAGE = "http://cmp.felk.cvut.cz/revisitop/"
    CITATION = f"{_REVISITED}\n{_PARIS}"
