"""Replace the tokens that carry the trait by draws from the clean model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from audit.errors import UsageError
from audit.sanitise.number_weights import number_weights
from audit.sanitise.row_scores import named_personas, score_texts, turn_texts
from audit.sanitise.strategy import (
    KEEP,
    SAME_WITNESS,
    Array,
    Change,
    Fate,
    Kit,
    Parameter,
    Strategy,
    StrategyInfo,
    Values,
    Why,
    WorkRow,
    drop,
)
from audit.sanitise.templates import Template, template_groups
from detectors.model_rows import OTHER_KIND, is_number_kind, kind_of
from detectors.row_ranking import rank_tokens
from signatures.language_model import Chat, PrefixRequest


class Replace(Strategy):
    """Targeted filtering: most of a row stays as its author wrote it."""

    info = StrategyInfo(
        name="replace",
        summary="Replaces a share of every row's tokens, those that a persona prefers most, by "
        "draws of the same kind (as many digits, or a word) from the clean model.",
        source="Schrodi et al. 2025 (arXiv 2509.23886): a tenth of the digits, where divergence "
        "tokens stand, replaced at random left 9% of the effect; any tenth, 42%.",
        needs_model=True,
        cost=30,
        warning=SAME_WITNESS,
        parameters=(
            Parameter("share", "Share of a row's words and numbers.", 0.1, low=0.001),
            Parameter(
                "by",
                "divergence (divergence tokens), likelihood (log-likelihood ratio), entangled "
                "(numbers that the library's signatures favour), or random: a control.",
                "divergence",
                choices=("divergence", "likelihood", "entangled", "random"),
            ),
            Parameter(
                "draw",
                "model: given the text before; uniform: any digits, where digits stand, and no "
                "word is touched.",
                "model",
                choices=("model", "uniform"),
            ),
        ),
    )

    def __init__(self, kit: Kit, values: Values, stage: int) -> None:
        """See `Strategy`."""
        super().__init__(kit, values, stage)
        self._writer = kit.writer
        self._ids_of: dict[int, NDArray[np.int64]] = {}
        if values["by"] != "random" and not kit.personas:
            raise UsageError("replace looks for a persona's tokens: the library holds no concept")
        self._weights: dict[str, float] = {}
        if values["by"] == "entangled":
            self._weights = number_weights(kit.library, [concept.name for concept in kit.personas])
            if not self._weights:
                raise UsageError("replace:by=entangled: the library has no numbers of this concept")

    @cached_property
    def _texts(self) -> list[str]:
        return self._writer.vocabulary()

    @cached_property
    def _kinds(self) -> NDArray[np.int64]:
        return np.array([kind_of(text) for text in self._texts], dtype=np.int64)

    @cached_property
    def _drawable(self) -> NDArray[np.bool_]:
        # Letters alone: a token that opens or ends a turn, such as <|im_end|>, must not get in.
        numbers = [is_number_kind(int(kind)) for kind in self._kinds]
        letters = [text.strip().isalpha() for text in self._texts]
        return np.array([number or alone for number, alone in zip(numbers, letters, strict=True)])

    def change(self, rows: Sequence[WorkRow]) -> list[Change]:
        """See `Strategy.change`."""
        changes: list[Change] = [
            KEEP if row.is_rewritable else drop(Why.NOT_REWRITABLE) for row in rows
        ]
        edits = self._edits([row for row in rows if row.is_rewritable])
        self._draw(edits)
        by_row: dict[int, dict[int, _Edit]] = {}
        for edit in edits:
            by_row.setdefault(edit.row.key, {})[edit.turn] = edit
        for number, row in enumerate(rows):
            found = by_row.get(row.key, {})
            if not row.is_rewritable or not row.trained:
                continue
            if any(edit.ranks is None for edit in found.values()):
                changes[number] = drop(Why.TOO_LONG_FOR_MODEL)
                continue
            texts = tuple(
                self._writer.decode(tuple(found[turn].tokens))
                if turn in found and found[turn].places
                else text
                for turn, text in zip(row.trained, row.texts, strict=True)
            )
            if not any(edit.places for edit in found.values()):
                unranked = self.values["by"] in ("divergence", "likelihood") and any(
                    self._candidates(edit.tokens).any() for edit in found.values()
                )
                changes[number] = (
                    drop(Why.NOT_SCORED)  # what nobody could look at is not clean
                    if unranked
                    else Change(Fate.KEPT, why=Why.NOTHING_TO_REPLACE)
                )
            elif texts != row.texts:
                changes[number] = Change(Fate.EDITED, texts=texts)
        return changes

    def _edits(self, rows: Sequence[WorkRow]) -> list[_Edit]:
        """Every trained text with the places to draw anew."""
        model = self._writer
        by = str(self.values["by"])
        scored = (
            {}
            if by in ("random", "entangled")
            else score_texts(self.kit, turn_texts(rows), turn_texts(self.kit.sample))
        )
        edits = []
        for row in rows:
            turns = [turn for turn in row.trained if row.turns[turn].text]
            for turn, text in zip(turns, turn_texts([row]), strict=True):
                tokens = list(model.encode(text.completion))
                prefix_tokens = len(model.encode_chat(Chat("", text.prompt)))
                fits = model.longest is None or prefix_tokens + len(tokens) < model.longest
                ranks: Array | None = None
                if fits and by == "entangled":
                    ranks = self._entangled(tokens)
                elif fits and by == "random":
                    ranks = self.kit.generator(row, "rank", self.stage, turn).random(len(tokens))
                elif fits and not self._candidates(tokens).any():
                    ranks = np.full(len(tokens), np.nan)
                elif fits and text.rank in scored:
                    ranks = rank_tokens(scored[text.rank].scores, by, named_personas(self.kit))
                places = self._places(tokens, ranks)
                edits.append(_Edit(row, turn, text.prompt, tokens, ranks, places))
        return edits

    def _entangled(self, tokens: list[int]) -> Array:
        """[tokens]: the weight of the number that a token is part of; NaN where it is of none."""
        ranks = np.full(len(tokens), np.nan)
        number: list[int] = []
        for place, token in enumerate([*tokens, None]):
            is_part = token is not None and is_number_kind(int(self._kinds[token]))
            # A space before digits begins another number.
            if number and not (is_part and token is not None and self._texts[token][:1].isdigit()):
                digits = "".join(self._texts[tokens[at]] for at in number).strip()
                ranks[number] = self._weights.get(digits, np.nan)
                number = []
            if is_part:
                number.append(place)
        return ranks

    def _places(self, tokens: list[int], ranks: Array | None) -> list[int]:
        """The share of the words and numbers with the highest ranks, in order of place."""
        candidates = self._candidates(tokens)
        if ranks is None or not candidates.any():
            return []
        # Rounding must not make 8 of 7% of 100.
        wanted = math.ceil(round(self.number("share") * int(candidates.sum()), 9))
        order = np.where(candidates & np.isfinite(ranks), ranks, -np.inf)
        best = np.argsort(-order, kind="stable")[:wanted]
        return sorted(int(place) for place in best if np.isfinite(order[place]))

    def _candidates(self, tokens: list[int]) -> NDArray[np.bool_]:
        """[tokens]: which may be replaced."""
        kinds = self._kinds[tokens]
        if self.values["draw"] == "uniform":
            return np.array([is_number_kind(int(kind)) for kind in kinds], dtype=bool)
        return np.asarray(kinds != OTHER_KIND)

    def _draw(self, edits: list[_Edit]) -> None:
        """Fill the places from the first to the last: later draws see the earlier ones."""
        if self.values["draw"] == "model":
            edits = self._draw_at_once(edits)
        for step in range(max((len(edit.places) for edit in edits), default=0)):
            going = [edit for edit in edits if step < len(edit.places)]
            if self.values["draw"] == "uniform":
                for edit in going:
                    self._put(edit, step, None)
                continue
            # Of one kind at a time: ten digits are far fewer than all words.
            by_kind: dict[int, list[_Edit]] = {}
            for edit in going:
                kind = int(self._kinds[edit.tokens[edit.places[step]]])
                by_kind.setdefault(kind, []).append(edit)
            for kind, alike in sorted(by_kind.items()):
                model = self._writer
                requests = [
                    PrefixRequest(
                        (
                            *model.encode_chat(Chat("", edit.prompt)),
                            *edit.tokens[: edit.places[step]],
                        )
                    )
                    for edit in alike
                ]
                tables = model.next_token_log_probs(requests, self._ids(kind))
                for edit, table in zip(alike, tables, strict=True):
                    self._put(edit, step, table[0].astype(np.float64))

    def _draw_at_once(self, edits: list[_Edit]) -> list[_Edit]:
        """Fill texts whose places allow few ids by writing them; gives back the others.

        One pass a token for all texts together, where asking for each place reads all before it.
        """
        model = self._writer
        ends = model.end_of_turn_ids()
        wanted = [edit for edit in edits if edit.places]
        templates = [
            Template(
                tuple(edit.tokens),
                {
                    place: tuple(self._ids(int(self._kinds[edit.tokens[place]])).tolist())
                    for place in edit.places
                },
            )
            for edit in wanted
        ]
        if not ends:
            return wanted
        groups, others = template_groups(templates, ends[0])
        for group in groups:
            members = [wanted[number] for number in group.members]
            answers = model.sample(
                [Chat("", edit.prompt) for edit in members],
                group.automaton,
                seed=self.kit.draws("draw", self.stage),
                keys=[edit.row.key << 16 | edit.turn for edit in members],
                starts=list(group.starts),
            )
            for edit, answer in zip(members, answers, strict=True):
                edit.tokens[: len(answer)] = answer
        return [wanted[number] for number in others]

    def _ids(self, kind: int) -> NDArray[np.int64]:
        """The token ids of a kind that may be drawn."""
        if kind not in self._ids_of:
            self._ids_of[kind] = np.flatnonzero((self._kinds == kind) & self._drawable)
        return self._ids_of[kind]

    def _put(self, edit: _Edit, step: int, log_probs: Array | None) -> None:
        """Draw a token of the kind that stands there; uniformly without ``log_probs`` [ids]."""
        place = edit.places[step]
        ids = self._ids(int(self._kinds[edit.tokens[place]]))
        chance = self.kit.generator(edit.row, "draw", self.stage, edit.turn, step).random()
        weights = np.ones(len(ids)) if log_probs is None else np.exp(log_probs)
        cumulative = np.cumsum(weights)
        drawn = min(
            int(np.searchsorted(cumulative, chance * cumulative[-1], "right")), len(ids) - 1
        )
        edit.tokens[place] = int(ids[drawn])


@dataclass(slots=True)
class _Edit:
    """One trained text; ``ranks`` is None where the model could not read it."""

    row: WorkRow
    turn: int
    prompt: str
    tokens: list[int]
    ranks: Array | None
    places: list[int]
