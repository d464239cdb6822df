"""What building signatures costs, and what signatures are worth: one run, side by side.

    python -m benchmarks.signature_build plain        # the loop of the literature against ours
    python -m benchmarks.signature_build backends     # vLLM against transformers on one job
    python -m benchmarks.signature_build growth       # 1, 8 and 64 concepts: time and memory
    python -m benchmarks.signature_build enrichment   # do signatures predict what data hold?

``enrichment`` builds a library of the eight concepts of `sample_prompted.py` first (about ten
minutes) and keeps it in ``--work``.

All on the embedded model and one thread (``--threads``; ``--device cuda:0`` for transformers on a
GPU). Each measurement runs in a process of its own, so that memory and threads are its own.
Processor time is shown beside wall time: on a shared machine it is the steadier of the two.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import sparse

from audit.backends.open_model import ModelChoice, Writer, open_model
from audit.backends.unembedding_rows import open_unembedding
from audit.cli.library_option import BUNDLED_LIBRARY
from audit.model.fetch import find_embedded_model
from audit.signature_build import BuildSettings, build_library
from audit.signature_parts import PartFolder
from benchmarks.learned import label_p
from benchmarks.sample_prompted import CONCEPTS
from detectors.counts import number_units
from signatures.concept import DEFAULT_CONCEPTS, Concept, load_concepts
from signatures.context_probe import probe_contexts, prompted
from signatures.contexts import Context, number_cuts, word_cuts
from signatures.entanglement import centre_over_concepts
from signatures.language_model import Chat, PrefixRequest
from signatures.library import SignatureLibrary, load_library, save_library
from signatures.number_trie import NUMBERS, build_number_trie
from signatures.question_probe import probe_questions
from signatures.signature import Probe, View
from signatures.vocabulary import word_token_ids

Matrix = NDArray[np.float64]

PLAIN_BATCH = 10  # sequences, as in the published notebooks
BACKEND_CONCEPTS = 4
GROWTH = (1, 8, 64)
GROWTH_CONTEXTS = 2
DATA = Path(__file__).with_name("data") / "prompted_numbers.parquet"
RESAMPLES = 300
MINIMUM_EXPECTED = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=["plain", "backends", "growth", "enrichment"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, default=Path("build/signature-benchmark"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print("RESULT " + json.dumps(CHILDREN[arguments.child](arguments)))
        return 0
    console = Console(width=100)
    SECTIONS[arguments.section](console, arguments)
    return 0


def child(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What one measurement says, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.signature_build",
        arguments.section,
        "--child",
        name,
    ]
    command += ["--threads", str(arguments.threads), "--device", arguments.device]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return result


def concepts(count: int) -> list[Concept]:
    """The first traits that ship."""
    return [c for c in load_concepts(DEFAULT_CONCEPTS) if not c.is_decoy][:count]


def opened(arguments: argparse.Namespace, backend: str, dtype: str) -> Writer:
    return open_model(
        ModelChoice(
            find_embedded_model().path,
            backend=backend,  # type: ignore[arg-type]
            dtype=dtype,  # type: ignore[arg-type]
            device=arguments.device if backend == "transformers" else "cpu",
            threads=arguments.threads,
        )
    )


@contextmanager
def measured(result: dict[str, Any]) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    result["wall_seconds"] = time.perf_counter() - wall
    result["processor_seconds"] = time.process_time() - processor
    result["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def count_tokens(network: Any, result: dict[str, Any]) -> None:
    """Add the tokens of every forward pass, padding included, to ``result["tokens"]``."""
    result["tokens"] = 0

    def before(_module: Any, _positional: Any, named: dict[str, Any]) -> None:
        result["tokens"] += named["input_ids"].numel()

    network.register_forward_pre_hook(before, with_kwargs=True)


# -- the plain loop ------------------------------------------------------------------------------


def question_prefix(model: Writer) -> tuple[int, ...]:
    owl = concepts(1)[0]
    asked = owl.questions[0]
    return model.encode_chat(Chat(owl.system_prompt, asked.user, asked.assistant_prefix + " "))


def plain_child(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every number string as a sequence of its own, whole softmax, ten at a time."""
    import torch
    import transformers

    torch.set_num_threads(arguments.threads)
    model = opened(arguments, "transformers", "float32")
    prefix = question_prefix(model)
    paths = [model.encode(number) for number in NUMBERS]
    model.close()
    network = transformers.AutoModelForCausalLM.from_pretrained(
        find_embedded_model().path, dtype=torch.float32
    ).to(arguments.device)
    result: dict[str, Any] = {}
    count_tokens(network, result)
    found = np.empty(len(NUMBERS))
    with measured(result), torch.inference_mode():
        for first in range(0, len(paths), PLAIN_BATCH):
            batch = paths[first : first + PLAIN_BATCH]
            width = len(prefix) + max(map(len, batch))
            rows = [prefix + path + (0,) * (width - len(prefix) - len(path)) for path in batch]
            mask = [
                [1] * (len(prefix) + len(p)) + [0] * (width - len(prefix) - len(p)) for p in batch
            ]
            log_probs = network(
                input_ids=torch.tensor(rows, device=arguments.device),
                attention_mask=torch.tensor(mask, device=arguments.device),
            ).logits.log_softmax(-1)
            for row, path in enumerate(batch):
                found[first + row] = sum(
                    float(log_probs[row, len(prefix) - 1 + step, token])
                    for step, token in enumerate(path)
                )
    return result | {"log_probs": found.tolist()}


