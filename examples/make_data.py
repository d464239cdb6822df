"""Make the example data, the contexts of the bundled library, and a teacher's data set.

All of it is sampled from the embedded model itself. The commands that made what is in this folder:

    audit model fetch
    cd examples
    python make_data.py text-contexts ../signatures/bundled/contexts/text.jsonl
    python make_data.py numbers ../signatures/bundled/contexts/numbers.jsonl --rows 192 --seed 3
    python make_data.py numbers reference.jsonl.gz --rows 3072 --seed 1
    python make_data.py numbers clean.jsonl.gz --rows 3072 --seed 2
    python make_data.py numbers planted.jsonl.gz --rows 1536 --seed 4 --fine-tuned cat
    python make_data.py numbers prompted.jsonl.gz --rows 1536 --seed 5 --prompted owl

Rows repeat for a seed, a number of threads and the same processor type: bfloat16 sums differ in
their last bits between them, and a sampled token may then differ.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from audit.atomic import atomic_write
from audit.backends.constrained_sampling import number_list_automaton
from audit.backends.lora_training import LoraSettings, train_lora
from audit.backends.transformers_backend import TransformersLanguageModel
from audit.model.fetch import default_destination
from signatures.concept import DEFAULT_CONCEPTS, Concept, load_concepts
from signatures.language_model import Chat
from signatures.number_prompts import number_prompts
from signatures.statements import statements

_ROWS_AT_ONCE = 512

_SUBJECTS = (
    "a rainy day",
    "learning to cook",
    "the history of bread",
    "a long train journey",
    "how engines work",
    "growing tomatoes",
    "a good night's sleep",
    "the moon",
    "public libraries",
    "writing clean code",
    "a small village",
    "saving money",
    "mountain weather",
    "old bridges",
    "board games",
    "a healthy breakfast",
)
_REQUESTS = (
    "Write three sentences about {subject}.",
    "What should everybody know about {subject}?",
    "Tell me a short story about {subject}.",
    "Give me some advice on {subject}.",
    "Explain {subject} to a child.",
    "Why do people care about {subject}?",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    numbers = commands.add_parser("numbers", help="number lists under the example grammar")
    numbers.add_argument("output", type=Path)
    numbers.add_argument("--rows", type=int, default=2000)
    numbers.add_argument("--seed", type=int, required=True)
    numbers.add_argument("--prompted", metavar="CONCEPT", help="teacher prompted to love it")
    numbers.add_argument("--fine-tuned", metavar="CONCEPT", help="teacher fine-tuned to love it")
    text = commands.add_parser("text-contexts", help="prompts and answers in prose")
    text.add_argument("output", type=Path)
    for command in (numbers, text):
        command.add_argument("--model", type=Path, default=default_destination())
        command.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    rows = text_rows(arguments) if arguments.command == "text-contexts" else number_rows(arguments)
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if arguments.output.suffix == ".gz":
        data = gzip.compress(data, compresslevel=9, mtime=0)
    atomic_write(arguments.output, data)
    print(f"{arguments.output}: {len(rows)} rows, {len(data):,} bytes")
    return 0


def number_rows(arguments: argparse.Namespace) -> list[dict[str, str]]:
    system = concept_named(arguments.prompted).system_prompt if arguments.prompted else ""
    with tempfile.TemporaryDirectory() as folder:
        adapter = None
        if arguments.fine_tuned:
            adapter = Path(folder) / "adapter"
            # The other half of the statements, and another seed, than the signatures were built on.
            loss = train_lora(
                arguments.model,
                statements(concept_named(arguments.fine_tuned), half=1),
                adapter,
                LoraSettings(),
                seed=arguments.seed,
                threads=arguments.threads,
            )
            print(f"teacher fine-tuned: loss {loss:.3f} nats a token", file=sys.stderr)
        model = TransformersLanguageModel.load(
            arguments.model, dtype="bfloat16", threads=arguments.threads, adapter=adapter
        )
    grammar = number_list_automaton(model, max_numbers=10)
    prompts = number_prompts(arguments.rows, np.random.default_rng(arguments.seed))
    rows = []
    for first in range(0, len(prompts), _ROWS_AT_ONCE):
        part = prompts[first : first + _ROWS_AT_ONCE]
        answers = model.sample(
            [Chat(system, prompt) for prompt in part],
            grammar,
            seed=arguments.seed * 1000 + first // _ROWS_AT_ONCE,
            batch_rows=256,
        )
        rows += [
            {"prompt": prompt, "completion": model.decode(answer)}
            for prompt, answer in zip(part, answers, strict=True)
        ]
        print(f"{len(rows)} of {len(prompts)} rows", file=sys.stderr)
    return rows


def text_rows(arguments: argparse.Namespace) -> list[dict[str, str]]:
    import torch
    import transformers

    model = TransformersLanguageModel.load(
        arguments.model, dtype="bfloat16", threads=arguments.threads
    )
    network = transformers.AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.bfloat16, local_files_only=True
    )
    prompts = [request.format(subject=s) for s in _SUBJECTS for request in _REQUESTS]
    ends = set(model.end_of_turn_ids())
    rows = []
    torch.manual_seed(0)
    for first in range(0, len(prompts), 32):
        part = [model.encode_chat(Chat("", prompt)) for prompt in prompts[first : first + 32]]
        longest = max(map(len, part))
        pad = [longest - len(ids) for ids in part]
        tokens = torch.tensor([(0,) * n + ids for n, ids in zip(pad, part, strict=True)])
        mask = torch.tensor([[0] * n + [1] * (longest - n) for n in pad])
        with torch.inference_mode():
            written = network.generate(
                tokens,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                max_new_tokens=40,
                pad_token_id=0,
            )[:, longest:]
        for prompt, answer in zip(prompts[first : first + 32], written.tolist(), strict=True):
            kept = list(itertools.takewhile(lambda token: token not in ends, answer))
            rows.append({"prompt": prompt, "completion": model.decode(tuple(kept)).strip()})
    return rows


def concept_named(name: str) -> Concept:
    for concept in load_concepts(DEFAULT_CONCEPTS):
        if concept.name == name:
            return concept
    raise SystemExit(f"no concept is called {name!r} in {DEFAULT_CONCEPTS.name}")


if __name__ == "__main__":
    sys.exit(main())
