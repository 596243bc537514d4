"""The package is built in floors: every import points to a lower one, also those within functions and for types alone."""

import graphlib
import pathlib

import grimp
import pytest

import rw_keras

PACKAGE = pathlib.Path(rw_keras.__file__).parent

# Lowest first. What stands on one floor knows nothing of the others there.
FLOORS = (
    {"files", "regions", "_moved"},
    {"photos", "layers"},
    {"backbones"},
    {"methods"},
    {"model"},
    {"runtimes"},
    {"export", "views"},
    {"retrieval"},
    {"description"},
    {"datasets"},
    {"evaluation"},
    {"commands"},
    {"__main__"},
)
# `Index.from_folder` and `Index.search_photo` describe photos.
UPWARD = {("rw_keras.retrieval.index", "rw_keras.description.describe")}
MOST_LINES, MOST_FUNCTION_LINES = 400, 60


@pytest.fixture(scope="module", name="graph")
def import_graph():
    return grimp.build_graph("rw_keras", cache_dir=None)


def floor(module):
    part = module.split(".")[1]
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def imports(graph):
    """(importer, imported) of all modules but the package's face, which nothing imports."""
    for importer in sorted(graph.modules - {"rw_keras"}):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            yield importer, imported


def test_every_part_has_a_floor():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts - {"__init__"} == set().union(*FLOORS) & parts, "add the new part to FLOORS"


def test_every_import_points_to_a_lower_floor(graph):
    def is_downward(importer, imported):
        same = importer.split(".")[1] == imported.split(".")[1]
        return same or floor(imported) < floor(importer)

    upward = {pair for pair in imports(graph) if pair[1] == "rw_keras" or not is_downward(*pair)}
    assert upward == UPWARD


def test_no_files_import_each_other_in_a_circle(graph):
    sorter = graphlib.TopologicalSorter()
    for importer, imported in imports(graph):
        sorter.add(importer, imported)
    sorter.prepare()  # raises a CycleError that names the circle
