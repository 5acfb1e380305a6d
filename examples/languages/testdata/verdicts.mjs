// Tokens on each line of standard input, verified at once; a verdict on each of standard output.
import { createInterface } from "node:readline";
const { tokenVerifier } = await import(process.env.EXAMPLE + "/tokens.mjs");
const { keySet, pick, remoteKeys } = await import(process.env.EXAMPLE + "/keys.mjs");

const job = JSON.parse(process.env.JOB);
const { issuer, audience, cool_down: coolDown, fresh, stale, timeout } = job;
const given = job.keys && await keySet(job.keys);
const keys = given ? (h) => pick(given, h) : remoteKeys(issuer, { coolDown, fresh, stale, timeout });
const verify = tokenVerifier({ issuer, audience, keys, now: job.time ? () => job.time : undefined });
const said = (token) => verify(token).then(({ tenant }) => ({ tenant }), (e) => ({ refused: e.reason ?? String(e) }));
for await (const line of createInterface({ input: process.stdin })) {
  for (const one of await Promise.all(line.split(" ").map(said))) console.log(JSON.stringify(one));
}
