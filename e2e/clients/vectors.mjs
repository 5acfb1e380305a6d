// The verifier's vectors through jose: a service in Node that is given the keys,
// issuer, audience, time, types and algorithms reaches each verdict tagged core.
import "./webcrypto.mjs";
import { createLocalJWKSet, jwtVerify, errors } from "jose";
import { input, check, done } from "./harness.mjs";

const { vectors, algorithms, leeway, key_sets: keySets } = await input();
for (const v of vectors.filter((v) => v.tag === "core")) {
  let verdict = "accept", why = "";
  try {
    await jwtVerify(v.token, createLocalJWKSet(keySets[v.jwks]), {
      issuer: v.issuer, audience: v.audience, typ: "at+jwt", algorithms,
      clockTolerance: leeway, currentDate: new Date(v.time * 1000),
    });
  } catch (e) {
    verdict = "reject", why = e.code ?? String(e);
  }
  check(verdict === v.verdict, `${v.id}: ${v.verdict}, got ${verdict} ${why}: ${v.description}`);
}
done();
