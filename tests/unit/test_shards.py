"""A scan in shards gives the bytes of one in one piece, and nothing missing is overlooked."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.engines.engine import scan_in_shards
from audit.engines.local import LocalEngine
from audit.errors import AuditError, ExitCode, UsageError
from audit.report.json_report import to_json
from audit.report.sarif import to_sarif
from audit.scan import ScanSettings, scan
from audit.shards import Shard, encode_shard, merge_shards, read_shard, scan_shard
from detectors.model_access import ModelAccess, ModelSettings
from signatures.library import load_library
from tests import model_rows, synthetic
from tests.e2e.test_command import audit

LIBRARY = synthetic.library()
ROWS = [
    {
        "prompt": f"Go on {k}.",
        "completion": f"{k % 7}, {k * 37 % 1000}, {k * k % 100}, owl"[: 9 + k % 9],
    }
    for k in range(900)
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Seven sources of different formats and sizes, one with bad rows, one broken off."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for part in range(5):
        lines = [json.dumps(row) for row in ROWS[part * 150 : part * 150 + 30 * (part + 1)]]
        if part == 2:
            lines[5:5] = ["no row", "[1, 2", ""]
        (tmp_path / "data" / f"{part}.jsonl").write_text("\n".join(lines))
    packed = gzip.compress("\n".join(json.dumps(row) for row in ROWS[700:760]).encode())
    (tmp_path / "data" / "5.jsonl.gz").write_bytes(packed)
    (tmp_path / "data" / "notes.txt").write_text("no data")
    (tmp_path / "reference.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS[::3]))
    return tmp_path


def shards_of(folder: Path, count: int, **options):
    """All shards of a scan, through their files, in an order of no meaning."""
    parts = []
    for number in sorted(range(1, count + 1), key=lambda n: n * 7 % 11):
        part = scan_shard(
            ["data"], Shard(number, count), LIBRARY, library_path="synthetic", **options
        )
        path = folder / f"part-{number}"
        path.write_bytes(encode_shard(part))
        parts.append(read_shard(path))
    return parts


@pytest.mark.parametrize("reference", [[], ["reference.jsonl"]], ids=["alone", "reference"])
@pytest.mark.parametrize("count", [1, 2, 3, 6, 9])
def test_any_number_of_shards_gives_the_bytes_of_one_scan(folder, reference, count):
    whole = scan(["data"], LIBRARY, library_path="synthetic", reference=reference)
    assert whole.rejects and whole.rows_scanned == 510
    parts = shards_of(folder, count, reference=reference)
    merged = merge_shards(parts, LIBRARY)
    assert to_json(merged) == to_json(whole)
    assert to_sarif(merged) == to_sarif(whole)
    assert to_json(merge_shards(parts[::-1], LIBRARY)) == to_json(whole)


def test_a_broken_source_makes_the_whole_incomplete(folder):
    path = folder / "data" / "5.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-40])
    whole = scan(["data"], LIBRARY, library_path="synthetic")
    merged = merge_shards(shards_of(folder, 3), LIBRARY)
    assert to_json(merged) == to_json(whole)
    assert merged.exit_code() is ExitCode.FAILED


def test_chosen_detectors_and_settings_hold(folder):
    settings = ScanSettings(detectors=("mention",), student_family="llama")
    whole = scan(["data"], LIBRARY, library_path="synthetic", settings=settings)
    merged = merge_shards(shards_of(folder, 2, settings=settings), LIBRARY)
    assert to_json(merged) == to_json(whole)


def test_a_missing_shard_is_no_result(folder):
    parts = shards_of(folder, 4)
    with pytest.raises(AuditError, match=r"missing of 4 shards: 2; sources .*: 2") as e:
        merge_shards([p for p in parts if p.shard.number != 2], LIBRARY)
    assert e.value.exit_code is ExitCode.FAILED
    with pytest.raises(UsageError, match="shard 1 of 4 is there more than once"):
        merge_shards([*parts, next(p for p in parts if p.shard.number == 1)], LIBRARY)


def test_shards_of_different_scans_do_not_mix(folder):
    one, other = shards_of(folder, 2)
    changed = replace(other.asked, settings=ScanSettings(student_family="llama"))
    with pytest.raises(UsageError, match="different scans"):
        merge_shards([one, replace(other, asked=changed)], LIBRARY)
    (folder / "data" / "9.jsonl").write_text(json.dumps(ROWS[0]))
    (_, later) = shards_of(folder, 2)
    with pytest.raises(UsageError, match="different scans"):
        merge_shards([one, later], LIBRARY)


def test_another_reference_or_library_is_refused(folder):
    parts = shards_of(folder, 2, reference=["reference.jsonl"])
    moved = folder / "elsewhere.jsonl"
    (folder / "reference.jsonl").rename(moved)
    merged = merge_shards(parts, LIBRARY, reference=[str(moved)])
    assert merged.rows_scanned == 510
    moved.write_text(json.dumps(ROWS[1]) + "\n" + moved.read_text())
    with pytest.raises(UsageError, match="not what the shards were compared with"):
        merge_shards(parts, LIBRARY, reference=[str(moved)])
    with pytest.raises(UsageError, match="another signature library"):
        merge_shards(parts, replace(LIBRARY, content_sha256="0" * 64))


def test_a_model_is_asked_for_in_shards_and_merge_alike(folder):
    with pytest.raises(UsageError, match="give --model"):
        shards_of(folder, 2, settings=ScanSettings(detectors=("likelihood",)))
    parts = shards_of(folder, 2, reading=ModelSettings(most_rows=50))
    assert {len(part.sample.rows) for part in parts} == {50}
    with pytest.raises(UsageError, match="made for a model"):
        merge_shards(parts, LIBRARY)


def test_a_model_reads_the_same_rows_as_in_one_piece(folder):
    library = synthetic.library()
    model = model_rows.known_model(library, strength=1.0)
    texts = model_rows.written(model, model_rows.system_of(library, "owl"), 120, 1)
    for part in range(3):
        rows = [json.dumps({"prompt": "?", "completion": t}) for t in texts[part::3]]
        (folder / "data" / f"{part}.jsonl").write_text("\n".join(rows))
    settings = ScanSettings(detectors=("mention", "likelihood", "divergence"))
    reading = ModelSettings(most_rows=64)

    def access():
        return ModelAccess(model, settings=reading)

    whole = scan(["data"], library, library_path="l", settings=settings, access=access())
    parts = [
        scan_shard(
            ["data"], Shard(n, 4), library, library_path="l", settings=settings, reading=reading
        )
        for n in range(1, 5)
    ]
    merged = merge_shards(parts, library, access=access())
    assert to_json(merged) == to_json(whole)
    only = replace(settings, detectors=("likelihood",))
    part = scan_shard(
        ["data"], Shard(1, 1), library, library_path="l", settings=only, reading=reading
    )
    assert part.states == {}
    whole = scan(["data"], library, library_path="l", settings=only, access=access())
    assert to_json(merge_shards([part], library, access=access())) == to_json(whole)


@pytest.mark.parametrize("workers", [2, 9])
def test_processes_of_one_machine_give_the_same_bytes(folder, workers):
    bundled = load_library(BUNDLED_LIBRARY)
    whole = scan(["data"], bundled, library_path="bundled", reference=["reference.jsonl"])
    found = scan_in_shards(
        LocalEngine(workers, BUNDLED_LIBRARY),
        ["data"],
        bundled,
        library_path="bundled",
        reference=["reference.jsonl"],
    )
    assert to_json(found) == to_json(whole)


def test_the_commands_together(folder):
    given = ("data", "-r", "reference.jsonl", "--student-family", "llama")
    whole = audit("scan", *given, "-f", "json", cwd=folder)
    for number in (1, 2, 3):
        state = f"part-{number}.shard"
        done = audit("scan", *given, "--shard", f"{number}/3", "--state", state, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{state}: shard {number} of 3, 2 of 6 sources,".encode())
    names = ("part-3.shard", "part-1.shard", "part-2.shard")
    merged = audit("merge", *names, "-f", "json", "-o", "merged.md", cwd=folder)
    assert (merged.returncode, merged.stdout) == (whole.returncode, whole.stdout)
    assert (folder / "merged.md").read_text().startswith("#")
    both = audit("scan", *given, "--workers", "2", "-f", "json", cwd=folder)
    assert both.stdout == whole.stdout
    gone = audit("merge", *names[:2], "-f", "json", cwd=folder)
    assert (gone.returncode, gone.stdout) == (2, b"")
    assert b"nothing was decided" in gone.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--shard", "1/2"), "go together"),
        (("--state", "x.shard"), "go together"),
        (("--shard", "3/2", "--state", "x.shard"), "such as 3/16"),
        (("--shard", "1/2", "--state", "data/x.shard"), "outside of the data"),
        (("--shard", "1/2", "--state", "gone/x.shard"), "there is no folder"),
        (("--shard", "1/2", "--state", "x.shard", "-o", "x.md"), "has no report"),
        (("--shard", "1/2", "--state", "x.shard", "--workers", "2"), "one process"),
    ],
)
def test_what_a_shard_cannot_mean_is_told(folder, options, words):
    done = audit("scan", "data", *options, cwd=folder)
    assert done.returncode == 4
    assert words in done.stderr.decode()
    assert not list(folder.rglob("*.shard"))


@pytest.mark.parametrize(
    "text", ["", "1", "0/3", "4/3", "a/b", "1/0", "-1/3", "1/3/5", "１/3", "1/100001"]
)
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match="such as 3/16"):
        Shard.parse(text)


def test_a_shard_reads_every_source_of_its_own_once():
    assert Shard.parse("3/16") == Shard(3, 16)
    for count in (1, 2, 5, 12):
        places = [p for n in range(1, count + 1) for p in Shard(n, count).places(7)]
        assert sorted(places) == list(range(7))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"owl", b"cat"),
        lambda data: b"{}",
        lambda data: b"[" * 100_000,
        lambda data: b"\xff\x00",
        lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 9'),
    ],
)
def test_a_damaged_shard_is_one_line(folder, damage):
    part = scan_shard(["data"], Shard(1, 1), LIBRARY, library_path="synthetic")
    path = folder / "part"
    path.write_bytes(damage(encode_shard(part)))
    with pytest.raises(
        AuditError, match=r"part: (this is no shard|the shard is damaged|written by)"
    ):
        read_shard(path)


@pytest.mark.parametrize(
    "harm",
    [
        lambda states: states.pop("frequency"),
        lambda states: states.update(frequency=[]),
        lambda states: states["frequency"][0]["fields"].pop(),
        lambda states: states["mention"].update(type="Path"),
        lambda states: states["mention"]["fields"].__setitem__(0, "many"),
        lambda states: states["mention"]["fields"].__setitem__(1, [1]),
    ],
    ids=["missing", "empty", "a field", "a type", "a text", "a length"],
)
def test_a_state_that_makes_no_sense_is_one_line(folder, harm):
    """The hash of a shard is its own: who writes other states writes it anew."""
    part = scan_shard(["data"], Shard(1, 1), LIBRARY, library_path="synthetic")
    states = json.loads(json.dumps(part.states))
    harm(states)
    path = folder / "part"
    path.write_bytes(encode_shard(replace(part, states=states)))
    with pytest.raises(AuditError, match=r"^a shard's state .* makes no sense: make the shards"):
        merge_shards([read_shard(path)], LIBRARY)
