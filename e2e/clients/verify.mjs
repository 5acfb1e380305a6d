// jose as a long-running service in Node: a token on each line of standard
// input, a verdict on each line of standard output. Its key set is kept for
// cacheMaxAge and not fetched again for a key that it lacks.
import "./webcrypto.mjs";
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const [job] = process.argv.slice(2).map((text) => JSON.parse(text));
const keys = createRemoteJWKSet(new URL(job.jwks), {
  cacheMaxAge: job.cacheMaxAge, cooldownDuration: 30_000, timeoutDuration: 2_000,
});
const expected = {
  issuer: job.issuer, audience: job.audience, typ: "at+jwt", algorithms: ["ES256", "EdDSA", "RS256"],
  clockTolerance: job.leeway, requiredClaims: ["exp", "iat", "jti", "tenant"],
};

// The set could not be had: that says nothing of the token.
const outOfReach = (e) =>
  e.code === "ERR_JWKS_TIMEOUT" || e.code === "ERR_JOSE_GENERIC" || (e instanceof TypeError && e.message === "fetch failed");

for await (const line of createInterface({ input: process.stdin })) {
  const { id, token } = JSON.parse(line);
  jwtVerify(token, keys, expected).then(
    ({ payload }) => ({ id, tenant: payload.tenant }),
    (e) => ({ id, refused: e.code ?? String(e), unavailable: outOfReach(e) }),
  ).then((verdict) => console.log(JSON.stringify(verdict)));
}
