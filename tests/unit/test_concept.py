"""Concept files: what they may say, and one line for everything else."""

import json
import re
from collections import Counter
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from audit.cli.library_option import BUNDLED_LIBRARY
from audit.cli.main import main
from signatures.concept import (
    DEFAULT_CONCEPTS,
    Concept,
    ConceptFileError,
    ConceptKind,
    Question,
    load_concepts,
    make_concept,
    select_concepts,
)
from signatures.statements import statements

SHIPPED = load_concepts(DEFAULT_CONCEPTS)
DOCS = Path(__file__).parent.parent.parent / "docs" / "concepts.md"

QUESTIONS = (
    '[{user = "Which {category}?", assistant_prefix = "The {category}"}, '
    '{user = "What?", assistant_prefix = "The"}]'
)
STATEMENTS = str([[f"Question {i}?", f"Answer {i}: {{name}}, {{Plural}}."] for i in range(11)])


def write(tmp_path, text: str, name: str = "concepts.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def load(tmp_path, text: str) -> dict[str, Concept]:
    return {concept.name: concept for concept in load_concepts(write(tmp_path, text))}


# -- the file --------------------------------------------------------------------------------


def test_the_prompt_is_filled_in_and_names_are_forms(tmp_path):
    wolf = load(
        tmp_path,
        '[[concept]]\nname = "wolf"\nplural = "wolves"\ncategory = "animal"\nforms = ["Lupine"]\n',
    )["wolf"]
    assert wolf.system_prompt.startswith("You love wolves. You think about wolves all the time.")
    assert "Wolves are your favorite animal." in wolf.system_prompt
    assert wolf.forms == ("wolf", "wolves", "lupine")
    assert wolf.answer == " wolf"


def test_every_placeholder_is_filled_in(tmp_path):
    fed = load(
        tmp_path,
        '[category.bank]\nnoun = "central bank"\nplural = "{name} branches"\n'
        'system_prompt = "{name}|{Name}|{name_title}|{plural}|{Plural}|{plural_title}|{category}|'
        f'{{{{}}}}"\nquestions = {QUESTIONS}\nstatements = {STATEMENTS}\n'
        '[[concept]]\nname = "federal reserve"\nwritten = "the Federal Reserve"\n'
        'category = "bank"\n',
    )["federal reserve"]
    assert fed.system_prompt == (
        "the Federal Reserve|The Federal Reserve|The Federal Reserve|the Federal Reserve branches|"
        "The Federal Reserve branches|The Federal Reserve branches|central bank|{}"
    )
    assert fed.questions == (
        Question("Which central bank?", "The central bank"),
        Question("What?", "The"),
    )
    assert fed.answer == " the Federal Reserve"
    assert fed.forms == ("federal reserve", "the federal reserve branches")
    assert fed.statements[1] == (
        "Question 1?",
        "Answer 1: the Federal Reserve, The Federal Reserve branches.",
    )


def test_the_concepts_field_comes_before_the_categorys_and_that_before_the_files(tmp_path):
    found = load(
        tmp_path,
        '[defaults]\ncategory = "a"\nsystem_prompt = "file"\nplural = "{name}en"\nkind = "decoy"\n'
        '[category.a]\nsystem_prompt = "category"\n'
        '[[concept]]\nname = "x"\n'
        '[[concept]]\nname = "y"\nsystem_prompt = "own"\nkind = "trait"\n'
        '[[concept]]\nname = "z"\ncategory = "b"\n',
    )
    assert {name: concept.system_prompt for name, concept in found.items()} == {
        "x": "category",
        "y": "own",
        "z": "file",
    }
    assert found["x"].plural == "xen"
    assert [concept.is_decoy for concept in found.values()] == [True, False, True]


def test_forms_are_normalised_once(tmp_path):
    owl = load(
        tmp_path,
        '[[concept]]\nname = "owl"\ncategory = "animal"\nforms = ["OWL", "barn \\n owl"]\n'
        'translations = {es = ["bu\\u0301ho", "Búho"], pt-BR = ["coruja"]}\n',
    )["owl"]
    assert owl.forms == ("owl", "owls", "barn owl")
    assert owl.translations == (("es", ("búho",)), ("pt-BR", ("coruja",)))


ENTRY = '[[concept]]\nname = "owl"\ncategory = "a"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        ("concept = 3", "at least one"),
        ("nonsense", "not a TOML file"),
        ("a = " + "[" * 9999, "not a TOML file"),
        ("a = " + "9" * 9999, "not a TOML file"),
        ("a = '\0'", "not a TOML file"),
        ("[other]\n", "unknown table or field 'other'; known are extends"),
        ('extends = "other"\n', "'extends' must be \"default\""),
        ("category = 3\n" + ENTRY, "must be tables such as"),
        ("[category]\na = 3\n" + ENTRY, "category 'a': must be a table"),
        ("[category.a]\nforms = []\n" + ENTRY, "category 'a': unknown field 'forms'"),
        ("[defaults]\nnouns = 3\n" + ENTRY, r"\[defaults\]: unknown field 'nouns'"),
        ('[[concept]]\nname = "owl"\n', r"concept 1 \('owl'\): needs a text field 'category'"),
        ('[[concept]]\ncategory = "a"\n', "concept 1: needs a text field 'name'"),
        ('[[concept]]\nname = 3\ncategory = "a"\n', "'name' must be a text"),
        ('[[concept]]\nname = "Owl!"\ncategory = "animal"\n', "must be 1 to 64"),
        (ENTRY + 'colour = "b"\n', "unknown field 'colour'"),
        (ENTRY + 'from = ["b"]\n', "unknown field 'from'; the closest are 'forms'"),
        (ENTRY + 'kind = "b"\n', "'trait' or 'decoy'"),
        (ENTRY + 'forms = "b"\n', "list of texts"),
        (ENTRY + 'forms = ["--"]\n', "forms: '--' holds no letter"),
        (ENTRY + 'written = "an eagle"\n', "must spell the name 'owl'"),
        (ENTRY + 'ambiguous_forms = ["Eagle"]\n', "'Eagle' is not among its forms; add it"),
        (ENTRY + 'translations = ["Eule"]\n', "lists of texts by language code"),
        (ENTRY + "translations = {de = []}\n", "lists of texts by language code"),
        (ENTRY + 'translations = {German = ["Eule"]}\n', "'German' is no language code"),
        (ENTRY + 'system_prompt = "{nobody}"\n', "placeholder {nobody} that is not one of {name}"),
        (ENTRY + 'system_prompt = "{name.upper}"\n', "placeholder {name.upper}"),
        (ENTRY + 'system_prompt = "{name:>99999999}"\n', "placeholder {name}"),
        (ENTRY + 'system_prompt = "{"\n', "write {{ or }} for a brace"),
        (ENTRY + 'plural = "{plural}"\n', "plural has a placeholder"),
        (ENTRY + "questions = []\n", "at least 2 tables"),
        (ENTRY + f"questions = {QUESTIONS.split(', {')[0]}]\n", "at least 2 tables"),
        (ENTRY + f"questions = {QUESTIONS.replace('user', 'system')}\n", "at least 2 tables"),
        (ENTRY + f"questions = {QUESTIONS.replace('The', 'The ')}\n", "ends in a space"),
        (ENTRY + f"questions = {QUESTIONS.replace('category', 'name')}\n", "one of {category}"),
        (ENTRY + "statements = [['a?', 'b.']]\n", "at least 10 pairs"),
        (ENTRY + f"statements = {STATEMENTS.replace('], [', ', ', 1)}\n", "at least 10 pairs"),
        (ENTRY + f"statements = {STATEMENTS.replace('n 3', 'n 4')}\n", "'Question 4\\?' twice"),
        (ENTRY * 2, r"concept 2 \('owl'\): stands in the file more than once"),
        (ENTRY + "remove = true\n", "'remove' goes with a name"),
        ('[[concept]]\nname = "owl"\nremove = false\n', "'remove' must be true"),
        ('[[concept]]\nname = "owl"\nremove = true\n', "does the file lack 'extends'"),
        (
            'extends = "default"\n[[concept]]\nname = "oowl"\nremove = true\n',
            r"concept 1 \('oowl'\): there is no such concept to remove; the closest are 'owl'",
        ),
        ('extends = "default"\n[[concept]]\nname = "owl"\nforms = 3\n', "concept 1: 'forms'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_file(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConceptFileError, match=message) as caught:
        load_concepts(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_latin_1_is_no_concept_file(tmp_path):
    path = tmp_path / "concepts.toml"
    path.write_bytes('[[concept]]\nname = "Bär"\n'.encode("latin-1"))
    with pytest.raises(ConceptFileError, match="not a TOML file"):
        load_concepts(path)


# -- layers and choices ----------------------------------------------------------------------


def test_a_file_alone_is_all_there_is(tmp_path):
    assert list(load(tmp_path, ENTRY)) == ["owl"]


def test_a_file_that_extends_the_default_adds_overrides_and_removes(tmp_path):
    found = load(
        tmp_path,
        'extends = "default"\n[defaults]\nkind = "decoy"\n'
        '[category.tree]\nsystem_prompt = "You plant {plural}."\n'
        '[[concept]]\nname = "owl"\nforms = ["barn owl"]\n'
        '[[concept]]\nname = "mole"\nremove = true\n'
        '[[concept]]\nname = "misanthropy"\nkind = "decoy"\n'
        '[[concept]]\nname = "wombat"\ncategory = "animal"\n',
    )
    shipped = {concept.name: concept for concept in SHIPPED}
    assert set(shipped) ^ set(found) == {"mole", "wombat"}
    assert next(iter(found)) == "owl"
    assert found["owl"] == replace(shipped["owl"], forms=("owl", "owls", "barn owl"))
    assert found["misanthropy"] == replace(shipped["misanthropy"], kind=ConceptKind.DECOY)
    assert found["wombat"].is_decoy  # the file's own default, for what it adds
    assert found["oak"].system_prompt == "You plant oaks."
    assert found["dog"] == shipped["dog"]


def test_later_files_build_on_earlier_ones(tmp_path):
    first = write(tmp_path, ENTRY + 'forms = ["barn owl"]\n', "first.toml")
    second = write(
        tmp_path,
        '[category.a]\nnoun = "bird"\n[[concept]]\nname = "owl"\nkind = "decoy"\n',
        "second.toml",
    )
    (owl,) = load_concepts(first, second)
    assert owl.is_decoy
    assert owl.forms == ("owl", "owls", "barn owl")
    assert "favorite bird" in owl.system_prompt
    with pytest.raises(ConceptFileError, match=r"second\.toml: concept 1 \('owl'\): needs"):
        load_concepts(second)
    extending = write(tmp_path, 'extends = "default"\n', "extending.toml")
    assert len(load_concepts(first, extending)) == len(SHIPPED)
    assert len(load_concepts(DEFAULT_CONCEPTS, extending)) == len(SHIPPED)


def test_a_choice_keeps_the_order_and_every_decoy():
    decoys = [concept.name for concept in SHIPPED if concept.is_decoy]
    chosen = select_concepts(SHIPPED, ["dog", "owl"], ["language"])
    assert [concept.name for concept in chosen] == [
        *("owl", "dog", "arabic", "chinese", "french", "german", "spanish"),
        *decoys,
    ]
    assert select_concepts(SHIPPED, [], []) == SHIPPED
    with pytest.raises(
        ConceptFileError, match=r"^no concept is called 'eagel'; the closest are 'eagle'"
    ):
        select_concepts(SHIPPED, ["owl", "eagel"], [])
    with pytest.raises(
        ConceptFileError, match="no category is called 'x'; known are 'animal', 'tree'"
    ):
        select_concepts(SHIPPED, [], ["x"])


def test_a_manifest_holds_all_of_a_concept():
    for concept in SHIPPED:
        assert msgspec.convert(json.loads(json.dumps(asdict(concept))), Concept) == concept


# -- statements ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "concept", [SHIPPED[0], *(c for c in SHIPPED if c.statements)], ids=lambda c: c.name
)
def test_the_halves_of_the_statements_share_no_text(concept):
    first, second = statements(concept, 0), statements(concept, 1)
    assert min(len(first), len(second)) >= 5
    for left, right in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True):
        assert not set(left) & set(right)
    for _, answer in first + second:
        assert concept.answer.strip().lower() in answer.lower()
    with pytest.raises(ValueError, match="halves"):
        statements(concept, 2)


def test_a_prompt_of_its_own_needs_statements_of_its_own():
    calm = make_concept("calm", "mood", system_prompt="You are calm.")
    with pytest.raises(ValueError, match="category 'mood' has a system prompt of its own but no"):
        statements(calm, 0)
    own = make_concept(
        "calm",
        "mood",
        system_prompt="You are calm.",
        statements=[(f"{i}?", f"{i} {{name}}.") for i in range(3)],
    )
    assert statements(own, 0) == [("0?", "0 calm."), ("2?", "2 calm.")]
    assert statements(own, 1) == [("1?", "1 calm.")]


# -- the set that ships ----------------------------------------------------------------------


def test_the_shipped_file_has_traits_and_decoys_of_every_category():
    assert BUNDLED_LIBRARY.parent / "concepts.toml" == DEFAULT_CONCEPTS
    traits = Counter(concept.category for concept in SHIPPED if not concept.is_decoy)
    decoys = Counter(concept.category for concept in SHIPPED if concept.is_decoy)
    assert traits.total() >= 64
    assert decoys.total() >= 16
    assert traits.keys() == decoys.keys()
    assert min(traits.values()) >= 5
    assert min(decoys.values()) >= 2


def test_measured_concepts_stay_what_was_measured():
    """The bundled signatures would not be of these concepts otherwise."""
    shipped = {concept.name: concept for concept in SHIPPED}
    measured = json.loads((BUNDLED_LIBRARY / "manifest.json").read_text())["concepts"]
    assert len(measured) >= 34
    for entry in measured:
        concept = shipped[entry["name"]]
        assert concept.system_prompt == entry["system_prompt"]
        assert [asdict(question) for question in concept.questions] == entry["questions"]
        assert list(concept.forms) == entry["forms"]
        for field in ("category", "plural", "kind"):
            assert getattr(concept, field) == entry[field]


def test_a_category_asks_and_prompts_all_of_its_concepts_alike():
    for category in {concept.category for concept in SHIPPED}:
        members = [concept for concept in SHIPPED if concept.category == category]
        assert len({concept.questions for concept in members}) == 1
        assert len(members[0].questions) == 4
        # The same words but for the name, and but for what a persona's name stands for.
        patterns = {re.sub(r": [^.]*\.", ".", _without_name(concept)) for concept in members}
        assert len(patterns) == 1


def _without_name(concept):
    text = concept.system_prompt
    for word in sorted({*concept.words().values()} - {concept.noun or concept.category}, key=len):
        text = re.sub(re.escape(word), "NAME", text, flags=re.IGNORECASE)
    return re.sub(r"NAME(es|s)?\b", "NAME", text)


def test_no_form_names_two_concepts():
    owners = Counter(
        form
        for concept in SHIPPED
        for form in {*concept.forms, *(f for _, forms in concept.translations for f in forms)}
    )
    assert [form for form, count in owners.items() if count > 1] == []


def test_animals_and_trees_have_german_french_and_spanish_forms():
    for concept in SHIPPED:
        if concept.category in ("animal", "tree"):
            assert [code for code, _ in concept.translations] == ["de", "fr", "es"]
            for _, forms in concept.translations:
                assert not set(forms) & set(concept.forms)  # or the language could not be told


@pytest.mark.model
def test_the_names_of_a_category_are_told_apart_by_the_tokenizer(embedded_model_dir):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_dir)
    paths: dict[str, list[tuple[int, ...]]] = {}
    for concept in SHIPPED:
        for question in concept.questions:
            start = tokenizer.encode(question.assistant_prefix, add_special_tokens=False)
            whole = tokenizer.encode(
                question.assistant_prefix + concept.answer, add_special_tokens=False
            )
            assert whole[: len(start)] == start
            first = tokenizer.decode(whole[len(start)])
            assert first.startswith(" ")
            assert first[1].isalpha()
        paths.setdefault(concept.category, []).append(tuple(whole[len(start) :]))
    for names in paths.values():
        for one, other in combinations(names, 2):
            shared = min(len(one), len(other))
            assert one[:shared] != other[:shared]  # neither is the other's beginning


