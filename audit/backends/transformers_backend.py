"""A `LanguageModel` on transformers and torch: exact log-probabilities, constrained sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.backends.attention import PrefixCache, register_attention
from audit.backends.batching import SuffixTrie, batches_by_length, build_trie, group_by_prefix
from audit.backends.chat_encoder import ChatEncoder, first_line, load_chat_encoder
from audit.backends.chat_encoder import Dtype as Dtype
from audit.backends.constrained_sampling import TokenAutomaton
from audit.backends.generation import Answer, check_sampling, row_keys, row_starts
from audit.backends.memory import in_smaller_batches
from audit.backends.peft_import import import_peft
from audit.backends.request_checks import (
    check_choice,
    check_length,
    check_prefix_requests,
    check_sequence_requests,
)
from audit.backends.token_cut import TokenCut
from audit.backends.transformers_network import Head, head_logits, head_rows, prefix_cache
from audit.backends.transformers_writing import FreeRule, GrammarRule, write_answers
from audit.errors import AuditError, MissingExtraError
from signatures.language_model import (
    Chat,
    PrefixRequest,
    SequenceRequest,
    TokenIds,
)

# Rows of hidden states [rows, hidden] that meet the whole vocabulary at once: 50 MB of logits.
_HEAD_ROWS = 256
# Results are computed out of order, so that many are held at once: at most this many bytes.
_HELD_BYTES = 1 << 28
_HELD_REQUESTS = 1024


def _window(values: int) -> int:
    """How many results of that many float32 values each may be held at once."""
    return int(np.clip(_HELD_BYTES // (4 * values or 1), 1, _HELD_REQUESTS))


class TransformersLanguageModel(ChatEncoder):
    """A causal language model run by transformers. Build it with `load`.

    Not safe for use from two threads at once.
    """

    def __init__(self, model: Any, encoder: ChatEncoder, *, max_batch_tokens: int) -> None:  # noqa: D107
        super().__init__(
            encoder.tokenizer, encoder.identity, encoder.end_of_turn_ids(), encoder.longest
        )
        self._model: Any = model
        self._max_batch_tokens = max_batch_tokens
        self._head: Head | None = None

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        dtype: Dtype = "float32",
        device: str = "cpu",
        threads: int | None = None,
        max_batch_tokens: int = 2048,
        adapter: Path | str | None = None,
        four_bit: bool = False,
    ) -> TransformersLanguageModel:
        """Load a Hugging Face model folder from disk; nothing is fetched, no code of it is run.

        ``adapter`` is a LoRA folder to merge into the weights. ``threads`` sets torch's number
        of threads for the whole process (None leaves it). ``max_batch_tokens`` bounds the
        tokens of one forward pass; larger is not faster on a CPU. ``four_bit`` keeps the linear
        layers as 4-bit NormalFloat (Dettmers et al. 2023, QLoRA, arXiv 2305.14314), with which
        probabilities are no longer the model's own: it is for training beside them.

        Raises ``AuditError`` if the folder holds no model that this backend can run exactly,
        and ``MissingExtraError`` if torch or transformers is not installed, or with ``four_bit``
        bitsandbytes.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtraError("running a model", error.name or "torch", "models") from error
        folder = Path(path)
        adapter_folder = None if adapter is None else Path(adapter)
        encoder = load_chat_encoder(folder, dtype=dtype, adapter=adapter_folder)
        if threads is not None:
            torch.set_num_threads(threads)
        attention = register_attention()
        bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                # An adapter is merged in float32 and rounded once.
                dtype=torch.float32 if adapter is not None else getattr(torch, dtype),
                attn_implementation=attention,
                local_files_only=True,
                trust_remote_code=False,
                **(_four_bit(device) if four_bit else {}),
            )
            if adapter_folder is not None:
                model = _merge_adapter(model, adapter_folder).to(getattr(torch, dtype))
        except (OSError, ValueError) as error:
            raise AuditError(f"{folder}: cannot be loaded: {first_line(error)}") from error
        finally:
            if bars:
                transformers.utils.logging.enable_progress_bar()
        _refuse_unsupported(model.config, folder)
        model.eval().requires_grad_(False)
        if four_bit:
            _keep_gradients(model)
        else:  # weights of 4 bits were put there as they were loaded
            model.to(device)
        return cls(model, encoder, max_batch_tokens=max_batch_tokens)

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
        batch_rows: int = 256,
    ) -> list[TokenIds]:
        """One answer a chat, sampled under a grammar; see `Generator.sample`.

        The result does not depend on ``batch_rows`` but for the rounding of the arithmetic, and
        is repeatable for the same batches. Equal chats are read once, and so is what all chats
        begin with: many rows of one prompt, under one system message, are cheap. Usage::

            grammar = number_list_automaton(model, max_numbers=10)
            rows = model.sample([Chat(persona, prompt)] * 100, grammar, seed=1)
            texts = [model.decode(row) for row in rows]
        """
        check_sampling(temperature, automaton.longest)
        return write_answers(
            self.network,
            [self.encode_chat(chat) for chat in chats],
            GrammarRule(self.network, automaton, temperature, cut),
            seed=seed,
            keys=row_keys(keys, len(chats)),
            starts=row_starts(starts, len(chats), automaton),
            max_batch_tokens=self._max_batch_tokens,
            max_rows=batch_rows,
        )

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
        """One free text a chat; see `Generator.generate`."""
        check_sampling(temperature, max_new_tokens)
        prompts = [self.encode_chat(chat) for chat in chats]
        for prompt in prompts:
            check_length(len(prompt) + max_new_tokens, self.longest)
        ends = self.end_of_turn_ids()
        answers = write_answers(
            self.network,
            prompts,
            FreeRule(self._whole_head, ends, max_new_tokens, temperature, cut),
            seed=seed,
            keys=row_keys(keys, len(chats)),
            starts=[0] * len(chats),
            max_batch_tokens=self._max_batch_tokens,
        )
        return [self.answer(tokens, ended=len(tokens) < max_new_tokens) for tokens in answers]

    def next_token_log_probs(
        self, requests: Sequence[PrefixRequest], token_ids: NDArray[np.int64] | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """For each request, in order, an array [suffixes, token_ids] (all ids when None).

        A request's suffixes are run as one tree behind its prefix; what the prefixes of
        several requests have in common is run once.

        Raises ``ValueError`` for an empty prefix, a token id that does not exist, or a
        request longer than the model's context; ``AuditError`` if memory runs out.
        """
        columns = None if token_ids is None else np.asarray(token_ids, dtype=np.int64)
        check_prefix_requests(
            requests,
            columns,
            vocabulary_size=self._identity.vocabulary_size,
            longest=self.longest,
        )
        tries: dict[tuple[TokenIds, ...], SuffixTrie] = {}
        for request in requests:
            if request.suffixes not in tries:
                tries[request.suffixes] = build_trie(request.suffixes)
        width = self._identity.vocabulary_size if columns is None else len(columns)
        held = max(1, max((len(request.suffixes) for request in requests), default=1))
        window = _window(width * held)

        def finish(row: _Row, hidden: Any) -> NDArray[np.float32]:
            return self._log_probs(hidden, columns=columns)

        for first in range(0, len(requests), window):
            rows = []
            for request in requests[first : first + window]:
                trie = tries[request.suffixes]
                # Node -1, the empty suffix, is the last token of the prefix.
                wanted = tuple(int(end) + len(request.prefix) for end in trie.ends)
                rows.append(_Row(request.prefix, trie, wanted, ()))
            yield from self._run_rows(rows, finish)

    def sequence_log_probs(
        self, requests: Sequence[SequenceRequest]
    ) -> Iterator[NDArray[np.float32]]:
        """For each request, in order, an array [continuation length].

        Raises as `next_token_log_probs` does.
        """
        check_sequence_requests(
            requests,
            vocabulary_size=self._identity.vocabulary_size,
            longest=self.longest,
        )

        def finish(row: _Row, hidden: Any) -> NDArray[np.float32]:
            return self._log_probs(hidden, targets=row.targets)

        yield from self._run_continuations(requests, finish, _HELD_REQUESTS)

    def restricted_log_probs(
        self, requests: Sequence[SequenceRequest], token_ids: NDArray[np.int64]
    ) -> Iterator[NDArray[np.float32]]:
        """For each request, in order, an array [continuation length, token_ids].

        Only these rows of the output head are multiplied, which saves half of the time where
        they are few. Raises as `next_token_log_probs` does.
        """
        import torch

        check_sequence_requests(
            requests,
            vocabulary_size=self._identity.vocabulary_size,
            longest=self.longest,
        )
        columns = check_choice(token_ids, self._identity.vocabulary_size)
        head = head_rows(self.network, torch.from_numpy(columns).to(self.network.device))

        def finish(row: _Row, hidden: Any) -> NDArray[np.float32]:
            parts = [
                head_logits(hidden[first : first + _HEAD_ROWS], head).log_softmax(-1)
                for first in range(0, max(1, len(hidden)), _HEAD_ROWS)
            ]
            return np.asarray(torch.cat(parts).cpu().numpy())

        longest = max((len(request.continuation) for request in requests), default=0)
        yield from self._run_continuations(requests, finish, _window(longest * len(columns)))

    def _run_continuations(
        self,
        requests: Sequence[SequenceRequest],
        finish: Callable[[_Row, Any], NDArray[np.float32]],
        window: int,
    ) -> Iterator[NDArray[np.float32]]:
        """``finish`` of the hidden states that each continuation's tokens are drawn from."""
        no_suffix = build_trie(())
        for first in range(0, len(requests), window):
            rows = []
            for request in requests[first : first + window]:
                start, count = len(request.prefix) - 1, len(request.continuation)
                tokens = request.prefix + request.continuation[: max(0, count - 1)]
                wanted = tuple(range(start, start + count))
                rows.append(_Row(tokens, no_suffix, wanted, request.continuation))
            yield from self._run_rows(rows, finish)

    def _run_rows(
        self, rows: list[_Row], finish: Callable[[_Row, Any], NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Run rows in batches; ``finish`` turns a row's hidden states [wanted, hidden] into
        its result. The results are in the order of ``rows``.
        """
        import torch

        results: dict[int, NDArray[np.float32]] = {}
        # What is shared ends before the first state that any row wants: it is run only once.
        heads = [row.tokens[: min(row.wanted, default=len(row.tokens) - 1) + 1] for row in rows]
        for group in group_by_prefix(heads):
            with torch.inference_mode():
                prefix = prefix_cache(self.network, rows[group.members[0]].tokens[: group.shared])
                lengths = [
                    len(rows[index].tokens) - group.shared + len(rows[index].trie.tokens)
                    for index in group.members
                ]

                def run(
                    batch: list[int], prefix: PrefixCache = prefix
                ) -> list[NDArray[np.float32]]:
                    hidden = self._hidden_states([rows[index] for index in batch], prefix)
                    return [
                        finish(rows[index], states)
                        for index, states in zip(batch, hidden, strict=True)
                    ]

                for places in batches_by_length(lengths, self._max_batch_tokens):
                    batch = [group.members[place] for place in places]
                    for part, found in in_smaller_batches(
                        run, batch, lambda index: _too_long(len(rows[index].tokens))
                    ):
                        results.update(zip(part, found, strict=True))
        return [results[index] for index in range(len(rows))]

    def _hidden_states(self, rows: list[_Row], prefix: PrefixCache) -> list[Any]:
        """Final hidden states [wanted, hidden] of every row, all rows in one forward pass.

        A row is laid out as its own tokens after the shared prefix, then the nodes of its
        trie, then padding on the right, which nothing real can see.
        """
        import torch

        device = self.network.device
        shared = prefix.length
        own = [len(row.tokens) - shared for row in rows]
        width = max(count + len(row.trie.tokens) for count, row in zip(own, rows, strict=True))
        tokens = np.zeros((len(rows), width), dtype=np.int64)
        positions = np.zeros((len(rows), width), dtype=np.int64)
        trees = any(row.trie.tokens for row in rows)
        # [rows or 1, 1, new, seen]; trees need a mask of their own for every row
        mask = None
        if trees or shared:
            visible = np.tril(np.ones((width, shared + width), dtype=np.bool_), shared)
            mask = np.repeat(visible[None, None], len(rows) if trees else 1, axis=0)
        for index, (row, count) in enumerate(zip(rows, own, strict=True)):
            stop = count + len(row.trie.tokens)
            tokens[index, :stop] = row.tokens[shared:] + row.trie.tokens
            positions[index, :count] = np.arange(shared, shared + count)
            positions[index, count:stop] = shared + count + row.trie.depths
            if row.trie.tokens and mask is not None:
                mask[index, 0, count:stop, shared + count : shared + stop] = row.trie.visible
        states = self.network.base_model(
            input_ids=torch.from_numpy(tokens).to(device),
            attention_mask=None if mask is None else torch.from_numpy(mask).to(device),
            position_ids=torch.from_numpy(positions).to(device),
            past_key_values=prefix if shared else None,
            use_cache=bool(shared),
        ).last_hidden_state
        return [
            states[index, [place - shared for place in row.wanted]]
            for index, row in enumerate(rows)
        ]

    def _log_probs(
        self,
        hidden: Any,
        *,
        columns: NDArray[np.int64] | None = None,
        targets: TokenIds | None = None,
    ) -> NDArray[np.float32]:
        """Float32 log-softmax over the whole vocabulary of hidden states [rows, hidden].

        With ``targets`` [rows] one number a row; else [rows, columns], or every column.
        """
        import torch

        width = self._identity.vocabulary_size if columns is None else len(columns)
        shape = (len(hidden),) if targets is not None else (len(hidden), width)
        result = np.empty(shape, dtype=np.float32)
        for first in range(0, len(hidden), _HEAD_ROWS):
            logits = head_logits(hidden[first : first + _HEAD_ROWS], self._whole_head)
            normaliser = logits.logsumexp(-1, keepdim=True)
            if targets is not None:
                picked = torch.tensor(targets[first : first + _HEAD_ROWS], device=logits.device)
                part = (logits.gather(1, picked[:, None]) - normaliser)[:, 0]
            elif columns is not None:
                part = logits[:, torch.from_numpy(columns).to(logits.device)] - normaliser
            else:
                part = logits - normaliser
            result[first : first + _HEAD_ROWS] = part.cpu().numpy()
        return result

    @property
    def network(self) -> Any:
        """The torch module itself, for training. Raises ``RuntimeError`` once closed."""
        if self._model is None:
            raise RuntimeError("this model has been closed")
        return self._model

    @property
    def _whole_head(self) -> Head:
        if self._head is None:
            self._head = head_rows(self.network, slice(None))
        return self._head

    def close(self) -> None:
        """Give back the engine's memory. Calling it twice is harmless."""
        self._model = None
        self._head = None


@dataclass(frozen=True, slots=True)
class _Row:
    """One sequence to run: ``tokens``, then the trie's nodes behind them.

    ``wanted`` are the places whose hidden state is asked for, counted over tokens and then
    nodes; ``targets`` the next tokens there, where one is asked for.
    """

    tokens: TokenIds
    trie: SuffixTrie
    wanted: tuple[int, ...]
    targets: TokenIds


def _too_long(tokens: int) -> str:
    return (
        f"memory ran out on a single sequence of {tokens} tokens: shorten it, use bfloat16, "
        "or free memory"
    )


def _merge_adapter(model: Any, adapter: Path) -> Any:
    peft = import_peft("merging a LoRA adapter")
    return peft.PeftModel.from_pretrained(
        model, str(adapter), is_trainable=False, local_files_only=True
    ).merge_and_unload()


def _four_bit(device: str) -> dict[str, Any]:
    """What makes a folder load with linear layers of 4 bits on ``device``."""
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError("a base model of 4 bits", "bitsandbytes", "four-bit")
    import torch
    import transformers

    quantised = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": quantised, "device_map": {"": device}}


def _keep_gradients(model: Any) -> None:
    """On a CPU, layers of 4 bits that are not in training are packed for inference, and no gradient
    passes through them from then on."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.train()


def _refuse_unsupported(config: Any, folder: Path) -> None:
    """Raise ``AuditError`` for attention or heads that this backend would not compute exactly."""
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    windowed = window is not None and getattr(config, "use_sliding_window", True)
    capped = any(
        getattr(config, name, None) not in (None, 1.0)
        for name in ("attn_logit_softcapping", "final_logit_softcapping", "logits_scaling")
    )
    if layers != {"full_attention"} or windowed or capped:
        raise AuditError(
            f"{folder}: models of type '{config.model_type}' use sliding windows, other layers "
            "than full attention or scaled logits, which this backend does not run exactly"
        )
