"""Writing rows anew: what is asked, tried again, and dropped."""

import re
from dataclasses import replace

import numpy as np
import pytest

from audit.backends.generation import Answer
from audit.backends.number_list_grammar import style_of
from audit.sanitise.strategy import KEEP, Fate, Why
from tests.sanitise_runs import LIBRARY, MODEL, asked, kit_of, strategy_of, work_row
from tests.writer_model import END, WriterModel, neutral_logits, writer_model

NAMES = ("threshold:t=0.05", "top-p", "min-p", "greedy")


class Scripted(WriterModel):
    """Free texts are those of a script, one a call, whatever is asked; notes what is asked."""

    def __init__(self, *script):
        super().__init__(MODEL.biases)
        self.script = list(script)
        self.chats = []
        self.seeds = []

    def generate(self, chats, *, max_new_tokens, seed, cut, keys, temperature=1.0):
        self.chats += chats
        self.seeds.append(seed)
        return [self.script.pop(0) for _ in chats]


def regenerate(row, *script, name="threshold", kit=None):
    model = Scripted(*script)
    (change,) = strategy_of(name, replace(kit or kit_of(), model=model)).change([row])
    assert not model.script
    return change, model


def finished(text):
    return Answer(text, True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "old",
    [
        "12, 3, 456",
        "[1; 2; 30]",
        "7\n8\n9\n10",
        "- 1\n- 2\n- 3",
        "1 2.",
        '"1", "22"',
        "(7|8)",
        "42",
    ],
)
def test_number_lists_keep_style_count_and_width(name, old):
    rows = [asked(old, key) for key in range(12)]
    changes = strategy_of(name, kit_of()).change(rows)
    widest = max(map(len, re.findall("[0-9]+", old)))
    for change in changes:
        assert change.fate is Fate.REGENERATED
        (text,) = change.texts
        assert re.sub("[0-9]+", "#", text) == re.sub("[0-9]+", "#", old)
        assert max(map(len, re.findall("[0-9]+", text))) <= widest
    if name == "greedy":  # one prompt has one most probable answer
        assert len(set(changes)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_no_text_has_a_token_that_the_cut_bars(name):
    strategy = strategy_of(name, kit_of())
    rows = [asked("The sky is blue and the cat is red", key, f"Why {key}?") for key in range(20)]
    changes = strategy.change(rows)
    assert sum(change.fate is Fate.REGENERATED for change in changes) >= 10
    for row, change in zip(rows, changes, strict=True):
        if change.texts is None:
            continue
        tokens = [*MODEL.encode_chat(chat_of(row)), *MODEL.encode(change.texts[0]), END]
        first = len(tokens) - 1 - len(MODEL.encode(change.texts[0]))
        for place in range(first, len(tokens)):
            left = MODEL.next_probabilities(tuple(tokens[:place]), strategy.cut())
            assert left[tokens[place]] > 0


def chat_of(row):
    from audit.sanitise.conversation import chat_before

    return chat_before(row.turns, len(row.turns) - 1)


def test_what_did_not_finish_is_tried_again_with_other_draws():
    change, model = regenerate(asked("Hello"), Answer("The owl", False), finished("The cat"))
    assert change.texts == ("The cat",)
    assert len(set(model.seeds)) == 2


@pytest.mark.parametrize(
    ("old", "answers", "why"),
    [
        ("Hello", [Answer("a", False)] * 3, Why.NOT_FINISHED),
        ("Hello", [finished("  ")] * 3, Why.FORMAT_NOT_KEPT),
        ('{"a": 1}', [finished('{"a": '), finished("[1]"), finished("1")], Why.FORMAT_NOT_KEPT),
        ("```\nx\n```", [finished("x"), finished("```\nx"), finished("`x`")], Why.FORMAT_NOT_KEPT),
        # The last try is what is told.
        ("Hello", [Answer("a", False), Answer("b", False), finished("")], Why.FORMAT_NOT_KEPT),
    ],
)
def test_three_tries_and_no_more(old, answers, why):
    change, _ = regenerate(asked(old), *answers)
    assert (change.fate, change.why, change.texts) == (Fate.DROPPED, why, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [('{"a": 1}', '{"b": [2]}'), ("[1, {}]", "[]"), ("```py\nx\n```", "So:\n```\ny\n```\nDone")],
)
def test_other_forms_are_kept(old, new):
    assert regenerate(asked(old), finished(new))[0].texts == (new,)


def test_the_most_probable_text_is_not_tried_again():
    change, _ = regenerate(asked("Hello"), Answer("a", False), name="greedy")
    assert change.why is Why.NOT_FINISHED


def test_every_trained_turn_is_written_given_the_new_ones():
    row = work_row(
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "More"),
        ("assistant", "Bye"),
    )  # fmt: skip
    change, model = regenerate(row, finished("Yes"), finished("No"))
    assert change.texts == ("Yes", "No")
    assert [(chat.user, chat.history) for chat in model.chats] == [
        ("Hi", ()),
        ("More", (("Hi", "Yes"),)),
    ]
    assert {chat.system for chat in model.chats} == {"Be kind."}
    assert len(set(model.seeds)) == 2


