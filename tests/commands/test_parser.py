import pytest
from hypothesis import given
from hypothesis import strategies as st

from rw_keras.commands.parser import Parser, UsageError, number, numbers, one_of, text, whole_number


def flags():
    """A parser of one flag of each kind."""
    parser = Parser(prog="program", description="What it does.\n\n    program --max_side 5\n\nMore of it.")
    parser.flag("max_side", "How large.", whole_number(1), 1024)
    parser.flag("min_score", "How alike.", number())
    parser.flag("runtime", "What computes.", one_of(("exact", "fast")), "exact", earlier=["engine"])
    parser.flag("scales", "Which.", numbers())
    parser.flag("output", "Where.", text("FILE"), short="o")
    parser.flag("within", "Among.", text("TEXT"), [], repeat=True)
    parser.flag("missing", "Then.", one_of(("refuse", "allow")), "refuse", earlier={"allow_missing": "allow"})
    parser.switch("force", "Again.", short="f", earlier=["anew"])
    parser.switch("note", "Begins as the opposite of another.")
    return parser


def parse(*arguments):
    return flags().parse_args(arguments)


def refused(*arguments):
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    return str(caught.value)


_VALUES = {
    "max_side": st.integers(1, 9999),
    "min_score": st.floats(-1, 1),
    "runtime": st.sampled_from(("exact", "fast")),
    "output": st.text(),
}
_WORDS = st.lists(st.text().filter(lambda word: not word.startswith("-") or word == "-"), max_size=4)


@pytest.mark.slow
@given(data=st.data(), words=_WORDS, after=st.lists(st.text(), max_size=3))
def test_every_spelling_says_the_same(data, words, after):
    """Underscore or hyphen, `=` or a place of its own, before, between or after all else; and what stands after `--` is no flag."""
    wanted = {name: data.draw(values) for name, values in _VALUES.items() if data.draw(st.booleans())}
    groups = [[word] for word in words]
    for name, value in wanted.items():
        written = "-" * data.draw(st.integers(1, 2)) + name.replace("_", data.draw(st.sampled_from("_-")))
        group = [f"{written}={value}"] if data.draw(st.booleans()) else [written, f"{value}"]
        groups.insert(data.draw(st.integers(0, len(groups))), group)
    values = parse(*(argument for group in groups for argument in group), "--", *after)
    assert values.arguments == [*words, *after]
    assert values.given == wanted.keys()
    assert {name: getattr(values, name) for name in wanted} == wanted
    assert all(getattr(values, name) == getattr(parse(), name) for name in _VALUES.keys() - wanted.keys())


_PARTS = st.sampled_from(
    ["--", "-", "--max_side", "--max-side=", "-o", "=", "no", "force", "--help", "--scales", "5", ",", "\n", " "]
)


@given(st.lists(st.one_of(st.text(), st.lists(_PARTS).map("".join))))
def test_a_command_line_is_read_or_refused(arguments):
    try:
        parse(*arguments)
    except UsageError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [(["--force"], True), (["-f"], True), (["--noforce"], False), (["--force=true"], True), (["--force=False"], False)],
    ids=str,
)
def test_switches(arguments, value):
    assert parse(*arguments).force is value
    assert parse(*arguments, "word").arguments == ["word"]
    assert not parse().force


def test_a_switch_may_begin_with_no():
    assert parse("--note").note and not parse("--nonote").note


def test_a_negative_value_may_stand_alone():
    assert parse("--min_score", "-0.5").min_score == -0.5
    assert parse("--output", "-o").output == "-o"


def test_the_last_one_counts_or_all_do():
    assert parse("--max_side=1", "--max_side=2").max_side == 2
    assert parse("--within", "a", "--within=b").within == ["a", "b"]
    assert parse().within == []


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--max_side=0", "flag --max_side=0: give a whole number of 1 or more"),
        ("--max-side=-5", "flag --max_side=-5: give a whole number of 1 or more"),
        ("--max_side=1.5", "flag --max_side=1.5: give a whole number of 1 or more"),
        ("--max_side=", "flag --max_side=: give a whole number of 1 or more"),
        ("--min_score=nan", "flag --min_score=nan: give a number"),
        ("--min_score=inf", "flag --min_score=inf: give a number"),
        ("--runtime=caffe", "flag --runtime=caffe: value should be one of <exact|fast>"),
        ("--scales=1,", "flag --scales=1,: it takes numbers with commas between, such as 1,0.7071,0.5"),
        ("--force=maybe", "flag --force=maybe: give true or false, or the flag alone"),
        ("--noforce=true", "flag --noforce=true: --noforce takes no value; leave =true out"),
        ("--output", "flag --output needs a value; --help says which"),
        ("--maxside=5", "there is no flag --maxside; did you mean --max_side?"),
        ("--max=5", "there is no flag --max; `program --help` lists those that there are"),
        ("-x", "there is no flag -x; `program --help` lists those that there are"),
    ],
)
def test_a_wrong_flag_is_refused(argument, words):
    assert refused(argument) == words


def test_required_flags():
    parser = Parser(prog="program")
    parser.flag("photos", "Which.", text("FOLDER"), required=True)
    parser.flag("truth", "What.", text("FOLDER"), required=True)
    with pytest.raises(UsageError, match="give --photos and --truth; --help says what for"):
        parser.parse_args([])
    with pytest.raises(UsageError, match="give --truth; "):
        parser.parse_args(["--photos", ""])
    assert parser.parse_args(["--help"]).help


class TestEarlierNames:
    @pytest.mark.parametrize(
        ("arguments", "name", "value", "words"),
        [
            (["--engine", "fast"], "runtime", "fast", "--engine is called --runtime now.\n"),
            (["--engine=fast"], "runtime", "fast", "--engine is called --runtime now.\n"),
            (["--anew"], "force", True, "--anew is called --force now.\n"),
            (["--noanew"], "force", False, "--noanew is called --noforce now.\n"),
            (["--allow-missing"], "missing", "allow", "--allow_missing is called --missing=allow now.\n"),
        ],
        ids=str,
    )
    def test_it_works_and_the_present_one_is_told(self, capsys, arguments, name, value, words):
        values = parse(*arguments)
        assert getattr(values, name) == value and values.given == {name}
        assert capsys.readouterr() == ("", words)

    def test_both_names_are_refused(self):
        assert refused("--engine=fast", "--runtime=fast") == (
            "--engine is the earlier name of --runtime; leave it out, since --runtime is given."
        )
        assert "--allow_missing is the earlier name of --missing=allow; leave it out" in refused(
            "--allow_missing", "--missing=allow"
        )
        assert refused("--allow_missing=refuse") == (
            "flag --allow_missing=refuse: --allow_missing takes no value; leave =refuse out"
        )

    def test_it_is_not_in_the_help(self):
        assert not {"engine", "anew", "allow_missing"} & flags().flags().keys()
        assert "engine" not in flags().format_help()


def test_help():
    assert flags().format_help().splitlines()[:9] == [
        "What it does.",
        "",
        "    program --max_side 5",
        "",
        "More of it.",
        "",
        "Flags:",
        "  --max_side N           How large. Default: 1024.",
        "  --min_score X          How alike.",
    ]
    assert "  -o, --output FILE      Where." in flags().format_help()
