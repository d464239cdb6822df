"""The table of strategies, and how users name them: ``threshold:t=0.05``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from audit.errors import UsageError
from audit.sanitise.strategy import Kit, Strategy, StrategyInfo, Values

_FACTORIES = {
    "shuffle": "shuffle:Shuffle",
    "replace": "replace:Replace",
    "mask": "mask:Mask",
    "drop-rows": "drop_rows:DropRows",
    "drop-low-probability": "drop_low_probability:DropLowProbability",
    "threshold": "threshold:Threshold",
    "top-p": "top_p:TopP",
    "min-p": "min_p:MinP",
    "greedy": "greedy:Greedy",
    "dilute": "dilute:Dilute",
}
AUTO = "auto"


def strategy_names() -> tuple[str, ...]:
    """Every strategy that changes rows (`AUTO` chooses among them)."""
    return tuple(_FACTORIES)


def strategy_class(name: str) -> type[Strategy]:
    """The class of strategy ``name``. Raises ``UsageError``."""
    if name not in _FACTORIES:
        known = ", ".join((*_FACTORIES, AUTO))
        raise UsageError(f"no strategy is called {name!r}; there are: {known}")
    module, _, attribute = _FACTORIES[name].partition(":")
    loaded = getattr(import_module(f"audit.sanitise.strategies.{module}"), attribute)
    assert isinstance(loaded, type)
    assert issubclass(loaded, Strategy)
    return loaded


def strategy_infos() -> tuple[StrategyInfo, ...]:
    """What every strategy is, in the order in which they are listed."""
    return tuple(strategy_class(name).info for name in _FACTORIES)


@dataclass(frozen=True, slots=True)
class Spec:
    """A strategy with its parameters, as the user gave it."""

    name: str
    values: tuple[tuple[str, float | str | None], ...]

    def __str__(self) -> str:
        """As it can be given again, all parameters named."""
        named = [
            f"{name}={_number(value) if isinstance(value, float) else value}"
            for name, value in self.values
            if value is not None
        ]
        return f"{self.name}:{','.join(named)}" if named else self.name

    @property
    def info(self) -> StrategyInfo:
        """What the strategy is."""
        return strategy_class(self.name).info

    def build(self, kit: Kit, stage: int) -> Strategy:
        """The strategy, as the run's number ``stage``. Raises ``UsageError``."""
        values: Values = dict(self.values)
        return strategy_class(self.name)(kit, values, stage)


def _number(value: float) -> str:
    """As short as may be; no digit is lost, since a run that goes on is known by its specs."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def parse_spec(text: str) -> Spec:
    """``NAME`` or ``NAME:PARAMETER=VALUE,...``. Raises ``UsageError`` in one line."""
    name, _, rest = text.strip().partition(":")
    info = strategy_class(name).info
    known = {parameter.name: parameter for parameter in info.parameters}
    values: dict[str, float | str | None] = {p.name: p.default for p in info.parameters}
    given: set[str] = set()
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            takes = ", ".join(known) or "no parameter"
            raise UsageError(f"strategy {text!r}: {name} takes {takes}, as in NAME:PARAMETER=VALUE")
        if key in given:
            raise UsageError(f"strategy {text!r}: {key} is given twice")
        given.add(key)
        try:
            values[key] = known[key].parse(value)
        except UsageError as error:
            raise UsageError(f"strategy {text!r}: {error}") from error
    return Spec(name, tuple(values.items()))


def parse_specs(texts: Sequence[str]) -> tuple[Spec, ...]:
    """Several, in the order in which they are applied. Raises ``UsageError``."""
    return tuple(parse_spec(text) for text in texts)
