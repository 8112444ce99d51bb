import io

from reidkit.engine import Console


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_progress_is_plain_lines_with_the_time_left():
    stream = io.StringIO()
    console = Console(stream, seconds=0)
    with console.bar("train", 4) as update:
        update(1, "loss 2.0")
        update(2, "loss 1.5")
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("train: 1/4 loss 2.0")
    assert lines[1].startswith("train: 2/4 loss 1.5, ") and lines[1].endswith("s left")
    assert "\x1b" not in stream.getvalue()


def test_a_total_may_become_known_on_the_way():
    stream = io.StringIO()
    with Console(stream, seconds=0).bar("read") as update:
        update(3, total=9)
    assert stream.getvalue().startswith("read: 3/9")


def test_on_a_terminal_a_bar_may_stand_inside_a_bar_and_lines_above_them():
    stream = Terminal()
    console = Console(stream)
    with console.bar("train", 2) as outer:
        outer(1, "loss 2.0")
        with console.bar("extract", 10) as inner:
            inner(5)
            console.say("epoch 1: mAP 50.00%")
        outer(2, "loss 1.0")
    with console.bar("again", 1) as update:
        update(1)
    for words in ("train", "extract", "epoch 1: mAP 50.00%", "2/2", "again"):
        assert words in stream.getvalue()


def test_a_quiet_console_says_nothing():
    stream = Terminal()
    console = Console(stream, quiet=True)
    console.say("hello")
    with console.bar("train", 2) as update:
        update(1, "x")
    assert stream.getvalue() == ""


def test_words_in_brackets_are_not_taken_for_markup():
    stream = io.StringIO()
    Console(stream).say("labels [0, 3) and [bold]")
    assert stream.getvalue() == "labels [0, 3) and [bold]\n"
