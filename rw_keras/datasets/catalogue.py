"""What the sets consist of: their files, where those are published, how many photos and queries they hold. No library needed."""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterator

from rw_keras.datasets.oxford import PARIS6K_CORRUPT, members, photos_by_name, read_ground_truth
from rw_keras.datasets.revisited import read_revisited
from rw_keras.photos.formats import EXTENSIONS
from rw_keras.photos.sources import list_photos

_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_REVISITED = "http://cmp.felk.cvut.cz/revisitop/data/datasets"


@dataclasses.dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        name: what it is called.
        url: where it is published, `None` where it cannot be used as it comes from there.
        also: other names, or forms, of the same thing.
    """

    name: str
    url: str | None
    also: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Part:
    """Photos or ground truth that are published together.

    Attributes:
        home: the folder, below the one that is searched, that is kept for them.
        files: what they are published as.
        folders: what the folder they are unpacked to may be called; the first is the one that messages name.
        hint: how to come by them, where that needs more words.
    """

    home: str
    files: tuple[File, ...]
    folders: tuple[str, ...] = ()
    hint: str = ""

    def folder(self, folder: pathlib.Path) -> pathlib.Path | None:
        """The folder they are unpacked to, below `folder`."""
        places = (home / name for home in (folder / self.home, folder) for name in self.folders)
        return next((place for place in places if place.is_dir()), None)

    def find(self, folder: pathlib.Path) -> tuple[list[pathlib.Path], list[File]]:
        """Where they lie below `folder`, unpacked or else as published, and the files that are not there."""
        unpacked = self.folder(folder)
        if unpacked is not None:
            return [unpacked], []
        found, missing = [], []
        for file in self.files:
            places = (home / name for home in (folder / self.home, folder) for name in (file.name, *file.also))
            place = next((place for place in places if place.is_file()), None)
            if place is None:
                missing.append(file)
            else:
                found.append(place)
        return found, missing

    def in_words(self, files: list[File]) -> str:
        """Files, where they are from, and where they go."""
        if self.hint:
            return self.hint
        names = ", ".join(f"{' or '.join((file.name, *file.also))} ({file.url})" for file in files)
        return f"{names}, or unpacked as {self.home}/{self.folders[0]}/" if self.folders else names


@dataclasses.dataclass(frozen=True)
class Photos(Part):
    """Photos.

    Attributes:
        count: how many are usable.
        corrupt: names of those that are damaged as published, and are left out.
        distractors: whether they are named by their path, for names alone may be the same; some that are no JPEG are then
            left out, and `count` is not insisted on.
    """

    count: int = 0
    corrupt: frozenset = frozenset()
    distractors: bool = False

    def read(self, places: list[pathlib.Path]) -> Iterator[tuple[str, bytes]]:
        """Name and content of every photo, those that are corrupt left out.

        Raises:
            ValueError: when two have the same name, or an archive cannot be read.
        """
        seen = set()
        for place in places:
            for name, content in self._read_distractors(place) if self.distractors else _read_photos(place):
                if name in seen:
                    raise ValueError(f"{place} holds the photo {name} a second time; keep one of them.")
                seen.add(name)
                if name not in self.corrupt:
                    yield name, content

    def _read_distractors(self, folder):
        broken = []
        for path in list_photos(folder):
            name = f"oxc1_100k/{path.relative_to(folder).with_suffix('').as_posix()}"
            content = path.read_bytes()
            if content.startswith(b"\xff\xd8"):
                yield name, content
            else:
                broken.append(name)
        if broken:
            warnings.warn(f"{len(broken)} files in {folder} are no JPEG and are left out: {', '.join(broken)}", stacklevel=1)

    def check(self, count: int, expected: int, places: list[pathlib.Path]) -> None:
        """Refuses another number of photos than the set has; for distractors, warns."""
        if count == expected:
            return
        where = " and ".join(map(str, places))
        besides = f", besides {len(self.corrupt)} that are damaged" if self.corrupt else ""
        if self.distractors:
            warnings.warn(
                f"{where} holds {count} photos, where {expected} are published; mAP will not be comparable.", stacklevel=2
            )
            return
        raise ValueError(
            f"{where} holds {count} photos{besides}, and the set has {expected}; get it whole, or read a part of it with "
            "rw_keras.datasets.read_folder."
        )


@dataclasses.dataclass(frozen=True)
class Truth(Part):
    """Ground truth of the original form."""

    kinds = ("good", "ok", "junk")

    def read(self, places):
        """The names of the index's photos (`None`: all there are), and query name -> query."""
        return None, read_ground_truth(places[0])


@dataclasses.dataclass(frozen=True)
class RevisitedTruth(Part):
    """Ground truth of the revisited form."""

    kinds = ("easy", "hard", "junk")

    def read(self, places):
        """The names of the index's photos, and query name -> query."""
        return read_revisited(places[0])


