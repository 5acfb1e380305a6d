"""The vectors, one verdict on each line, through PyJWT as its documentation has it
(plain) or as the example does it (strict)."""

import datetime
import json
import os
import sys
from unittest import mock

sys.path.insert(0, os.environ["EXAMPLE"])
import jwt  # noqa: E402

import tokens  # noqa: E402


class Set:
    def __init__(self, document):
        self.held = tokens.key_set(document)

    def find(self, kid):
        if kid not in self.held:
            raise tokens.Refused("unknown_key", "")
        return self.held[kid]


def plain(v, keys, d):
    header = jwt.get_unverified_header(v["token"])
    algorithm, key = keys.find(header["kid"])
    if header.get("typ", "").lower() not in d["types"] or "crit" in header:
        raise ValueError
    now = datetime.datetime.fromtimestamp(v["time"], datetime.timezone.utc)
    with mock.patch("jwt.api_jwt.datetime") as clock:
        clock.now = lambda tz=None: now
        jwt.decode(v["token"], key, algorithms=[algorithm], issuer=v["issuer"], audience=v["audience"],
                   leeway=d["leeway"], options={"require": ["exp", "iat", "iss", "aud"]})


d = json.load(sys.stdin)
print(json.dumps({"id": "version", "plain": jwt.__version__}))
for v in d["vectors"]:
    keys = Set(d["key_sets"][v["jwks"]])
    said = {"id": v["id"], "strict": "", "plain": ""}
    try:
        tokens.Verifier(v["issuer"], v["audience"], keys, lambda: v["time"]).verify(v["token"])
    except tokens.Refused as e:
        said["strict"] = e.reason
    try:
        plain(v, keys, d)
    except Exception as e:  # whatever a library throws
        said["plain"] = type(e).__name__
    print(json.dumps(said))
