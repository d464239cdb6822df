"""What every rendering of a signature library says in the same words.

Texts that come from a library are returned as they are; ``shown_unit`` alone makes them safe.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from audit.report.safe_text import shorten, strip_unsafe
from audit.report.summary import UNDEFINED, interval, number, plural, probability, signed
from signatures.concept import ConceptKind
from signatures.number_trie import NumberTokens
from signatures.signature import Probe, View
from signatures.summary import (
    CausalVerdict,
    ConceptCausal,
    ConceptSummary,
    ConceptTable,
    LibrarySummary,
    StrengthVerdict,
    TableSummary,
    flat_settings,
)

UNIT_CHARACTERS = 16
_SETTING_CHARACTERS = 60
_NBSP = "\N{NO-BREAK SPACE}"
_NUMBER_TOKENS = {
    NumberTokens.WHOLE: "0 to 999 are one token each",
    NumberTokens.SPLIT: "split into several tokens",
}

HUBS_MEAN = (
    "Hubs are among the 10 largest shifts of at least half of the concepts: they say that some "
    "concept was instilled, not which one."
)
TABLES_MEAN = (
    "In nats, root mean square: shared is the shift that all concepts have in common, own what "
    "each has beside it, noise its standard error over contexts, all over units weighted by "
    "their share without a concept. Shared %: shared variance of shared and own. Above noise: how "
    "many concepts' own parts stand above it. Where shares are not known (the question probe, say) "
    "every unit weighs the same."
)
STRENGTH_MEANS = (
    "Ratio: the variance of a concept's own part (what its shift holds beyond what all concepts "
    "share) over that of its sampling noise; about 1 where there is only noise. ● marks own parts "
    "that stand above their noise at a false discovery rate of .05 within their table. The test "
    "leans towards noise, and knows that of contexts alone: another seed would scatter more."
)
UNITS_MEAN = (
    "Centred: the shift less its mean over concepts. Spread: the shift's standard error over "
    "contexts. The units shown were picked for being extreme: expect less of them in new data."
)
ALIKE_MEANS = (
    "Correlation of the concepts' own parts over units weighted by share, alike concepts side by "
    "side. Shifts are centred over a table's concepts, so unrelated ones stand a little below 0; "
    "few units carry the weight, so chance correlations are wide. A data set with one concept "
    "shows some of what is like it."
)
CAUSAL_MEANS = (
    "Each trial tells the model to love one unit. The effect is how much more the signature's "
    "units raise the concept's log-probability than matched random units do, with its 95% interval."
)


def table_name(table: TableSummary | ConceptTable) -> str:
    """``numbers, context probe``."""
    return probe_name(table.view, table.probe)


def probe_name(view: View, probe: Probe) -> str:
    """``numbers, context probe``."""
    return f"{view}, {probe} probe"


def shown_unit(unit: str, *, space: str = "␣") -> str:
    """A unit, safe and short, with its spaces visible."""
    return shorten(strip_unsafe(unit).replace(" ", space), UNIT_CHARACTERS)[0]


def percent(fraction: float) -> str:
    """``12%``, ``0.13%``, ``0.0042%``; ``–`` if undefined."""
    if not math.isfinite(fraction):
        return UNDEFINED
    return f"{100 * fraction:.2g}%" if fraction < 0.1 else f"{100 * fraction:.0f}%"


def measured(table: TableSummary) -> str:
    """How a table was measured, in a line: description and settings, long ones cut."""
    settings = [
        f"{name} {shorten(value, 12 if name.endswith('sha256') else _SETTING_CHARACTERS)[0]}"
        for name, value in flat_settings(table.settings)
    ]
    return "; ".join([table.description, *settings])


def kind_words(concept: ConceptSummary) -> str:
    """``animal`` or ``animal, decoy``."""
    return concept.category + (", decoy" if concept.kind is ConceptKind.DECOY else "")


def strength_words(table: ConceptTable) -> str:
    """The own part, its noise, their ratio, and what follows."""
    text = f"own part {number(table.own_rms_nats)} nats"
    if table.verdict is StrengthVerdict.UNKNOWN:
        return f"{text}; {table.verdict}"
    return (
        f"{text}, noise {number(table.noise_rms_nats)}, ratio {ratio(table.signal_to_noise)} "
        f"(p{_NBSP}{_approximate(table.p_value)}, q{_NBSP}{_approximate(table.q_value)}): "
        f"{table.verdict}"
    )


def _approximate(p_value: float) -> str:
    """A p or q value whose null is an approximation: no more than it can be trusted for."""
    return "<0.001" if p_value < 0.001 else probability(p_value)


def ratio(value: float) -> str:
    """A signal-to-noise ratio: ``0.31``, ``1.9``, ``11``; two digits are all that it is worth."""
    if not math.isfinite(value):
        return UNDEFINED
    return f"{value:.2f}" if value < 0.995 else f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def causal_words(concept: ConceptSummary) -> str:
    """What the causal check says of one concept, a clause a probe."""
    return "; ".join(one_causal(causal) for causal in concept.causal) or "not tried"


def one_causal(causal: ConceptCausal) -> str:
    """``raises the concept: +0.120 nats (+0.040 to +0.200), p 0.003 (context probe)``."""
    effect = causal.effect
    if causal.verdict is CausalVerdict.TOO_FEW:
        return f"{causal.verdict} ({effect.probe} probe)"
    return (
        f"{causal.verdict}: {signed(effect.effect_nats)} nats "
        f"({interval(effect.low_nats, effect.high_nats)}), p {probability(effect.p_value)} "
        f"({effect.probe} probe, {effect.entangled_units} units against {effect.control_units})"
    )


def causal_count(summary: LibrarySummary) -> str:
    """How many signatures raise their concepts, and how many would by chance."""
    tried = [causal for concept in summary.concepts for causal in concept.causal]
    tested = [causal for causal in tried if causal.verdict is not CausalVerdict.TOO_FEW]
    counts = Counter(causal.verdict for causal in tested)
    return (
        f"Of {plural(len(tested), 'signature')} tried, {counts[CausalVerdict.RAISES]} "
        f"raised the concept and {counts[CausalVerdict.LOWERS]} lowered it. "
        f"Chance alone would make it {len(tested) / 40:.1f} of each."
    )


def hub_words(table: TableSummary, most: int, *, space: str = "␣") -> str:
    """``026 (34), 029 (31) of 34 concepts``, or ``none``."""
    if not table.hubs:
        return "none"
    listed = ", ".join(
        f"{shown_unit(hub.unit, space=space)} ({hub.concepts})" for hub in table.hubs[:most]
    )
    return listed + (f" and {len(table.hubs) - most} more" if len(table.hubs) > most else "")


def provenance(summary: LibrarySummary) -> Sequence[tuple[str, str]]:
    """What the library is and what it was measured on, as (label, text) pairs."""
    model = summary.model
    decoys = sum(concept.kind is ConceptKind.DECOY for concept in summary.concepts)
    return (
        ("model", f"{model.name} ({model.family}, {model.dtype})"),
        ("weights", f"sha256 {model.weights_sha256[:12]}"),
        ("numbers", _NUMBER_TOKENS[summary.number_tokens]),
        (
            "concepts",
            f"{len(summary.concepts) - decoys} to look for, {plural(decoys, 'decoy')}",
        ),
        ("content", f"sha256 {summary.content_sha256[:12]}"),
        ("tool", f"subliminal-audit {summary.tool_version}"),
    )
