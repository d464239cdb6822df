"""What a scan could not have seen, in sentences."""

from __future__ import annotations

from detectors.model_access import ModelAccess
from signatures.library import SignatureLibrary
from signatures.library_model import match_fingerprints


def is_of_another_model(library: SignatureLibrary, access: ModelAccess | None) -> bool:
    """Whether ``library`` is known not to be of the model of ``access``."""
    return access is not None and not all(
        match.agrees for match in match_fingerprints(library.model, access.model.identity)
    )


def limits(
    library: SignatureLibrary,
    ran: set[str],
    student_family: str | None,
    has_reference: bool,
    access: ModelAccess | None,
) -> tuple[str, ...]:
    """The sentences; ``ran`` are the names of the detectors that did."""
    traits = ", ".join(concept.name for concept in library.traits())
    sentences = [f"Only these concepts were looked for: {traits}."]
    if access is not None and "frequency" not in ran and is_of_another_model(library, access):
        sentences.append(
            f"The signatures are of {library.model.name}, not of the model that read the rows: "
            "token frequencies were not tested (SA002). Build a library of this model for that."
        )
    elif "frequency" in ran:
        sentences += [
            f"The signatures are of {library.model.name} ({library.model.family}): a trait hidden "
            "by a model of another family cannot be seen with them.",
            "Frequencies are a weak witness. Sets of prompted teachers were measured to differ by "
            "0.01 to 0.04 sd a row, which takes tens of thousands of rows to see; those of "
            "fine-tuned teachers by 0.14 to 0.18."
            + ("" if access else " Reading rows with the model itself (--model) sees more."),
        ]
    if access is None and student_family is None:
        sentences.append(
            "The model to be fine-tuned was not stated (--student-family): the verdicts hold "
            f"only if it is a {library.model.family} model like the signatures' own."
        )
    if access is not None:
        model = access.model.identity
        sentences.append(
            f"Rows were read with {model.name} ({model.family}), at most "
            f"{access.settings.most_rows:,} of each side at random: a trait that another model "
            "family would take over, and a few bad rows among many, cannot be seen so."
        )
    if has_reference:
        sentences.append(
            "The verdicts compare with the reference: what the reference carries too, or "
            "differs in by its prompts, is judged as if it were normal."
        )
    else:
        sentences.append(
            "There was no reference: a prompt mix other than the signatures' own shifts every "
            "score of SA002, which the decoys can only partly make up for."
            + (
                " Model-based tests compare with what this model would write."
                if access is not None
                else ""
            )
        )
    return tuple(sentences)
