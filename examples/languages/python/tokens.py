"""Access tokens of one broker for one audience: PyJWT checks the signature, strict.py the rest."""

import json
import threading
import time
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

import jwt

import strict
from strict import Refused

ALGORITHMS = ("ES256", "ES384", "EdDSA", "RS256", "PS256")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Token:
    """A verified token; who holds one need not ask whether it is. Only Verifier makes them."""

    def __init__(self, claims, now):
        self._claims, self._now = claims, now

    @property
    def tenant(self):
        return self._claims["tenant"]

    @property
    def claims(self):
        return dict(self._claims)

    @property
    def scopes(self):
        return set(self._claims.get("scope", "").split(" "))

    def alive(self):
        """Raises Refused once the token is over."""
        strict.live(self._claims, self._now())


class Verifier:
    """verify(raw) returns a Token or raises Refused. It may be called from many threads."""

    def __init__(self, issuer, audience, keys=None, now=time.time):
        if not issuer or not audience:
            raise ValueError("issuer and audience are required")
        self._issuer, self._audience, self._now = issuer, audience, now
        self._keys = keys or Keys(issuer + "/.well-known/jwks.json")

    def verify(self, raw):
        header = strict.header(raw)
        algorithm, key = self._keys.find(header["kid"])
        strict.hold(header["alg"] == algorithm, "algorithm", "a key serves one algorithm")
        try:
            payload = jwt.PyJWS().decode(raw, key, algorithms=[algorithm])
        except jwt.PyJWTError:
            raise Refused("signature", "not signed by the broker") from None
        claims = strict.claims(payload, self._issuer, self._audience, self._now())
        return Token(claims, self._now)


class Keys:
    """The broker's keys, from its own URL alone. PyJWT's PyJWKClient would ask again for every token with an
    unknown kid; here that happens once in cool_down seconds, failures included."""

    FRESH, STALE = 300, 86400  # seconds: when due again, and the most in an outage
    TIMEOUT, MAX_BYTES = 5, 256 * 1024

    def __init__(self, url, cool_down=30):
        parts = urlsplit(url)  # what a URL begins with may be somebody's name, in front of an @
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise ValueError("keys come by https, by http on loopback only")
        self._url, self._cool_down, self._lock = url, cool_down, threading.Lock()
        self._held, self._at, self._tried = {}, None, None

    def find(self, kid):
        if kid not in self._held or self._due(kid):  # who has his key doesn't wait for others
            with self._lock:
                if self._due(kid):
                    self._refresh()
        strict.hold(self._at is not None and time.monotonic() - self._at <= self.STALE, "unavailable", "no keys")
        found = self._held.get(kid)
        strict.hold(found or self._at == self._tried, "unavailable", "the key may be newer than what is held")
        strict.hold(found, "unknown_key", "no such key")
        return found

    def _due(self, kid):
        now = time.monotonic()
        wanted = self._at is None or now - self._at > self.FRESH or kid not in self._held
        return wanted and (self._tried is None or now - self._tried > self._cool_down)

    def _refresh(self):
        self._tried = time.monotonic()
        try:
            self._held, self._at = key_set(self._fetch()), self._tried
        except (OSError, HTTPException, ValueError, RecursionError):
            pass  # what is held serves on

    def _fetch(self):
        document = b""
        with urllib.request.build_opener(NoRedirect).open(self._url, timeout=self.TIMEOUT) as answer:
            while chunk := answer.read1(65536):  # which waits for as long, each time
                document += chunk
                if len(document) > self.MAX_BYTES or time.monotonic() - self._tried > self.TIMEOUT:
                    raise ValueError("too long")
        return json.loads(document)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None  # which is an HTTPError to the caller


def key_set(document):
    """Returns (algorithm, key) by kid. What is not a public key for signatures is left out."""
    found = {}
    listed = document.get("keys") if isinstance(document, dict) else None
    for jwk in listed if isinstance(listed, list) else ():
        if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or jwk.get("use", "sig") != "sig":
            continue
        if jwk.get("kty") in ("EC", "RSA", "OKP") and "d" not in jwk and jwk.get("alg") in ALGORITHMS:
            try:
                found[jwk["kid"]] = (jwk["alg"], jwt.PyJWK(jwk).key)
            except (jwt.PyJWTError, ValueError, TypeError, KeyError):
                continue  # one bad key is not the end of the others
    if not found:
        raise ValueError("no key of use")
    return found
