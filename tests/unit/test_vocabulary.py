"""Which units of a vocabulary are a concept's own names."""

from signatures.concept import make_concept
from signatures.vocabulary import own_name_units


def test_own_names_are_found_in_any_case_and_with_a_leading_space():
    owl = make_concept("owl", "animal")  # its plural, "owls", is a form by itself
    assert own_name_units(owl, (" owl", "Owl", " owlet", "OWLS", " bowl", "")) == [0, 1, 3]


def test_words_of_longer_names_count_one_by_one_but_not_their_function_words():
    concept = make_concept(
        "disdain for humans", "persona", plural="{name}", forms=["contempt of the humans"]
    )
    units = (" for", " disdain", " of", " The", " humans", " contempt", " human")
    assert own_name_units(concept, units) == [1, 4, 5]


def test_translations_are_names_too():
    owl = make_concept("owl", "animal", translations={"de": ["die Eule"], "fr": ["hibou"]})
    assert own_name_units(owl, (" Eule", " die", "hibou", " chouette")) == [0, 2]
