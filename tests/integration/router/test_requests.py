# Copyright (c) zdm.landscape contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets through, to which service and under which id."""

from __future__ import annotations

import base64
import json
import time
from functools import partial
from typing import Any

import jwt
import pytest
from ansible_collections.zdm.landscape.tests.integration.router.kit import (
    PRIVATE_KEY,
    PUBLIC_PEM,
    SECRET,
    YAAS,
    A,
    B,
    Deployment,
    claims,
    other_token,
    token,
)
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa


def signed(header: dict[str, Any], text: str | None = None, **changes: Any) -> str:
    """A token with a valid signature whose header and claims are as given, also where no library would write them so.

    :param text: the claims as text.
    """
    body = json.dumps(claims(**changes)) if text is None else text
    parts = [
        json.dumps({"alg": "RS256", **header}).encode() if "raw" not in header else header["raw"].encode(),
        body.encode(),
    ]
    text_signed = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    signature = PRIVATE_KEY.sign(text_signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text_signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def spelled(before: str, after: str, **changes: Any) -> str:
    """A token in whose claims a text was replaced before they were signed."""
    text = json.dumps(claims(**changes))
    assert before in text
    return signed({"kid": "key-1"}, text.replace(before, after))


def critical(text: str) -> str:
    return signed({"raw": f'{{"alg":"RS256","kid":"key-1",{text}}}'})


GOOD = {
    "its own id": (lambda: token(A), A),
    "mapped by its document": (lambda: token(B), A),
    "subdomain in the token": (lambda: other_token("a"), A),
    "subdomain in the token, mapped": (lambda: other_token("b"), A),
    "audience is one string": (lambda: token(A, aud="rc!b1"), A),
    "audience last of many": (lambda: token(A, aud=[*(f"other{n}" for n in range(31)), "rc!b1"]), A),
    "not before has passed": (lambda: token(A, nbf=int(time.time()) - 5), A),
    "times of others": (
        lambda: token(A, ext={"exp": "never", "nbf": [1], "more": [{"exp": None}, ["exp"]]}, az='"exp":[]'),
        A,
    ),
    "claims of every kind": (
        lambda: token(A, a=None, b=True, c=1.5e3, d=-1, e=[], f={}, g='"\\"', h="Ünïcode \n", **{"https://x/y": 1}),
        A,
    ),
    "scopes of a busy user": (lambda: token(A, scope=[f"rc!b1.scope-{n}.Display" for n in range(120)]), A),
    "headers of XSUAA": (
        lambda: signed({"kid": "key-1", "jku": "https://a.auth.example.com/token_keys", "typ": "JWT", "jid": "x/y="}),
        A,
    ),
    "slashes escaped, as PHP writes them": (
        lambda: signed({"kid": "key-1"}, json.dumps(claims()).replace("/", "\\/")),
        A,
    ),
    "names with escapes": (
        lambda: spelled('"x": 1', '"https://x/?a=1\\u0026b\\u003d2": 1, "\\u00fc\\u002B": 2', x=1),
        A,
    ),
    "eight levels": (lambda: token(A, x=[[[[[[[1]]]]]]]), A),
    "groups of a large company": (
        lambda: token(A, groups=[f"7c0b5f5c-0000-4000-8000-{n:012d}" for n in range(200)]),
        A,
    ),
    "a header that speaks of crit": (
        lambda: signed({"kid": "key-1", "x": '"crit": 1', "critical": [1], "y": "crit"}),
        A,
    ),
}


@pytest.mark.parametrize(("make", "tenant"), GOOD.values(), ids=GOOD.keys())
def test_a_good_token_reaches_the_service_under_the_live_id(shared: Deployment, make, tenant) -> None:  # type: ignore[no-untyped-def]
    answer = shared.get("/bills/1?x=2", make())
    assert (answer.status, answer.seen["path"], answer.tenant) == (200, "/bills/1?x=2", tenant)


def unsigned(**header: object) -> str:
    """A token without a signature."""
    parts = [json.dumps(part).encode() for part in (header, claims())]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


def confused() -> str:
    """Signed by HS256 with the public key as the secret: passes where the header's algorithm is believed."""
    body = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": "HS256", "kid": "key-1"}, claims())
    )
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(body.encode(), PUBLIC_PEM)
    return f"{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


