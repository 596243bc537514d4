"""What the tests of commands share."""

# The summary of six photos described: the index, how many were left out.
ALL_SIX = r"{}: 6 described, {} left out; 6 photos in the index \(12 dimensions, \d+ s\)\n"
NAMES = ["a.png", "b.png", "c.jpg", "d.png", "more/a.png", "more/e.png"]


def only_line(capsys, *words):
    """Checks that nothing went to standard output, and one line that holds the words to standard error."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("rw-keras: ")
    for word in words:
        assert str(word) in line
