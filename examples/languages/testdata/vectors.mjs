// The vectors, one verdict on each line, through jose as its documentation has it
// (plain) or as the example does it (strict).
import { readFileSync } from "node:fs";
const { tokenVerifier } = await import(process.env.EXAMPLE + "/tokens.mjs");
const { keySet, pick } = await import(process.env.EXAMPLE + "/keys.mjs");
const { createLocalJWKSet, jwtVerify } = await import(process.env.EXAMPLE + "/node_modules/jose/dist/webapi/index.js");

const { vectors, algorithms, leeway, key_sets: sets } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify({ id: "version", plain: "6" })); // locked: see package-lock.json
for (const v of vectors) {
  const keys = createLocalJWKSet(sets[v.jwks]);
  const said = { id: v.id, strict: "", plain: "" };
  try {
    const own = await keySet(sets[v.jwks]);
    await tokenVerifier({ issuer: v.issuer, audience: v.audience, keys: (h) => pick(own, h), now: () => v.time })(v.token);
  } catch (e) {
    said.strict = String(e.reason ?? e);
  }
  try {
    await jwtVerify(v.token, keys, {
      issuer: v.issuer, audience: v.audience, typ: "at+jwt", algorithms, requiredClaims: ["exp", "iat"],
      clockTolerance: leeway, currentDate: new Date(v.time * 1000),
    });
  } catch (e) {
    said.plain = String(e.code ?? e);
  }
  console.log(JSON.stringify(said));
}
