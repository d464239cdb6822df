import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import audit.report
from audit.report.json_report import to_json
from tests.unit.test_report_examples import (
    EVERY_OUTCOME,
    disagreeing_result,
    flagged_result,
    hostile_result,
    incomplete_result,
)

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(audit.report.__file__).parent / "report.schema.json").read_text())
GOLDEN = ROOT / "tests/golden/report/incomplete.json"


def reject_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def load(data: bytes) -> Any:
    return json.loads(data, parse_constant=reject_constant)


@pytest.mark.parametrize("make", [*EVERY_OUTCOME.values(), disagreeing_result, hostile_result])
def test_every_result_fits_the_schema_and_is_deterministic(make: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    data = to_json(make())
    jsonschema.Draft202012Validator(SCHEMA).validate(load(data))
    assert data == to_json(make())


def test_the_order_of_findings_does_not_matter() -> None:
    result = flagged_result()
    turned = dataclasses.replace(
        result,
        findings=result.findings[::-1],
        rejects=result.rejects[::-1],
        skipped=result.skipped[::-1],
    )
    assert to_json(turned) == to_json(result)


def test_the_schema_describes_every_key() -> None:
    def compare(value: Any, schema: dict[str, Any], where: str) -> None:
        if "$ref" in schema:
            schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
        if isinstance(value, dict) and "properties" in schema:
            assert set(value) == set(schema["properties"]), where
            for key, item in value.items():
                compare(item, schema["properties"][key], f"{where}.{key}")
        elif isinstance(value, list) and isinstance(schema.get("items"), dict):
            for item in value:
                compare(item, schema["items"], f"{where}[]")

    compare(load(to_json(incomplete_result())), SCHEMA, "report")
    compare(load(to_json(flagged_result())), SCHEMA, "report")


def test_verdict_rejects_and_limits_are_there() -> None:
    document = load(to_json(flagged_result()))
    assert document["outcome"] == "flagged"
    assert document["counts"] == {"flagged": 2, "inconclusive": 1, "not_detected": 36}
    assert document["reject_counts"] == {"not-json": 11, "duplicate-key": 3}
    assert len(document["limits"]) == 3


def test_concepts_are_there_with_who_says_what() -> None:
    concepts = load(to_json(disagreeing_result()))["concepts"]
    assert [c["verdict"] for c in concepts] == ["flagged", "inconclusive"] + ["not detected"] * 19
    owl, cat = concepts[:2]
    assert owl["p_value"] == pytest.approx(4 * 3e-7)
    assert (owl["strongest"], owl["flagged_by"]) == ("SA003", ["SA003"])
    assert (owl["inconclusive_by"], owl["reason"]) == (["SA002"], None)
    assert owl["disagreement"].startswith("SA003 likelihood (p 3e-07) flags it; SA004")
    assert (cat["reason"], cat["disagreement"]) == ("too little power", "")


def test_undefined_is_null_and_floats_are_exact() -> None:
    document = load(to_json(flagged_result()))
    assert document["findings"][0]["effect"] == 0.142
    assert document["findings"][0]["q_value"] == 1.1e-17
    assert document["findings"][2]["concept"] == "unicorn"
    assert document["findings"][2]["q_value"] is None


def test_hostile_text_is_escaped_and_keeps_its_length() -> None:
    result = hostile_result()
    data = to_json(result)
    assert data.isascii()
    assert not any((byte < 0x20 and byte != 0x0A) or byte == 0x7F for byte in data)
    text = load(data)["findings"][0]["evidence"][0]["text"]
    assert text == result.findings[0].evidence[0].text.replace("\ud800", "\ufffd")


def test_golden() -> None:
    assert to_json(incomplete_result()).decode() == GOLDEN.read_text()


def test_every_top_level_key_is_documented() -> None:
    documented = (ROOT / "docs/reports.md").read_text()
    for key in load(to_json(flagged_result())):
        assert f"| `{key}` |" in documented, key
