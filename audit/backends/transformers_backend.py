"""A `LanguageModel` on transformers and torch: exact log-probabilities, constrained sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from audit.backends.attention import KeyValueStore, PrefixCache, register_attention
from audit.backends.constrained_sampling import FORBIDDEN, TokenAutomaton
from audit.backends.model_identity import text_sha256, tokenizer_sha256, weights_sha256
from audit.errors import AuditError, MissingExtraError
from signatures.language_model import (
    Chat,
    ModelIdentity,
    TokenIds,
)

Dtype = Literal["float32", "bfloat16"]

# Fewer common tokens, or fewer requests, than this are not worth a pass of their own.
_MIN_SHARED_TOKENS = 8
_MIN_SHARING_REQUESTS = 3


class TransformersLanguageModel:
    """A causal language model run by transformers. Build it with `load`.

    Not safe for use from two threads at once.
    """

    def __init__(
        self, model: Any, tokenizer: Any, identity: ModelIdentity, *, max_batch_tokens: int
    ) -> None:
        self._model: Any = model
        self._tokenizer: Any = tokenizer
        self._identity = identity
        self._max_batch_tokens = max_batch_tokens
        self._head: Any = None

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
        if not (folder / "config.json").is_file():
            raise AuditError(f"{folder}: no config.json there; give the folder of a model")
        if threads is not None:
            torch.set_num_threads(threads)
        weights = weights_sha256(folder, adapter_folder)
        attention = register_attention()
        bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
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
            raise AuditError(f"{folder}: cannot be loaded: {_first_line(error)}") from error
        finally:
            if bars:
                transformers.utils.logging.enable_progress_bar()
        _refuse_unsupported(model.config, folder)
        model.eval().requires_grad_(False).to(device)
        name = folder.name if adapter_folder is None else f"{folder.name}+{adapter_folder.name}"
        identity = ModelIdentity(
            name=name,
            family=str(model.config.model_type),
            weights_sha256=weights,
            tokenizer_sha256=tokenizer_sha256(folder),
            chat_template_sha256=text_sha256(tokenizer.chat_template or ""),
            vocabulary_size=int(model.get_output_embeddings().weight.shape[0]),
            dtype=dtype,
        )
        return cls(model, tokenizer, identity, max_batch_tokens=max_batch_tokens)

    @property
    def identity(self) -> ModelIdentity:
        """Fingerprints of the model, its tokenizer and its chat template."""
        return self._identity

    def encode(self, text: str) -> TokenIds:
        """Token ids of ``text``, with no special token added."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, token_ids: TokenIds) -> str:
        """The text of the ids, special tokens included."""
        return str(self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))

    def render_chat(self, chat: Chat) -> str:
        """The text that `encode_chat` tokenises. Raises ``ValueError`` as it does."""
        user = {"role": "user", "content": chat.user}
        system = {"role": "system", "content": chat.system}
        text = str(
            self._tokenizer.apply_chat_template(
                [system, user], tokenize=False, add_generation_prompt=True
            )
        )
        return text + chat.assistant_prefix

    def encode_chat(self, chat: Chat) -> TokenIds:
        """Token ids of the chat through the model's own template, up to where it goes on.

        Raises ``ValueError`` if the template cannot hold a system message and one is given.
        """
        # The template writes the beginning-of-sequence token itself: none is added.
        return self.encode(self.render_chat(chat))

    def end_of_turn_ids(self) -> TokenIds:
        """The ids that end an answer."""
        ends = self._model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        if ends is None:
            return ()
        return tuple(ends) if isinstance(ends, list) else (int(ends),)

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
        for group in _group_by_prefix(prompts):
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

        device = self._model.device
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
                hidden = self._model.base_model(
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

        device = self._model.device
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
            hidden = self._model.base_model(
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
                self._model.base_model(
                    input_ids=torch.tensor([prefix], device=self._model.device),
                    position_ids=torch.arange(len(prefix), device=self._model.device)[None],
                    past_key_values=cache,
                    use_cache=True,
                )
        cache.freeze()
        return cache

    def _head_rows(self, token_ids: Any) -> tuple[Any, Any]:
        """Float32 rows of the output embedding [tokens, hidden], and their bias or None."""
        head = self._model.get_output_embeddings()
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
class _PrefixGroup:
    """Sequences (by index) whose first ``shared`` tokens are the same."""

    members: list[int]
    shared: int


def _group_by_prefix(sequences: Sequence[TokenIds]) -> list[_PrefixGroup]:
    """Group sequences that begin alike; ``shared`` always leaves one token of each to run."""
    order = sorted(range(len(sequences)), key=lambda index: sequences[index])
    groups: list[_PrefixGroup] = []
    loose: list[int] = []
    members: list[int] = []
    shared = 0

    def finish() -> None:
        if len(members) >= _MIN_SHARING_REQUESTS:
            groups.append(_PrefixGroup(list(members), shared))
        else:
            loose.extend(members)

    for index in order:
        room = len(sequences[index]) - 1
        if members:
            common = min(_common_length(sequences[members[-1]], sequences[index]), room)
            if common >= _MIN_SHARED_TOKENS:
                shared = min(shared, common)
                members.append(index)
                continue
            finish()
        members, shared = [index], room
    finish()
    if loose:
        groups.append(_PrefixGroup(loose, 0))
    return groups


def _common_length(left: TokenIds, right: TokenIds) -> int:
    length = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        length += 1
    return length


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
