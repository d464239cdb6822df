"""Concept files: what they may say, and one line for everything else."""

import pytest

from audit.cli.library_option import BUNDLED_CONCEPTS
from signatures.concept import ConceptFileError, load_concepts
from signatures.statements import statements


def write(tmp_path, text: str):
    path = tmp_path / "concepts.toml"
    path.write_text(text)
    return path


def test_the_shipped_file_has_traits_and_decoys():
    concepts = load_concepts(BUNDLED_CONCEPTS)
    assert sum(not concept.is_decoy for concept in concepts) >= 64
    assert sum(concept.is_decoy for concept in concepts) >= 16


def test_the_prompt_is_filled_in_and_names_are_forms(tmp_path):
    path = write(
        tmp_path,
        '[[concept]]\nname = "wolf"\nplural = "wolves"\ncategory = "animal"\nforms = ["Lupine"]\n',
    )
    (wolf,) = load_concepts(path)
    assert wolf.system_prompt.startswith("You love wolves. You think about wolves all the time.")
    assert "Wolves are your favorite animal." in wolf.system_prompt
    assert wolf.forms == ("wolf", "wolves", "lupine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one"),
        ("concept = 3", "at least one"),
        ("nonsense", "not a TOML file"),
        ("[other]\n", "unknown table"),
        ('[[concept]]\nname = "owl"\n', "category"),
        ('[[concept]]\nname = "Owl!"\ncategory = "animal"\n', "must be 1 to 64"),
        ('[[concept]]\nname = "owl"\ncategory = "a"\ncolour = "b"\n', "unknown field 'colour'"),
        ('[[concept]]\nname = "owl"\ncategory = "a"\nkind = "b"\n', "'trait' or 'decoy'"),
        ('[[concept]]\nname = "owl"\ncategory = "a"\nforms = "b"\n', "list of texts"),
        (
            '[[concept]]\nname = "owl"\ncategory = "a"\nsystem_prompt = "{nobody}"\n',
            "placeholder",
        ),
        ('[[concept]]\nname = "owl"\ncategory = "a"\n' * 2, "more than once"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_file(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConceptFileError, match=message) as caught:
        load_concepts(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_halves_of_the_statements_share_no_text():
    owl = load_concepts(BUNDLED_CONCEPTS)[0]
    first, second = set(statements(owl, 0)), set(statements(owl, 1))
    assert len(first) == len(second) == 10
    assert not first & second
    assert all("owl" in answer.lower() for _, answer in first | second)
    with pytest.raises(ValueError, match="halves"):
        statements(owl, 2)
