"""What a transaction of one tenant leaves on the pool's one connection, said as JSON."""

import json
import os
import sys
import time
from types import SimpleNamespace

sys.path.insert(0, os.environ["EXAMPLE"])
import psycopg  # noqa: E402
from database import Pool, tenant_transaction  # noqa: E402
from tokens import Token  # noqa: E402

pool = Pool(os.environ["DATABASE_URL"], size=1)
now = time.time()


def token(exp):
    return Token({"tenant": "tenant-0", "iat": now - 60, "exp": exp}, lambda: now)


def count(db):
    return db.execute("SELECT count(*) FROM shop.orders")[0][0]


def within(token, work):
    with tenant_transaction(pool, token) as db:
        return work(db)


def outside():
    with pool.connection() as conn:
        return conn.execute("SELECT count(*) FROM shop.orders").fetchone()[0]


def error(*args):
    try:
        within(*args)
    except Exception as e:
        return type(e).__name__ + " " + getattr(e, "reason", "")
    return ""


def swallow(db):
    try:
        db.execute("SELECT 1/0")
    except psycopg.Error:
        pass


def fail(_):
    raise LookupError


def end(db):
    db.execute("COMMIT")
    said["ended"] = count(db)


good = token(now + 60)
said = {"inside": within(good, count), "outside": outside()}
said["swallowed"] = error(good, swallow)
said["failed"] = error(good, fail)
said["after"] = outside()
error(good, end)
said["unverified"] = error(SimpleNamespace(tenant="tenant-0", alive=lambda: None), count)
said["expired"] = error(token(now - 31), count)
kept = within(good, lambda db: db)  # as an answer keeps it that is streamed when the handler has returned
said["late"] = error(good, lambda _: count(kept))
print(json.dumps(said))
