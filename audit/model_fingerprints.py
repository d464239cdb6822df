"""The identity of a model folder, read from its files: no engine is imported, no weight loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audit.backends.model_identity import text_sha256, tokenizer_sha256, weights_sha256
from audit.errors import AuditError
from signatures.language_model import ModelIdentity

_MOST_JSON_BYTES = 1 << 28


def fingerprint_folder(folder: Path) -> ModelIdentity:
    """The fingerprints that a backend would find; ``dtype`` is empty, as nothing is computed.

    Raises ``AuditError`` in one line for a folder that holds no model.
    """
    config = _json_object(folder / "config.json")
    family = config.get("model_type")
    text_config = config.get("text_config")
    size = (text_config if isinstance(text_config, dict) else config).get("vocab_size")
    return ModelIdentity(
        folder.resolve().name,
        family if isinstance(family, str) else "",
        weights_sha256(folder),
        tokenizer_sha256(folder),
        text_sha256(chat_template(folder)),
        size if isinstance(size, int) else 0,
        "",
    )


def chat_template(folder: Path) -> str:
    """What ``tokenizer.chat_template`` of transformers would be, empty if there is none.

    As in its ``PreTrainedTokenizerBase.from_pretrained``: ``chat_template.jinja`` and
    ``additional_chat_templates/*.jinja`` come before the field in ``tokenizer_config.json``. Raises
    ``AuditError`` for several templates by name: which one a library used cannot be told.
    """
    files = {
        path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
    }
    if (folder / "chat_template.jinja").is_file():
        files.setdefault("default", folder / "chat_template.jinja")
    if set(files) == {"default"}:
        return _text(files["default"])
    template: object = None
    if not files and (folder / "tokenizer_config.json").is_file():
        template = _json_object(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, str):
        return template
    if files or template is not None:
        raise AuditError(f"{folder}: has several chat templates; keep only the one that was used")
    return ""


def _json_object(path: Path) -> dict[str, Any]:
    text = _text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{path}: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise AuditError(f"{path}: holds no JSON object; is this the folder of a model?")
    return value


def _text(path: Path) -> str:
    """With line ends as transformers reads them, in text mode."""
    try:
        if path.stat().st_size > _MOST_JSON_BYTES:
            raise AuditError(f"{path}: larger than {_MOST_JSON_BYTES:,} bytes, which none is")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise AuditError(f"{path}: not there; give the folder of a model") from error
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError(f"{path}: cannot be read: {error}") from error
