import csv

import pytest

from rw_keras.evaluation import published, tables
from rw_keras.evaluation.table import Table

QUERIES = [f"{landmark}_{number}" for landmark in ("a", "b", "c", "d", "e", "f") for number in (1, 2)]


class KnownExperiment:
    """Every mAP is known: `values[network, method, shrinkage, qe]`, spread a little over the queries; else 0.5."""

    def __init__(self, values=(), sets=("oxford5k", "paris6k"), distractors=False):
        self.sets = dict.fromkeys(sets)
        self.has_distractors = distractors
        self._values = dict(values)

    def scores(self, setting, name, qe=1, *, rerank=None, distractors=False, rank=None, tag=None):
        value = self._values.get((setting.network, setting.method, setting.shrinkage, qe), 0.5)
        value += 0.0005 * (rerank.count if rerank else 0) - 0.1 * distractors
        return {query: value + 0.01 * (place - 5.5) for place, query in enumerate(QUERIES)}

    def whitening_photos(self, name):
        return 100


def rows_of(table, **cells):
    return [row for row in map(dict, (zip(table.columns, row) for row in table.rows)) if cells.items() <= row.items()]


def test_table_1_puts_published_and_measured_side_by_side():
    experiment = KnownExperiment({("vgg16", "rw, 2 scales", 0.0, 1): 0.55, ("vgg16", "crow", 0.0, 1): 0.4})
    table = tables.table_1(experiment, ["vgg16", "alexnet"])
    assert len(table.rows) == 20
    (row,) = rows_of(table, network="vgg16", scales="2", set="paris6k")
    assert (row["published (Paris6k)"], row["measured"]) == ("0.809", "0.550")
    assert row["difference from published"] == "-0.259"
    assert row["published: from 3 scales"] == "+0.004"
    assert row["measured: from 3 scales"] == "+0.050 (+0.050 to +0.050), better"
    assert row["the same, shrinkage 0.2"] == "+0.000 (+0.000 to +0.000), no difference shown"
    (crow,) = rows_of(table, network="vgg16", scales="CroW", set="paris6k")
    assert (crow["published (Paris6k)"], crow["measured: from 3 scales"][:6], crow["measured: from 3 scales"][-5:]) == (
        "0.797",
        "-0.100",
        "worse",
    )
    (other,) = rows_of(table, network="vgg16", scales="2", set="oxford5k")
    assert other["difference from published"] == "–"  # the numbers are of the other set
    (alexnet,) = rows_of(table, network="alexnet", scales="CroW", set="paris6k")
    assert alexnet["published (Paris6k)"] == "–"


def test_table_2_has_every_published_number_once():
    table = tables.table_2(KnownExperiment(sets=("oxford5k",)), ["vgg16"])
    printed = sorted(row[3] for row in table.rows if row[3] != "–")
    values = [v for row in published.TABLE_2 for v in (*row.values.values(), *row.values_30.values())]
    assert printed == sorted(f"{value:.3f}" for value in values)
    sources = {(row[0], row[1], row[2]): row[-1] for row in table.rows}
    assert sources["RW (VGG16)", "512", "oxford5k"] == "computed"
    assert sources["RW (AlexNet)", "256", "oxford5k"] == "quoted: no weights of alexnet"
    assert sources["Razavian et al.", "256", "oxford5k"] == "quoted"
    assert sources["RW (VGG16)", "512", "paris6k"] == "quoted: paris6k is not in the data"
    assert sources["root_rw (VGG16)", "512", "oxford5k"] == "not the publication's"
    for row in table.rows:
        assert (row[4] == "–") == row[-1].startswith("quoted")


def test_table_2_takes_each_sets_query_expansion_and_the_distractors():
    values = {("vgg16", "rw", 0.0, qe): 0.5 + qe / 100 for qe in (1, 5, 10, 30)}
    table = tables.table_2(KnownExperiment(values, distractors=True), ["vgg16", "alexnet"])
    measured = {(row[0], row[2]): (row[3], row[4], row[6]) for row in table.rows}
    assert measured["RW (VGG16)", "oxford5k"] == ("0.683", "0.510", "-0.173")
    assert measured["RW + QE (VGG16)", "oxford5k"] == ("0.751", "0.550", "-0.201")
    assert measured["RW + QE (VGG16)", "paris6k"] == ("0.860", "0.600", "-0.260")
    assert measured["RW + QE (VGG16) (qe 30)", "paris6k"] == ("0.873", "0.800", "-0.073")
    assert measured["RW + QE (VGG16)", "oxford105k"] == ("0.717", "0.450", "-0.267")
    assert measured["RW + QE (VGG16) (qe 30)", "paris106k"] == ("0.822", "0.700", "-0.122")
    assert not any(row[-1].endswith("not in the data") for row in table.rows)