HIDING = (
    '"nbf":9007199254740992',
    '"nbf":999999999999999999',
    '"nbf":0LATER',
    '"x":NaN,"nbf":LATER',
    '"x":-Infinity,"nbf":LATER',
    '"x":abc,"nbf":LATER',
    '"x":1-2,"nbf":LATER',
    '\f"nbf":LATER',
    '\v"nbf":LATER',
    '"x":[1},"nbf":LATER',
    '"x":{1 2 3},"nbf":LATER',
    '"x":[1 2],"nbf":LATER',
    '"x":{"a":1],"nbf":LATER',
    '"x":"a\tb","nbf":LATER',
    '"n\\u0062f":LATER',
    '"nbf" :"LATER"',
    '"x":01,"nbf":LATER',
    '"x":1.,"nbf":LATER',
    '"x":[1,],"nbf":LATER',
)
"""Members that say "not yet" in a way that one reader or another does not see; LATER is a time to come."""
NULS = ('"nbf":LATER', '"x":1')


def hidden(text: str) -> str:
    later = str(int(time.time()) + 3600)
    return spelled('"x": 1', text.replace("LATER", later), x=1)


def with_nul(text: str) -> str:
    later = str(int(time.time()) + 3600)
    return signed({"kid": "key-1"}, json.dumps(claims()) + f"\0,{text.replace('LATER', later)}}}")


CRITICAL = (
    '"crit":["exp"]',
    '"crit":["b64"],"b64":false',
    '"crit":[]',
    '"crit":"exp"',
    '"crit":{"a":1}',
    '"crit":null',
    '"crit":true',
    '"crit":1',
    '"crit" \t: ["exp"]',
    '"\\u0063rit":["exp"]',
    '"c\\u0072\\u0069\\u0074":["exp"]',
)
NO_INTEGERS = (
    "9.9e9",
    "9999999999.5",
    '""',
    '"9999999999"',
    '"later"',
    "null",
    "true",
    "[9999999999]",
    "[]",
    "{}",
    '{"a":1}',
    "9" * 19,
    "1e400",
    "-",
)


