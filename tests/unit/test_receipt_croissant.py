import base64
import dataclasses
from typing import Any

import pytest

from audit.report.croissant import render_provenance
from tests.unit.test_receipt_examples import cleaned_result, dry_result, hostile_sanitise_result
from tests.unit.test_report_json import load


def document() -> Any:
    return load(render_provenance(cleaned_result()))


def test_it_is_a_croissant_dataset_of_the_written_files() -> None:
    made = document()
    assert made["@type"] == "sc:Dataset"
    assert made["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert made["@context"]["@vocab"] == "https://schema.org/"
    assert made["@context"]["prov"] == "http://www.w3.org/ns/prov#"
    assert made["distribution"] == [
        {
            "@type": "cr:FileObject",
            "@id": "output-1",
            "name": "train.jsonl",
            "contentUrl": "train.jsonl",
            "contentSize": "236010 B",
            "encodingFormat": ["application/jsonlines"],
            "sha256": "0e" * 32,
        },
        {
            "@type": "cr:FileObject",
            "@id": "output-2",
            "name": "extra.csv.gz",
            "contentUrl": "extra.csv.gz",
            "contentSize": "79400 B",
            "encodingFormat": ["text/csv", "application/gzip"],
            "sha256": "0f" * 32,
        },
    ]


def test_it_is_derived_from_the_inputs_by_hash() -> None:
    made = document()
    # RFC 6920: the digest itself in base64url without padding.
    digest = base64.urlsafe_b64encode(b"\xab" * 32).decode().rstrip("=")
    assert made["prov:wasDerivedFrom"][0] == {"@id": f"ni:///sha-256;{digest}"}
    used = made["prov:wasGeneratedBy"]["prov:used"]
    assert used[0]["@id"] == f"ni:///sha-256;{digest}"
    assert used[0]["sha256"] == "ab" * 32
    assert [entity["prov:label"] for entity in used] == [
        "train.jsonl",
        "extra.csv.gz",
        "bundled",
        "SmolLM2-135M-Instruct",
    ]


def values(node: Any) -> dict[str, Any]:
    return {item["name"]: item["sc:value"] for item in node["additionalProperty"]}


def test_the_activity_names_strategies_seed_model_and_tool() -> None:
    activity = document()["prov:wasGeneratedBy"]
    assert activity["@type"] == "prov:Activity"
    assert values(activity) == {
        "seed": 7,
        "strategy 1": "threshold:t=0.05",
        "strategy 2": "drop-rows:share=0.02",
        "concept 1": "cat",
    }
    agent = activity["prov:wasAssociatedWith"]
    assert (agent["name"], agent["softwareVersion"]) == ("subliminal-audit", "0.1.0")
    model = values(activity["prov:used"][3])
    assert model["weights_sha256"] == "1a" * 32 and model["dtype"] == "bfloat16"


def test_it_repeats_and_names_no_folder() -> None:
    files = tuple(
        dataclasses.replace(file, path=f"/home/someone/private/{file.path}")
        for file in cleaned_result().outputs
    )
    moved = dataclasses.replace(cleaned_result(), outputs=files, inputs=files)
    data = render_provenance(moved)
    assert data == render_provenance(moved)
    assert b"private" not in data and b"clean/" not in data


def test_names_become_valid_urls() -> None:
    odd = dataclasses.replace(cleaned_result().outputs[0], path="clean/50% of it #1.jsonl")
    made = load(render_provenance(dataclasses.replace(cleaned_result(), outputs=(odd,))))
    assert made["distribution"][0]["contentUrl"] == "50%25%20of%20it%20%231.jsonl"
    assert made["name"] == "50% of it #1.jsonl"
    assert render_provenance(hostile_sanitise_result()).isascii()


def test_a_dry_run_has_no_provenance() -> None:
    with pytest.raises(ValueError, match="dry run"):
        render_provenance(dry_result())
