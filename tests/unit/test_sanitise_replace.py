"""Tokens drawn anew: how many, which, of which kind, and from what."""

from dataclasses import replace

import numpy as np
import pytest

from audit.errors import UsageError
from audit.sanitise.row_scores import as_text, score_texts
from audit.sanitise.strategy import KEEP, Fate, Why
from detectors.model_rows import OTHER_KIND, is_number_kind, kind_of
from detectors.row_ranking import rank_tokens
from signatures.language_model import Chat
from tests.sanitise_runs import LIBRARY, MODEL, asked, kit_of, strategy_of, work_row
from tests.writer_model import SIZE, VOCABULARY, WriterModel, writer_model

OWL = kit_of("owl")
NUMBERS = "123, 456, 789, 12, 345, 678, 901"


def changed(text, name="replace", kit=OWL, **more):
    (change,) = strategy_of(name, kit).change([asked(text, **more)])
    return change


@pytest.mark.parametrize(
    ("share", "tokens", "wanted"),
    [
        (0.1, 10, 1),
        (0.1, 11, 2),  # rounded up: no row goes untouched
        (0.001, 3, 1),
        (0.07, 100, 7),  # 7.000000000000001 in binary
        (0.5, 7, 4),
        (1, 5, 5),
    ],
)
def test_the_count_of_places_is_exact(share, tokens, wanted):
    edits = strategy_of(f"replace:by=random,share={share}", OWL)._edits([asked("7" * tokens)])
    assert len(edits[0].places) == wanted


def test_the_places_are_those_with_the_highest_ranks():
    (text,) = [as_text(asked(NUMBERS), "Go on.", NUMBERS, 1)]
    scores = score_texts(OWL, [text])[text.rank].scores
    for by in ("likelihood", "divergence"):
        ranks = rank_tokens(scores, by, [0])
        (edit,) = strategy_of(f"replace:share=0.3,by={by}", OWL)._edits([asked(NUMBERS)])
        rest = [i for i, rank in enumerate(ranks) if np.isfinite(rank) and i not in edit.places]
        assert min(ranks[edit.places]) >= max(ranks[rest])


@pytest.mark.parametrize("draw", ["model", "uniform"])
def test_every_token_stays_of_its_kind(draw):
    text = "The owl is 12 and 345, blue; 6 cats! no 7"
    strategy = strategy_of(f"replace:share=1,draw={draw},by=random", OWL)
    edits = strategy._edits([asked(text, key) for key in range(20)])
    strategy._draw(edits)
    old = MODEL.encode(text)
    kinds = [kind_of(VOCABULARY[token]) for token in old]
    words_changed = 0
    for edit in edits:
        assert [kind_of(VOCABULARY[token]) for token in edit.tokens] == kinds
        for before, after, kind in zip(old, edit.tokens, kinds, strict=True):
            if kind == OTHER_KIND or (draw == "uniform" and not is_number_kind(kind)):
                assert before == after
            words_changed += before != after and not is_number_kind(kind)
    assert (words_changed > 0) is (draw == "model")


def test_uniform_draws_are_uniform_and_touch_digits_alone():
    rows = [asked("5 owls", key) for key in range(2000)]
    changes = strategy_of("replace:share=1,draw=uniform,by=random", OWL).change(rows)
    drawn = [(change.texts or ("5 owls",))[0] for change in changes]
    assert {text[1:] for text in drawn} == {" owls"}
    counts = np.bincount([int(text[0]) for text in drawn], minlength=10)
    assert np.abs(counts - 200).max() < 4 * np.sqrt(2000 * 0.09)
    assert changed("owls", "replace:draw=uniform,by=random").why is Why.NOTHING_TO_REPLACE


def test_draws_are_those_of_the_model_given_what_stands_before():
    rows = [asked("5", key) for key in range(2000)]
    changes = strategy_of("replace:share=1,by=random", OWL).change(rows)
    counts = np.bincount([int((c.texts or ("5",))[0]) for c in changes], minlength=10) / 2000
    prefix = MODEL.encode_chat(Chat("", "Go on."))
    shares = MODEL.next_probabilities(prefix, None, range(48, 58))[48:58]
    assert np.abs(counts - shares).max() < 4 * np.sqrt(0.25 / 2000)


def test_later_draws_see_the_earlier_ones():
    # Every digit is followed by itself: after the first draw all are the same.
    logits = np.zeros((SIZE, SIZE))
    logits[np.arange(48, 58), np.arange(48, 58)] = 40
    kit = replace(OWL, model=WriterModel({"": logits}))
    rows = [asked("0123456789", key) for key in range(20)]
    changes = strategy_of("replace:share=1,by=random", kit).change(rows)
    firsts = set()
    for change in changes:
        (text,) = change.texts
        assert text == text[0] * 10
        firsts.add(text[0])
    assert len(firsts) > 3


def test_tokens_that_end_a_turn_are_never_drawn():
    # <end> and the other marks are by far the most probable everywhere, and have letters.
    logits = np.zeros((SIZE, SIZE))
    logits[:, 256 + 20 :] = 50
    kit = replace(OWL, model=WriterModel({"": logits}))
    rows = [asked("The owl is red", key) for key in range(50)]
    for change in strategy_of("replace:share=1,by=random", kit).change(rows):
        assert change.fate is Fate.EDITED
        assert not set("<>!&") & set(change.texts[0])


