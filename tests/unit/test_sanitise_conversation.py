"""What the model is asked before it writes a text anew."""

import pytest

from audit.sanitise.conversation import chat_before, text_before
from signatures.language_model import Chat
from tests.sanitise_runs import work_row

S, U, A = "system", "user", "assistant"


@pytest.mark.parametrize(
    ("turns", "chat"),
    [
        ([(U, "Hi")], Chat("", "Hi")),
        ([(S, "Be kind."), (U, "Hi")], Chat("Be kind.", "Hi")),
        ([(U, "One"), (U, "Two")], Chat("", "One\nTwo")),
        ([(U, "Hi"), (A, "Hello"), (U, "Go on")], Chat("", "Go on", "", (("Hi", "Hello"),))),
        # Text of the assistant right before is the beginning of the answer.
        ([(U, "Hi"), (A, "Hm.")], Chat("", "Hi", "Hm.\n")),
        ([(U, "Hi"), (A, "Hm."), (A, "So")], Chat("", "Hi", "Hm.\nSo\n")),
        # A system message in the middle parts nothing.
        ([(U, "Hi"), (S, "Brief"), (U, "Go")], Chat("Brief", "Hi\nGo")),
        ([(S, "One"), (U, "Hi"), (S, "Two")], Chat("One\nTwo", "Hi")),
        # An assistant that opens was asked nothing.
        ([(A, "Hello"), (U, "Hi")], Chat("", "Hi", "", (("", "Hello"),))),
        # Empty turns say nothing.
        ([(U, "Hi"), (A, ""), (U, "Go")], Chat("", "Hi\nGo")),
        ([], None),
        ([(S, "Be kind.")], None),
        ([(A, "Hello")], None),
        ([(U, "")], None),
    ],
)
def test_the_chat_up_to_a_text(turns, chat):
    row = work_row(*turns, (A, "old"), (U, "later"))
    assert chat_before(row.turns, len(turns)) == chat


def test_an_opening_assistant_and_several_exchanges():
    row = work_row((A, "a"), (U, "b"), (A, "c"), (U, "d"), (A, "old"))
    assert chat_before(row.turns, 4) == Chat("", "d", "", (("", "a"), ("b", "c")))


def test_scorers_read_all_that_stands_before():
    row = work_row((S, "s"), (U, "u"), (A, "a"), (U, "v"), (A, "old"))
    assert text_before(row.turns, 4) == "s\nu\na\nv"
    assert text_before(row.turns, 0) == ""
