// jose as a downstream service in Node: remote JWKS and claims.
import "./webcrypto.mjs";
import { createRemoteJWKSet, jwtVerify, errors } from "jose";
import { input, check, done } from "./harness.mjs";

const job = await input();
const keys = createRemoteJWKSet(new URL(job.issuer + "/.well-known/jwks.json"));
const expected = {
  issuer: job.issuer, audience: job.audience, typ: "at+jwt",
  algorithms: ["ES256", "EdDSA", "RS256"], requiredClaims: ["exp", "iat", "jti", "tenant"],
};
const { payload, protectedHeader } = await jwtVerify(job.token, keys, expected);
check(payload.tenant === job.tenant, "tenant");
check(payload.client_id === job.account, "client_id");
check(typeof payload.aud === "string", "aud is one string");
check(protectedHeader.kid !== undefined, "kid");

const refused = async (token, options, code) => {
  try {
    await jwtVerify(token, keys, { ...expected, ...options });
    check(false, `${code} expected`);
  } catch (e) {
    check(e instanceof errors.JOSEError && e.code === code, `${code}, got ${e.code ?? e}`);
  }
};
await refused(job.token, { audience: "another-service" }, "ERR_JWT_CLAIM_VALIDATION_FAILED");
await refused(job.tampered, {}, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED");
done();
