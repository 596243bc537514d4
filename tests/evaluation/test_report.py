import base64
import io
import re

import pytest
from PIL import Image

from rw_keras.evaluation import figures
from rw_keras.evaluation.experiment import Setting
from rw_keras.evaluation.report import Report
from rw_keras.evaluation.table import Point, Table
from rw_keras.retrieval import Interval

pytestmark = pytest.mark.filterwarnings("ignore:PCAWhiten")  # 18 photos are few
pytest.importorskip("matplotlib", reason='matplotlib is not installed: pip install "rw_keras[plot]"')


def test_a_page_holds_tables_and_pictures_and_needs_nothing_else(tmp_path):
    report = Report(tmp_path / "report", "A <title>", ["A fact & more."], "12 of 34 photos")
    measured = {"as published": Interval(0.5, 0.4, 0.6, 0.95, 30, 6)}
    table = Table("one", "One: a table", ["a", "b"], [["1", "<2>"]], ["A note."], [Point("a row", 0.45, measured)])
    report.add_table(table, figures.png(figures.chart(table, "12 of 34 photos")))
    report.add_figure("two", "Two", figures.jpeg(Image.new("RGB", (8, 8))), "jpeg", "A caption")
    page = report.finish().read_text()
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "index.html",
        "one.csv",
        "one.md",
        "one.png",
        "two.jpg",
    ]
    assert "A &lt;title&gt;" in page and "&lt;2&gt;" in page and "12 of 34 photos." in page and "A fact &amp; more." in page
    assert "12 of 34 photos." in (tmp_path / "report" / "one.md").read_text()
    assert (tmp_path / "report" / "one.csv").read_text() == "a,b,data\n1,<2>,12 of 34 photos\n"
    pictures = re.findall(r'src="([^"]+)"', page)
    assert [picture.partition(";")[0] for picture in pictures] == ["data:image/png", "data:image/jpeg"]
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).verify()
    assert not re.search(r'(?:href|src)="(?!#|data:)', page)


def test_photos_are_framed_by_what_they_are(bench):
    sheet = figures.top_ten(bench.experiment, Setting("vgg16", "rw"), "oxford5k")
    colours = {colour for _, colour in sheet.getcolors(maxcolors=1 << 24)}
    assert {figures.RIGHT, figures.WRONG, figures.JUNK} <= colours
    assert sheet.height > 2 * 180  # a row a landmark


def test_ranks_before_and_after(bench):
    sheet = figures.before_and_after(bench.experiment, Setting("vgg16", "rw"), "paris6k")
    rows = 2 * 2  # two landmarks, without and with expansion
    assert rows * 180 < sheet.height < (rows + 1) * 260


def test_the_expansion_curve_is_the_scores(bench):
    figure = figures.expansion_curve(bench.experiment, ("rw",), (0.0, 0.5), most=6)
    assert [axes.get_title() for axes in figure.axes] == ["oxford5k", "paris6k"]
    line = figure.axes[0].lines[1]
    scores = bench.experiment.scores(Setting("vgg16", "rw", shrinkage=0.5), "oxford5k", 4)
    assert line.get_xydata()[3].tolist() == [4, pytest.approx(sum(scores.values()) / len(scores))]


def test_curves_are_drawn_with_their_bands():
    measured = {kind: {value: Interval(value / 10, 0, 1, 0.95, 30, 6) for value in (1, 2, 4)} for kind in _KINDS}
    figure = figures.curve_figure({"rw": measured, "root_rw": measured}, "oxford5k")
    assert len(figure.axes) == 3
    assert figure.axes[1].lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2, 0.4])


_KINDS = ("shrinkage", "photos", "components")
