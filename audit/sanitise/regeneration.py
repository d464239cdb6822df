"""Writes trained text anew with the clean model: what `threshold` and its kin share.

The persona, if there was one, is not in the prompt, so the model that writes does not hold it.
What a row's format allows is decided by the grammar of the text that it replaces (number lists),
or by trying again (all else); a row whose format cannot be had is dropped, and says why.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from audit.backends.number_list_grammar import NumberListStyle
from audit.backends.token_cut import TokenCut
from audit.sanitise.conversation import chat_before
from audit.sanitise.grammars import Grammar, Grammars, numbers_style
from audit.sanitise.strategy import KEEP, Change, Fate, Kit, Strategy, Values, Why, WorkRow, drop
from audit.sanitise.utility import form_of
from detectors.names import name_patterns
from signatures.language_model import Chat

REGENERATION_WARNING = (
    "Cutting tokens is not safe by construction: a fine-tuned teacher's greedy data transferred "
    "its trait where its sampled data did not."
)

_MOST_TRIES = 3
# Tokens that an answer may have: four times the old one's, as a power of two, so that rows of about
# one length go together.
_TIMES = 4
_LEAST_TOKENS = 64
_MOST_TOKENS = 4096


class Regeneration(Strategy):
    """Every trained text of a row, in order, is written by the model that the user trusts."""

    def __init__(self, kit: Kit, values: Values, stage: int) -> None:
        """See `Strategy`."""
        super().__init__(kit, values, stage)
        self._grammars = Grammars(kit.writer)
        self._names = [name_patterns(concept) for concept in kit.concepts]

    def cut(self) -> TokenCut:
        """Which tokens must not be written."""
        raise NotImplementedError

    def change(self, rows: Sequence[WorkRow]) -> list[Change]:
        """See `Strategy.change`."""
        changes: list[Change | None] = [self._refusal(row) for row in rows]
        now = list(rows)
        most = max((len(row.trained) for row in rows), default=0)
        for turn in range(most):
            wanted = [
                index
                for index, change in enumerate(changes)
                if change is None and turn < len(now[index].trained) and now[index].texts[turn]
            ]
            self._write_turn(now, wanted, turn, changes)
        return [
            Change(Fate.REGENERATED, texts=now[index].texts) if change is None else change
            for index, change in enumerate(changes)
        ]

    def _refusal(self, row: WorkRow) -> Change | None:
        if not any(row.texts):
            return KEEP
        if not row.is_rewritable:
            return drop(Why.NOT_REWRITABLE)
        system = "\n".join(turn.text for turn in row.turns if turn.role == "system")
        if any(patterns.spans(system) for patterns in self._names) or any(
            concept.system_prompt in system for concept in self.kit.library.concepts
        ):
            return drop(Why.PROMPT_NAMES_CONCEPT)
        return None

    def _write_turn(
        self, now: list[WorkRow], wanted: list[int], turn: int, changes: list[Change | None]
    ) -> None:
        """Write the trained text number ``turn`` of the rows ``wanted``, or say why not."""
        for attempt in range(_MOST_TRIES):
            failed = []
            for index, text in self._answers(now, wanted, turn, attempt, changes).items():
                if isinstance(text, Why):
                    changes[index] = drop(text)
                    failed.append(index)
                else:
                    texts = list(now[index].texts)
                    texts[turn] = text
                    now[index] = now[index].with_texts(texts)
            wanted = failed
            # The most probable tokens are the same at every try.
            if not wanted or self.cut().kind == "greedy":
                return
            if attempt + 1 < _MOST_TRIES:
                for index in wanted:
                    changes[index] = None

    def _answers(
        self,
        now: list[WorkRow],
        wanted: list[int],
        turn: int,
        attempt: int,
        changes: list[Change | None],
    ) -> dict[int, str | Why]:
        """An answer for each row; rows that no try can answer are dropped in ``changes``."""
        lists: dict[Grammar, list[tuple[int, Chat, NumberListStyle, int]]] = defaultdict(list)
        texts: dict[int, list[tuple[int, Chat, str]]] = defaultdict(list)
        found: dict[int, str | Why] = {}
        for index in wanted:
            row = now[index]
            place = row.trained[turn]
            chat = chat_before(row.turns, place)
            if chat is None:
                changes[index] = drop(Why.NO_PROMPT)
                continue
            old = row.turns[place].text
            numbers = numbers_style(old)
            grammar = None if numbers is None else self._grammars.of(*numbers)
            if numbers is not None and grammar is not None:
                lists[grammar].append((index, chat, *numbers))
            elif budget_tokens := self._budget_tokens(chat, old):
                texts[budget_tokens].append((index, chat, old))
            else:
                found[index] = Why.TOO_LONG_FOR_MODEL
        seed = self.kit.draws("regenerate", self.stage, turn, attempt)
        for grammar, listed in lists.items():
            self._write_lists(grammar, listed, [now[i].key for i, *_ in listed], seed, found)
        for budget_tokens, asked in texts.items():
            self._write_texts(budget_tokens, asked, [now[i].key for i, _, _ in asked], seed, found)
        return found

    def _budget_tokens(self, chat: Chat, old: str) -> int | None:
        """None where the model's context does not hold as many tokens as the old text has."""
        old_tokens = len(self.kit.writer.encode(old))
        budget = _LEAST_TOKENS
        while budget < min(_TIMES * old_tokens, _MOST_TOKENS):
            budget *= 2
        while not self._fits(chat, budget):
            budget //= 2
            if budget < min(old_tokens, _MOST_TOKENS):
                return None
        return budget

    def _fits(self, chat: Chat, tokens: int) -> bool:
        longest = self.kit.writer.longest
        return longest is None or len(self.kit.writer.encode_chat(chat)) + tokens <= longest

    def _write_lists(
        self,
        grammar: Grammar,
        listed: list[tuple[int, Chat, NumberListStyle, int]],
        keys: list[int],
        seed: int,
        found: dict[int, str | Why],
    ) -> None:
        """Lists of as many numbers as there were, in the same style."""
        model = self.kit.writer
        kept = []
        for (index, chat, style, count), key in zip(listed, keys, strict=True):
            if self._fits(chat, grammar.automaton.longest):
                kept.append((index, chat, style, count, key))
            else:
                found[index] = Why.TOO_LONG_FOR_MODEL
        answers = model.sample(
            [chat for _, chat, *_ in kept],
            grammar.automaton,
            seed=seed,
            cut=self.cut(),
            keys=[key for *_, key in kept],
            starts=[grammar.start_of(count) for _, _, _, count, _ in kept],
        )
        for (index, _, style, count, _), answer in zip(kept, answers, strict=True):
            text = model.decode(answer)
            found[index] = text if style.fits(text, count) else Why.FORMAT_NOT_KEPT

    def _write_texts(
        self,
        budget_tokens: int,
        asked: list[tuple[int, Chat, str]],
        keys: list[int],
        seed: int,
        found: dict[int, str | Why],
    ) -> None:
        answers = self.kit.writer.generate(
            [chat for _, chat, _ in asked],
            max_new_tokens=budget_tokens,
            seed=seed,
            cut=self.cut(),
            keys=keys,
        )
        for (index, _, old), answer in zip(asked, answers, strict=True):
            if not answer.finished:
                found[index] = Why.NOT_FINISHED
            elif not form_of(old).fits(answer.text):
                found[index] = Why.FORMAT_NOT_KEPT
            else:
                found[index] = answer.text