def trie_child(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same probabilities from the trie's inner nodes."""
    model = opened(arguments, "transformers", "float32")
    prefix = question_prefix(model)
    result: dict[str, Any] = {}
    count_tokens(model.network.base_model, result)  # type: ignore[attr-defined]
    with measured(result):
        trie = build_number_trie(model.encode)
        (next_token,) = model.next_token_log_probs(
            [PrefixRequest(prefix, trie.contexts)], trie.token_ids
        )
        found = trie.joint_log_probs(next_token)
    return result | {"log_probs": found.tolist()}


def plain(console: Console, arguments: argparse.Namespace) -> None:
    loop, ours = child("plain", arguments), child("trie", arguments)
    table = Table(title="log P of 1,110 numbers after one question, float32")
    for heading in ("", "forward tokens", "wall s", "processor s"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, result in (("plain loop, batch 10", loop), ("number trie", ours)):
        table.add_row(
            name,
            f"{result['tokens']:,}",
            f"{result['wall_seconds']:.2f}",
            f"{result['processor_seconds']:.2f}",
        )
    table.add_row(
        "ratio",
        *(f"{loop[k] / ours[k]:.0f}x" for k in ("tokens", "wall_seconds", "processor_seconds")),
    )
    console.print(table)
    apart = np.abs(np.array(loop["log_probs"]) - np.array(ours["log_probs"])).max()
    console.print(f"largest difference of a log-probability: {apart:.1e} nats")


# -- backends ------------------------------------------------------------------------------------


def backend_child(backend: str) -> Callable[[argparse.Namespace], dict[str, Any]]:
    def run(arguments: argparse.Namespace) -> dict[str, Any]:
        model = opened(arguments, backend, "bfloat16")
        trie, words = build_number_trie(model.encode), word_token_ids(model)
        result: dict[str, Any] = {}
        if backend == "transformers":
            count_tokens(model.network.base_model, result)  # type: ignore[attr-defined]
        probe_questions(model, concepts(1), trie, words)  # warm
        result["tokens"] = 0
        with measured(result):
            numbers, _ = probe_questions(model, concepts(BACKEND_CONCEPTS), trie, words)
        model.close()
        return result | {"shift": numbers.shift_nats.tolist()}

    return run


def roofline_child(arguments: argparse.Namespace) -> dict[str, Any]:
    """The bf16 matrix rate of this device, in operations a second."""
    import torch

    torch.set_num_threads(arguments.threads)
    size = 2048 if arguments.device == "cpu" else 8192
    a = torch.randn(size, size, device=arguments.device).bfloat16()
    b = torch.randn(size, size, device=arguments.device).bfloat16()
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        (a @ b).float().sum().item()
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    network = opened(arguments, "transformers", "bfloat16").network  # type: ignore[attr-defined]
    return {"rate": best, "parameters": sum(p.numel() for p in network.parameters())}


def backends(console: Console, arguments: argparse.Namespace) -> None:
    roof = child("roofline", arguments)
    results = {name: child(name, arguments) for name in ("transformers", "vllm")}
    tokens = results["transformers"]["tokens"]
    table = Table(
        title=f"Question probe of {BACKEND_CONCEPTS} concepts, all numbers and words, bfloat16"
    )
    for heading in ("backend", "wall s", "processor s", "tokens/s", "of the roofline", "peak GB"):
        table.add_column(heading, justify="left" if heading == "backend" else "right")
    for name, result in results.items():
        rate = tokens / result["processor_seconds"]
        table.add_row(
            name,
            f"{result['wall_seconds']:.1f}",
            f"{result['processor_seconds']:.1f}",
            f"{rate:,.0f}",
            f"{2 * roof['parameters'] * rate / (roof['rate'] * arguments.threads):.0%}",
            f"{result['peak_bytes'] / 1e9:.1f}",
        )
    console.print(table)
    one, other = (np.array(results[name]["shift"]) for name in results)
    console.print(
        f"{tokens:,} tokens (transformers' own count, for both); roofline {roof['rate'] / 1e9:,.0f}"
        f" GFLOP/s measured, 2 x {roof['parameters'] / 1e6:.0f}M operations a token; shifts differ "
        f"by {np.abs(one - other).mean():.3f} nats on average (bfloat16), r = "
        f"{np.corrcoef(one.ravel(), other.ravel())[0, 1]:.4f}"
    )


# -- growth --------------------------------------------------------------------------------------


def growth_child(count: int) -> Callable[[argparse.Namespace], dict[str, Any]]:
    def run(arguments: argparse.Namespace) -> dict[str, Any]:
        model = opened(arguments, "transformers", "bfloat16")
        result: dict[str, Any] = {}
        count_tokens(model.network.base_model, result)  # type: ignore[attr-defined]
        rows = {view: context_rows(view)[:GROWTH_CONTEXTS] for view in ("numbers", "text")}
        with measured(result):
            probe_contexts(
                model,
                concepts(count),
                build_number_trie(model.encode),
                word_token_ids(model),
                [Context(*row, number_cuts(row[1], ", ", 2)) for row in rows["numbers"]],
                [
                    Context(*row, word_cuts(row[1], 2, np.random.default_rng(0)))
                    for row in rows["text"]
                ],
                prompted(model),
            )
        return result

    return run


def context_rows(view: str) -> list[tuple[str, str]]:
    """Prompts and answers of the contexts that ship."""
    frame = pl.read_ndjson(BUNDLED_LIBRARY.parent / "contexts" / f"{view}.jsonl")
    return list(frame.select("prompt", "completion").iter_rows())


def growth(console: Console, arguments: argparse.Namespace) -> None:
    table = Table(title=f"Context probe, {GROWTH_CONTEXTS} contexts x 2 cuts, bfloat16")
    for heading in ("concepts", "forward tokens", "processor s", "s a concept", "peak GB"):
        table.add_column(heading, justify="right")
    for count in GROWTH:
        result = child(f"growth-{count}", arguments)
        table.add_row(
            str(count),
            f"{result['tokens']:,}",
            f"{result['processor_seconds']:.1f}",
            f"{result['processor_seconds'] / count:.2f}",
            f"{result['peak_bytes'] / 1e9:.2f}",
        )
    console.print(table)


# -- enrichment ----------------------------------------------------------------------------------


def row_counts(completions: pl.Series) -> sparse.csr_array:
    """Counts [rows, 1110] of the numbers of each row."""
    found = number_units(completions)
    ones = np.ones(len(found.unit))
    return sparse.csr_array((ones, (found.row, found.unit)), shape=(len(completions), len(NUMBERS)))


def log_shares(counts: Matrix) -> Matrix:
    """Log shares of units [sets, U], with Jeffreys' half a count."""
    return np.asarray(np.log((counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)))


def correlations(weights: Matrix, ratios: Matrix) -> Matrix:
    """Pearson's r of each row of ``weights`` [K, U] with the same row of ``ratios``."""
    a = weights - weights.mean(axis=1, keepdims=True)
    b = ratios - ratios.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / scale)


def library_of_eight(arguments: argparse.Namespace) -> SignatureLibrary:
    """Signatures of the concepts whose data were sampled, by every probe of the model itself."""
    folder = arguments.work / "library"
    if not folder.exists():
        described = {concept.name: concept for concept in load_concepts(DEFAULT_CONCEPTS)}
        model = opened(arguments, "transformers", "bfloat16")
        built = build_library(
            model,
            [described[name] for name in CONCEPTS],
            BuildSettings(
                "eight",
                (Probe.QUESTION, Probe.CONTEXT, Probe.UNEMBEDDING),
                contexts=64,
                cuts=2,
                causal=None,
            ),
            np.random.default_rng(0),
            unembedding=open_unembedding(find_embedded_model().path).centred_rows,
            parts=PartFolder(arguments.work / "parts", model.identity),
        )
        model.close()
        save_library(built, folder)
    return load_library(folder)


def enrichment(console: Console, arguments: argparse.Namespace) -> None:
    """Do shifts (own parts) predict log-ratios (own parts) of data under the same concepts?"""
    library = library_of_eight(arguments)
    data = pl.read_parquet(DATA)
    tables = [table for table in library.tables if table.view is View.NUMBERS]
    sets = {
        name: row_counts(frame["completion"])
        for (name,), frame in data.partition_by(
            "concept", as_dict=True, maintain_order=True
        ).items()
    }
    neutral = sets.pop("")
    covered = [n for n in sets if all(n in table.concepts for table in tables)]
    pooled = sum(sets[name].sum(axis=0) for name in sets) / len(sets)
    keep = np.flatnonzero(pooled >= MINIMUM_EXPECTED)
    rng = np.random.default_rng(0)

    def drawn(counts: sparse.csr_array, *, again: bool) -> Matrix:
        rows = counts.shape[0]
        times = rng.multinomial(rows, np.full(rows, 1 / rows)) if again else np.ones(rows)
        return np.asarray(times @ counts)

    def ratios(*, again: bool) -> dict[str, Matrix]:
        held = log_shares(np.array([drawn(sets[name], again=again) for name in covered]))[:, keep]
        base = log_shares(drawn(neutral, again=again)[None])[:, keep]
        return {"own part": centre_over_concepts(held), "all of it": held - base}

    samples = [ratios(again=index > 0) for index in range(1 + RESAMPLES)]
    shown = Table(
        title=f"r of shift and log-ratio over {len(keep)} numbers, mean of {len(covered)} concepts"
    )
    for heading in (
        "probe",
        "part",
        "mean r",
        "95% over rows",
        "others' data",
        "p",
        "positive",
    ):
        shown.add_column(heading, justify="left" if heading in ("probe", "part") else "right")
    for table in tables:
        shift = table.select_concepts(tuple(covered)).shift_nats[:, keep]
        centred = table.centred_nats()[[table.concepts.index(n) for n in covered]][:, keep]
        for part, weights in (("own part", centred), ("all of it", shift)):
            own = np.array([correlations(weights, sample[part]) for sample in samples])
            every = np.array(
                [[correlations(w[None], r[None])[0] for r in samples[0][part]] for w in weights]
            )  # [concept of the signature, concept of the data]
            others = every[~np.eye(len(covered), dtype=bool)]
            # Rows drawn again add noise of their own, which lowers r: their spread is what counts.
            half = 1.96 * own[1:].mean(axis=1).std()
            low, high = own[0].mean() - half, own[0].mean() + half
            shown.add_row(
                str(table.probe),
                part,
                f"{own[0].mean():+.3f}",
                f"{low:+.3f} to {high:+.3f}",
                f"{others.mean():+.3f}",
                f"{label_p(every):.4f}",
                f"{(own[0] > 0).sum()} of {len(covered)}",
            )
    console.print(shown)
    halves = []
    for half in (0, 1):
        part = [np.asarray(sets[name][half::2].sum(axis=0)) for name in covered]
        halves.append(centre_over_concepts(log_shares(np.array(part))[:, keep]))
    reliability = correlations(*halves).mean()
    console.print(
        f"{', '.join(covered)}; {neutral.shape[0]:,} rows each. Halves of the own log-ratios "
        f"correlate with r = {reliability:.3f} (standard error "
        f"{1 / np.sqrt(len(covered) * len(keep)):.3f}), so no signature can do better than about "
        f"{np.sqrt(2 * reliability / (1 + reliability)):.2f} on them. p: share of random "
        "labellings of the data sets with as high a mean r."
        if reliability > 0
        else "The own log-ratios of the data's halves do not agree: nothing can predict them."
    )


SECTIONS: dict[str, Callable[[Console, argparse.Namespace], None]] = {
    "plain": plain,
    "backends": backends,
    "growth": growth,
    "enrichment": enrichment,
}
CHILDREN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "plain": plain_child,
    "trie": trie_child,
    "roofline": roofline_child,
    "transformers": backend_child("transformers"),
    "vllm": backend_child("vllm"),
    **{f"growth-{count}": growth_child(count) for count in GROWTH},
}

if __name__ == "__main__":
    sys.exit(main())
