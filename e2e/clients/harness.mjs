// What the client programs share: a job on standard input, checks that are
// counted, and a last line that says how many held.
import { importJWK } from "jose";

let held = 0;

export async function input() {
  let text = "";
  for await (const chunk of process.stdin) text += chunk;
  return JSON.parse(text);
}

export async function signingKey(job) {
  return { key: await importJWK(job.privateJwk, "ES256"), kid: job.privateJwk.kid };
}

export function check(ok, what) {
  if (!ok) throw new Error(`did not hold: ${what}`);
  held++;
}

export function done() {
  console.log(`${held} checks held`);
}
