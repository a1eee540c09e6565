"""Ed25519 signatures under keys from the environment."""

from __future__ import annotations

import base64

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from apps.core import signing

OLD = base64.urlsafe_b64encode(bytes(range(32))).decode()
NEW = base64.urlsafe_b64encode(bytes(range(32, 64))).decode()


def test_the_vector_of_the_standard(settings) -> None:
    # RFC 8032, 7.1, test 2: one byte of message.
    settings.COMMONS_SIGNING_KEYS = [
        base64.urlsafe_b64encode(
            bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
        ).decode()
    ]
    made = signing.sign(b"\x72")
    assert base64.b64decode(made.value).hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert signing.public_keys()[made.key_id].hex() == (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    )


def test_the_newest_key_signs_and_older_ones_are_recognised(settings) -> None:
    settings.COMMONS_SIGNING_KEYS = [OLD]
    before = signing.sign(b"a month")
    settings.COMMONS_SIGNING_KEYS = [NEW, OLD]
    after = signing.sign(b"a month")
    assert before.key_id != after.key_id
    assert signing.verifies(b"a month", before.key_id, before.value)
    assert signing.verifies(b"a month", after.key_id, after.value)
    assert not signing.verifies(b"another month", after.key_id, after.value)
    public = base64.urlsafe_b64encode(signing.public_keys()[before.key_id]).decode()
    settings.COMMONS_SIGNING_KEYS, settings.COMMONS_SIGNING_PUBLIC_KEYS = [], [public]
    assert not signing.can_sign()
    assert signing.verifies(b"a month", before.key_id, before.value)
    assert not signing.verifies(b"a month", after.key_id, after.value)
    with pytest.raises(signing.CannotSign):
        signing.sign(b"a month")


@pytest.mark.parametrize("text", ["short", "!" * 44, base64.urlsafe_b64encode(bytes(31)).decode()])
def test_a_malformed_key_is_named(settings, text: str) -> None:
    settings.COMMONS_SIGNING_KEYS = [text]
    with pytest.raises(ImproperlyConfigured, match="32 random bytes"):
        signing.sign(b"")


@given(st.text())
def test_garbage_is_no_signature(value: str) -> None:
    public = signing.raw_public(signing.Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert not signing.verifies_raw(b"body", public, value)
