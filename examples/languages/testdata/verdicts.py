"""Tokens on each line of standard input, verified at once; a verdict on each of standard output."""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.environ["EXAMPLE"])
import tokens  # noqa: E402

job = json.loads(os.environ["JOB"])


class Given:
    held = tokens.key_set(job["keys"]) if job.get("keys") else {}

    def find(self, kid):
        if kid not in self.held:
            raise tokens.Refused("unknown_key", "")
        return self.held[kid]


tokens.Keys.FRESH = job.get("fresh", tokens.Keys.FRESH)
tokens.Keys.STALE = job.get("stale", tokens.Keys.STALE)
tokens.Keys.TIMEOUT = job.get("timeout", tokens.Keys.TIMEOUT)
keys = Given() if job.get("keys") else tokens.Keys(job["issuer"] + "/.well-known/jwks.json", job["cool_down"])
now = (lambda: job["time"]) if job.get("time") else time.time
verifier = tokens.Verifier(job["issuer"], job["audience"], keys, now)


def said(token):
    try:
        return {"tenant": verifier.verify(token).tenant}
    except tokens.Refused as e:
        return {"refused": e.reason}


with ThreadPoolExecutor(8) as threads:
    for line in sys.stdin:
        for one in threads.map(said, line.rstrip("\n").split(" ")):
            print(json.dumps(one), flush=True)
