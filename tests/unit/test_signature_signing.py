"""Signing with a key, offline: what was signed verifies, anything else does not."""

import json
import shutil

import pytest

from audit.cli.main import main
from signatures.library import load_library, save_library
from tests import synthetic

pytest.importorskip("model_signing", reason="the extra 'signing' is not installed")
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PRIVATE = pem.Encoding.PEM, pem.PrivateFormat.PKCS8
PUBLIC = pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo


def write_pair(folder, name, curve):
    key = ec.generate_private_key(curve)
    (folder / f"{name}.pem").write_bytes(key.private_bytes(*PRIVATE, pem.NoEncryption()))
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(*PUBLIC))
    return key


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    write_pair(folder, "mine", ec.SECP256R1())
    write_pair(folder, "other", ec.SECP256R1())
    write_pair(folder, "odd", ec.SECP256K1())
    locked = ec.generate_private_key(ec.SECP384R1())
    secret = pem.BestAvailableEncryption(b"secret")
    (folder / "locked.pem").write_bytes(locked.private_bytes(*PRIVATE, secret))
    (folder / "locked.pub").write_bytes(locked.public_key().public_bytes(*PUBLIC))
    rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "rsa.pem").write_bytes(rsa_key.private_bytes(*PRIVATE, pem.NoEncryption()))
    (folder / "text.pem").write_text("no key")
    return folder


@pytest.fixture
def library(tmp_path):
    save_library(synthetic.library(), tmp_path / "library")
    return tmp_path / "library"


@pytest.fixture
def audit(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["signature", *map(str, arguments)])
        shown = capsys.readouterr()
        return caught.value.code, shown.out.splitlines(), shown.err

    return run


def test_a_signed_library_verifies_opens_and_may_be_moved(audit, library, keys):
    content = load_library(library).content_sha256
    assert audit("sign", library, "--key", keys / "mine.pem")[0] == 0
    assert load_library(library).content_sha256 == content
    code, lines, _ = audit("check", library, "--public-key", keys / "mine.pub")
    assert code == 0
    assert lines[-1] == "ok     signature.sig: signed with the key in mine.pub"
    moved = library.rename(library.parent / "elsewhere")
    assert audit("check", moved, "--public-key", keys / "mine.pub")[0] == 0
    code, lines, _ = audit("check", moved)
    assert (code, lines[-1]) == (0, "-      signature.sig: not verified: give --public-key")


def test_an_encrypted_key_needs_its_password(audit, library, keys):
    code, _, error = audit("sign", library, "--key", keys / "locked.pem")
    assert code == 4
    assert "locked.pem: cannot be used to sign" in error
    assert not (library / "signature.sig").exists()
    assert audit("sign", library, "--key", keys / "locked.pem", "--password", "secret")[0] == 0
    assert audit("check", library, "--public-key", keys / "locked.pub")[0] == 0


@pytest.mark.parametrize("key", ["odd.pem", "rsa.pem", "text.pem", "mine.pub"])
def test_keys_that_cannot_sign_are_said_in_one_line(audit, library, keys, key):
    code, _, error = audit("sign", library, "--key", keys / key)
    assert code == 4
    assert error.count("\n") == 1
    assert f"{key}: cannot be used to sign" in error


def forge_extra_file(folder):
    (folder / "notes.txt").write_text("not signed")


def forge_git_file(folder):
    (folder / ".gitattributes").write_text("not signed")


def forge_library(folder):
    save_library(synthetic.library(seed=1), folder / "new")
    for path in (folder / "new").iterdir():
        path.replace(folder / path.name)
    (folder / "new").rmdir()


def forge_signature(folder):
    bundle = json.loads((folder / "signature.sig").read_text())
    payload = bundle["dsseEnvelope"]["payload"]
    bundle["dsseEnvelope"]["payload"] = (
        payload[:40] + ("A" if payload[40] != "A" else "B") + (payload[41:])
    )
    (folder / "signature.sig").write_text(json.dumps(bundle))


def forge_hint(folder):
    bundle = json.loads((folder / "signature.sig").read_text())
    bundle["verificationMaterial"]["publicKey"]["hint"] = ""
    (folder / "signature.sig").write_text(json.dumps(bundle))


def remove(folder):
    (folder / "signature.sig").unlink()


def replace_by_text(folder):
    (folder / "signature.sig").write_text("[]")


@pytest.mark.parametrize(
    "forge",
    [
        forge_extra_file,
        forge_git_file,
        forge_library,
        forge_signature,
        forge_hint,
        remove,
        replace_by_text,
    ],
)
def test_what_was_changed_after_signing_does_not_verify(audit, library, keys, tmp_path, forge):
    assert audit("sign", library, "--key", keys / "mine.pem")[0] == 0
    forge(library)
    code, lines, _ = audit("check", library, "--public-key", keys / "mine.pub")
    assert code == 2
    assert lines[-1].startswith(f"WRONG  {library / 'signature.sig'}: not ")


def test_another_key_or_another_librarys_signature_does_not_verify(audit, library, keys, tmp_path):
    assert audit("sign", library, "--key", keys / "mine.pem")[0] == 0
    code, lines, _ = audit("check", library, "--public-key", keys / "other.pub")
    assert code == 2
    assert "Key mismatch" in lines[-1]
    save_library(synthetic.library(seed=1), tmp_path / "second")
    shutil.copy(library / "signature.sig", tmp_path / "second")
    code, lines, _ = audit("check", tmp_path / "second", "--public-key", keys / "mine.pub")
    assert code == 2
    assert "the files are not those that were signed" in lines[-1]


def test_a_broken_library_is_not_signed(audit, library, keys):
    table = library / "context-numbers.parquet"
    table.write_bytes(table.read_bytes() + b" ")
    code, _, error = audit("sign", library, "--key", keys / "mine.pem")
    assert code == 2
    assert "changed after the library was written" in error
    assert not (library / "signature.sig").exists()


def test_a_library_with_other_files_is_not_signed(audit, library, keys):
    (library / "notes.txt").write_text("")
    code, _, error = audit("sign", library, "--key", keys / "mine.pem")
    assert code == 2
    assert "notes.txt: is no part of the library" in error


def test_a_new_library_in_its_place_is_not_signed(audit, library, keys):
    assert audit("sign", library, "--key", keys / "mine.pem")[0] == 0
    save_library(synthetic.library(seed=1), library)
    assert not (library / "signature.sig").exists()
