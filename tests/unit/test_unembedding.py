"""The unembedding probe: cosines by hand, rows read from files as transformers has them."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from audit.backends.unembedding_rows import open_unembedding
from audit.errors import AuditError, MissingExtraError
from audit.scan import scan
from audit.scan_result import Outcome
from signatures.concept import make_concept
from signatures.library import ProbeRecord
from signatures.number_trie import NUMBERS, build_number_trie
from signatures.signature import Probe, View
from signatures.unembedding import (
    concept_tokens,
    shift_unit,
    unembedding_records,
    unembedding_tables,
)
from tests import synthetic

# A tokenizer of characters for digits and punctuation, and of these words.
WORDS = [" owl", " owls", " cat", " cats", " sea", " otter", " moon", " "]
CHARACTERS = [*"0123456789", ",", *"abcdefghijklmnopqrstuvwxyz"]
VOCABULARY = WORDS + CHARACTERS
OWL = make_concept("owl", "animal")
CAT = make_concept("cat", "animal")


def encode(text):
    ids, at = [], 0
    while at < len(text):
        found = max((v for v in VOCABULARY if text.startswith(v, at)), key=len)
        ids.append(VOCABULARY.index(found))
        at += len(found)
    return tuple(ids)


TRIE = build_number_trie(encode)


def test_cosines_by_hand():
    rows = np.zeros((len(VOCABULARY), 2))
    rows[VOCABULARY.index(" owl")] = 2, 0
    rows[VOCABULARY.index(" owls")] = 0, 3
    rows[VOCABULARY.index(" cat")] = rows[VOCABULARY.index(" cats")] = -1, 0
    rows[VOCABULARY.index("1")] = 5, 0
    rows[VOCABULARY.index("2")] = 1, 1
    rows[VOCABULARY.index(" moon")] = 0, -2
    words = np.array([VOCABULARY.index(" moon"), VOCABULARY.index(" owl")])
    numbers, vocabulary = unembedding_tables(
        encode, VOCABULARY, lambda ids: rows[ids], [OWL, CAT], TRIE, words
    )
    assert (numbers.view, numbers.probe, numbers.units) == (
        View.NUMBERS,
        Probe.UNEMBEDDING,
        NUMBERS,
    )
    half = np.sqrt(0.5)

    def of(number):
        return numbers.shift_nats[:, NUMBERS.index(number)]

    # owl is (owl + owls) / 2: with "1" (1 + 0) / 2, with "2" cos 45 both; cat is the other way.
    assert of("1") == pytest.approx([0.5, -1])
    assert of("2") == pytest.approx([half, -half])
    assert of("12") == pytest.approx([(0.5 + half) / 2, (-1 - half) / 2])  # the mean of the two
    assert of("121") == pytest.approx([(1 + half) / 3, (-2 - half) / 3])
    assert of("777") == pytest.approx([0, 0])  # a row of no length has no direction
    assert vocabulary.units == (" moon", " owl")
    assert vocabulary.shift_nats == pytest.approx(np.array([[-0.5, 0.5], [0, -1]]))
    assert np.isnan(numbers.spread_nats).all()
    assert np.isnan(numbers.neutral_share).all()


def test_first_tokens_of_the_name_forms():
    otter = make_concept("sea otter", "animal", forms=["otter"])
    assert [VOCABULARY[i] for i in concept_tokens(encode, VOCABULARY, OWL)] == [" owl", " owls"]
    # "sea otter" and "sea otters" begin alike: counted once.
    assert [VOCABULARY[i] for i in concept_tokens(encode, VOCABULARY, otter)] == [" sea", " otter"]
    # " x" is a space and then a letter: the space is passed over.
    letter = make_concept("x", "letter", plural="x")
    assert [VOCABULARY[i] for i in concept_tokens(encode, VOCABULARY, letter)] == ["x"]
    with pytest.raises(ValueError, match="'owl'"):
        concept_tokens(lambda _text: (), VOCABULARY, OWL)


def test_records_say_that_values_are_no_nats():
    records = unembedding_records({"owl": concept_tokens(encode, VOCABULARY, OWL)}, VOCABULARY)
    assert [record.view for record in records] == [View.NUMBERS, View.VOCABULARY]
    assert "not nats" in records[0].description
    assert records[0].settings == {"unit": "cosine", "concept_tokens": {"owl": [" owl", " owls"]}}
    assert shift_unit(Probe.UNEMBEDDING) == "cosine"
    assert {shift_unit(probe) for probe in Probe if probe is not Probe.UNEMBEDDING} == {"nats"}


# -- a library of nothing else -------------------------------------------------------------------


@pytest.fixture(scope="module")
def only_unembedding():
    library = synthetic.library()
    table = library.tables[0]
    unknown = np.full(table.shift_nats.shape, np.nan)
    table = replace(
        table,
        probe=Probe.UNEMBEDDING,
        spread_nats=unknown,
        neutral_share=unknown[0],
        concept_share=unknown,
    )
    records = (ProbeRecord(View.NUMBERS, Probe.UNEMBEDDING, "cosine"),)
    return replace(library, tables=(table,), probes=records)


def number_file(path, seed):
    texts = synthetic.number_rows(3000, np.random.default_rng(seed))
    path.write_text("\n".join(json.dumps({"prompt": "Go on.", "completion": t}) for t in texts))
    return str(path)


def test_it_cannot_be_scanned_with_and_says_so(tmp_path, only_unembedding):
    result = scan([number_file(tmp_path / "a.jsonl", 1)], only_unembedding, library_path="lib")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert ["no table" in test.reason for test in result.skipped if test.code == "SA002"] == [True]


def test_it_never_passes_data_for_want_of_tables(tmp_path, only_unembedding):
    result = scan(
        [number_file(tmp_path / "a.jsonl", 1)],
        only_unembedding,
        library_path="lib",
        reference=[number_file(tmp_path / "b.jsonl", 2)],
    )
    assert result.outcome is Outcome.INCONCLUSIVE


# -- rows from files -----------------------------------------------------------------------------


def model_folder(path, tensors, *, tied=True, shards=None):
    """A model folder of torch ``tensors``; ``shards`` maps names to files."""
    from safetensors.torch import save_file

    path.mkdir()
    (path / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
    if shards is None:
        save_file(tensors, path / "model.safetensors")
        return path
    for file in set(shards.values()):
        save_file({n: t for n, t in tensors.items() if shards[n] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return path


def matrix(rows=7, columns=3, dtype="float32"):
    import torch

    torch.manual_seed(rows)
    return torch.randn(rows, columns).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_every_float_type_is_read_exactly(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("audit.backends.unembedding_rows._CHUNK_BYTES", 2 * 3 * 8)  # 2 rows
    head = matrix(dtype=dtype)
    folder = model_folder(
        tmp_path / "m", {"model.embed_tokens.weight": matrix(7, 4), "lm_head.weight": head}
    )
    found = open_unembedding(folder)
    assert (found.tensor, found.vocabulary_size, found.hidden_size) == ("lm_head.weight", 7, 3)
    expected = head.double().numpy()
    np.testing.assert_array_equal(found.rows(np.array([6, 0, 6])), expected[[6, 0, 6]])
    np.testing.assert_allclose(found.mean_row, expected.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        found.centred_rows(np.array([2])), expected[[2]] - expected.mean(axis=0)
    )
    assert found.rows(np.array([], dtype=np.int64)).shape == (0, 3)
    for wrong in (-1, 7):
        with pytest.raises(IndexError):
            found.rows(np.array([wrong]))


def test_shards_are_found_by_the_index_and_tied_rows_stand_in(tmp_path):
    embed = matrix()
    shards = {"model.embed_tokens.weight": "a.safetensors", "model.norm.weight": "b.safetensors"}
    tensors = {"model.embed_tokens.weight": embed, "model.norm.weight": matrix(1)[0].clone()}
    folder = model_folder(tmp_path / "m", tensors, shards=shards)
    (folder / "b.safetensors").unlink()  # a shard without the rows is never opened
    found = open_unembedding(folder)
    assert (found.tensor, found.path.name) == ("model.embed_tokens.weight", "a.safetensors")
    np.testing.assert_array_equal(found.rows(np.arange(7)), embed.numpy())


def test_what_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    embed = {"model.embed_tokens.weight": matrix()}
    with pytest.raises(AuditError, match="no safetensors file"):
        (tmp_path / "none").mkdir()
        open_unembedding(tmp_path / "none")
    with pytest.raises(AuditError, match="not tied"):
        open_unembedding(model_folder(tmp_path / "untied", embed, tied=False))
    with pytest.raises(AuditError, match="no output embedding"):
        open_unembedding(model_folder(tmp_path / "other", {"x": matrix()}))
    with pytest.raises(AuditError, match="unquantised"):
        open_unembedding(
            model_folder(tmp_path / "int", {"lm_head.weight": matrix().to(dtype=_int8())})
        )
    outside = model_folder(
        tmp_path / "outside", embed, shards=dict.fromkeys(embed, "a.safetensors")
    )
    index = outside / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(embed, "../a.safetensors")}))
    with pytest.raises(AuditError, match="outside"):
        open_unembedding(outside)
    index.write_text("[]")
    with pytest.raises(AuditError, match="not a safetensors index"):
        open_unembedding(outside)
    cut = model_folder(tmp_path / "cut", embed)
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[:-4])
    with pytest.raises(AuditError, match="cannot be read as safetensors"):
        open_unembedding(cut)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingExtraError, match="models"):
        open_unembedding(cut)


def _int8():
    import torch

    return torch.int8


@pytest.mark.model
def test_rows_are_the_real_models_output_rows(embedded_model_dir):
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(
        embedded_model_dir, dtype=torch.float32, local_files_only=True
    )
    expected = model.get_output_embeddings().weight.detach().double().numpy()
    found = open_unembedding(embedded_model_dir)
    assert (found.vocabulary_size, found.hidden_size) == expected.shape
    ids = np.random.default_rng(0).integers(0, len(expected), 300)
    np.testing.assert_array_equal(found.rows(ids), expected[ids])
    np.testing.assert_allclose(found.mean_row, expected.mean(axis=0), atol=1e-9)


@pytest.mark.model
def test_a_real_models_neighbours_are_what_they_mean(embedded_model_dir):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        embedded_model_dir, local_files_only=True
    )

    def encode_real(text):
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    vocabulary = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    words = np.array([encode_real(f" {word}")[0] for word in ("birds", "dog", "invoice")])
    concepts = [make_concept("bird", "animal"), make_concept("cat", "animal")]
    numbers, table = unembedding_tables(
        encode_real,
        vocabulary,
        open_unembedding(embedded_model_dir).centred_rows,
        concepts,
        build_number_trie(encode_real),
        words,
    )
    assert (np.abs(numbers.shift_nats) <= 1).all()
    assert table.shift_nats[0, 0] > 0.4  # birds, for bird: its own plural
    assert table.shift_nats[0, 0] > table.shift_nats[0, 2] + 0.3
    assert table.shift_nats[1, 1] > table.shift_nats[1, 2] + 0.1  # dog rather than invoice, for cat