BAD = {
    "no token": lambda: None,
    "nonsense": lambda: "abc",
    "alg none": lambda: unsigned(alg="none"),
    "no signature": lambda: unsigned(alg="RS256", kid="key-1"),
    "alg confusion": confused,
    "RS256 for the issuer of HS256": lambda: token(iss=YAAS, aud="rc", tenant="a"),
    "HS256 for the issuer of RS256": lambda: other_token(
        "a", iss="https://a.auth.example.com/oauth/token", aud="rc!b1", zid=A
    ),
    "another key": lambda: jwt.encode(
        claims(), rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256", headers={"kid": "key-1"}
    ),
    "unknown kid": lambda: token(kid="key-2"),
    "no kid": lambda: token(kid=None),
    "kid that leads elsewhere": lambda: token(kid="../0/key-1"),
    "wrong secret": lambda: other_token("a", secret=SECRET[:-1] + "x"),
    **{f"critical: {text}": partial(critical, text) for text in CRITICAL},
    **{f"expiry is {value}": partial(spelled, '"exp": 1,', f'"exp": {value},', exp=1, x=1) for value in NO_INTEGERS},
    **{
        f"not before is {value}": partial(spelled, '"nbf": 1,', f'"nbf": {value},', nbf=1, x=1) for value in NO_INTEGERS
    },
    **{f"not before hidden by {text}": partial(hidden, text) for text in HIDING},
    **{f"claims and NUL: {text!r}": partial(with_nul, text) for text in NULS},
    "header that is no whole object": lambda: signed({"raw": '{"alg":"RS256","kid":"key-1"'}),
    "header with more behind": lambda: signed({"raw": '{"alg":"RS256","kid":"key-1"}{}'}),
    "header with a NUL": lambda: signed({"raw": '{"alg":"RS256","kid":"key-1"}\0{"crit":["exp"]}'}),
    "header with a NUL inside": lambda: signed({"raw": '{"alg":"RS256","kid":"key-1","x":"\0","crit":["exp"]}'}),
    "kid that ends in a NUL": lambda: signed({"raw": '{"alg":"RS256","kid":"key-1\\u0000x"}'}),
    "algorithm that ends in a NUL": lambda: signed({"raw": '{"alg":"RS256\\u0000x","kid":"key-1"}'}),
    "audience that ends in a NUL": lambda: signed({"kid": "key-1"}, json.dumps(claims(aud="rc!b1\0x"))),
    "expiry twice, once as text": lambda: spelled('"x": 1', '"exp": "9999999999"', x=1),
    "not before spelled in another way": lambda: spelled('"x": 1', '"nb\\u0066": 9999999999', x=1),
    "text after the claims": lambda: signed({"kid": "key-1"}, json.dumps(claims()) + "{}"),
    "claims that are nested too deep": lambda: signed(
        {"kid": "key-1"}, json.dumps(claims(x=1)).replace('"x": 1', f'"x": {"[" * 3000}{"]" * 3000}')
    ),
    "claims in a list": lambda: signed({"kid": "key-1"}, f"[{json.dumps(claims())}]"),
    "issuer of two labels": lambda: token(iss="https://a.b.auth.example.com/oauth/token"),
    "issuer with an empty label": lambda: token(iss="https://.auth.example.com/oauth/token"),
    "issuer with a label that ends in a dot": lambda: token(iss="https://a..auth.example.com/oauth/token"),
    "issuer with a label that ends in a hyphen": lambda: token(iss="https://a-.auth.example.com/oauth/token"),
    "issuer with a part of a label": lambda: token(iss="https://aauth.example.com/oauth/token"),
    "issuer with a line break": lambda: token(iss="https://a.auth.example.com/oauth/token\n"),
    "issuer with a user": lambda: token(iss="https://evil@a.auth.example.com/oauth/token"),
    "other issuer with a line break": lambda: other_token("a", iss=YAAS + "\n"),
    "expired": lambda: token(exp=int(time.time()) - 1),
    "no expiry": lambda: token(exp=None),
    "expiry is no number": lambda: token(exp=None, expires="never"),
    "not yet valid": lambda: token(nbf=int(time.time()) + 60),
    "wrong audience": lambda: token(aud=["openid", "rc!b2"]),
    "audience only as a part": lambda: token(aud="xrc!b1"),
    "no audience": lambda: token(aud=None),
    "audience beyond the thirty-second": lambda: token(aud=[*(f"other{n}" for n in range(32)), "rc!b1"]),
    "audience of the other issuer": lambda: token(aud="rc"),
    "unknown issuer": lambda: token(iss="https://evil.example/oauth/token"),
    "issuer with a longer host": lambda: token(iss="https://a.auth.example.com.evil/oauth/token"),
    "issuer with a path before the host": lambda: token(iss="https://evil/a.auth.example.com/oauth/token"),
    "no issuer": lambda: token(iss=None),
    "no tenant": lambda: token(None),  # type: ignore[arg-type]
    "tenant that is no name": lambda: token("guid a"),
    "tenant with a line break": lambda: token(A + "\n"),
    "tenant with a slash": lambda: token("guid/a"),
    "tenant that is too long": lambda: token("x" * 64),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_a_bad_token_is_refused_with_401(shared: Deployment, make) -> None:  # type: ignore[no-untyped-def]
    before = shared.service.count
    answer = shared.get("/bills/1", make())
    assert (answer.status, answer.why, shared.service.count) == (401, "token", before)


def test_a_changed_payload_is_refused(shared: Deployment) -> None:
    head, body, signature = token(B).split(".")
    other = token(A).split(".")[1]
    assert other != body
    assert shared.get("/bills/1", f"{head}.{other}.{signature}").status == 401


@pytest.mark.parametrize(("make", "why"), [(lambda: token("guid-x"), "unknown"), (lambda: other_token("x"), "unknown")])
def test_a_tenant_that_is_not_onboarded_gets_403(shared: Deployment, make, why) -> None:  # type: ignore[no-untyped-def]
    answer = shared.get("/bills/1", make())
    assert (answer.status, answer.why) == (403, why)


@pytest.mark.parametrize(
    "name", ["X-Tenant-Id", "x-tenant-id", "X_Tenant_Id", "X-Tenant_ID", "x.tenant.id", "X~tenant~id"]
)
def test_no_header_of_the_client_names_a_tenant(shared: Deployment, name: str) -> None:
    answer = shared.get("/bills/1", token(A), headers={name: "guid-d"})
    assert answer.status == 200
    assert [(key, value) for key, value in answer.seen["headers"] if "tenant" in key] == [("x-tenant-id", A)]


def test_two_headers_of_the_same_name_do_not_survive_either(shared: Deployment) -> None:
    answer = shared.raw(
        "GET /bills/1 HTTP/1.1\r\nHost: r\r\nX-Tenant-Id: guid-d\r\nx-tenant-id: guid-d\r\nAuthorization: Bearer"
        f" {token(A)}\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith("HTTP/1.1 200")
    assert "guid-d" not in answer


def test_the_tenant_header_cannot_be_made_hop_by_hop(shared: Deployment) -> None:
    answer = shared.get("/bills/1", token(A), headers={"Connection": "close, X-Tenant-Id"})
    assert (answer.status, answer.why) == (400, "connection")


@pytest.mark.parametrize(
    "second", ["Authorization: Bearer {b}", "authorization: Basic eDp5", "Authorization: Bearer {a}"]
)
def test_two_authorization_headers_are_refused(shared: Deployment, second: str) -> None:
    before = shared.service.count
    other = second.format(a=token(A), b=token(B))
    answer = shared.raw(
        f"GET /bills/1 HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {token(A)}\r\n{other}\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith("HTTP/1.1 400")
    assert shared.service.count == before


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Content-Length: 4\r\nContent-Length: 5",
        "Transfer-Encoding : chunked",
    ],
)
def test_a_smuggled_second_request_never_reaches_the_service(shared: Deployment, lines: str) -> None:
    before = shared.service.count
    body = "0\r\n\r\nGET /bills/smuggled HTTP/1.1\r\nHost: r\r\nX-Tenant-Id: guid-d\r\n\r\n"
    answer = shared.raw(
        f"POST /bills/1 HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {token(A)}\r\n{lines}\r\nConnection:"
        f" close\r\n\r\n{body}"
    )
    # Whatever HAProxy makes of the first request: a second one has no token and ends at the router.
    assert "smuggled" not in answer
    assert shared.service.count <= before + 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/bills", 200),
        ("/bills/", 200),
        ("/billsx", 404),
        ("/rating/1", 200),
        ("/", 404),
        ("/other", 404),
        ("//bills", 404),
        ("/.router/x", 404),
    ],
)
def test_the_path_chooses_the_service(shared: Deployment, path: str, status: int) -> None:
    assert shared.get(path, token(A)).status == status


def test_health_needs_no_token(shared: Deployment) -> None:
    assert shared.get("/.router/health", None).status == 200


def test_a_dead_service_is_a_503_of_haproxy_and_leaves_no_request_in_flight(shared: Deployment) -> None:
    assert shared.get("/dead/1", token("guid-d")).status == 503
    assert shared.client().in_flight(["guid-d"]) == 0
