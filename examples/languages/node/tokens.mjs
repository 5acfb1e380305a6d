// Access tokens of one broker for one audience: jose checks the signature, strict.mjs the rest.
import "./webcrypto.mjs";
import { compactVerify, errors } from "jose";
import { algorithms, remoteKeys } from "./keys.mjs";
import { Refused, claims, header, live } from "./strict.mjs";

/** A verified token; who holds one need not ask whether it is. Only tokenVerifier makes them. */
export class Token {
  #claims;
  #now;
  constructor(c, now) {
    this.#claims = Object.freeze(c);
    this.#now = now;
  }
  get tenant() { return this.#claims.tenant; }
  get claims() { return this.#claims; }
  get scopes() { return new Set((this.#claims.scope ?? "").split(" ")); }
  /** alive throws Refused once the token is over. */
  alive() { live(this.#claims, this.#now()); }
}

/**
 * tokenVerifier returns a function from a raw token to a Token; it throws Refused. keys is a function from a
 * token's header to its key; without it they come from the issuer.
 */
export function tokenVerifier({ issuer, audience, keys, now = () => Date.now() / 1000 }) {
  if (!issuer || !audience) throw new Error("issuer and audience are required");
  keys ??= remoteKeys(issuer);
  return async (raw) => {
    header(raw);
    let payload;
    try {
      ({ payload } = await compactVerify(raw, keys, { algorithms }));
    } catch (e) {
      throw e instanceof Refused ? e : new Refused(reason(e), "not signed by the broker");
    }
    return new Token(claims(payload, { issuer, audience, now: now() }), now);
  };
}

function reason(e) {
  if (e instanceof errors.JWSSignatureVerificationFailed) return "signature";
  if (e instanceof errors.JOSEAlgNotAllowed || e instanceof errors.JOSENotSupported) return "algorithm";
  if (e instanceof errors.JWSInvalid) return "malformed";
  return "unavailable"; // nobody's fault who sent a token
}
