"""Signed bundles: with --trust a bundle is served only if its manifest is signed by a key of the operator's."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from runtime import bundle, signing
from runtime.errors import BundleError, InvalidInput
from runtime.signing import SIGNATURE, Trust
from tests.server.bundles import write_upscaler


def signed(folder: Path, key: Path, name: str = "upscaler") -> Path:
    """A bundle that this key has signed."""
    write_upscaler(folder, name)
    sign(folder / name, key)
    return folder / name


def sign(path: Path, key: Path) -> None:
    signing.sign(path, (path / "manifest.json").read_bytes(), signing.read_private(key))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signing.keygen(tmp_path / "release")
    return tmp_path / "release"


def trust(*keys: Path) -> Trust:
    return Trust([key.with_name(key.name + ".pub") for key in keys])


def refusal(path: Path, trusted: Trust) -> str:
    with pytest.raises(BundleError) as caught:
        bundle.load(path, trusted)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_a_signed_bundle_is_read_with_and_without_trust(tmp_path: Path, key: Path) -> None:
    path = signed(tmp_path / "bundles", key)
    assert bundle.load(path, trust(key)) == bundle.load(path)
    assert [each.path for each in bundle.discover(tmp_path / "bundles", trust(key))] == [path]


def test_any_of_several_keys_will_do(tmp_path: Path, key: Path) -> None:
    signing.keygen(tmp_path / "next")
    path = signed(tmp_path / "bundles", tmp_path / "next")
    bundle.load(path, trust(key, tmp_path / "next"))
    assert " or " in refusal(signed(tmp_path / "more", tmp_path_key(tmp_path)), trust(key, tmp_path / "next"))


def tmp_path_key(folder: Path) -> Path:
    signing.keygen(folder / "stranger")
    return folder / "stranger"


def test_an_unsigned_bundle_is_refused_with_the_key_that_was_expected(tmp_path: Path, key: Path) -> None:
    write_upscaler(tmp_path / "bundles")
    name = signing.read_public(key.with_name("release.pub")).name
    assert name.startswith("release.pub (SHA256:")
    said = refusal(tmp_path / "bundles" / "upscaler", trust(key))
    assert f"it is not signed; expected a signature by {name} (--trust): sign it with ganforge sign" in said


def test_a_bundle_signed_by_another_key_is_refused_with_both(tmp_path: Path, key: Path) -> None:
    stranger = tmp_path_key(tmp_path)
    said = refusal(signed(tmp_path / "bundles", stranger), trust(key))
    foreign, own = (signing.fingerprint(signing.read_private(each).public_key()) for each in (stranger, key))
    assert f"it is signed by the key {foreign}; expected a signature by release.pub ({own})" in said


def test_an_altered_bundle_is_refused(tmp_path: Path, key: Path) -> None:
    path = signed(tmp_path / "bundles", key)
    manifest, graph = path / "manifest.json", path / "model.onnx"
    good = manifest.read_bytes()
    manifest.write_bytes(good.replace(b'"size_multiple": 1', b'"size_multiple": 2'))
    assert "its manifest is not the one that SHA256:" in refusal(path, trust(key))
    manifest.write_bytes(good + b"\n")  # no byte of it may differ
    assert "its manifest is not the one that SHA256:" in refusal(path, trust(key))
    manifest.write_bytes(good)
    graph.write_bytes(graph.read_bytes() + b"x")
    assert "model.onnx was altered" in refusal(path, trust(key))


def test_the_manifest_is_not_even_parsed_before_its_signature_is_checked(tmp_path: Path, key: Path) -> None:
    path = signed(tmp_path / "bundles", key)
    (path / "manifest.json").write_text("[" * 100_000)
    assert "is not the one that" in refusal(path, trust(key))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"key": 1, "signature": 2}',
        '{"key": "x", "signature": "?"}',
        "[" * 4000,
        "\x00" * 10_000,
    ],
)
def test_what_is_no_signature_is_refused(tmp_path: Path, key: Path, content: str) -> None:
    path = signed(tmp_path / "bundles", key)
    (path / SIGNATURE).write_text(content)
    assert "manifest.json.sig is no signature; expected one by release.pub" in refusal(path, trust(key))


def test_the_name_in_a_signature_proves_nothing(tmp_path: Path, key: Path) -> None:
    stranger = tmp_path_key(tmp_path)
    path = signed(tmp_path / "bundles", stranger)
    content = json.loads((path / SIGNATURE).read_text())
    content["key"] = signing.fingerprint(signing.read_private(key).public_key())
    (path / SIGNATURE).write_text(json.dumps(content))
    refusal(path, trust(key))
    content["key"] = "\u202eevil\n" * 9
    (path / SIGNATURE).write_text(json.dumps(content))
    assert "evil" not in refusal(path, trust(key))


def test_the_signature_of_one_bundle_is_none_of_another(tmp_path: Path, key: Path) -> None:
    first, second = (signed(tmp_path / "bundles", key, name) for name in ("first", "second"))
    shutil.copy(first / SIGNATURE, second / SIGNATURE)
    assert "is not the one that" in refusal(second, trust(key))


def test_building_again_removes_the_signature_and_a_copied_one_is_not_listed(
    tmp_path: Path, key: Path
) -> None:
    path = signed(tmp_path / "bundles", key)
    write_upscaler(tmp_path / "bundles")
    assert not (path / SIGNATURE).exists()
    sign(path, key)
    with bundle.Writer(tmp_path / "bundles", "copy") as writer:
        for file in ("model.onnx", SIGNATURE):
            shutil.copy(path / file, writer.path / file)
        copied = writer.commit(bundle.load(path).manifest)
    assert list(copied.manifest.files) == ["model.onnx"]
    assert not (tmp_path / "bundles" / "copy" / SIGNATURE).exists()


def test_keys_are_kept_from_others_and_never_overwritten(tmp_path: Path, key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    with pytest.raises(InvalidInput, match="release exists, and a key that is overwritten is lost"):
        signing.keygen(key)
    (tmp_path / "other.pub").touch()
    with pytest.raises(InvalidInput, match=r"other\.pub exists"):
        signing.keygen(tmp_path / "other")
    assert key.read_bytes() == before
    assert not (tmp_path / "other").exists()


def test_files_that_are_no_keys_are_named(tmp_path: Path, key: Path) -> None:
    public = key.with_name("release.pub")
    curve = generate_private_key(SECP256R1())
    (tmp_path / "curve").write_bytes(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "curve.pub").write_bytes(
        curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    for read, file, words in (
        (signing.read_private, public, "release.pub holds no private key"),
        (signing.read_private, tmp_path / "curve", "curve is a ECPrivateKey; expected ed25519"),
        (signing.read_private, tmp_path / "none", "--key: .*none cannot be read: No such file"),
        (signing.read_public, tmp_path / "none.pub", "--trust: .*none.pub cannot be read"),
        (signing.read_public, key, "release holds no public key"),
        (signing.read_public, tmp_path / "curve.pub", "curve.pub is a ECPublicKey; expected an ed25519 key"),
    ):
        with pytest.raises(InvalidInput, match=words):
            read(file)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_openssl_checks_a_signature(tmp_path: Path, key: Path) -> None:
    """As docs/security.md shows it."""
    path = signed(tmp_path / "bundles", key)
    content = json.loads((path / SIGNATURE).read_text())
    (tmp_path / "raw").write_bytes(base64.b64decode(content["signature"]))
    words = f"openssl pkeyutl -verify -pubin -inkey {key}.pub -rawin -in {path}/manifest.json -sigfile {tmp_path}/raw"
    checked = subprocess.run(words.split(), capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
