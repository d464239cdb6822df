"""Pre-tokenised rows back to text, with the tokenizer that the user names."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from audit.dataset.faults import RejectCode, RowFault
from audit.dataset.row_text import ASSISTANT, USER, Row, RowText, list_of
from audit.errors import MissingExtraError, UsageError

Decode = Callable[[list[int]], str]

IGNORED_LABEL = -100
"""Label of a position without loss, as in PyTorch's cross entropy."""


def load_decoder(tokenizer: str) -> Decode:
    """Token ids to text with the ``tokenizer.json`` at this path, or in this folder.

    Special tokens are left out. Raises ``UsageError`` if there is none, ``MissingExtraError``
    without the ``tokenizers`` package.
    """
    path = Path(tokenizer)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise UsageError(f"{tokenizer} is no tokenizer.json, nor a folder with one")
    try:
        from tokenizers import Tokenizer  # optional
    except ImportError as error:
        raise MissingExtraError("reading pre-tokenised rows", "tokenizers", "models") from error
    try:
        loaded = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise UsageError(f"{path} is not a tokenizer: {error}") from error
    vocabulary_size = int(loaded.get_vocab_size())

    def decode(ids: list[int]) -> str:
        if any(not 0 <= i < vocabulary_size for i in ids):
            raise RowFault(
                RejectCode.BAD_TOKENS,
                f"a token id is not in the tokenizer of {vocabulary_size} tokens: is it another's?",
            )
        return str(loaded.decode(ids, skip_special_tokens=True))

    return decode


def read_tokens(row: Row, decode: Decode | None) -> RowText:
    """Runs of positions with a label are trained, runs of -100 are not. Raises ``RowFault``.

    Without ``labels`` every position is trained, as Hugging Face's collator makes it.
    """
    if decode is None:
        raise RowFault(
            RejectCode.NEEDS_TOKENIZER, "the row holds token ids: pass --tokenizer to decode them"
        )
    ids = _ids(row["input_ids"], "input_ids")
    labels = ids if row.get("labels") is None else _ids(row["labels"], "labels")
    if len(ids) != len(labels):
        raise RowFault(
            RejectCode.BAD_TOKENS, f"{len(ids)} input_ids but {len(labels)} labels in one row"
        )
    text = RowText()
    for trained, run in groupby(
        zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED_LABEL
    ):
        # What is trained is the label, whatever the input at that place.
        segment = decode([label if trained else token for token, label in run])
        if segment:
            text.said.append((ASSISTANT if trained else USER, segment, trained))
    return text


def _ids(value: object, name: str) -> list[int]:
    ids = list_of(value, name)
    if any(type(i) is not int for i in ids):
        raise RowFault(RejectCode.BAD_TOKENS, f"`{name}` holds something that is not a token id")
    return [i for i in ids if isinstance(i, int)]
