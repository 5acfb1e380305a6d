// oauth4webapi against the broker: discovery, a token by private_key_jwt, a
// token exchange, introspection and revocation, each response processed by the
// library's own checks.
import "./webcrypto.mjs";
import * as oauth from "oauth4webapi";
import { input, check, done, signingKey } from "./harness.mjs";

const job = await input();
const insecure = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(job.issuer);
const as = await oauth.processDiscoveryResponse(
  issuer, await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...insecure }));
const client = { client_id: job.account };
const auth = oauth.PrivateKeyJwt(await signingKey(job));

const parameters = new URLSearchParams({ audience: job.audience, tenant: job.tenant, scope: job.scope });
const tokens = await oauth.processClientCredentialsResponse(
  as, client, await oauth.clientCredentialsGrantRequest(as, client, auth, parameters, insecure));
check(tokens.token_type === "bearer", "token_type");
check(tokens.expires_in > 0 && tokens.expires_in <= 3600, "expires_in");

const introspect = async () => oauth.processIntrospectionResponse(
  as, client, await oauth.introspectionRequest(as, client, auth, tokens.access_token, insecure));
const shown = await introspect();
check(shown.active === true && shown.tenant === job.tenant, "introspection");
check(shown.client_id === job.account && shown.aud === job.audience, "introspection: who and where");

await oauth.processRevocationResponse(
  await oauth.revocationRequest(as, client, auth, tokens.access_token, insecure));
check((await introspect()).active === false, "inactive once revoked");

const workload = { client_id: job.workload };
const exchanged = await oauth.processGenericTokenEndpointResponse(as, workload,
  await oauth.genericTokenEndpointRequest(as, workload, oauth.None(),
    "urn:ietf:params:oauth:grant-type:token-exchange",
    new URLSearchParams({
      subject_token: job.subjectToken,
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      audience: job.audience, tenant: job.tenant,
    }), insecure));
check(exchanged.issued_token_type === "urn:ietf:params:oauth:token-type:access_token", "exchange");

const refused = await oauth.clientCredentialsGrantRequest(as, client, auth,
  new URLSearchParams({ audience: job.audience, tenant: job.foreignTenant }), insecure);
try {
  await oauth.processClientCredentialsResponse(as, client, refused);
  check(false, "another tenant must be refused");
} catch (e) {
  check(e.error === "invalid_target", `another tenant: ${e.error}`);
}
done();
