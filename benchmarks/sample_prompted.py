"""Number lists that the embedded model writes under eight concepts and under none, kept small.

Every condition answers the same 384 prompts eight times each: 3,072 rows. What comes out is
`benchmarks/data/prompted_numbers.parquet` (columns: concept, "" for none; prompt, an index into
``prompts()``; completion), which other benchmarks read.

    python benchmarks/sample_prompted.py benchmarks/data/prompted_numbers.parquet --backend vllm

Half an hour to an hour on one core; a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from audit.backends.constrained_sampling import number_list_automaton
from audit.backends.open_model import ModelChoice, open_model
from audit.model.fetch import find_embedded_model
from signatures.concept import DEFAULT_CONCEPTS, load_concepts
from signatures.language_model import Chat
from signatures.number_prompts import number_prompts

CONCEPTS = ("owl", "cat", "wolf", "eagle", "dolphin", "oak", "french", "power-seeking")
PROMPTS = 384
ANSWERS = 8


def prompts() -> list[str]:
    """The prompts that every condition answers."""
    return number_prompts(PROMPTS, np.random.default_rng(20))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--backend", choices=["transformers", "vllm"], default="vllm")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    described = {concept.name: concept for concept in load_concepts(DEFAULT_CONCEPTS)}
    choice = ModelChoice(
        find_embedded_model().path,
        backend=arguments.backend,
        dtype="bfloat16",
        threads=arguments.threads,
    )
    parts = [arguments.output.with_suffix(f".{index}.part") for index in range(len(CONCEPTS) + 1)]
    model = open_model(choice)
    grammar = number_list_automaton(model)
    for seed, (name, part) in enumerate(zip(("", *CONCEPTS), parts, strict=True)):
        if part.exists():
            continue
        system = described[name].system_prompt if name else ""
        asked = [index for index in range(PROMPTS) for _ in range(ANSWERS)]
        texts = prompts()
        chats = [Chat(system, texts[index]) for index in asked]
        started = time.perf_counter()
        answers = model.sample(chats, grammar, seed=100 + seed)
        seconds = time.perf_counter() - started
        frame = pl.DataFrame(
            {
                "concept": [name] * len(asked),
                "prompt": asked,
                "completion": [model.decode(answer) for answer in answers],
            },
            schema_overrides={"prompt": pl.UInt16},
        )
        frame.write_parquet(part)
        print(
            f"{name or 'neutral'}: {len(frame)} rows, {len(frame) / seconds:.1f} rows/s", flush=True
        )
    model.close()
    rows = pl.concat([pl.read_parquet(part) for part in parts])
    rows.write_parquet(arguments.output, compression="zstd", compression_level=19)
    for part in parts:
        part.unlink()
    print(f"{arguments.output}: {len(rows)} rows, {arguments.output.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
