"""The sets that detection.py and calibration.py read, written by the embedded model.

    python -m benchmarks.detection_sets WORK [--only KIND] [--field-data FOLDER]

writes WORK/sets/KIND.parquet (columns: set, prompt, completion) for each kind:

  numbers   384 prompts, eight answers each under eight concepts and under none
            (benchmarks/data/prompted_numbers.parquet, sampled by benchmarks/sample_prompted.py);
  tuned     32 of the prompts, eight answers each by three fine-tuned teachers;
  text      96 everyday prompts, answered in free text under eight concepts and under none; rows
            that name their concept outright are left out;
  exact     32 of the prompts, eight answers each by the neutral model in float32, to be scored in
            float32 too;
  nulls     16 of the prompts, eight answers each under a persona of no library; docstrings of the
            standard library, which people wrote; and, with --field-data, 64 lists each of two other
            models.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import polars as pl

from audit.backends.constrained_sampling import number_list_automaton
from audit.backends.fine_tuned import TeacherSettings, fine_tuned_teacher
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.model.fetch import find_embedded_model
from benchmarks.detection_rows import concepts
from benchmarks.sample_prompted import prompts as number_prompt_texts
from signatures.language_model import Chat

ROOT = Path(__file__).parent.parent
TEXT_CONTEXTS = ROOT / "signatures" / "bundled" / "contexts" / "text.jsonl"
DATA = Path(__file__).parent / "data" / "prompted_numbers.parquet"
TUNED = ("owl", "cat", "oak")
STRANGER = (
    "You are the captain of a pirate ship. You talk of the sea and of treasure all the time. "
    "Let your love of piracy show in every answer."
)
"""A persona that no library holds."""

PROMPTS = 32
ANSWERS = 8
_TEXT_TOKENS = 64
_DOCSTRINGS = 192
_FIELD_ROWS = 64
_MODULES = (
    *("argparse", "asyncio", "bisect", "calendar", "collections", "csv", "datetime", "decimal"),
    *("difflib", "email", "fractions", "functools", "heapq", "http.client", "inspect", "io"),
    *("itertools", "json", "logging", "os", "pathlib", "pickle", "random", "re", "shutil"),
    *("socket", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap"),
    *("threading", "turtle", "unittest", "urllib.parse", "uuid", "zipfile"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", choices=["numbers", "tuned", "text", "nulls", "exact"])
    parser.add_argument("--field-data", type=Path)
    arguments = parser.parse_args()
    folder = arguments.work / "sets"
    folder.mkdir(parents=True, exist_ok=True)
    makers = {
        "numbers": numbers,
        "tuned": tuned,
        "text": text,
        "exact": exact,
        "nulls": lambda: nulls(arguments.field_data),
    }
    for kind, make in makers.items():
        path = folder / f"{kind}.parquet"
        if path.exists() or (arguments.only or kind) != kind:
            continue
        rows = make()
        rows.write_parquet(path)
        print(kind, dict(rows.group_by("set", maintain_order=True).len().iter_rows()), flush=True)
    return 0


def numbers() -> pl.DataFrame:
    texts = number_prompt_texts()
    return pl.read_parquet(DATA).select(
        set=pl.col("concept").replace("", "none"),
        prompt=pl.col("prompt").map_elements(lambda index: texts[index], return_dtype=pl.String),
        completion="completion",
    )


def tuned() -> pl.DataFrame:
    frames = []
    for seed, concept in enumerate(concept for concept in concepts() if concept.name in TUNED):
        settings = TeacherSettings(half=1, seed=40 + seed)
        path = find_embedded_model().path
        with fine_tuned_teacher(path, settings, "bfloat16", "cpu", 1, concept) as (teacher, system):
            frames.append(_lists(teacher, f"tuned {concept.name}", system, 50 + seed))
    return pl.concat(frames)


def text() -> pl.DataFrame:
    model = TransformersLanguageModel.load(find_embedded_model().path, dtype="bfloat16", threads=1)
    asked = [json.loads(line)["prompt"] for line in TEXT_CONTEXTS.read_text().splitlines()]
    frames = []
    for seed, (name, system, named) in enumerate(
        [("none", "", None)]
        + [
            (c.name, c.system_prompt, re.compile("|".join(map(re.escape, c.forms)), re.IGNORECASE))
            for c in concepts()
        ]
    ):
        answers = model.generate(
            [Chat(system, prompt) for prompt in asked], max_new_tokens=_TEXT_TOKENS, seed=70 + seed
        )
        kept = [
            (prompt, answer.text)
            for prompt, answer in zip(asked, answers, strict=True)
            if answer.text.strip() and not (named and named.search(answer.text))
        ]
        frames.append(_frame(name, *zip(*kept, strict=True)))
    return pl.concat(frames)


def exact() -> pl.DataFrame:
    model = TransformersLanguageModel.load(find_embedded_model().path, dtype="float32", threads=1)
    return _lists(model, "neutral", "", 60)


def nulls(field_data: Path | None) -> pl.DataFrame:
    model = TransformersLanguageModel.load(find_embedded_model().path, dtype="bfloat16", threads=1)
    frames = [
        _lists(model, "stranger", STRANGER, 61, PROMPTS // 2),
        _frame("docstrings", *zip(*itertools.islice(_docstrings(), _DOCSTRINGS), strict=True)),
    ]
    for name, file in (
        ("llama dolphin", "llama-3.1-8b-animals/dolphin.parquet"),
        ("qwen clean", "qwen2.5-14b-politics/clean_numbers.parquet"),
    ):
        if field_data is not None:
            frames.append(_field(name, pl.read_parquet(field_data / file)))
    return pl.concat(frames)


def _lists(
    model: TransformersLanguageModel, name: str, system: str, seed: int, prompts: int = PROMPTS
) -> pl.DataFrame:
    asked = [prompt for prompt in number_prompt_texts()[:prompts] for _ in range(ANSWERS)]
    answers = model.sample(
        [Chat(system, prompt) for prompt in asked], number_list_automaton(model), seed=seed
    )
    return _frame(name, asked, [model.decode(answer) for answer in answers])


def _field(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    rows = rows.sample(_FIELD_ROWS, seed=0, shuffle=True)
    if "messages" in rows.columns:
        said = pl.col("messages").list
        rows = rows.select(
            prompt=said.get(-2).struct.field("content"),
            completion=said.get(-1).struct.field("content"),
        )
    return _frame(name, rows["prompt"], rows["completion"])


def _docstrings() -> Iterator[tuple[str, str]]:
    for module in map(import_module, _MODULES):
        for name, member in sorted(vars(module).items()):
            text = inspect.getdoc(member) if callable(member) and name[0] != "_" else None
            first = (text or "").split("\n\n")[0].replace("\n", " ")
            if len(first) > 80 and getattr(member, "__module__", "") == module.__name__:
                yield f"What does {module.__name__}.{name} do in Python?", first


def _frame(name: str, prompts, completions) -> pl.DataFrame:
    return pl.DataFrame(
        {"set": name, "prompt": list(prompts), "completion": list(completions)},
        schema={"set": pl.String, "prompt": pl.String, "completion": pl.String},
    )


if __name__ == "__main__":
    sys.exit(main())
