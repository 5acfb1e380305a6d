// The broker's keys, from its own URL alone. jose's createRemoteJWKSet pauses after a success only, so that
// anybody could have the service ask a broker that is away with each token, and it reads answers of any length.
import { importJWK } from "jose";
import { hold } from "./strict.mjs";

export const algorithms = ["ES256", "ES384", "EdDSA", "RS256", "PS256"];
const most = 256 * 1024; // bytes of a key set

/**
 * remoteKeys returns a function from a token's header to its key, which throws Refused. All times are in seconds:
 * keys are due again after fresh, and serve for stale at most while the broker is away; one fetch in coolDown,
 * failures included, of at most timeout, body included.
 */
export function remoteKeys(issuer, { fresh = 300, stale = 86_400, coolDown = 30, timeout = 5 } = {}) {
  const url = new URL("/.well-known/jwks.json", issuer);
  const loopback = ["127.0.0.1", "localhost", "[::1]"].includes(url.hostname);
  if (url.protocol !== "https:" && !(url.protocol === "http:" && loopback)) {
    throw new TypeError("keys come by https, by http on loopback only");
  }
  let held = new Map(), at = -Infinity, tried = -Infinity, flight;
  const age = (since) => performance.now() / 1000 - since;

  const refresh = async () => {
    const begun = tried = performance.now() / 1000;
    try {
      held = await keySet(await within(timeout, (signal) => fetched(url, signal)));
      at = begun;
    } catch {
      // what is held serves on
    }
  };
  return async (header) => {
    const due = age(at) > fresh || !held.has(header.kid);
    if (due && age(tried) > coolDown) await (flight = refresh());
    else if (!held.has(header.kid)) await flight; // who has his key doesn't wait for others
    hold(age(at) <= stale, "unavailable", "no keys");
    hold(held.has(header.kid) || at === tried, "unavailable", "the key may be newer than what is held");
    return pick(held, header);
  };
}

/** keySet returns algorithm and key by kid. What is not a public key for signatures is left out. */
export async function keySet(document) {
  const found = new Map();
  for (const jwk of document.keys) {
    if (typeof jwk?.kid !== "string" || (jwk.use ?? "sig") !== "sig" || "d" in jwk) continue;
    if (!["EC", "RSA", "OKP"].includes(jwk.kty) || !algorithms.includes(jwk.alg)) continue;
    const key = await importJWK(jwk).catch(() => undefined); // one bad key is not the end of the others
    if (key) found.set(jwk.kid, { alg: jwk.alg, key });
  }
  if (found.size === 0) throw new Error("no key of use");
  return found;
}

/** pick returns the key that a header names, if it serves the header's algorithm. */
export function pick(keys, { kid, alg }) {
  const found = keys.get(kid);
  hold(found, "unknown_key", "no such key");
  hold(found.alg === alg, "algorithm", "a key serves one algorithm");
  return found.key;
}

// The signal alone is not enough: fetch may lose sight of one while it waits.
function within(timeout, work) {
  const stop = new AbortController();
  let timer;
  const over = new Promise((_, reject) => {
    timer = setTimeout(() => { reject(new Error("too slow")); stop.abort(); }, timeout * 1000);
  });
  return Promise.race([work(stop.signal), over]).finally(() => clearTimeout(timer));
}

async function fetched(url, signal) {
  const answer = await fetch(url, { redirect: "error", signal });
  if (answer.status !== 200) throw new Error(`status ${answer.status}`);
  const chunks = [];
  let length = 0;
  for await (const chunk of answer.body) {
    length += chunk.length;
    if (length > most || signal.aborted) throw new Error("too long, or too slow");
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString());
}
