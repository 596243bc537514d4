"""Photo folders, archives and ground truth laid out as Oxford5k and Paris6k are."""

import dataclasses
import os
import pathlib
import tarfile
import zlib
from collections.abc import Collection, Iterator

from rw_keras.photos.sources import list_photos

# Photos of Paris6k that are damaged in the original archive; the literature leaves them out (6412 - 20 = 6392).
PARIS6K_CORRUPT = frozenset(
    """paris_louvre_000136 paris_louvre_000146 paris_moulinrouge_000422 paris_museedorsay_001059 paris_notredame_000188
    paris_pantheon_000284 paris_pantheon_000960 paris_pantheon_000974 paris_pompidou_000195 paris_pompidou_000196
    paris_pompidou_000201 paris_pompidou_000467 paris_pompidou_000640 paris_sacrecoeur_000299 paris_sacrecoeur_000330
    paris_sacrecoeur_000353 paris_triomphe_000662 paris_triomphe_000833 paris_triomphe_000863 paris_triomphe_000867""".split()
)


@dataclasses.dataclass(frozen=True)
class Query:
    """A query of the ground truth. Photos are named without folder and ending.

    Attributes:
        photo: the photo that the query is cut from; it stays in the index.
        box: (x1, y1, x2, y2) in pixels of that photo.
        good, ok: the photos that are right.
        junk: the photos that count neither way.
    """

    photo: str
    box: tuple
    good: frozenset
    ok: frozenset
    junk: frozenset

    @property
    def positives(self) -> frozenset:
        return self.good | self.ok

    def without(self, names: frozenset) -> "Query":
        """The same query where none of these photos is good, ok or junk."""
        return dataclasses.replace(self, good=self.good - names, ok=self.ok - names, junk=self.junk - names)


def read_ground_truth(source: str | os.PathLike[str]) -> dict[str, Query]:
    """Reads `NAME_query.txt`, `NAME_good.txt`, `NAME_ok.txt` and `NAME_junk.txt` for every query.

    Args:
        source: the folder of these files, or the `.tgz` archive that they are published in.

    Returns:
        Query name -> `Query`, sorted by name.

    Raises:
        FileNotFoundError: when the source, or a query's list, is not there.
        ValueError: when a query file is not one photo and four numbers, or there is no query.
    """
    source = pathlib.Path(source)
    if source.is_dir():
        texts = {path.name: path.read_text() for path in source.glob("*.txt")}
    elif source.is_file():
        texts = {pathlib.PurePosixPath(name).name: content.decode() for name, content in members(source, (".txt",))}
    else:
        raise FileNotFoundError(f"There is no ground-truth folder {source}; pass the one with the *_query.txt files.")
    queries = {}
    for file in sorted(texts):
        if not file.endswith("_query.txt"):
            continue
        name = file.removesuffix("_query.txt")
        try:
            photo, *corners = texts[file].split()
            box = tuple(float(corner) for corner in corners)
            if len(box) != 4:
                raise ValueError(f"{len(box)} numbers after the photo")
        except ValueError as error:
            raise ValueError(f"{source / file} is not a photo's name and its box x1 y1 x2 y2: {error}.") from None
        lists = {}
        for kind in ("good", "ok", "junk"):
            listed = f"{name}_{kind}.txt"
            if listed not in texts:
                raise FileNotFoundError(f"There is no {source / listed}; the ground truth of the query {name} is not whole.")
            lists[kind] = frozenset(_photo_name(line) for line in texts[listed].split())
        queries[name] = Query(photo=_photo_name(photo), box=box, **lists)
    if not queries:
        raise ValueError(f"There is no *_query.txt in {source}; pass the folder of the ground truth.")
    return queries


def photos_by_name(folder: str | os.PathLike[str]) -> dict[str, pathlib.Path]:
    """Name without ending -> path, for every photo in a folder and those below it.

    Raises:
        ValueError: when two photos have the same name.
    """
    photos = {}
    for path in list_photos(folder):
        if path.stem in photos:
            raise ValueError(f"{photos[path.stem]} and {path} have the same name; keep one of them.")
        photos[path.stem] = path
    return photos


def members(path: str | os.PathLike[str], endings: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The files of a tar archive, compressed or not, whose names end so: pairs of name and content, in its order.

    It is read from beginning to end, and nothing of it is unpacked to the disk.

    Args:
        path: of the archive.
        endings: in lower case, with the dot.

    Raises:
        ValueError: when it cannot be read to its end.
    """
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = pathlib.PurePosixPath(member.name)
                # macOS' tar adds a file "._x" of attributes beside the file x.
                if member.isfile() and name.suffix.lower() in endings and not name.name.startswith("._"):
                    yield member.name, archive.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a tar archive: {error}; download it again.") from error


def _photo_name(text):
    """Oxford5k's queries write "oxc1_" before the photo's name."""
    return text.removeprefix("oxc1_").removesuffix(".jpg")