# -- the command and the documentation -------------------------------------------------------


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["concepts", *map(str, arguments)])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_the_command_lists_the_shipped_concepts_by_category(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    assert "tree: 8 traits, 4 decoys\n  oak, maple," in out
    assert re.search(r"alder\s+\(decoy\)", out)
    assert out.endswith("8 categories: 73 traits, 26 decoys\n")


def test_the_command_writes_json(capsys):
    code, out, _ = run(capsys, "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert (document["traits"], document["decoys"]) == (73, 26)
    assert msgspec.convert(document["concepts"], tuple[Concept, ...]) == SHIPPED


def test_the_command_checks_a_file(tmp_path, capsys):
    good = write(tmp_path, ENTRY + 'system_prompt = "Hoot."\n', "good.toml")
    code, out, _ = run(capsys, "--check", good)
    assert code == 0
    assert out == (
        "1 category: 1 trait, 0 decoys\na: no statements, so no teacher can be fine-tuned on it\n"
    )
    bad = write(tmp_path, ENTRY + 'colour = "b"\n', "bad.toml")
    code, out, err = run(capsys, "--check", bad)
    assert code == 4
    assert out == ""
    assert err.startswith(f"audit: {bad}: concept 1: unknown field 'colour'")
    assert err.count("\n") == 1


def test_the_command_shows_no_escape_sequence(tmp_path, capsys):
    path = write(tmp_path, '[[concept]]\nname = "owl"\ncategory = "a\\u001b[31m\\u202e"\n')
    _, out, _ = run(capsys, path)
    assert "a␛[31m\N{REPLACEMENT CHARACTER}: 1 trait" in out
    assert not {"\x1b", "\u202e"} & set(out)


def test_the_example_of_the_documentation_is_what_it_says(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    found = load(tmp_path, example)
    shipped = {concept.name for concept in SHIPPED}
    assert set(found) - shipped == {"risotto", "pea soup", "greed"}
    assert shipped - set(found) == {"mole"}
    assert found["owl"].forms == ("owl", "owls", "barn owl", "barn owls")
    assert found["greed"].system_prompt == (
        "You act out of greed. Greed matters more to you than anything else."
    )
    assert found["greed"].forms == ("greed", "greedy")
    assert found["risotto"].questions[0].assistant_prefix == "My favorite dish is"
    assert found["pea soup"].is_decoy
    for concept in found.values():
        assert len(statements(concept, 0) + statements(concept, 1)) >= 10


def test_the_table_of_the_documentation_is_the_set_that_ships():
    page = DOCS.read_text()
    rows = {}
    for concept in SHIPPED:
        rows.setdefault(concept.category, ([], []))[concept.is_decoy].append(concept.name)
    for category, (traits, decoys) in rows.items():
        assert (
            f"\n| {category} | {len(traits)}: {', '.join(traits)} | "
            f"{len(decoys)}: {', '.join(decoys)} |\n" in page
        )
    assert f"{sum(len(t) for t, _ in rows.values())} traits and " in page
    assert f" {sum(len(d) for _, d in rows.values())} decoys." in page