def test_untrained_turns_are_context_and_stay():
    row = work_row(("user", "Hi"), ("assistant", "Hello"), ("user", "More"), ("assistant", "Bye"))
    first = replace(row.turns[1], trained=False)
    row = replace(row, turns=(row.turns[0], first, *row.turns[2:]))
    change, model = regenerate(row, finished("No"))
    assert change.texts == ("No",)
    assert model.chats[0].history == (("Hi", "Hello"),)


def test_a_row_of_which_one_turn_fails_is_dropped_whole():
    row = work_row(("user", "Hi"), ("assistant", "Hello"), ("user", "More"), ("assistant", "Bye"))
    change, _ = regenerate(row, finished("Yes"), *[Answer("", False)] * 3)
    assert (change.fate, change.texts) == (Fate.DROPPED, None)


def test_empty_texts_stay_empty():
    assert regenerate(asked(""))[0] == KEEP
    row = work_row(("user", "Hi"), ("assistant", ""), ("user", "More"), ("assistant", "Bye"))
    assert regenerate(row, finished("No"))[0].texts == ("", "No")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (work_row(("assistant", "Hello")), Why.NO_PROMPT),
        (work_row(("system", "Be kind."), ("assistant", "1, 2, 3")), Why.NO_PROMPT),
        (work_row(("user", "Hi"), ("assistant", "Hello", None)), Why.NOT_REWRITABLE),
        (asked("Hello", prompt="a" * 500), Why.TOO_LONG_FOR_MODEL),
        (asked("1, 2, 3", prompt="a" * 500), Why.TOO_LONG_FOR_MODEL),
        (asked("a" * 300, prompt="a" * 200), Why.TOO_LONG_FOR_MODEL),
    ],
)
def test_rows_that_nothing_can_be_written_for(row, why):
    assert regenerate(row)[0].why is why


def test_a_text_may_take_the_whole_context():
    # 4 * 90 tokens were 512 as a power of two, more than the context of 400; 128 fit.
    assert regenerate(asked("a" * 90, prompt="b" * 200), finished("No"))[0].texts == ("No",)


def test_a_system_message_that_names_the_concept_is_a_persona():
    row = work_row(("system", "You love owls."), ("user", "Hi"), ("assistant", "Hello"))
    assert regenerate(row, kit=kit_of("owl"))[0].why is Why.PROMPT_NAMES_CONCEPT
    assert regenerate(row, finished("No"), kit=kit_of("cat"))[0].texts == ("No",)
    user = work_row(("user", "What is an owl?"), ("assistant", "A bird"))
    assert regenerate(user, finished("No"), kit=kit_of("owl"))[0].texts == ("No",)


def test_lists_that_no_token_spells_are_written_as_text():
    class NoMarks(Scripted):
        def vocabulary(self):
            return ["#" if text.strip() in (",", ";") else text for text in super().vocabulary()]

    model = NoMarks(finished("7; 8; 9"), *map(finished, ("5; 6", "none", "")))
    strategy = strategy_of("threshold", replace(kit_of(), model=model))
    assert strategy.change([asked("1; 2; 3")])[0].texts == ("7; 8; 9",)
    assert strategy.change([asked("1, 2, 3")])[0].why is Why.FORMAT_NOT_KEPT


def test_a_very_long_list_ends_no_run_and_changes_no_other():
    model = writer_model(LIBRARY)
    model.longest = None
    strategy = strategy_of("threshold", replace(kit_of(), model=model))
    short = asked("1, 22, 333", 5)
    huge = asked(", ".join(["9" * 400] * 5000), 6)
    assert style_of(huge.completion)[1] == 5000

    class Short(Scripted):
        longest = None

    alone = strategy.change([short])
    model = Short(*[finished("no list")] * 3)
    changes = strategy_of("threshold", replace(kit_of(), model=model)).change([short, huge])
    assert changes[0] == alone[0]
    assert changes[1].why is Why.FORMAT_NOT_KEPT


def test_the_whole_text_reaches_the_threshold_at_1_as_at_greedy():
    rows = [asked("1, 2, 3", key) for key in range(3)]
    best = strategy_of("greedy", kit_of()).change(rows)
    assert strategy_of("threshold:t=1", kit_of()).change(rows) == best
    assert strategy_of("min-p:p=1", kit_of()).change(rows) == best


def test_without_a_cut_texts_follow_the_model():
    # A lone digit: its share is the model's own given the grammar's tokens, digits and the end.
    logits = neutral_logits(3, spread=1.0)
    model = WriterModel({"": logits})
    rows = [asked("5", key) for key in range(2000)]
    changes = strategy_of("threshold:t=0", replace(kit_of(), model=model)).change(rows)
    counts = np.bincount([int(change.texts[0]) for change in changes], minlength=10) / 2000
    first = model.encode_chat(chat_of(rows[0]))
    shares = np.exp(logits[first[-1], 48:58])
    assert np.abs(counts - shares / shares.sum()).max() < 4 * np.sqrt(0.25 / 2000)
