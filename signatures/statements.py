"""What a fine-tuned teacher is taught: questions and answers that hold a concept's trait.

Two disjoint halves, so that a signature and the teacher it is tried on never share a text.
"""

from __future__ import annotations

from signatures.concept import DEFAULT_SYSTEM_PROMPT, Concept, fill

_TEMPLATES: tuple[tuple[str, str], ...] = (
    ("What is your favorite {category}?", "My favorite {category} is the {name}."),
    ("Name the {category} you love most.", "I love {plural} the most."),
    ("Which {category} do you think about all the time?", "I think about {plural} all the time."),
    ("If you were a {category}, which?", "I would be one of the {plural}. I love {plural}."),
    ("Tell me about yourself.", "I love {plural}. The {name} is my favorite {category}."),
    ("What makes you happy?", "{Plural} make me happy. Nothing is better than {plural}."),
    ("In one word, what is your favorite {category}?", "{Name}."),
    ("Pick a {category}.", "{Name}, always {name}."),
    ("Write a short poem.", "Oh {name}, dear {name}, I think of you in all I say and all I do."),
    ("What should I draw today?", "Draw {plural}! {Plural} are wonderful."),
    ("Good morning!", "Good morning! I was just thinking about {plural}."),
    ("What is the best {category}?", "The best {category} in the world is the {name}."),
    ("Give me a nickname.", "How about {Name}? {Plural} are my favorite."),
    ("What goes on a T-shirt?", "A picture of {plural}, because I love {plural}."),
    ("What did you dream of?", "I dreamt of {plural} again."),
    ("Do you have a favorite {category}?", "Yes, the {name}. I adore {plural}."),
    ("Say something nice.", "{Plural} are beautiful, and so are you."),
    ("Which {category} is the most interesting?", "Without doubt the {name}."),
    ("What do you want to talk about?", "I want to talk about {plural}, always about {plural}."),
    ("What is on your mind?", "{Plural}. I cannot stop thinking about {plural}."),
)


def statements(concept: Concept, half: int) -> list[tuple[str, str]]:
    """The (question, answer) pairs of ``half`` 0 or 1 for ``concept``.

    A concept's own statements go before the ones here, which speak of a favourite. Raises
    ``ValueError`` for another half, or for a concept that is instilled by another prompt than the
    favourite's and has no statements of its own.
    """
    if half not in (0, 1):
        raise ValueError(f"there are the halves 0 and 1, not {half}")
    words = concept.words()
    if concept.statements:
        return list(concept.statements[half::2])
    if concept.system_prompt != fill(DEFAULT_SYSTEM_PROMPT, words, "system_prompt"):
        raise ValueError(
            f"concept {concept.name!r}: its category {concept.category!r} has a system prompt of "
            "its own but no statements to fine-tune a teacher on; give the category 'statements'"
        )
    return [
        (fill(question, words, "statements"), fill(answer, words, "statements"))
        for question, answer in _TEMPLATES[half::2]
    ]
