import io

from rich.console import Console

from audit.report.progress import scan_progress, student_progress


def test_without_a_terminal_nothing_is_shown_but_counts_are_kept() -> None:
    stream = io.StringIO()
    with scan_progress(100, Console(file=stream)) as progress:
        progress.advance(40, 3)
        progress.advance(60, 4)
    assert (progress.bytes_read, progress.rows_read) == (100, 7)
    assert stream.getvalue() == ""


def test_on_a_terminal_bytes_and_rows_are_shown() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with scan_progress(2_000_000, console) as progress:
        progress.advance(2_000_000, 1_234)
    assert "1,234 rows" in stream.getvalue()
    assert "2.0/2.0 MB" in stream.getvalue()


def test_an_unknown_total_is_fine() -> None:
    stream = io.StringIO()
    with scan_progress(None, Console(file=stream, force_terminal=True, width=100)) as progress:
        progress.advance(10, 1)
    assert "1 rows" in stream.getvalue()


def test_students_are_counted_once_it_is_known_how_many_updates_there_are() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with student_progress("Students", console) as progress:
        assert "Students" not in stream.getvalue()
        progress.started(8)
        progress.advance("before, seed\x1b[31m 0", 6)
    shown = stream.getvalue()
    assert "6/8 updates" in shown
    assert "\x1b[31m" not in shown
    quiet = io.StringIO()
    with student_progress("Students", Console(file=quiet)) as progress:
        progress.started(8)
        progress.advance("before", 8)
    assert quiet.getvalue() == ""
