"""A service with orders of many tenants. No statement of it names the tenant in a WHERE.
    ISSUER=https://broker.example AUDIENCE=orders DATABASE_URL=postgres://… PORT=8080 python3 service.py"""

import json
import os
import re
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from database import Pool, check_role, tenant_transaction
from guard import Answer, Guard
from tokens import Verifier

PATH = re.compile(r"/t/([A-Za-z0-9_.-]+)/orders(?:/([0-9]{1,9}))?")
pool = Pool(os.environ["DATABASE_URL"])
check_role(pool)


def part(environ, n):
    found = PATH.fullmatch(environ.get("PATH_INFO", ""))
    return found and found[n]


def read(environ, token):
    order = part(environ, 2)
    with tenant_transaction(pool, token) as db:
        if order is None:
            return answer(db.execute("SELECT id, note FROM shop.orders ORDER BY id"))
        return answer(db.execute("SELECT id, note FROM shop.orders WHERE id = %s", (int(order),)))


def write(environ, token):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if not 0 <= length <= 4096:
        raise Answer("too_long", 413, "too_long", "the body is too long")
    note = environ["wsgi.input"].read(length).decode()
    with tenant_transaction(pool, token) as db:
        changed = db.execute("UPDATE shop.orders SET note = %s WHERE id = %s RETURNING id, note",
                             (note, int(part(environ, 2) or 0)))
        return answer(changed)


def answer(rows):
    orders = [{"id": row[0], "note": row[1]} for row in rows]
    return [("Content-Type", "application/json")], json.dumps(orders).encode()


def found(handler):
    """Another tenant's order is answered like nobody's."""
    def checked(environ, token):
        headers, body = handler(environ, token)
        if part(environ, 2) is not None and body == b"[]":
            raise Answer("not_found", 404, "not_found", "not found")
        return headers, body
    return checked


def log(line):
    print(json.dumps(line), file=sys.stderr, flush=True)


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


guard = Guard(Verifier(os.environ["ISSUER"], os.environ["AUDIENCE"]).verify, log)
reading = guard.protect(found(read), ["orders:read"], lambda environ: part(environ, 1))
writing = guard.protect(found(write), ["orders:write"], lambda environ: part(environ, 1))


def application(environ, start_response):
    route = {"GET": reading, "PUT": writing}.get(environ["REQUEST_METHOD"])
    if route is None:
        return Answer("method", 405, "method_not_allowed", "GET or PUT").write(start_response)
    return route(environ, start_response)


if __name__ == "__main__":
    server = make_server("127.0.0.1", int(os.environ.get("PORT", "0")), application, Server, Quiet)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
