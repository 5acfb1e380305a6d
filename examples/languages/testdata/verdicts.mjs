// A token on each line of standard input, a verdict on each of standard output.
import { createInterface } from "node:readline";
const { tokenVerifier } = await import(process.env.EXAMPLE + "/tokens.mjs");
const { createLocalJWKSet } = await import(process.env.EXAMPLE + "/node_modules/jose/dist/webapi/index.js");

const job = JSON.parse(process.env.JOB);
const options = { issuer: job.issuer, audience: job.audience, coolDown: job.cool_down, fresh: job.fresh };
if (job.keys) options.keys = createLocalJWKSet(job.keys);
if (job.time) options.now = () => job.time;
const verify = tokenVerifier(options);
for await (const line of createInterface({ input: process.stdin })) {
  let said;
  try {
    said = { tenant: (await verify(line)).tenant };
  } catch (e) {
    said = { refused: e.reason ?? String(e) };
  }
  console.log(JSON.stringify(said));
}
