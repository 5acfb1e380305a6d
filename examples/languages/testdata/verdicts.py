"""A token on each line of standard input, a verdict on each of standard output."""

import json
import os
import sys
import time

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
keys = Given() if job.get("keys") else tokens.Keys(job["issuer"] + "/.well-known/jwks.json", job["cool_down"])
now = (lambda: job["time"]) if job.get("time") else time.time
verifier = tokens.Verifier(job["issuer"], job["audience"], keys, now)
for line in sys.stdin:
    try:
        said = {"tenant": verifier.verify(line.rstrip("\n")).tenant}
    except tokens.Refused as e:
        said = {"refused": e.reason}
    print(json.dumps(said), flush=True)
