"""How strategies are named, and what they say of themselves."""

import pytest

from audit.errors import UsageError
from audit.sanitise.registry import parse_spec, parse_specs, strategy_infos, strategy_names
from tests.sanitise_runs import kit_of, strategy_of


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("shuffle", "shuffle"),
        ("threshold", "threshold:t=0.05"),
        ("threshold:t=.1", "threshold:t=0.1"),
        (" greedy ", "greedy"),
        ("drop-rows:miss=1e-3", "drop-rows:by=likelihood,miss=0.001"),
        ("mask:share=1,by=random", "mask:by=random,share=1"),
        ("replace", "replace:share=0.1,by=divergence,draw=model"),
        # A run that goes on is known by its specs: no digit may be lost.
        ("top-p:p=0.123456789", "top-p:p=0.123456789"),
        ("min-p:p=0.30000000000000004", "min-p:p=0.30000000000000004"),
    ],
)
def test_a_spec_names_all_parameters_and_reads_back(text, whole):
    spec = parse_spec(text)
    assert str(spec) == whole
    assert parse_spec(whole) == spec


@pytest.mark.parametrize("name", strategy_names())
def test_every_default_reads_back(name):
    spec = parse_spec(name)
    assert parse_spec(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no strategy is called ''"),
        ("owl", "there are: shuffle, replace, .*, auto"),
        ("threshold:p=1", "threshold takes t, as in"),
        ("shuffle:x=1", "shuffle takes no parameter"),
        ("threshold:t", "threshold takes t"),
        ("threshold:t=nan", "t is a number in 0..1, not nan"),
        ("threshold:t=1.1", "t is a number in 0..1, not 1.1"),
        ("threshold:t=inf", "not inf"),
        ("threshold:t=", "not $"),
        ("threshold:t=0.1,t=0.1", "t is given twice"),
        ("drop-rows:by=owl", "by is one of likelihood, divergence, random, not 'owl'"),
        ("top-p:p=0", "p is a number in 0.01..1"),
        ("dilute:share=1", "share is a number in 0..0.99"),
        ("drop-rows:miss=0", "miss is a number in 0.0001..0.9999"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_spec(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drop-rows:share=0.5,miss=0.1", "share or miss, not both"),
        ("mask:by=divergence,miss=0.1", "give share"),
        ("dilute", "--clean"),
    ],
)
def test_values_that_exclude_each_other(text, message):
    with pytest.raises(UsageError, match=message):
        strategy_of(text, kit_of())


def test_what_writes_needs_a_model_and_says_so():
    for name in ("threshold", "greedy", "replace", "drop-low-probability"):
        with pytest.raises(UsageError, match="--model"):
            strategy_of(name, kit_of(model=None))
    needs = {info.name: info.needs_model for info in strategy_infos()}
    assert needs["threshold"]
    assert not needs["shuffle"]


def test_strategies_are_tried_from_the_cheapest():
    costs = [info.cost for info in strategy_infos()]
    assert len(set(costs)) == len(costs)


def test_specs_keep_their_order():
    assert [spec.name for spec in parse_specs(["mask", "shuffle"])] == ["mask", "shuffle"]