@dataclasses.dataclass(frozen=True)
class Set:
    """A set.

    Attributes:
        name: what tensorflow-datasets calls it.
        photos: its photos; those of the landmarks come first.
        truth: its ground truth; `None` for distractors.
        index: how many photos are searched.
        queries: how many queries there are.
    """

    name: str
    photos: tuple[Photos, ...]
    truth: Truth | RevisitedTruth | None
    index: int
    queries: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.photos if self.truth is None else (*self.photos, self.truth)

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of what: usable photos of each part by its home, photos of the index, queries."""
        return {**{part.home: part.count for part in self.photos}, "index": self.index, "queries": self.queries}

    def find(self, folder: str | os.PathLike[str]) -> dict[Part, list[pathlib.Path]]:
        """Where its parts lie below a folder.

        Raises:
            FileNotFoundError: when some are not there; it names all of them.
        """
        folder = pathlib.Path(folder)
        found, missing = {}, []
        for part in self.parts:
            found[part], absent = part.find(folder)
            if absent:
                missing.append(part.in_words(absent))
        if missing:
            raise FileNotFoundError(f"{self.name} is not whole in {folder}; put there, or in a folder below: {'; '.join(missing)}.")
        return found

    def instructions(self) -> str:
        """What to put into the manual folder, every file named."""
        lines = "\n".join(f"  - {part.in_words(list(part.files))}" for part in self.parts)
        return f"Put these into the manual folder:\n{lines}"


def _read_photos(place):
    if place.is_dir():
        for name, path in photos_by_name(place).items():
            yield name, path.read_bytes()
    else:
        for member, content in members(place, EXTENSIONS):
            yield pathlib.PurePosixPath(member).stem, content


_OXFORD_PHOTOS = Photos(
    home="oxford5k",
    files=(File("oxbuild_images-v1.tgz", f"{_VGG}/oxbuildings/oxbuild_images-v1.tgz", also=("oxbuild_images.tgz",)),),
    folders=("jpg", "oxbuild_images-v1", "oxbuild_images"),
    count=5063,
)
_OXFORD_TRUTH = Truth(
    home="oxford5k",
    files=(File("gt_files_170407.tgz", f"{_VGG}/oxbuildings/gt_files_170407.tgz"),),
    folders=("gt", "gt_files_170407"),
)
_PARIS_PHOTOS = Photos(
    home="paris6k",
    files=tuple(
        File(f"paris_{number}-v1.tgz", f"{_VGG}/parisbuildings/paris_{number}-v1.tgz", also=(f"paris_{number}.tgz",))
        for number in (1, 2)
    ),
    folders=("jpg", "paris"),
    count=6392,
    corrupt=PARIS6K_CORRUPT,
)
_PARIS_TRUTH = Truth(
    home="paris6k",
    files=(File("paris_120310.tgz", f"{_VGG}/parisbuildings/paris_120310.tgz"),),
    folders=("gt", "paris_120310"),
)
_DISTRACTORS = Photos(
    home="oxford100k",
    files=(File("oxc1_100k.part01.rar to oxc1_100k.part40.rar", None),),
    folders=("oxc1_100k", "jpg"),
    hint=(
        "oxford100k/oxc1_100k/ with the photos of oxc1_100k.part01.rar to oxc1_100k.part40.rar "
        f"({_VGG}/oxbuildings/ox100k/oxc1_100k.part01.rar and so on), unpacked with `unrar x oxc1_100k.part01.rar`, for Python "
        "cannot read .rar archives"
    ),
    count=100_071,
    distractors=True,
)


def _revisited_truth(name):
    url = f"{_REVISITED}/{name}/gnd_{name}.pkl"
    return RevisitedTruth(home=name, files=(File(f"gnd_{name}.pkl", url, also=(f"gnd_{name}.mat",)),))


OXFORD5K = Set("oxford5k", (_OXFORD_PHOTOS,), _OXFORD_TRUTH, 5063, 55)
PARIS6K = Set("paris6k", (_PARIS_PHOTOS,), _PARIS_TRUTH, 6392, 55)
OXFORD100K = Set("oxford100k", (_DISTRACTORS,), None, 100_071, 0)
OXFORD105K = Set("oxford105k", (_OXFORD_PHOTOS, _DISTRACTORS), _OXFORD_TRUTH, 105_134, 55)
PARIS106K = Set("paris106k", (_PARIS_PHOTOS, _DISTRACTORS), _PARIS_TRUTH, 106_463, 55)
ROXFORD5K = Set("roxford5k", (_OXFORD_PHOTOS,), _revisited_truth("roxford5k"), 4993, 70)
RPARIS6K = Set("rparis6k", (_PARIS_PHOTOS,), _revisited_truth("rparis6k"), 6322, 70)