def test_methods_are_compared_with_the_same_settings():
    values = {("vgg16", "rmac", None, 1): 0.6, ("vgg16", "rmac", 0.2, 5): 0.45, ("vgg16", "rw", 0.2, 5): 0.7}
    table = tables.methods_table(KnownExperiment(values, sets=("oxford5k",)), ["rw", "rmac"], "methods", "Methods")
    assert [row[0] for row in table.rows] == ["rw", "rmac"]
    rmac = table.rows[1]
    assert (rmac[1], rmac[3][:6]) == ("0.600", "+0.100")
    assert (rmac[10], rmac[12][:6], rmac[12][-5:]) == ("0.450", "-0.250", "worse")
    assert set(table.rows[0][3::3]) == {"–"}


def test_reranking_stands_beside_none():
    experiment = KnownExperiment({("vgg16", "root_rw", 0.2, 1): 0.4, ("vgg16", "root_rw", 0.2, 5): 0.6}, sets=("oxford5k",))
    table = tables.rerank_table(experiment, [100, 200])
    assert [(row[0], row[1], row[3]) for row in table.rows] == [
        (method, scales, count)
        for method, scales in (("rw", "1"), ("rw", "3"), ("root_rw", "1"), ("root_rw", "3"), ("rmac", "1"))
        for count in ("none", "100", "200", "200, smoothed over 9")
    ]
    (none,) = rows_of(table, method="root_rw", scales="3", **{"re-ranked": "none"})
    (some,) = rows_of(table, method="root_rw", scales="3", **{"re-ranked": "200"})
    assert (none["measured"], none["QE after it"], none["difference from none"]) == ("0.400", "0.600", "–")
    assert (some["measured"], some["QE after it"]) == ("0.500", "0.700")
    for column in ("difference from none", "difference from QE alone"):
        assert some[column] == "+0.100 (+0.100 to +0.100), better"
    assert len(table.points) == len(table.rows)


def test_claims_tell_what_is_shown():
    values = {
        ("vgg16", "rw", 0.0, 5): 0.6,
        ("vgg16", "crow", 0.0, 5): 0.6,
        ("vgg16", "rmac", 0.0, 1): 0.52,
        ("vgg16", "rw, 4 scales", 0.0, 1): 0.45,
    }
    table = tables.claims(KnownExperiment(values, sets=("oxford5k",)), ["vgg16"])
    found = {row[0]: (row[3], row[4].split()[0], row[4].partition("), ")[2]) for row in table.rows}
    assert found["query expansion of 5 gains"] == ("+0.068", "+0.100", "better")
    assert found["RW above R-MAC"] == ("+0.014", "-0.020", "worse")
    assert found["RW + QE above CroW + QE"] == ("+0.002", "+0.000", "no difference shown")
    assert found["3 scales above 4"] == ("–", "+0.050", "better")


def test_one_landmark_has_no_interval():
    experiment = KnownExperiment(sets=("oxford5k",))
    experiment.scores = lambda *_, **__: {"a_1": 0.25, "a_2": 0.75}
    table = tables.table_1(experiment, ["vgg16"])
    assert table.rows[1][4:6] == ["0.500", "one landmark"]
    assert table.rows[1][-1] == "+0.000 (one landmark)"


def test_curves_name_what_varies():
    found = tables.curves(KnownExperiment(), "oxford5k", "rw")
    assert list(found["components"]) == [512, 256, 128, 64, 32]
    assert list(found["photos"]) == [3, 6, 12, 25, 50, 100]
    table = tables.curve_table(KnownExperiment(), "oxford5k", {"rw": found}, "shrinkage", "Curve")
    assert table.rows[3][:3] == ["rw", "0.2", "0.500"]


def test_options_stand_beside_the_plain_ranking():
    table = tables.options_table(KnownExperiment(sets=("oxford5k",)), tables.rankers(), tables.SETTINGS)
    words = [row[2] for row in table.rows if row[0] == "rw"]
    assert words[:2] == ["plain", "query expansion of 5"]
    assert len(words) == 2 + len(tables.rankers()) + len(tables.SETTINGS)


def test_markdown_and_csv_hold_the_same():
    table = Table("name", "Title", ["a", "b"], [["1", "x|y"], ["2", 'say "z", w']], ["A note."])
    assert table.markdown() == '# Title\n\n| a | b |\n| --- | --- |\n| 1 | x/y |\n| 2 | say "z", w |\n\nA note.\n'
    assert list(csv.reader(table.csv().splitlines())) == [["a", "b"], ["1", "x|y"], ["2", 'say "z", w']]


@pytest.mark.parametrize("network", ["vgg16", "alexnet"])
def test_every_wanted_method_can_be_built(network):
    import keras

    from rw_keras import methods

    for method, levels in tables.METHODS[network].values():
        assert len(methods.resolve(method, levels)[0](keras.Input((None, None, 8))).shape) == 3
