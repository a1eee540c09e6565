"""Signatures over a manifest: read and verified (pure), and as evidence with keys that compliance registered."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from django.db import DatabaseError, transaction
from django.urls import reverse

from apps.audit.models import AuditEvent
from apps.catalogue import controls_state, evidence, signatures, signing_keys
from apps.catalogue.models import Control, Evidence, Regime, SigningKey
from apps.core import clock
from apps.core.errors import Conflict, Invalid, NotAllowed
from tests.catalogue.evidence_world import World, later, make_world
from tests.catalogue.test_evidence import Ci
from tests.factories import Company, client_for, make_member

MANIFEST = b'{"v":1}'
DIGEST = hashlib.sha256(MANIFEST).hexdigest()
#: As protocol.md of secure-systems-lab/dsse prints them under "Test Vectors": key, and envelope over "hello world".
DSSE_KEY = ec.EllipticCurvePublicNumbers(
    46950820868899156662930047687818585632848591499744589407958293238635476079160,
    5640078356564379163099075877009565129882514886557779369047442380624545832820,
    ec.SECP256R1(),
).public_key()
DSSE_SIGNATURE = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_SHA = hashes.SHA256()
Signer = Callable[[bytes], bytes]


def pem(public: Any) -> str:
    """Return a public key as PEM."""
    text: bytes = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def ecdsa() -> tuple[str, Signer]:
    """Return a new P-256 key's public half, and what signs as cosign does."""
    key = ec.generate_private_key(ec.SECP256R1())
    return pem(key.public_key()), lambda data: key.sign(data, ec.ECDSA(_SHA))


def ed() -> tuple[str, Signer]:
    key = ed25519.Ed25519PrivateKey.generate()
    return pem(key.public_key()), key.sign


