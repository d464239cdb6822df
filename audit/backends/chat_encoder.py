"""From texts and chats to token ids: what every backend that loads a model folder does alike."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from audit.backends.generation import Answer
from audit.backends.model_identity import text_sha256, tokenizer_sha256, weights_sha256
from audit.errors import AuditError, MissingExtraError
from signatures.language_model import Chat, ModelIdentity, TokenIds

Dtype = Literal["float32", "bfloat16"]

_SYSTEM_SENTINEL = "subliminal-audit-system-sentinel"


class ChatTemplateError(AuditError, ValueError):
    """The model's template cannot write a conversation: ``ValueError`` for `LanguageModel`."""


class ChatEncoder:
    """The tokenizer, chat template and fingerprints of a model folder; runs no model.

    Both backends inherit the part of `LanguageModel` that is about text. ``longest`` is the
    number of tokens that the model's positions reach to, where its configuration says so.
    """

    def __init__(  # noqa: D107
        self,
        tokenizer: Any,
        identity: ModelIdentity,
        end_of_turn_ids: TokenIds,
        longest: int | None = None,
    ) -> None:
        self.tokenizer: Any = tokenizer
        self.longest = longest
        self._identity = identity
        self._end_of_turn_ids = end_of_turn_ids

    @property
    def identity(self) -> ModelIdentity:
        """Fingerprints of the model, its tokenizer and its chat template."""
        return self._identity

    def encode(self, text: str) -> TokenIds:
        """Token ids of ``text``, with no special token added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, token_ids: TokenIds) -> str:
        """The text of the ids, special tokens included."""
        return str(self.tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False))

    def answer(self, token_ids: TokenIds, *, ended: bool) -> Answer:
        """Written ids as a text. With a control token in it, it is no finished answer."""
        return Answer(self.decode(token_ids), ended and self._controls.isdisjoint(token_ids))

    @cached_property
    def _controls(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def encode_chat(self, chat: Chat) -> TokenIds:
        """Token ids of the chat through the model's own template, up to where it goes on.

        A template that has no system role gets the system text at the beginning of the first
        user turn, a blank line before the user's. Raises ``ValueError`` if the template puts a
        default in the place of an empty system message and there is no way to get none, or
        refuses the messages.
        """
        # The template writes the beginning-of-sequence token itself: none is added.
        return self.encode(self.render_chat(chat))

    def render_chat(self, chat: Chat) -> str:
        """The text that `encode_chat` tokenises. Raises ``ValueError`` as it does."""
        turns = [
            message
            for user, assistant in chat.history
            for message in (_user(user), _assistant(assistant))
        ] + [_user(chat.user)]
        text = None
        if not chat.system:
            if self._empty_system is not None:
                text = self._render([*self._empty_system, *turns])
        elif self._has_system_role:
            text = self._render([_system(chat.system), *turns])
        else:
            first = _user(f"{chat.system}\n\n{turns[0]['content']}")
            text = self._render([first, *turns[1:]])
        if text is None or chat.system.strip() not in text:
            held = "conversation" if chat.history else "system message"
            raise ChatTemplateError(
                f"the chat template of {self._identity.name} cannot hold this {held}"
            )
        return text + chat.assistant_prefix

    @cached_property
    def _probe(self) -> str | None:
        """A chat with a known system text as the template writes it, or None if it refuses."""
        return self._render([_system(_SYSTEM_SENTINEL), _user("Hi")])

    @property
    def _has_system_role(self) -> bool:
        return self._probe is not None and _SYSTEM_SENTINEL in self._probe

    @cached_property
    def _empty_system(self) -> list[dict[str, str]] | None:
        """The messages that stand for a true empty system message, or None if none do."""
        if not self._has_system_role or self._probe is None:
            return []
        # An empty message may lose its delimiters; it must not gain a default text.
        room = len(self._probe) - len(_SYSTEM_SENTINEL)
        for messages in ([_system("")], []):
            text = self._render([*messages, _user("Hi")])
            if text is not None and len(text) <= room:
                return messages
        return None

    def _render(self, messages: list[dict[str, str]]) -> str | None:
        """The messages through the template; None where it refuses them."""
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except ValueError as error:  # there is none
            raise ChatTemplateError(first_line(error)) from error
        except Exception:  # it is a program of the folder's, in a sandbox, and may raise anything
            return None
        return str(text)

    def end_of_turn_ids(self) -> TokenIds:
        """The ids that end an answer."""
        return self._end_of_turn_ids

    def vocabulary(self) -> list[str]:
        """The text of every token id on its own, in order of id ([vocabulary_size]).

        Ids beyond the tokenizer's (padding of the embedding) have the empty text.
        """
        return list(self._vocabulary)

    @cached_property
    def _vocabulary(self) -> list[str]:
        """Kept: a build asks several times, and each text takes a call of the tokenizer."""
        known = len(self.tokenizer)
        return [
            self.decode((token,)) if token < known else ""
            for token in range(self._identity.vocabulary_size)
        ]


def load_chat_encoder(folder: Path, *, dtype: Dtype, adapter: Path | None = None) -> ChatEncoder:
    """Read a model folder's tokenizer and configuration, and fingerprint its files.

    Nothing is fetched and no code of the folder is run. ``adapter`` is a LoRA folder whose
    weights count as the model's. Raises ``AuditError`` if the folder holds no model, and
    ``MissingExtraError`` if transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            "running a model", error.name or "transformers", "models"
        ) from error
    if not (folder / "config.json").is_file():
        raise AuditError(f"{folder}: no config.json there; give the folder of a model")
    weights = weights_sha256(folder, adapter)
    tokenizer_hash = tokenizer_sha256(folder)
    try:
        config: Any = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        if (folder / "generation_config.json").is_file():
            generation: Any = transformers.GenerationConfig.from_pretrained(
                folder, local_files_only=True
            )
        else:
            generation = transformers.GenerationConfig.from_model_config(config)
    except (OSError, ValueError) as error:
        raise AuditError(f"{folder}: cannot be loaded: {first_line(error)}") from error
    ends = generation.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    identity = ModelIdentity(
        name=folder.name if adapter is None else f"{folder.name}+{adapter.name}",
        family=str(config.model_type),
        weights_sha256=weights,
        tokenizer_sha256=tokenizer_hash,
        chat_template_sha256=text_sha256(tokenizer.chat_template or ""),
        vocabulary_size=int(config.get_text_config().vocab_size),
        dtype=dtype,
    )
    end_ids = () if ends is None else tuple(ends) if isinstance(ends, list) else (int(ends),)
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return ChatEncoder(tokenizer, identity, end_ids, longest)


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
