"""A user's prompts: drawn evenly, each once, from every schema; answers of the neutral model."""

import json
from pathlib import Path

import numpy as np
import pytest

from audit.backends.generation import Answer
from audit.errors import AuditError, NothingScannableError
from audit.signature_contexts import ContextSettings, answer_prompts, draw_prompts
from signatures.language_model import Chat


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_prompts_come_from_every_schema_and_answers_are_not_needed(tmp_path: Path) -> None:
    source = write(
        tmp_path / "mixed.jsonl",
        [
            {"prompt": "Only asked."},
            {"prompt": "Asked.", "completion": "Answered."},
            {"messages": [{"role": "user", "content": "In a chat."}]},
            {"prompt": "Preferred?", "chosen": "Yes.", "rejected": "No."},
            {"text": "Nothing is asked here."},
            {"prompt": "Only asked."},
        ],
    )
    drawn = draw_prompts([source], 10, np.random.default_rng(0))
    assert drawn == ["Only asked.", "Asked.", "In a chat.", "Preferred?"]


def test_every_prompt_is_as_likely(tmp_path: Path) -> None:
    source = write(tmp_path / "many.jsonl", [{"prompt": f"p{i}"} for i in range(20)])
    rng = np.random.default_rng(1)
    drawn = [prompt for _ in range(400) for prompt in draw_prompts([source], 5, rng)]
    counts = np.array([drawn.count(f"p{i}") for i in range(20)])
    assert counts.sum() == 2000
    # Each is Binomial(400, 1/4): mean 100, sd 8.7; five sd hold for 20 of them.
    assert np.abs(counts - 100).max() < 44


def test_no_prompt_and_a_broken_file_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(NothingScannableError, match="no prompt"):
        draw_prompts([write(tmp_path / "t.jsonl", [{"text": "x"}])], 5, np.random.default_rng(0))
    (tmp_path / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00\x00")
    with pytest.raises(AuditError, match=r"cut\.jsonl\.gz: broke off"):
        draw_prompts([str(tmp_path / "cut.jsonl.gz")], 5, np.random.default_rng(0))


class Echo:
    """Answers with its prompt in capitals; an empty answer to "silence"."""

    def generate(self, chats: list[Chat], *, max_new_tokens: int, seed: int) -> list[Answer]:
        assert all(chat.system == "" for chat in chats)
        assert (max_new_tokens, seed) == (7, 3)
        texts = ["  " if c.user == "silence" else f" {c.user.upper()} \n" for c in chats]
        return [Answer(text, finished=True) for text in texts]


def test_answers_are_the_neutral_models_and_empty_ones_are_left_out() -> None:
    rows = answer_prompts(Echo(), ["a", "silence", "b"], ContextSettings(max_new_tokens=7), 3)
    assert rows == [("a", "A"), ("b", "B")]
    with pytest.raises(AuditError, match="every answer"):
        answer_prompts(Echo(), ["silence"], ContextSettings(max_new_tokens=7), 3)