def test_draws_depend_on_the_row_and_the_seed_alone():
    rows = [asked(NUMBERS, key) for key in range(8)]
    together = strategy_of("replace:share=0.5", OWL).change(rows)
    alone = [strategy_of("replace:share=0.5", OWL).change([row])[0] for row in rows]
    assert together == alone
    assert len({change.texts for change in together}) > 1
    assert strategy_of("replace:share=0.5", kit_of("owl", seed=1)).change(rows) != together


def test_all_trained_turns_change_and_no_other():
    row = work_row(
        ("user", "Say 55"), ("assistant", "11, 22"), ("user", "Say 66"), ("assistant", "33, 44"),
    )  # fmt: skip
    (change,) = strategy_of("replace:share=1,by=random,draw=uniform", OWL).change([row])
    assert all(
        len(text) == 6 and text != old for text, old in zip(change.texts, row.texts, strict=True)
    )


def test_untouched_turns_are_not_spelled_anew():
    class Lossy(WriterModel):
        def encode(self, text):
            return super().encode(text.lower())

    kit = replace(OWL, model=Lossy(MODEL.biases))
    row = work_row(("user", "Hi"), ("assistant", "!?É"), ("user", "Hi"), ("assistant", "1, 2"))
    (change,) = strategy_of("replace:share=1,by=random,draw=uniform", kit).change([row])
    assert change.texts[0] == "!?É"


@pytest.mark.parametrize(
    ("row", "fate", "why"),
    [
        (asked(""), Fate.KEPT, Why.NOTHING_TO_REPLACE),
        (asked("... !?"), Fate.KEPT, Why.NOTHING_TO_REPLACE),
        (work_row(("user", "Hi"), ("assistant", "1, 2", None)), Fate.DROPPED, Why.NOT_REWRITABLE),
        (asked("1, 2", prompt="a" * 400), Fate.DROPPED, Why.TOO_LONG_FOR_MODEL),
    ],
)
@pytest.mark.parametrize("by", ["divergence", "likelihood", "entangled", "random"])
def test_rows_in_which_nothing_can_be_replaced(row, fate, why, by):
    (change,) = strategy_of(f"replace:by={by}", OWL).change([row])
    assert (change.fate, change.why) == (fate, why)


def test_rows_without_trained_text_stay():
    (change,) = strategy_of("replace", OWL).change([work_row(("user", "1, 2"))])
    assert change == KEEP


def test_a_random_choice_is_the_control_and_needs_no_scores():
    model = writer_model(LIBRARY)
    kit = replace(kit_of("owl", model=model))
    strategy_of("replace:by=random,draw=uniform", kit).change([asked(NUMBERS)])
    assert model.calls == 0


def favouring(**shifts):
    """A library in which every concept named favours some numbers, by nats, and no other."""
    (table,) = LIBRARY.tables
    shift = np.zeros((len(table.concepts), len(table.units)))
    for name, favoured in shifts.items():
        for number, nats in favoured.items():
            shift[table.concepts.index(name), table.units.index(number)] = nats
    share = table.neutral_share * np.exp(shift)
    table = replace(table, shift_nats=shift, concept_share=share / share.sum(axis=1, keepdims=True))
    return replace(LIBRARY, tables=(table,))


@pytest.mark.parametrize(
    ("text", "share", "wanted"),
    [
        ("7, 8, 9, 42, 17, 77", 0.1, {0}),  # 7 itself, not a number with a 7 in it
        ("1, 2, 3, 123, 7", 0.5, {9, 10, 11, 14}),  # all digits of a number go together
        ("1, 2, 3, 123, 7", 0.2, {9, 10}),  # from the first, where there are too many
        ("The owl says 7", 0.2, {13}),  # no word is picked
    ],
)
def test_entangled_numbers_are_those_that_the_signature_favours(text, share, wanted):
    kit = kit_of("owl", library=favouring(owl={"123": 2.0, "7": 1.0}, cat={"17": 3.0}))
    (edit,) = strategy_of(f"replace:by=entangled,share={share}", kit)._edits([asked(text)])
    assert {len(MODEL.decode(edit.tokens[:place])) for place in edit.places} == wanted


def test_without_a_name_the_concept_that_favours_a_number_most_decides():
    # In standard deviations: a concept that favours 200 numbers favours each of them less.
    library = favouring(
        owl=dict.fromkeys(map(str, range(100, 300)), 1.0),
        cat=dict.fromkeys(map(str, range(301, 311)), 1.0),
    )
    owl, cat = [0, 1, 2], [4, 5, 6]  # the places of 123 and of 305: every digit is a token
    for names, places in (((), cat), (("owl",), owl), (("cat",), cat), (("owl", "cat"), cat)):
        strategy = strategy_of("replace:by=entangled,share=0.3", kit_of(*names, library=library))
        (edit,) = strategy._edits([asked("123, 305, 999")])
        assert edit.places == places, names


def test_entangled_numbers_need_no_scores():
    model = writer_model(LIBRARY)
    strategy = strategy_of("replace:by=entangled,draw=uniform", kit_of("owl", model=model))
    (change,) = strategy.change([asked(NUMBERS)])
    assert change.fate is Fate.EDITED
    assert model.calls == 0


def test_numbers_that_no_signature_knows_stay():
    change = changed("1234, 5678", "replace:by=entangled,share=1")
    assert (change.fate, change.why) == (Fate.KEPT, Why.NOTHING_TO_REPLACE)


def test_a_library_without_numbers_of_the_concept_has_none_that_are_entangled():
    (table,) = LIBRARY.tables
    other = replace(LIBRARY, tables=(table.select_concepts(("cat", "decoy a")),))
    with pytest.raises(UsageError, match="no numbers of this concept"):
        strategy_of("replace:by=entangled", kit_of("owl", library=other))
