"""JWTs of one issuer prove identities, and its keys are read without a wait."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from lockring.errors import ConfigError, LockringError, Unauthenticated, Unavailable
from lockring.protocol.identities import Claim
from lockring.security import jwks
from lockring.security.jwks import IssuerKeys, JwksPlace, check_place, read_jwks
from lockring.security.jwt_verifier import JwtVerifier, claims_of
from tests.processes import PATIENCE_S

ISSUER, AUDIENCE = "https://kubernetes.default.svc", "lockring"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())


def jwk_of(private: Any, kid: str, **more: str) -> dict[str, Any]:
    algorithm = {
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    kind = next(value for each, value in algorithm.items() if isinstance(private, each))
    found: dict[str, Any] = json.loads(kind.to_jwk(private.public_key()))
    return found | {"kid": kid} | more


KEYS = {"keys": [jwk_of(KEY, "one", use="sig", alg="ES256")]}


def signed(private: Any = KEY, kid: str = "one", algorithm: str = "ES256", **claims: Any) -> str:
    now_s = int(time.time())
    base: dict[str, Any] = {"iss": ISSUER, "aud": [AUDIENCE], "sub": "system:serviceaccount:prod:worker"}
    base |= {"exp": now_s + 600, "iat": now_s, "jti": "x"}
    return jwt.encode(
        {key: value for key, value in (base | claims).items() if value is not None},
        private,
        algorithm,
        headers={"kid": kid},
    )


@pytest.fixture
def verifier() -> JwtVerifier:
    keys = IssuerKeys(lambda: KEYS, "here")
    assert keys.refresh()
    return JwtVerifier(keys, issuer=ISSUER, audience=AUDIENCE)


def test_a_jwt_names_its_subject_and_its_claims(verifier: JwtVerifier) -> None:
    pod = {"namespace": "prod", "serviceaccount": {"name": "worker"}, "n": 7}
    proof = verifier.verify(signed(**{"kubernetes.io": pod, "groups": ["a", "b"]}))
    assert str(proof.identity) == "jwt system:serviceaccount:prod:worker"
    assert proof.identity.claims == (
        Claim("sub", "system:serviceaccount:prod:worker"),
        Claim("iss", ISSUER),
        Claim("aud", AUDIENCE),
        Claim("kubernetes.io/namespace", "prod"),
        Claim("kubernetes.io/serviceaccount/name", "worker"),
        Claim("groups", "a"),
        Claim("groups", "b"),
    )
    assert proof.expires_s == pytest.approx(time.time() + 630, abs=60)


@pytest.mark.parametrize("kind", ["RS256", "PS256", "ES256", "EdDSA"])
def test_keys_of_each_kind_are_accepted(kind: str) -> None:
    made: dict[str, Callable[[], Any]] = {
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    }
    private = made.get(kind, lambda: rsa.generate_private_key(65537, 2048))()
    keys = IssuerKeys(lambda: {"keys": [jwk_of(private, "k", alg=kind)]}, "here")
    assert keys.refresh()
    verifier = JwtVerifier(keys, issuer=ISSUER, audience=AUDIENCE)
    assert verifier.verify(signed(private, "k", kind)).identity.method == "jwt"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: "", "is neither a token of lockring nor a JWT"),
        (lambda: "a.b.c", "is neither a token of lockring nor a JWT"),
        (lambda: "x" * 20_000, "is longer than 12 KiB"),
        (lambda: signed(exp=int(time.time()) - 60), "has expired"),
        (lambda: signed(exp=None), 'is not accepted: token is missing the "exp" claim'),
        (lambda: signed(nbf=int(time.time()) + 600), "is not accepted"),
        (lambda: signed(aud="other"), "is not for this server, whose audience is 'lockring'"),
        (lambda: signed(aud=None), "is not"),
        (lambda: signed(iss="https://elsewhere"), "is not of the issuer 'https://kubernetes.default.svc'"),
        (lambda: signed(sub=""), "the subject of the JWT is empty"),
        (lambda: signed(sub=None), 'is missing the "sub" claim'),
        (lambda: signed(OTHER), "is not accepted: signature verification failed"),
        (lambda: signed(kid="two"), "is signed by a key that is not among those of its issuer"),
        (lambda: signed("secret" * 8, algorithm="HS256"), "is signed by a method that is not accepted"),
        (lambda: signed(None, algorithm="none"), "is signed by a method that is not accepted"),
    ],
)
def test_a_jwt_that_proves_nothing_is_refused(
    verifier: JwtVerifier, make: Callable[[], str], said: str
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        verifier.verify(make())
    assert said in str(caught.value)


def test_a_clock_that_is_behind_does_no_harm_within_the_leeway(verifier: JwtVerifier) -> None:
    verifier.verify(signed(exp=int(time.time()) - 10, nbf=int(time.time()) + 10))


def test_claims_that_are_too_long_or_too_many_are_left_out_and_never_the_subject() -> None:
    claims = {"a": "x" * 600, "b": 1, "c": None, "exp": "1"} | {f"n{number}": "y" for number in range(100)}
    found = claims_of(claims | {"sub": "me"})
    assert found[0] == Claim("sub", "me")
    assert len(found) == 64
    assert {each.name for each in found} >= {"n0", "n50"}
    assert not {"a", "b", "c", "exp"} & {each.name for each in found}
    deep: dict[str, Any] = {"x": "end"}
    for _ in range(10):
        deep = {"d": deep, "x": "y"}
    assert len(claims_of(deep)) == 5


# ----------------------------------------------------------------------- keys


def test_an_unknown_key_is_read_soon_and_the_former_keys_stay_if_that_fails() -> None:
    found: list[Any] = [{"keys": []}]

    def read() -> Any:
        if isinstance(found[0], LockringError):
            raise found[0]
        return found[0]

    keys = IssuerKeys(read, "here")
    assert not keys.refresh()
    assert keys.age_s is None
    found[0] = KEYS
    assert keys.refresh()
    assert keys.find("one") is not None
    assert keys.age_s is not None
    found[0] = Unavailable("gone")
    assert not keys.refresh()
    assert keys.find("one") is not None
    found[0] = {"keys": [jwk_of(OTHER, "two")]}
    assert keys.refresh()
    assert keys.find("one") is None
    assert keys.find("two") is not None


def test_a_thread_reads_the_keys_at_once_and_again_for_one_that_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jwks, "HURRY_S", 0.01)
    reads = threading.Semaphore(0)

    def read() -> Any:
        reads.release()
        return KEYS

    keys = IssuerKeys(read, "here")
    keys.start()
    assert reads.acquire(timeout=20)
    keys.find("unknown")
    assert reads.acquire(timeout=20)
    keys.close()
    while reads.acquire(blocking=False):
        pass
    keys.find("unknown")
    assert not reads.acquire(timeout=0.05)


def test_the_end_does_not_wait_for_an_issuer_that_answers_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "CLOSE_S_MAX", 0.1)
    reads, answers = threading.Event(), threading.Event()

    def read() -> dict[str, Any]:
        reads.set()
        answers.wait()
        return KEYS

    keys = IssuerKeys(read, "here")
    keys.start()
    try:
        assert reads.wait(PATIENCE_S)
        keys.close()  # the test hangs here if it waits
        assert keys._thread is not None
        assert keys._thread.is_alive()
        assert keys._thread.daemon, "so the process does not wait for it"
    finally:
        answers.set()
    keys._thread.join(PATIENCE_S)


def test_keys_for_other_uses_and_shared_secrets_are_passed_over() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}
    encrypts = jwk_of(OTHER, "enc", use="enc")
    keys = IssuerKeys(lambda: {"keys": [secret, encrypts, 7, {"kty": "?"}, *KEYS["keys"]]}, "here")
    assert keys.refresh()
    assert [keys.find(kid) is not None for kid in ("shared", "enc", "one")] == [False, False, True]


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(KEYS))
    assert read_jwks(JwksPlace(str(path))) == KEYS
    path.write_text("[]")
    with pytest.raises(ConfigError, match='has no list "keys"'):
        read_jwks(JwksPlace(str(path)))
    path.write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        read_jwks(JwksPlace(str(path)))
    path.unlink()
    with pytest.raises(Unavailable, match="cannot be read: no such file"):
        read_jwks(JwksPlace(str(path)))


@pytest.mark.parametrize(
    "place", ["http://issuer.example/keys", "ftp://x/y", "http://127.0.0.1.evil.example/"]
)
def test_a_place_that_others_could_answer_for_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="is not a safe place for keys"):
        check_place(place)


@pytest.mark.parametrize(
    "place", ["https://issuer.example/keys", "/a/file", "http://localhost:1/x", "http://[::1]:1/x"]
)
def test_a_safe_place_is_accepted(place: str) -> None:
    check_place(place)


@pytest.mark.parametrize(
    "place",
    ["https://a..b/keys", f"https://{'a' * 64}/keys", "https:///keys", "https://a:x/keys", "https://[z/x"],
)
def test_a_url_that_no_host_can_have_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="a URL with a host or port that cannot be"):
        IssuerKeys.at(JwksPlace(place))


class Issuer(BaseHTTPRequestHandler):
    """Answers with keys, with a redirection, or with an error; keeps what it was asked."""

    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        status = {"/keys": 200, "/moved": 302}.get(self.path, 503)
        self.send_response(status)
        self.send_header("Location", "/keys")
        self.end_headers()
        self.wfile.write(json.dumps(KEYS).encode() if status == 200 else b"")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def issuer() -> Iterator[str]:
    Issuer.asked = []
    server = HTTPServer(("127.0.0.1", 0), Issuer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_keys_are_fetched_with_the_token_that_the_issuer_asks_for(issuer: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    place = JwksPlace(f"{issuer}/keys", token_file=str(tmp_path / "token"))
    assert read_jwks(place) == KEYS
    assert Issuer.asked == [("/keys", "Bearer abc")]
    assert IssuerKeys.at(place).refresh()


def test_a_redirection_is_not_followed(issuer: str) -> None:
    with pytest.raises(Unavailable, match="answers with status 302"):
        read_jwks(JwksPlace(f"{issuer}/moved"))
    with pytest.raises(Unavailable, match="answers with status 503"):
        read_jwks(JwksPlace(f"{issuer}/other"))
    assert [path for path, _ in Issuer.asked] == ["/moved", "/other"]


def test_an_issuer_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot be reached: connection refused"):
        read_jwks(JwksPlace("http://127.0.0.1:1/keys"))


def test_an_issuer_that_does_not_speak_http_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"nonsense\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        keys = IssuerKeys.at(JwksPlace(f"http://127.0.0.1:{listener.getsockname()[1]}/keys"))
        assert not keys.refresh(), "the thread that reads keys goes on"
        thread.join()
