"""What the broker promises of an access token beyond its signature: read from the
very bytes, as the Go verifier does it. The standard library of Python 3.11 or newer."""

import base64
import json
import math
import re

MAX_TOKEN, MAX_HEADER, MAX_KID, MAX_ID = 16384, 4096, 256, 128
MAX_DEPTH, MAX_MEMBERS, MAX_VALUES, MAX_NUMBER = 16, 512, 4096, 64
MAX_SCOPES, MAX_SCOPE, MAX_ACTORS = 64, 2048, 4
LATEST = 253402300799  # the end of the year 9999
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a tenant or an account
SCOPE = re.compile(r"[!#-\[\]-~]+")


class Refused(Exception):
    """Why a token is refused: reason is a word for logs and metrics, never for the client."""

    def __init__(self, reason, text):
        super().__init__(text)
        self.reason = reason


def hold(ok, reason, text):
    if not ok:
        raise Refused(reason, text)


def header(raw):
    """Returns the header of a compact JWS whose form is right; its signature is still to be checked."""
    hold(isinstance(raw, str) and raw.isascii() and len(raw) <= MAX_TOKEN, "malformed", "too long, or not ASCII")
    segments = raw.split(".")
    hold(len(segments) != 5, "encrypted", "an encrypted token")
    hold(len(segments) == 3 and len(segments[0]) <= MAX_HEADER, "malformed", "not three segments")
    head = [decoded(s) for s in segments][0]
    h = document(head)
    for own in ("enc", "zip"):
        hold(own not in h, "encrypted", own)
    for own in ("jku", "jwk", "x5u", "x5c", "crit", "b64"):  # brings its own key, or rules of its own
        hold(own not in h, "header", own)
    hold(isinstance(h.get("alg"), str) and isinstance(h.get("kid"), str), "header", "alg or kid")
    hold(0 < len(h["kid"].encode()) <= MAX_KID, "header", "kid")
    for name in ("typ", "nonce"):
        hold(isinstance(h.get(name, ""), str), "header", name)
    hold(h.get("typ", "").lower() in ("at+jwt", "application/at+jwt"), "type", "not an access token")
    return h


def decoded(segment):
    try:  # urlsafe_b64decode takes nearly everything
        found = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        found = b""
    one = base64.urlsafe_b64encode(found).rstrip(b"=").decode()
    hold(segment != "" and one == segment, "malformed", "not the one spelling of its bytes")
    return found


def claims(payload, issuer, audience, now, leeway=30):
    """Returns the claims in a payload whose signature was found good. now is in seconds."""
    c = document(payload)
    for name in c:  # another reader could take these for a second tenant
        hold(name == "tenant" or name.casefold() not in ("tenant", "tenants"), "tenant", "a member named like it")
    tenant = c.get("tenant")
    hold(isinstance(tenant, str) and len(tenant) <= 64 and NAME.fullmatch(tenant), "tenant", "not exactly one")

    for name in ("sub", "client_id"):
        hold(account(c.get(name)), "claim", name)
    for name in ("jti", "txn"):
        hold(text(c.get(name)), "claim", name)
    hold("job" not in c or text(c["job"]), "claim", "job")
    hold("act" not in c or actors(c["act"], 1), "claim", "act")
    hold("scope" not in c or scope(c["scope"]), "claim", "scope")
    hold(isinstance(c.get("iss"), str) and isinstance(c.get("aud"), str), "claim", "iss or aud is not one string")
    for name in ("iat", "exp") + ("nbf",) * ("nbf" in c):
        value = c.get(name)  # a bool is an int to isinstance
        hold(type(value) in (int, float) and 1 <= value <= LATEST, "claim", name)

    own = audience.lower() == issuer or audience.lower().startswith(issuer + "/")
    life = math.floor(c["exp"]) - math.floor(c["iat"])
    hold(c["iss"] == issuer, "issuer", "another issuer")
    hold(c["aud"] == audience, "audience", "another audience")
    hold(tenant.lower() != "system" or (tenant == "system" and own), "tenant", "the broker's own")
    hold(0 < life <= (600 if own else 3600), "claim", "lives longer than the broker gives")
    hold("cnf" not in c, "proof_required", "bound to a key, and no proof is given")
    live(c, now, leeway)
    return c


def live(c, now, leeway=30):
    """Holds claims to the time, which goes on."""
    hold(now < math.floor(c["exp"]) + leeway, "expired", "over")
    hold(now + leeway >= max(math.floor(c["iat"]), math.ceil(c.get("nbf", 0))), "not_yet_valid", "not yet")


def text(value):
    return isinstance(value, str) and 0 < len(value.encode()) <= MAX_ID


def account(value):
    return text(value) and NAME.fullmatch(value) is not None


def actors(value, depth):
    return (depth <= MAX_ACTORS and isinstance(value, dict) and account(value.get("sub"))
            and ("act" not in value or actors(value["act"], depth + 1)))


def scope(value):
    if not isinstance(value, str) or len(value) > MAX_SCOPE:
        return False
    return value == "" or (len(set(value.split(" "))) <= MAX_SCOPES and all(map(SCOPE.fullmatch, value.split(" "))))


def document(data):
    """Reads one JSON object: UTF-8, no name twice in an object at any depth, no number beyond a double, within the limits."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=members, parse_constant=constant,
                           parse_int=lambda text: number(text, int), parse_float=lambda text: number(text, float))
    except (ValueError, RecursionError):
        raise Refused("malformed", "not JSON in UTF-8") from None
    hold(isinstance(value, dict), "malformed", "not an object")
    count = {"names": 0, "values": -1}  # not the outermost
    walk(value, 1, count)
    hold(count["names"] <= MAX_MEMBERS and count["values"] <= MAX_VALUES, "malformed", "too many members or values")
    return value


def members(pairs):
    found = dict(pairs)  # the last of two members wins here
    hold(len(found) == len(pairs), "malformed", "a name twice")
    return found


def number(text, kind):
    hold(len(text) <= MAX_NUMBER and math.isfinite(float(text)), "malformed", "a number beyond a double")
    return kind(text)


def constant(name):
    raise ValueError(name)  # NaN and Infinity are no JSON


def walk(value, depth, count):
    count["values"] += 1
    if isinstance(value, str):
        whole(value)
    elif isinstance(value, (dict, list)):
        hold(depth <= MAX_DEPTH, "malformed", "nested too deep")
        for item in value:
            if isinstance(value, dict):
                count["names"] += 1
                whole(item)
                item = value[item]
            walk(item, depth + 1, count)


def whole(value):
    hold(not re.search("[\ud800-\udfff]", value), "malformed", "half a character")
