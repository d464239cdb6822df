"""A `LanguageModel` and `Generator` on vLLM: exact log-probabilities, and the same draws."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.backends.chat_encoder import ChatEncoder, Dtype, load_chat_encoder
from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.generation import Answer, check_sampling, row_keys, row_starts
from audit.backends.model_identity import weights_sha256
from audit.backends.request_checks import (
    check_choice,
    check_length,
    check_prefix_requests,
    check_sequence_requests,
)
from audit.backends.token_cut import TokenCut
from audit.backends.vllm_engine import LoraAdapters, engine_errors, start_engine, stop_engine
from audit.backends.vllm_requests import (
    DrawOrder,
    Logprobs,
    ScoredPrompt,
    cut_at_end,
    next_token_tables,
    only_ending_ids,
    sequence_rows,
)
from signatures.language_model import Chat, PrefixRequest, SequenceRequest, TokenIds

# Without another limit: keys and values of one such request fit a CPU's cache.
_DEFAULT_MODEL_LEN = 8192


def default_model_len(encoder: ChatEncoder) -> int:
    """The most tokens of a request and its answer, where nobody says otherwise."""
    return min(encoder.longest or _DEFAULT_MODEL_LEN, _DEFAULT_MODEL_LEN)


class VllmLanguageModel(ChatEncoder):
    """A causal language model run by vLLM. Build it with `load`.

    Not safe for use from two threads at once. After an ``AuditError`` of the engine it is closed.
    """

    def __init__(  # noqa: D107
        self,
        engine: Any,
        encoder: ChatEncoder,
        *,
        folder: Path,
        adapters: LoraAdapters,
        adapter: Path | None,
        max_model_len: int,
    ) -> None:
        # The engine always writes a token after what it reads.
        super().__init__(
            encoder.tokenizer, encoder.identity, encoder.end_of_turn_ids(), max_model_len - 1
        )
        self._engine: Any = engine
        self._max_model_len = max_model_len
        self._folder = folder
        self._adapters = adapters
        self._lora = None if adapter is None else adapters.request(adapter)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        dtype: Dtype = "float32",
        adapter: Path | str | None = None,
        adapter_rank: int | None = None,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float | None = None,
        max_model_len: int | None = None,
        threads: int | None = None,
    ) -> VllmLanguageModel:
        """Start vLLM on a Hugging Face model folder, on the device that vLLM was built for.

        Nothing is fetched and no code of the folder is run. ``adapter`` is a LoRA folder, applied
        by vLLM; with ``adapter_rank``, others of up to that rank can be put in its place
        (`use_adapter`). The weights are split over ``tensor_parallel_size`` devices, each with a
        process of its own (load under ``if __name__ == "__main__"`` then).
        ``gpu_memory_utilization`` is the share of each device's memory that vLLM may take (None:
        its default; on a CPU, 1 GiB of keys and values). ``max_model_len`` bounds a request's
        tokens (None: the model's own limit, at most 8,192). ``threads`` sets torch's threads in
        this process (None leaves them).

        Raises ``AuditError`` if the folder holds no model that vLLM can start, the installed vLLM
        is not supported, or another model is open in it (a process has one at a time);
        ``MissingExtraError`` if vLLM is not installed.
        """
        folder = Path(path)
        adapter_folder = None if adapter is None else Path(adapter)
        encoder = load_chat_encoder(folder, dtype=dtype, adapter=adapter_folder)
        adapters = LoraAdapters(adapter_rank, adapter_folder)
        if max_model_len is None:
            max_model_len = default_model_len(encoder)
        engine = start_engine(
            folder,
            dtype=dtype,
            adapter_rank=adapters.rank,
            tensor_parallel_size=tensor_parallel_size,
            gpu_memory_utilization=gpu_memory_utilization,
            max_model_len=max_model_len,
            threads=threads,
        )
        return cls(
            engine,
            encoder,
            folder=folder,
            adapters=adapters,
            adapter=adapter_folder,
            max_model_len=max_model_len,
        )

    def use_adapter(self, adapter: Path | str | None) -> None:
        """Put the LoRA folder ``adapter`` in the place of the one in use (None: the model alone).

        The engine runs on. `identity` is that of the model with the adapter from here on. An
        iterator that was begun before must not be gone on with, and the folder must stay as it is
        while it is in use: vLLM reads it with the first request.

        Raises ``AuditError`` if the folder holds no adapter, or one of a higher rank than the
        engine was started for; ``ValueError`` if it was started for none. Then nothing changes.
        """
        folder = None if adapter is None else Path(adapter)
        name, lora = self._folder.name, None
        if folder is not None:
            name, lora = f"{name}+{folder.name}", self._adapters.request(folder)
        weights = weights_sha256(self._folder, folder)
        self._identity = replace(self._identity, name=name, weights_sha256=weights)
        self._lora = lora

    def next_token_log_probs(
        self, requests: Sequence[PrefixRequest], token_ids: NDArray[np.int64] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """For each request, in order, an array [suffixes, token_ids] (all ids when None).

        Every distinct prefix and suffix is a prompt of its own; vLLM reads whole blocks of what
        prompts have in common once. Up to 128 ids are asked for by name; for more, vLLM gives
        the whole vocabulary and the columns are picked here.

        Raises ``ValueError`` for an empty prefix, a token id that does not exist, or a
        request longer than the engine's context; ``AuditError`` if the engine fails.
        """
        columns = None if token_ids is None else np.asarray(token_ids, dtype=np.int64)
        check_prefix_requests(
            requests,
            columns,
            vocabulary_size=self._identity.vocabulary_size,
            longest=self.longest,
        )
        yield from next_token_tables(
            requests, columns, self._identity.vocabulary_size, self._ask_nodes
        )

    def sequence_log_probs(
        self, requests: Sequence[SequenceRequest]
    ) -> Iterator[NDArray[np.float32]]:
        """For each request, in order, an array [continuation length].

        Raises as `next_token_log_probs` does.
        """
        check_sequence_requests(
            requests, vocabulary_size=self._identity.vocabulary_size, longest=self.longest
        )
        yield from sequence_rows(requests, self._ask_prompts)

    def restricted_log_probs(
        self, requests: Sequence[SequenceRequest], token_ids: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float32]]:
        """For each request, in order, an array [continuation length, token_ids].

        vLLM gives no distributions over a prompt's positions, so every position is a prompt of
        its own. Raises as `next_token_log_probs` does.
        """
        check_sequence_requests(
            requests, vocabulary_size=self._identity.vocabulary_size, longest=self.longest
        )
        columns = check_choice(token_ids, self._identity.vocabulary_size)
        positions = [
            PrefixRequest(
                request.prefix,
                tuple(request.continuation[:end] for end in range(len(request.continuation))),
            )
            for request in requests
        ]
        for table in self.next_token_log_probs(positions, columns):
            yield np.asarray(
                table - np.logaddexp.reduce(table, axis=1, keepdims=True), dtype=np.float32
            )

    def sample(
        self,
        chats: Sequence[Chat],
        automaton: TokenAutomaton,
        *,
        seed: int,
        temperature: float = 1.0,
        cut: TokenCut | None = None,
        keys: Sequence[int] | None = None,
        starts: Sequence[int] | None = None,
    ) -> list[TokenIds]:
        """One answer a chat, sampled under a grammar; see `Generator.sample`.

        Raises also ``ValueError`` where prompt and answer may exceed the engine's context, and
        ``AuditError`` if the engine fails.
        """
        check_sampling(temperature, automaton.longest)
        states = row_starts(starts, len(chats), automaton)
        orders = [
            DrawOrder(seed, key, automaton.longest, temperature, automaton, state, cut)
            for key, state in zip(row_keys(keys, len(chats)), states, strict=True)
        ]
        written = self._draw(chats, orders, only_ending_ids(automaton))
        return [
            cut_at_end(automaton, tokens, state)
            for tokens, state in zip(written, states, strict=True)
        ]

    def generate(
        self,
        chats: Sequence[Chat],
        *,
        max_new_tokens: int,
        seed: int,
        temperature: float = 1.0,
        cut: TokenCut | None = None,
        keys: Sequence[int] | None = None,
    ) -> list[Answer]:
        """One free text a chat; see `Generator.generate`.

        Raises also ``AuditError`` if the engine fails.
        """
        check_sampling(temperature, max_new_tokens)
        ends = self.end_of_turn_ids()
        orders = [
            DrawOrder(seed, key, max_new_tokens, temperature, cut=cut)
            for key in row_keys(keys, len(chats))
        ]
        answers = []
        for tokens in self._draw(chats, orders, list(ends)):
            ended = tokens[-1] in ends
            answers.append(self.answer(tuple(tokens[:-1] if ended else tokens), ended=ended))
        return answers

    def _draw(
        self, chats: Sequence[Chat], orders: Sequence[DrawOrder], stops: list[int]
    ) -> list[list[int]]:
        """The tokens of one answer a chat, a token of ``stops`` included."""
        from vllm import SamplingParams

        prompts = [self.encode_chat(chat) for chat in chats]
        for prompt, drawn in zip(prompts, orders, strict=True):
            check_length(len(prompt) + drawn.steps, self._max_model_len)
        # Equal beginnings become neighbours, for the engine's cache of prefixes.
        order = sorted(range(len(prompts)), key=lambda row: prompts[row])
        params = [
            SamplingParams(
                # Greedy: the ordered sampler raises the token that it drew.
                temperature=0.0,
                max_tokens=orders[row].steps,
                stop_token_ids=stops,
                ignore_eos=True,
                detokenize=False,
                extra_args=orders[row].to_extra_args(),
            )
            for row in order
        ]
        results: list[list[int]] = [[]] * len(prompts)
        outputs = self._run([prompts[row] for row in order], params)
        for row, output in zip(order, outputs, strict=True):
            results[row] = list(output.outputs[0].token_ids)
        return results

    def _ask_nodes(self, prompts: Sequence[TokenIds], ids: list[int] | None) -> Iterable[Logprobs]:
        from vllm import SamplingParams

        asked: dict[str, Any] = {"logprobs": -1} if ids is None else {"logprob_token_ids": ids}
        params = SamplingParams(
            temperature=0.0, max_tokens=1, detokenize=False, flat_logprobs=True, **asked
        )
        for output in self._run(prompts, params):
            yield output.outputs[0].logprobs

    def _ask_prompts(self, prompts: Sequence[TokenIds], use_cache: bool) -> Iterable[ScoredPrompt]:
        from vllm import SamplingParams

        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            detokenize=False,
            flat_logprobs=True,
            prompt_logprobs=0,
            skip_reading_prefix_cache=not use_cache,
        )
        for output in self._run(prompts, params):
            yield ScoredPrompt(output.prompt_logprobs.logprobs, output.num_cached_tokens or 0)

    def _run(self, prompts: Sequence[TokenIds], params: Any) -> list[Any]:
        """The engine's results, in order of ``prompts``."""
        if self._engine is None:
            raise RuntimeError("this model has been closed")
        if not prompts:
            return []
        try:
            with engine_errors(self._identity.name):
                return list(
                    self._engine.generate(
                        [{"prompt_token_ids": list(prompt)} for prompt in prompts],
                        params,
                        use_tqdm=False,
                        lora_request=self._lora,
                    )
                )
        except BaseException:
            # Unfinished requests stay in the engine: it cannot be asked again.
            self.close()
            raise

    def close(self) -> None:
        """Give back the engine's memory. Calling it twice is harmless."""
        if self._engine is not None:
            stop_engine(self._engine)
            self._engine = None
            gc.collect()
