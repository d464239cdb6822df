"""A `LanguageModel` on transformers and torch: exact log-probabilities, constrained sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.backends.attention import KeyValueStore, PrefixCache, register_attention
from audit.backends.batching import SuffixTrie, batches_by_length, build_trie, group_by_prefix
from audit.backends.chat_encoder import ChatEncoder, first_line, load_chat_encoder
from audit.backends.chat_encoder import Dtype as Dtype
from audit.backends.constrained_sampling import FORBIDDEN, TokenAutomaton
from audit.backends.request_checks import check_prefix_requests, check_sequence_requests
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
        self._head: tuple[Any, Any] | None = None

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
    ) -> TransformersLanguageModel:
        """Load a Hugging Face model folder from disk; nothing is fetched, no code of it is run.

        ``adapter`` is a LoRA folder to merge into the weights. ``threads`` sets torch's number
        of threads for the whole process (None leaves it). ``max_batch_tokens`` bounds the
        tokens of one forward pass; larger is not faster on a CPU.

        Raises ``AuditError`` if the folder holds no model that this backend can run exactly,
        and ``MissingExtraError`` if torch or transformers is not installed.
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
            )
            if adapter_folder is not None:
                model = _merge_adapter(model, adapter_folder).to(getattr(torch, dtype))
        except (OSError, ValueError) as error:
            raise AuditError(f"{folder}: cannot be loaded: {first_line(error)}") from error
        finally:
            if bars:
                transformers.utils.logging.enable_progress_bar()
        _refuse_unsupported(model.config, folder)
        model.eval().requires_grad_(False).to(device)
        return cls(model, encoder, max_batch_tokens=max_batch_tokens)

    def sample(
        self,
        chats: Sequence[Chat],
        automaton: TokenAutomaton,
        *,
        seed: int,
        temperature: float = 1.0,
        batch_rows: int = 256,
    ) -> list[TokenIds]:
        """One answer a chat, sampled under a grammar; the end of turn is left off.

        At each step the probabilities (at ``temperature``) are renormalised over the tokens
        that the automaton allows. Row i draws from its own generator, keyed by (seed, i): the
        result does not depend on ``batch_rows`` but for the rounding of the arithmetic, and
        is repeatable for the same batches. Give another seed for each call. Equal chats are
        read once, and so is what all chats begin with: many rows of one prompt, under one
        system message, are cheap.

        Raises ``ValueError`` for a temperature that is not positive. Usage::

            grammar = number_list_automaton(model, max_numbers=10)
            rows = model.sample([Chat(persona, prompt)] * 100, grammar, seed=1)
            texts = [model.decode(row) for row in rows]
        """
        if not temperature > 0:
            raise ValueError("temperature must be positive")
        prompts = [self.encode_chat(chat) for chat in chats]
        results: list[TokenIds] = [()] * len(prompts)
        for group in group_by_prefix(prompts):
            prefix = self._prefix_cache(prompts[group.members[0]][: group.shared])
            # Sorting by length makes equal prompts neighbours and padding small.
            order = sorted(group.members, key=lambda row: (len(prompts[row]), prompts[row]))
            for first in range(0, len(order), batch_rows):
                rows = order[first : first + batch_rows]
                answers = self._sample_batch(
                    [prompts[row] for row in rows],
                    np.stack([_uniforms(seed, row, automaton.longest) for row in rows]),
                    prefix,
                    automaton,
                    temperature,
                )
                for row, answer in zip(rows, answers, strict=True):
                    results[row] = answer
        return results

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
        window = int(np.clip(_HELD_BYTES // (4 * width * held or 1), 1, _HELD_REQUESTS))

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

        no_suffix = build_trie(())
        for first in range(0, len(requests), _HELD_REQUESTS):
            rows = []
            for request in requests[first : first + _HELD_REQUESTS]:
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
        for group in group_by_prefix([row.tokens for row in rows]):
            with torch.inference_mode():
                prefix = self._prefix_cache(rows[group.members[0]].tokens[: group.shared])
                lengths = [
                    len(rows[index].tokens) - group.shared + len(rows[index].trie.tokens)
                    for index in group.members
                ]
                pending = [
                    [group.members[place] for place in batch]
                    for batch in batches_by_length(lengths, self._max_batch_tokens)
                ]
                pending.reverse()
                while pending:
                    batch = pending.pop()
                    try:
                        hidden = self._hidden_states([rows[index] for index in batch], prefix)
                        for index, states in zip(batch, hidden, strict=True):
                            results[index] = finish(rows[index], states)
                    except RuntimeError as error:
                        if not _out_of_memory(error):
                            raise
                        if len(batch) == 1:
                            raise AuditError(
                                "memory ran out on a single sequence of "
                                f"{len(rows[batch[0]].tokens)} tokens: shorten it, use bfloat16, "
                                "or free memory"
                            ) from None
                        half = len(batch) // 2
                        pending += [batch[half:], batch[:half]]
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
            logits = self._head_logits(hidden[first : first + _HEAD_ROWS], self._whole_head)
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
    def _whole_head(self) -> tuple[Any, Any]:
        if self._head is None:
            self._head = self._head_rows(slice(None))
        return self._head

    def _sample_batch(
        self,
        prompts: list[TokenIds],
        uniforms: NDArray[np.float64],
        prefix: PrefixCache,
        automaton: TokenAutomaton,
        temperature: float,
    ) -> list[TokenIds]:
        """Answers to ``prompts`` that all begin with ``prefix``; uniforms [rows, steps]."""
        import torch

        device = self.network.device
        with torch.inference_mode():
            unique = list(dict.fromkeys(prompts))
            place = {prompt: row for row, prompt in enumerate(unique)}
            source = torch.tensor([place[prompt] for prompt in prompts], device=device)
            count = len(prompts)
            # Rows of the store: first every prompt once, then the repetitions.
            seen: set[TokenIds] = set()
            lead: list[int] = []
            rest: list[int] = []
            for row, prompt in enumerate(prompts):
                (rest if prompt in seen else lead).append(row)
                seen.add(prompt)
            owner = torch.tensor(lead + rest, device=device)  # [rows] store row -> prompt row
            source = source[owner]

            shared = prefix.length
            longest_prompt = max(len(prompt) for prompt in unique)
            store = KeyValueStore(count, longest_prompt + automaton.longest, prefix)
            hidden = self._read_prompts(unique, store, shared)[source]  # [rows, hidden]
            if rest:
                targets = torch.arange(len(lead), count, device=device)
                store.copy_rows(source[len(lead) :], targets, shared, longest_prompt)

            lengths = torch.tensor([len(prompt) for prompt in unique], device=device)[source]
            columns = torch.arange(longest_prompt + automaton.longest, device=device)
            # [rows, positions] prompts are padded on the right; answers start after the longest
            visible = (columns[None] < lengths[:, None]) | (columns[None] >= longest_prompt)
            token_ids = torch.tensor(automaton.token_ids, device=device)
            transitions = torch.from_numpy(automaton.transitions).long().to(device)
            barred = torch.where(transitions == FORBIDDEN, -torch.inf, 0.0)  # [states, tokens]
            head_rows = self._head_rows(token_ids)
            draws = torch.from_numpy(uniforms).to(device)[owner]
            states = torch.zeros(count, dtype=torch.long, device=device)
            written = torch.full((count, automaton.longest), -1, dtype=torch.long, device=device)

            for step in range(automaton.longest):
                logits = self._head_logits(hidden, head_rows) / temperature + barred[states]
                cumulative = logits.double().softmax(-1).cumsum(-1)  # [rows, tokens]
                threshold = draws[:, step, None] * cumulative[:, -1:]
                # A barred token adds nothing to the sum, so it is never the first to exceed it.
                choice = (cumulative <= threshold).sum(-1).clamp(max=len(token_ids) - 1)
                states = transitions[states, choice]
                going = states != automaton.final_state
                chosen = token_ids[choice]
                written[owner[going], step] = chosen[going]
                alive = int(going.sum())
                if not alive:
                    break
                if alive < count:
                    # Rows that go on move from the tail into the places of finished ones.
                    holes = torch.nonzero(~going[:alive])[:, 0]
                    movers = torch.nonzero(going[alive:])[:, 0] + alive
                    store.copy_rows(movers, holes, shared, longest_prompt + step)
                    for tensor in (lengths, owner, draws, states, chosen, visible):
                        tensor[holes] = tensor[movers]
                    lengths, owner, draws = lengths[:alive], owner[:alive], draws[:alive]
                    states, chosen, visible = states[:alive], chosen[:alive], visible[:alive]
                    count = alive
                position = longest_prompt + step
                hidden = self.network.base_model(
                    input_ids=chosen[:, None],
                    attention_mask=visible[:, None, None, : position + 1],
                    position_ids=(lengths + step)[:, None],
                    past_key_values=store.window(0, count, position),
                    use_cache=True,
                ).last_hidden_state[:, 0]
            answers = written.cpu().numpy()
        return [tuple(int(token) for token in answer[answer >= 0]) for answer in answers]

    def _read_prompts(self, prompts: list[TokenIds], store: KeyValueStore, shared: int) -> Any:
        """Read prompts (sorted by length) into the store's first rows; [prompts, hidden]."""
        import torch

        device = self.network.device
        last: list[Any] = []
        first = 0
        while first < len(prompts):
            stop = first + 1
            while (
                stop < len(prompts)
                and (stop + 1 - first) * (len(prompts[stop]) - shared) <= self._max_batch_tokens
            ):
                stop += 1
            own = [prompt[shared:] for prompt in prompts[first:stop]]
            width = max(len(ids) for ids in own)
            tokens = torch.tensor([ids + (0,) * (width - len(ids)) for ids in own], device=device)
            hidden = self.network.base_model(
                input_ids=tokens,
                attention_mask=_causal_mask(width, shared, device),
                position_ids=torch.arange(shared, shared + width, device=device)[None],
                past_key_values=store.window(first, stop, shared),
                use_cache=True,
            ).last_hidden_state
            ends = torch.tensor([len(ids) - 1 for ids in own], device=device)
            last.append(hidden[torch.arange(len(own), device=device), ends])
            first = stop
        return torch.cat(last)

    def _prefix_cache(self, prefix: TokenIds) -> PrefixCache:
        """Keys and values of a prefix that several rows begin with (it may be empty)."""
        import torch

        cache = PrefixCache()
        if prefix:
            with torch.inference_mode():
                self.network.base_model(
                    input_ids=torch.tensor([prefix], device=self.network.device),
                    position_ids=torch.arange(len(prefix), device=self.network.device)[None],
                    past_key_values=cache,
                    use_cache=True,
                )
        cache.freeze()
        return cache

    def _head_rows(self, token_ids: Any) -> tuple[Any, Any]:
        """Float32 rows of the output embedding [tokens, hidden], and their bias or None."""
        head = self.network.get_output_embeddings()
        bias = getattr(head, "bias", None)
        return head.weight[token_ids].float(), None if bias is None else bias[token_ids].float()

    def _head_logits(self, hidden: Any, head_rows: tuple[Any, Any]) -> Any:
        """Float32 logits [rows, tokens] of hidden states [rows, hidden]."""
        from torch.nn.functional import linear

        return linear(hidden.float(), *head_rows)

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


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory ran out; on a CPU it raises a plain ``RuntimeError``."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _uniforms(seed: int, row: int, steps: int) -> NDArray[np.float64]:
    """The uniform draws [steps] of one row; a counter-based generator of its own."""
    return np.random.Generator(np.random.Philox(key=[seed, row])).random(steps)


def _causal_mask(new: int, seen: int, device: Any) -> Any:
    """[1, 1, new, seen + new] booleans, or None where plain causal attention will do."""
    import torch

    if not seen:
        return None
    return torch.ones(new, seen + new, dtype=torch.bool, device=device).tril(seen)[None, None]


def _merge_adapter(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError("merging a LoRA adapter", "peft", "models") from error
    return PeftModel.from_pretrained(
        model, str(adapter), is_trainable=False, local_files_only=True
    ).merge_and_unload()


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
