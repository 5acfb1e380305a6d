// openid-client against the broker: both discovery documents, a token by
// private_key_jwt, a token exchange, introspection and revocation.
import "./webcrypto.mjs";
import * as oidc from "openid-client";
import { input, check, done, signingKey } from "./harness.mjs";

const job = await input();
const auth = oidc.PrivateKeyJwt(await signingKey(job));
const insecure = { execute: [oidc.allowInsecureRequests] };
const issuer = new URL(job.issuer);

for (const algorithm of ["oidc", "oauth2"]) {
  const config = await oidc.discovery(issuer, job.account, undefined, auth, { algorithm, ...insecure });
  check(config.serverMetadata().issuer === job.issuer, `${algorithm}: issuer`);

  const tokens = await oidc.clientCredentialsGrant(config, {
    audience: job.audience, tenant: job.tenant, scope: job.scope,
  });
  check(tokens.token_type === "bearer", `${algorithm}: token_type`);
  check(tokens.scope === job.scope, `${algorithm}: scope`);

  const shown = await oidc.tokenIntrospection(config, tokens.access_token);
  check(shown.active === true, `${algorithm}: active`);
  check(shown.tenant === job.tenant, `${algorithm}: tenant`);

  await oidc.tokenRevocation(config, tokens.access_token);
  const after = await oidc.tokenIntrospection(config, tokens.access_token);
  check(after.active === false, `${algorithm}: inactive once revoked`);
}

const workload = await oidc.discovery(issuer, job.workload, undefined, oidc.None(), { algorithm: "oauth2", ...insecure });
const exchanged = await oidc.genericGrantRequest(workload, "urn:ietf:params:oauth:grant-type:token-exchange", {
  subject_token: job.subjectToken,
  subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
  audience: job.audience, tenant: job.tenant,
});
check(exchanged.issued_token_type === "urn:ietf:params:oauth:token-type:access_token", "exchange: issued_token_type");

const config = await oidc.discovery(issuer, job.account, undefined, auth, { algorithm: "oauth2", ...insecure });
try {
  await oidc.clientCredentialsGrant(config, { audience: job.audience, tenant: job.foreignTenant });
  check(false, "another tenant must be refused");
} catch (e) {
  check(e.error === "invalid_target", `another tenant: ${e.error}`);
}
done();
