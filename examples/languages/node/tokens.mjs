// Access tokens of one broker for one audience: jose checks the signature, strict.mjs the rest.
import "./webcrypto.mjs";
import { compactVerify, createRemoteJWKSet, errors } from "jose";
import { Refused, claims, header, live } from "./strict.mjs";

const algorithms = ["ES256", "ES384", "EdDSA", "RS256", "PS256"];

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
 * tokenVerifier returns a function from a raw token to a Token; it throws Refused. The keys come from the
 * issuer alone, are kept for fresh seconds, and are fetched once in coolDown seconds for a kid that they lack.
 */
export function tokenVerifier({ issuer, audience, keys, fresh = 300, coolDown = 30, now = () => Date.now() / 1000 }) {
  if (!issuer || !audience) throw new Error("issuer and audience are required");
  keys ??= createRemoteJWKSet(new URL("/.well-known/jwks.json", issuer), {
    cacheMaxAge: fresh * 1000, cooldownDuration: coolDown * 1000, timeoutDuration: 5_000,
  });
  return async (raw) => {
    header(raw);
    let payload;
    try {
      ({ payload } = await compactVerify(raw, keys, { algorithms }));
    } catch (e) {
      throw new Refused(reason(e), "not signed by the broker, or nobody can say now");
    }
    return new Token(claims(payload, { issuer, audience, now: now() }), now);
  };
}

function reason(e) {
  if (e instanceof errors.JWSSignatureVerificationFailed) return "signature";
  if (e instanceof errors.JOSEAlgNotAllowed || e instanceof errors.JOSENotSupported) return "algorithm";
  if (e instanceof errors.JWKSNoMatchingKey) return "unknown_key";
  if (e instanceof errors.JWSInvalid) return "malformed";
  return "unavailable"; // nobody's fault who sent a token
}
