import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing

import audit.report
from audit.report.json_report import to_json
from audit.report.receipt_json import render_receipt
from tests.unit.test_receipt_examples import (
    EVERY_RESULT,
    cleaned_result,
    dry_result,
    hostile_sanitise_result,
)
from tests.unit.test_report_examples import flagged_result
from tests.unit.test_report_json import load

ROOT = Path(__file__).parents[2]
FOLDER = Path(audit.report.__file__).parent
SCHEMA = json.loads((FOLDER / "receipt.schema.json").read_text())
REPORT_SCHEMA = json.loads((FOLDER / "report.schema.json").read_text())


def validator() -> jsonschema.Draft202012Validator:
    registry = referencing.Registry().with_resource(
        "report.schema.json", referencing.Resource.from_contents(REPORT_SCHEMA)
    )
    return jsonschema.Draft202012Validator(SCHEMA, registry=registry)


@pytest.mark.parametrize("make", EVERY_RESULT.values(), ids=EVERY_RESULT)
def test_every_receipt_fits_the_schema_and_repeats(make: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    data = render_receipt(make())
    validator().validate(load(data))
    assert data == render_receipt(make())
    assert data.isascii() and data.endswith(b"}\n")


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every object of the schema that names its properties."""
    found = [schema] if isinstance(schema, dict) and "properties" in schema else []
    inner = schema.values() if isinstance(schema, dict) else schema
    for item in inner:
        if isinstance(item, (dict, list)):
            found += objects(item)
    return found


def test_the_schema_lets_nothing_else_through_and_wants_everything() -> None:
    described = objects(SCHEMA)
    assert len(described) == 8
    for part in described:
        assert part["additionalProperties"] is False
        assert part["required"] == sorted(part["properties"])
    for damage in ({"more": 1}, {"seed": None}, {"before": {"outcome": "clean"}}):
        document = load(render_receipt(cleaned_result())) | damage
        with pytest.raises(jsonschema.ValidationError):
            validator().validate(document)


def test_counts_figures_and_hashes_are_there() -> None:
    document = load(render_receipt(cleaned_result()))
    assert document["schema"] == "subliminal-audit/receipt"
    assert document["rows_in"] == 1_536 and document["rows_out"] == 1_502
    assert document["inputs"][0]["sha256"] == "ab" * 32
    assert document["stages"][0]["strategy"] == "threshold:t=0.05"
    assert document["stages"][0]["reasons"] == {"format_not_kept": 12, "no_prompt": 24}
    assert document["tokens"]["written"] == 20_610
    assert document["utility"]["after"]["perplexity"] == 6.02
    assert document["model"]["weights_sha256"] == "1a" * 32
    assert document["verification_due"] is True


def test_undefined_is_null() -> None:
    document = load(render_receipt(dry_result()))
    assert document["before"] is None and document["model"] is None
    assert document["utility"]["edit_distance_share"] is None
    assert document["utility"]["after"]["distinct_values"] is None


def test_scans_are_their_own_reports_without_rows_of_the_data() -> None:
    scan = flagged_result()
    data = render_receipt(dataclasses.replace(cleaned_result(), before=scan))
    embedded = load(data)["before"]
    own = load(to_json(scan))
    assert any(f["evidence"] for f in own["findings"])
    for finding in own["findings"]:
        finding["evidence"] = []
    assert embedded == own
    for text in ("480, 725", "Continue"):
        assert text not in data.decode()


def test_hostile_text_is_escaped() -> None:
    data = render_receipt(hostile_sanitise_result())
    assert not any((byte < 0x20 and byte != 0x0A) or byte == 0x7F for byte in data)


def test_every_key_is_documented() -> None:
    documented = set(re.findall(r"`(\w+)`", (ROOT / "docs/receipts.md").read_text()))
    keys = {key for part in objects(SCHEMA) for key in part["properties"]}
    assert keys - documented == set()
