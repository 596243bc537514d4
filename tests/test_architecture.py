"""The package is built in floors: every import points to a lower one, also those within functions and for types alone."""

import ast
import graphlib
import pathlib

import grimp
import pytest

import rw_keras

PACKAGE = pathlib.Path(rw_keras.__file__).parent

# Lowest first. What stands on one floor knows nothing of the others there.
FLOORS = (
    {"files", "regions", "storage", "_moved"},
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
    {"cluster"},
    {"service"},
    {"commands"},
    {"__main__"},
)
# `Index.from_folder` and `search_photo` describe photos, and Keras' name for exports is a method of the model.
UPWARD = {
    ("rw_keras.model.descriptor_model", "rw_keras.export.formats"),
    ("rw_keras.retrieval.index", "rw_keras.description.folder"),
    ("rw_keras.retrieval.photo_searching", "rw_keras.description.describe"),
}
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


def sources():
    return [*PACKAGE.rglob("*.py")]


def test_no_file_is_long():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text("utf8").splitlines()) for path in sources()}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_no_function_is_long():
    """Its documentation does not count."""
    long = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                documentation = ast.get_docstring(node, clean=False)
                length = node.end_lineno - node.lineno + 1 - (len(documentation.splitlines()) if documentation else 0)
                if length > MOST_FUNCTION_LINES:
                    long[f"{path.relative_to(PACKAGE)}: {node.name}"] = length
    assert long == {}


def test_private_names_stay_in_their_modules():
    """No module imports a name of another one that begins with an underscore."""
    taken = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rw_keras"):
                names = {name.name for name in node.names if name.name.startswith("_")} - {"_moved"}
                taken |= {(str(path.relative_to(PACKAGE)), name) for name in names}
    assert taken == set()
