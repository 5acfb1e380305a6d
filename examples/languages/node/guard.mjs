// Between a request and its handler, with node:http alone: one bearer token from one place, and no tenant
// that the request names is believed. Answers as RFC 6750 says and as guard does in Go.
import { Refused } from "./strict.mjs";

const wrongTenant = [403, "wrong_tenant", "the request is for another tenant than its token"];

/**
 * guard returns protect(route, handler), whose handler is given (req, res, token). A route has scopes that the
 * token needs, and tenant(req): what the request says its tenant is, undefined where it says none.
 * verify is what tokenVerifier returns; log gets one object for each decision.
 */
export function guard({ verify, log, tenantHeaders = ["x-tenant", "x-tenant-id"] }) {
  const admit = async (req, { scopes = [], tenant }) => {
    const token = await verify(bearer(req));
    req.token = token; // for the line of a refusal
    if (!scopes.every((s) => token.scopes.has(s))) {
      throw new Answer("scope_lacking", 403, "insufficient_scope", "the token lacks a scope that is needed here", scopes.join(" "));
    }
    for (const [name, values] of Object.entries(req.headersDistinct)) {
      if (tenantHeaders.includes(name.replaceAll("_", "-")) && values.some((said) => said !== token.tenant)) {
        throw new Answer("tenant_header_differs", ...wrongTenant);
      }
    }
    if (tenant) {
      const said = tenant(req);
      if (!said) throw new Answer("tenant_not_once", 400, "invalid_request", "the request names no tenant, or several");
      if (said !== token.tenant) throw new Answer("tenant_path_differs", ...wrongTenant);
    }
    return token;
  };

  return (route, handler) => async (req, res) => {
    try {
      const token = await admit(req, route);
      log(line(token, "allow", ""));
      res.setHeader("Cache-Control", "private"); // no shared cache keeps what is a tenant's
      res.setHeader("Vary", "Authorization");
      await handler(req, res, token);
    } catch (e) {
      const answer = e instanceof Refused ? refused(e) : e;
      log({ ...line(req.token, "deny", answer.reason ?? "error"), error: answer.reason ? undefined : e?.stack });
      if (res.headersSent) return void res.destroy();
      (answer instanceof Answer ? answer : new Answer("error", 500, "internal", "something went wrong")).write(res);
    }
  };
}

/** An Answer that is thrown is written in place of the handler's. */
export class Answer extends Error {
  constructor(reason, status, code, title, scope) {
    super(title);
    Object.assign(this, { reason, status, code, scope });
  }

  write(res) {
    for (const name of res.getHeaderNames()) res.removeHeader(name);
    if (this.status === 503) res.setHeader("Retry-After", "1");
    if ([400, 401, 403].includes(this.status)) res.setHeader("WWW-Authenticate", this.#challenge());
    res.writeHead(this.status, {
      "Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
    });
    res.end(JSON.stringify({ type: "about:blank", title: this.message, status: this.status, code: this.code }));
  }

  // No error where no token was sent (RFC 6750 section 3.1).
  #challenge() {
    const parts = [];
    if (!["token_required", "wrong_tenant"].includes(this.code)) parts.push(`error="${this.code}"`);
    if (this.scope) parts.push(`scope="${this.scope}"`);
    return ["Bearer", parts.join(", ")].join(" ").trim();
  }
}

function refused(e) {
  if (e.reason === "unavailable") return new Answer(e.reason, 503, "temporarily_unavailable", "tokens can't be verified now");
  return new Answer(e.reason, 401, "invalid_token", "the token is not accepted");
}

/** bearer returns the one token of the Authorization header; there is no other place (RFC 6750 section 2.1). */
function bearer(req) {
  const malformed = (reason, text) => new Answer(reason, 400, "invalid_request", text);
  if (new URLSearchParams(req.url.split("?").slice(1).join("?")).has("access_token")) {
    throw malformed("token_in_query", "a token belongs in the Authorization header");
  }
  const sent = req.headersDistinct.authorization ?? []; // req.headers would hide a second one
  if (sent.length > 1) throw malformed("several_tokens", "more than one Authorization header");
  const [, raw] = /^bearer(?: +(.*))?$/i.exec(sent[0] ?? "") ?? [];
  if (sent.length === 0 || !/^bearer( |$)/i.test(sent[0])) throw new Answer("no_token", 401, "token_required", "a token is needed");
  if (!raw || /[ ,\t]/.test(raw)) throw malformed("malformed", "the Authorization header holds not exactly one token");
  return raw;
}

function line(token, decision, reason) {
  const { tenant, sub, client_id, jti, txn } = token?.claims ?? {};
  return { decision, reason, tenant, sub, client_id, jti, txn };
}