def envelope(sign: Signer, digest: str = DIGEST, **changes: Any) -> str:
    """Return a DSSE envelope over an in-toto statement."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://example.com/release/v1", "predicate": {},
        "subject": [{"name": "other", "digest": {"sha512": "0" * 128}}, {"name": "m", "digest": {"sha256": digest}}],
    } | changes.pop("statement", {})  # fmt: skip
    payload = changes.pop("raw", json.dumps(statement).encode())
    kind = changes.get("payloadType", signatures.INTOTO)
    body = {
        "payloadType": kind, "payload": b64(payload),
        "signatures": [{"keyid": "any", "sig": b64(sign(signatures.pae(kind, payload)))}],
    }  # fmt: skip
    return json.dumps(body | changes)


def simple(digest: str = DIGEST, name: str = "docker-manifest-digest", kind: str = signatures.COSIGN_TYPE) -> bytes:
    """Return a cosign payload."""
    critical = {"identity": {"docker-reference": ""}, "image": {name: f"sha256:{digest}"}, "type": kind}
    return json.dumps({"critical": critical, "optional": None}).encode()


def read(**raw: Any) -> signatures.Signed:
    return signatures.read(raw, MANIFEST, DIGEST)


@pytest.mark.requirement("signatures-2.1")
def test_dsse_encodes_and_verifies_as_its_specification_prints() -> None:
    encoded = signatures.pae("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert signatures.pae("tybé", b"x") == b"DSSEv1 5 tyb\xc3\xa9 1 x"
    key = signatures.read_public_key(pem(DSSE_KEY))
    assert signatures.verifies(key, encoded, base64.b64decode(DSSE_SIGNATURE))
    assert not signatures.verifies(key, encoded + b"!", base64.b64decode(DSSE_SIGNATURE))


def _rsa(pad: Any) -> Signer:
    return lambda data: _RSA.sign(data, pad, _SHA)


_MGF = padding.MGF1(hashes.SHA256())


@pytest.mark.requirement("signatures-2.1")
@pytest.mark.parametrize(
    ("made", "pss"),
    [
        (ecdsa(), True), (ed(), True),
        ((pem(_RSA.public_key()), _rsa(padding.PSS(_MGF, 32))), True),
        ((pem(_RSA.public_key()), _rsa(padding.PSS(_MGF, padding.PSS.MAX_LENGTH))), True),
        ((pem(_RSA.public_key()), _rsa(padding.PKCS1v15())), False),
    ],
    ids=["ecdsa", "ed25519", "pss-digest", "pss-max", "pkcs1"],
)  # fmt: skip
def test_every_algorithm_verifies_every_form_and_nothing_else(made: tuple[str, Signer], pss: bool) -> None:
    public, sign = made
    key, stranger = signatures.read_public_key(public, pss=pss), signatures.read_public_key(ecdsa()[0])
    given = [
        read(signature=b64(sign(MANIFEST))),
        read(signature=b64(sign(f"sha256:{DIGEST}".encode()))),
        read(signature=b64(sign(simple())), signed_payload=b64(simple())),
        read(signature=b64(sign(simple())), signed_payload=simple().decode()),
        read(signature=b64(sign(simple(name="Docker-manifest-digest"))),
             signed_payload=b64(simple(name="Docker-manifest-digest"))),
        read(envelope=envelope(sign)),
        read(envelope=json.loads(envelope(sign))),
        read(envelope=envelope(sign, raw=simple(), payloadType=signatures.SIMPLE_SIGNING)),
    ]  # fmt: skip
    for signed in given:
        assert signatures.signer(signed, [stranger, key]) == key
        assert signatures.signer(signed, [stranger]) is None
    for signed in (
        read(signature=b64(sign(b"other"))),
        read(signature=b64(sign(simple("0" * 64))), signed_payload=b64(simple())),
        read(envelope=envelope(lambda data: sign(data.replace(b"in-toto", b"another")))),
    ):
        assert signatures.signer(signed, [key]) is None
    other = signatures.read_public_key(public, pss=not pss)
    if "rsa" in key.algorithm:
        assert signatures.signer(given[0], [other]) is None


@pytest.mark.requirement("signatures-2.1")
def test_an_ecdsa_signature_without_der_is_taken_as_well() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    r, s = decode_dss_signature(key.sign(MANIFEST, ec.ECDSA(_SHA)))
    public = signatures.read_public_key(pem(key.public_key()))
    assert signatures.verifies(public, MANIFEST, r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    assert not signatures.verifies(public, MANIFEST, bytes(64))


_SIGN: Signer = ed()[1]
_OTHER = "0" * 64


@pytest.mark.requirement("signatures-2.2")
@pytest.mark.parametrize(
    ("raw", "field", "says"),
    [
        ({}, "signature", "Give either"),
        ({"signature": "AA==", "envelope": "{}"}, "signature", "Give either"),
        ({"signature": "%%"}, "signature", "no base64"),
        ({"signature": "A" * 20_000}, "signature", "at most"),
        ({"signature": 7}, "signature", "base64"),
        ({"signature": "AA==", "signed_payload": "%%"}, "signed_payload", "no base64"),
        ({"signature": "AA==", "signed_payload": 7}, "signed_payload", "base64"),
        ({"signature": "AA==", "signed_payload": "{x"}, "signed_payload", "no JSON"),
        ({"signature": "AA==", "signed_payload": "{}"}, "signed_payload", "no simple signing payload"),
        ({"signature": "AA==", "signed_payload": simple(kind="other").decode()}, "signed_payload", "critical.type"),
        ({"signature": "AA==", "signed_payload": simple(name="x").decode()}, "signed_payload", "missing"),
        ({"signature": "AA==", "signed_payload": simple(_OTHER).decode()}, "signed_payload", "sign this manifest"),
        ({"envelope": "{"}, "envelope", "no JSON"),
        ({"envelope": "[]"}, "envelope", "payloadType, payload and signatures"),
        ({"envelope": "[" * 100_000}, "envelope", "no JSON"),
        ({"envelope": " " * 300_000}, "envelope", "KiB"),
        ({"envelope": envelope(_SIGN, signatures=[])}, "envelope", "one to"),
        ({"envelope": envelope(_SIGN, signatures=[{"sig": 7}])}, "envelope", "signatures"),
        ({"envelope": envelope(_SIGN, payload="%%")}, "envelope", "no base64"),
        ({"envelope": envelope(_SIGN, payloadType="text/plain")}, "envelope", "Taken are"),
        ({"envelope": envelope(_SIGN, raw=b"[]")}, "envelope", "no in-toto statement"),
        ({"envelope": envelope(_SIGN, statement={"_type": "x"})}, "envelope", "no in-toto statement"),
        ({"envelope": envelope(_SIGN, statement={"subject": []})}, "envelope", "subjects"),
        ({"envelope": envelope(_SIGN, statement={"subject": [7, {"digest": 7}]})}, "envelope", "names no sha256"),
        ({"envelope": envelope(_SIGN, _OTHER)}, "envelope", "sign this manifest"),
        ({"envelope": envelope(_SIGN), "signed_payload": "AA=="}, "signed_payload", "leave this empty"),
    ],
)  # fmt: skip
def test_what_is_malformed_or_names_other_bytes_is_told_beside_its_field(
    raw: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(Invalid) as refused:
        read(**raw)
    assert says in " ".join(refused.value.errors[field])


@pytest.mark.requirement("signatures-1.1")
def test_only_public_keys_of_the_agreed_kinds_are_read() -> None:
    private = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()  # noqa: S505 (to be refused)
    for text, says in (
        (private.decode(), "private key"), ("ssh-ed25519 AAAA", "as PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "no public key"),
        (pem(small), "2,048"), (pem(ec.generate_private_key(ec.SECP384R1()).public_key()), "P-256"),
    ):  # fmt: skip
        with pytest.raises(Invalid) as refused:
            signatures.read_public_key(text)
        assert says in " ".join(refused.value.errors["public_key"])


# On the database


@pytest.fixture
def world(company: Company, db: None) -> World:
    """An internal model of finance, whose versions a house control wants signed."""
    made = make_world(company)
    Control.objects.create(
        regime=Regime.objects.get(code="house"), code="house-signed", citation="House 9", title="Signed",
        text="The version is signed.", kind="required", evidence_kinds=["signature"],
    )  # fmt: skip
    return made


def register(world: World, public: str, name: str = "Fraud release key", **values: Any) -> SigningKey:
    values.setdefault("expires_at", later(days=90))
    return signing_keys.register_key(
        name, public, "The release pipeline of Fraud", values.pop("expires_at"),
        values.pop("teams", [world.company.finance_team.pk]), actor=values.pop("actor", world.actor("compliance")),
        **values,
    )  # fmt: skip


def add(world: World, **payload: Any) -> Evidence:
    return world.add("signature", payload=payload)


def status(world: World, at: Any = None) -> Any:
    found = controls_state.standing(world.version, at=at).states
    return next(one for one in found if one.code == "house-signed")


def manifest(world: World) -> bytes:
    return bytes(world.version.manifest)


@pytest.mark.requirement("signatures-2.3")
def test_a_control_is_satisfied_by_a_verified_signature_and_by_nothing_else(world: World) -> None:
    public, sign = ecdsa()
    key = register(world, public)
    assert status(world).status == "missing"
    with pytest.raises(Invalid):
        add(world, summary="It is signed, believe me, by the pipeline of the team.", conclusion="acceptable")
    row = add(world, envelope=envelope(sign, world.version.digest), summary="Signed at release.")
    assert (row.verdict, row.signing_key, status(world).status) == ("pass", key, "satisfied")
    assert row.payload["fingerprint"] == key.fingerprint
    kept = signatures.pae(row.payload["payload_type"], base64.b64decode(row.payload["signed_payload"]))
    again = signatures.read_public_key(key.public_key)
    assert signatures.verifies(again, kept, base64.b64decode(row.payload["signature"]))
    # As before there were keys: a document of kind signature, whatever it concludes.
    Evidence.objects.create(
        model=world.model, model_version=world.version, subject_digest=world.version.digest, kind="signature",
        title="Old", verdict="pass", produced_at=clock.now(), produced_by=world["member_finance"], digest="9" * 64,
    )  # fmt: skip
    evidence.withdraw_evidence(row.pk, "Signed by mistake this time.", actor=world.actor("member_finance"))
    assert status(world).status == "missing"
    assert "no key was ever asked" in status(world).why


@pytest.mark.requirement("signatures-2.2")
def test_another_key_other_bytes_or_a_key_not_in_force_is_refused_and_told(world: World) -> None:
    public, sign = ed()
    data = manifest(world)

    def refused(**payload: Any) -> str:
        with pytest.raises(Invalid) as error:
            add(world, **payload)
        return " ".join(text for texts in error.value.errors.values() for text in texts)

    assert "No key is in force" in refused(signature=b64(sign(data)))
    foreign, foreign_sign = ecdsa()
    register(world, foreign, "Of marketing", teams=[world.company.marketing_team.pk])
    coming, coming_sign = ecdsa()
    register(world, coming, "Coming key", valid_from=later(days=1), expires_at=later(days=9))
    key = register(world, public, expires_at=later(days=30))
    assert "No key in force" in refused(signature=b64(foreign_sign(data)))
    assert "valid from" in refused(signature=b64(coming_sign(data)))
    assert "No key in force" in refused(signature=b64(sign(data + b" ")))
    assert "sign this manifest" in refused(envelope=envelope(sign, "1" * 64))
    assert "is not known" in refused(signature=b64(sign(data)), conclusion="acceptable")
    with pytest.raises(Invalid):
        signing_keys.verify(world.version, {"signature": b64(sign(data))}, later(days=30))
    signing_keys.revoke_key(key.pk, "Replaced by the key of 2027.", actor=world.actor("compliance"))
    assert "it was revoked on" in refused(signature=b64(sign(data)))
    assert not Evidence.objects.exists()


@pytest.mark.requirement("signatures-1.3")
def test_a_revoked_key_keeps_what_it_signed_unless_it_was_stolen_by_then(world: World) -> None:
    public, sign = ecdsa()
    key = register(world, public)
    actor = world.actor("compliance")
    row = add(world, signature=b64(sign(manifest(world))))
    signing_keys.revoke_key(key.pk, "Replaced by the key of 2027.", actor=actor)
    assert status(world).status == "satisfied"
    assert status(world, later(days=365)).status == "satisfied"
    with pytest.raises(Conflict):
        signing_keys.revoke_key(key.pk, "Replaced by the key of 2027.", actor=actor)
    with pytest.raises(Invalid):
        signing_keys.revoke_key(key.pk, "Stolen from the build host.", actor=actor, void_from=later(days=1))
    assert row.verified_at is not None
    signing_keys.revoke_key(
        key.pk, "Stolen from the build host.", actor=actor, void_from=row.verified_at - timedelta(seconds=1)
    )
    assert status(world).status == "missing"
    assert "in other hands" in status(world).why
    successor, sign_again = ed()
    register(world, successor, "Next key")
    add(world, signature=b64(sign_again(manifest(world))))
    assert status(world).status == "satisfied"
    assert AuditEvent.objects.filter(action="catalogue.signing_key.revoked").count() == 2


@pytest.mark.requirement("signatures-1.1", "signatures-1.2")
def test_compliance_registers_keys_and_the_database_keeps_them(world: World) -> None:
    public, _ = ecdsa()
    for name in ("lead_finance", "admin", "auditor", "member_finance"):
        with pytest.raises(NotAllowed):
            register(world, public, actor=world.actor(name))
    own = make_member(world["compliance"], world.company.finance_team)
    with pytest.raises(NotAllowed, match="somebody else registers it"):
        register(world, public)
    own.delete()
    key = register(world, public)
    for wrong in (
        {"name": "x"}, {"expires_at": later(days=2000)}, {"valid_from": later(days=-1)}, {"teams": []},
        {"name": "Another name"},
    ):  # fmt: skip
        with pytest.raises(Invalid):
            register(world, public, **wrong)
    assert AuditEvent.objects.filter(action="catalogue.signing_key.registered").count() == 1
    for change in ({"public_key": "x"}, {"expires_at": later(days=9)}, {"fingerprint": "0" * 64}):
        with pytest.raises(DatabaseError), transaction.atomic():
            SigningKey.objects.filter(pk=key.pk).update(**change)
    signing_keys.revoke_key(key.pk, "Replaced by the key of 2027.", actor=world.actor("compliance"))
    for back in ({"revoked_at": None}, {"revoked_at": later(days=1)}):
        with pytest.raises(DatabaseError), transaction.atomic():
            SigningKey.objects.filter(pk=key.pk).update(**back)
    key.teams.clear()
    with pytest.raises(DatabaseError), transaction.atomic():
        key.delete()


@pytest.mark.requirement("signatures-1.4")
def test_all_faults_of_a_key_are_told_at_once_each_beside_its_field(world: World) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()  # noqa: S505 (to be refused)
    small = weak.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    compliance = client_for(world.company.compliance)
    create = reverse("catalogue:signing-key-create")

    def faults(**data: Any) -> set[str]:
        answer = compliance.post(create, data)
        assert answer.status_code == 400
        return set(answer.context["form"].errors)

    past = later(days=-3).strftime("%Y-%m-%dT%H:%M")
    assert faults(public_key=small) == {"name", "holder", "teams", "expires_at", "public_key"}
    assert faults(name="x", holder="me", public_key=small, valid_from=past, expires_at=past) == {
        "name", "holder", "teams", "valid_from", "expires_at", "public_key",
    }  # fmt: skip
    text = compliance.post(create, {"public_key": small, "holder": "me"}).content.decode()
    assert "2,048" in text
    assert "who or what holds the private key" in text
    assert not SigningKey.objects.exists()


@pytest.mark.requirement("signatures-2.4")
def test_pages_api_and_ci_systems_take_signatures(world: World) -> None:
    compliance, member = client_for(world["compliance"]), client_for(world["member_finance"])
    public, sign = ecdsa()
    data = {
        "name": "Fraud release key", "holder": "The release pipeline of Fraud", "public_key": public,
        "teams": [world.company.finance_team.pk], "rsa_padding": "pss",
        "expires_at": later(days=20).strftime("%Y-%m-%dT%H:%M"),
    }  # fmt: skip
    create = reverse("catalogue:signing-key-create")
    assert compliance.post(create, data | {"public_key": "nothing"}).status_code == 400
    secret = "-----BEGIN EC PRIVATE KEY-----\nnobody reads this\n-----END EC PRIVATE KEY-----"
    pasted = compliance.post(create, data | {"public_key": secret})
    assert pasted.status_code == 400
    assert "This is a private key." in pasted.content.decode()
    assert "nobody reads this" not in pasted.content.decode()
    assert compliance.post(create, data).status_code == 303
    key = SigningKey.objects.get()
    page = reverse("catalogue:signing-key-detail", kwargs={"key_uid": key.uid})
    assert key.fingerprint in compliance.get(page).content.decode()
    assert "Fraud release key" in compliance.get(reverse("catalogue:signing-key-list")).content.decode()

    kwargs = {"version_uid": world.version.uid, "kind": "signature"}
    form = reverse("catalogue:evidence-add", kwargs=kwargs)
    assert "Or a DSSE envelope" in member.get(form).content.decode()
    typed = {"title": "Released", "envelope": envelope(sign, "1" * 64)}
    bad = member.post(form, typed)
    assert bad.status_code == 400
    assert "sign this manifest" in bad.content.decode()
    assert member.post(form, typed | {"envelope": envelope(sign, world.version.digest)}).status_code == 303
    row = Evidence.objects.get()
    shown = member.get(reverse("catalogue:evidence-detail", kwargs={"evidence_uid": row.uid})).content.decode()
    assert "Verified with" in shown
    assert page not in shown
    body = {"digest": world.version.digest, "kind": "signature", "title": "Api",
            "payload": {"signature": b64(sign(manifest(world)))}}  # fmt: skip
    made = member.post("/api/v1/evidence", json.dumps(body), content_type="application/json")
    assert made.status_code == 201, made.content
    assert made.json()["signing_key"] == str(key.uid)

    ci = Ci(world, kinds=["signature"])
    payload = {
        "signature": b64(sign(simple(world.version.digest))),
        "signed_payload": b64(simple(world.version.digest)),
    }
    sent = ci.send(kind="signature", title="Pipeline", results=[], payload=payload)
    assert (sent.producer, sent.signing_key, sent.payload["format"]) == (ci.producer, key, "cosign")
    with pytest.raises(Invalid):
        ci.send(kind="signature", title="Again", results=[], payload=payload | {"signature": "AAAA"},
                delivery_id="run-0002")  # fmt: skip

    revoke = f"/api/v1/signing-keys/{key.uid}/revoke"
    assert member.get("/api/v1/signing-keys").status_code == 403
    reason = json.dumps({"reason": "Replaced by the key of 2027."})
    headers = {"If-Match": f'"{key.version}"'}
    done = compliance.post(revoke, reason, content_type="application/json", headers=headers)
    assert done.status_code == 200, done.content
    assert done.json()["revoked_at"]
    steal = reverse("catalogue:signing-key-revoke", kwargs={"key_uid": key.uid})
    key.refresh_from_db()
    void = {"reason": "Stolen from the build host.", "version": key.version,
            "void_from": (clock.now() - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")}  # fmt: skip
    assert compliance.post(steal, void).status_code == 303
    shown = member.get(reverse("catalogue:evidence-detail", kwargs={"evidence_uid": row.uid})).content.decode()
    assert "It counts no more" in shown
    api = {"name": "Api key", "holder": "The release pipeline", "public_key": ed()[0],
           "teams": [world.company.finance_team.slug], "expires_at": later(days=9).isoformat()}  # fmt: skip
    again = compliance.post("/api/v1/signing-keys", json.dumps(api), content_type="application/json")
    assert again.status_code == 201, again.content
    unknown = compliance.post(
        "/api/v1/signing-keys", json.dumps(api | {"teams": ["nobody"]}), content_type="application/json"
    )
    assert unknown.status_code == 400
