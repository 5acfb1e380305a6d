"""Between a request and its handler, in WSGI: one bearer token from one place, and no tenant that the request
names is believed. Answers as RFC 6750 says and as guard does in Go."""

import json
import traceback
from urllib.parse import parse_qs

from strict import Refused

WRONG_TENANT = (403, "wrong_tenant", "the request is for another tenant than its token")
STATUS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
          405: "Method Not Allowed", 413: "Content Too Large", 500: "Internal Server Error",
          503: "Service Unavailable"}


class Answer(Exception):
    """One that is raised is written in place of the handler's."""

    def __init__(self, reason, status, code, title, scope=""):
        super().__init__(title)
        self.reason, self.status, self.code, self.title, self.scope = reason, status, code, title, scope

    def write(self, start_response):
        headers = [("Content-Type", "application/problem+json"), ("Cache-Control", "no-store"),
                   ("X-Content-Type-Options", "nosniff")]
        if self.status == 503:
            headers.append(("Retry-After", "1"))
        if self.status in (400, 401, 403):
            headers.append(("WWW-Authenticate", self._challenge()))
        start_response(f"{self.status} {STATUS[self.status]}", headers)
        problem = {"type": "about:blank", "title": self.title, "status": self.status, "code": self.code}
        return [json.dumps(problem).encode()]

    def _challenge(self):
        parts = []
        if self.code not in ("token_required", "wrong_tenant"):  # no error where no token was sent: section 3.1
            parts.append(f'error="{self.code}"')
        if self.scope:
            parts.append(f'scope="{self.scope}"')
        return f"Bearer {', '.join(parts)}".strip()


class Guard:
    """protect(handler, scopes, tenant) is a WSGI application. handler is given (environ, token) and returns
    (headers, body); tenant(environ) is what the request says its tenant is. verify is a Verifier's; log gets a
    dict for each decision. A server that joins headers of one name by a comma, as wsgiref does, is enough."""

    def __init__(self, verify, log, tenant_headers=("HTTP_X_TENANT", "HTTP_X_TENANT_ID")):
        self._verify, self._log, self._headers = verify, log, tenant_headers

    def protect(self, handler, scopes=(), tenant=None):
        def application(environ, start_response):
            token = None
            try:
                token = self._verify(bearer(environ))
                self._admit(environ, token, scopes, tenant)
                self._log(line(token, "allow", ""))
                headers, body = handler(environ, token)
            except Exception as e:  # the client is shown nothing of it
                answer = answered(e)
                trace = {"error": traceback.format_exc()} if answer.status == 500 else {}
                self._log(line(token, "deny", answer.reason) | trace)
                return answer.write(start_response)
            # No shared cache keeps what is a tenant's.
            start_response("200 OK", [*headers, ("Cache-Control", "private"), ("Vary", "Authorization")])
            return [body]
        return application

    def _admit(self, environ, token, scopes, tenant):
        if not set(scopes) <= token.scopes:
            raise Answer("scope_lacking", 403, "insufficient_scope", "the token lacks a scope that is needed here",
                         " ".join(scopes))
        for name in self._headers:
            if environ.get(name, token.tenant) != token.tenant:
                raise Answer("tenant_header_differs", *WRONG_TENANT)
        if tenant is not None:
            said = tenant(environ)
            if not said:
                raise Answer("tenant_not_once", 400, "invalid_request", "the request names no tenant, or several")
            if said != token.tenant:
                raise Answer("tenant_path_differs", *WRONG_TENANT)


def answered(e):
    if isinstance(e, Answer):
        return e
    if not isinstance(e, Refused):
        return Answer("error", 500, "internal", "something went wrong")
    if e.reason == "unavailable":
        return Answer(e.reason, 503, "temporarily_unavailable", "tokens can't be verified now")
    return Answer(e.reason, 401, "invalid_token", "the token is not accepted")


def bearer(environ):
    """Returns the one token of the Authorization header; there is no other place (RFC 6750 section 2.1)."""
    if "access_token" in parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True):
        raise Answer("token_in_query", 400, "invalid_request", "a token belongs in the Authorization header")
    scheme, _, raw = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer":
        raise Answer("no_token", 401, "token_required", "a token is needed")
    raw = raw.lstrip(" ")
    if raw == "" or any(c in raw for c in " ,\t"):  # also two headers, joined
        raise Answer("malformed", 400, "invalid_request", "the Authorization header holds not exactly one token")
    return raw


def line(token, decision, reason):
    claims = token.claims if token else {}
    shown = {name: claims.get(name) for name in ("tenant", "sub", "client_id", "jti", "txn")}
    return {"decision": decision, "reason": reason, **shown}
