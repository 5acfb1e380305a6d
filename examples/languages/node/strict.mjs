// What the broker promises of an access token beyond its signature: read from the
// very bytes, as the Go verifier does it. No library; Node 18 or newer.

const most = { token: 16384, header: 4096, kid: 256, depth: 16, members: 512, values: 4096, number: 64, id: 128, scopes: 64, actors: 4 };
const latest = 253402300799; // the end of the year 9999
const name = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/; // of a tenant or an account

/** Why a token is refused: reason is a word for logs and metrics, never for the client. */
export class Refused extends Error {
  constructor(reason, text) {
    super(text);
    this.reason = reason;
  }
}

/** hold throws Refused where something does not hold. */
export function hold(ok, reason, text) {
  if (!ok) throw new Refused(reason, text);
}

/** header returns the header of a compact JWS whose form is right; its signature is still to be checked. */
export function header(raw) {
  hold(typeof raw === "string" && raw.length <= most.token, "malformed", "too long");
  const segments = raw.split(".");
  hold(segments.length !== 5, "encrypted", "an encrypted token");
  hold(segments.length === 3 && segments[0].length <= most.header, "malformed", "not three segments");
  const [head] = segments.map((s) => {
    const bytes = Buffer.from(s, "base64url"); // takes nearly everything
    hold(s !== "" && bytes.toString("base64url") === s, "malformed", "not the one spelling of its bytes");
    return bytes;
  });
  const h = object(head);
  for (const own of ["enc", "zip"]) hold(!(own in h), "encrypted", own);
  // A header that brings its own key, or says that others are to be understood.
  for (const own of ["jku", "jwk", "x5u", "x5c", "crit", "b64"]) hold(!(own in h), "header", own);
  hold(typeof h.alg === "string" && typeof h.kid === "string", "header", "alg or kid");
  hold(h.kid !== "" && Buffer.byteLength(h.kid) <= most.kid, "header", "kid");
  for (const n of ["typ", "nonce"]) hold(h[n] === undefined || typeof h[n] === "string", "header", n);
  hold(/^(application\/)?at\+jwt$/i.test(h.typ ?? ""), "type", "not an access token");
  return h;
}

/** claims returns the claims in a payload whose signature was found good. now is in seconds. */
export function claims(payload, { issuer, audience, now, leeway = 30 }) {
  const c = object(payload);
  // Names that another reader could take for a second tenant.
  for (const n of Object.keys(c)) hold(n === "tenant" || !/^tenants?$/iu.test(n), "tenant", "a member named like it");
  hold(typeof c.tenant === "string" && c.tenant.length <= 64 && name.test(c.tenant), "tenant", "not exactly one");

  for (const n of ["sub", "client_id"]) hold(account(c[n]), "claim", n);
  for (const n of ["jti", "txn"]) hold(text(c[n]), "claim", n);
  hold(c.job === undefined || text(c.job), "claim", "job");
  hold(c.act === undefined || actors(c.act, 1), "claim", "act");
  hold(c.scope === undefined || scope(c.scope), "claim", "scope");
  hold(typeof c.iss === "string" && typeof c.aud === "string", "claim", "iss or aud is not one string");
  for (const n of ["iat", "exp", "nbf"]) {
    hold((n === "nbf" && c[n] === undefined) || (typeof c[n] === "number" && c[n] >= 1 && c[n] <= latest), "claim", n);
  }

  const own = audience.toLowerCase() === issuer || audience.toLowerCase().startsWith(issuer + "/");
  const life = Math.floor(c.exp) - Math.floor(c.iat);
  hold(c.iss === issuer, "issuer", "another issuer");
  hold(c.aud === audience, "audience", "another audience");
  hold(c.tenant.toLowerCase() !== "system" || (c.tenant === "system" && own), "tenant", "the broker's own");
  hold(life > 0 && life <= (own ? 600 : 3600), "claim", "lives longer than the broker gives");
  hold(c.cnf === undefined, "proof_required", "bound to a key, and no proof is given");
  live(c, now, leeway);
  return c;
}

/** live holds claims to the time, which goes on. */
export function live(c, now, leeway = 30) {
  hold(now < Math.floor(c.exp) + leeway, "expired", "over");
  hold(now + leeway >= Math.max(Math.floor(c.iat), Math.ceil(c.nbf ?? 0)), "not_yet_valid", "not yet");
}

const text = (v) => typeof v === "string" && v !== "" && Buffer.byteLength(v) <= most.id;
const account = (v) => text(v) && name.test(v);
const actors = (v, depth) => depth <= most.actors && v !== null && typeof v === "object" && !Array.isArray(v) &&
  account(v.sub) && (v.act === undefined || actors(v.act, depth + 1));
const scope = (v) => v === "" || (typeof v === "string" && v.length <= 2048 && new Set(v.split(" ")).size <= most.scopes &&
  v.split(" ").every((s) => /^[!#-[\]-~]+$/.test(s)));

/** object reads one JSON object: UTF-8, no name twice in an object at any depth, no number beyond a double, within the limits. */
export function object(bytes) {
  let json, value;
  try {
    json = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(json); // the last of two members wins here, hence what follows
  } catch {
    hold(false, "malformed", "not JSON in UTF-8");
  }
  hold(value !== null && typeof value === "object" && !Array.isArray(value), "malformed", "not an object");
  const open = []; // for each object its names, for each array null
  let names = 0, values = -1, naming = false;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}:,]|[^\s[\]{}:,"]+/g)) {
    switch (token[0]) {
      case "{": case "[":
        values++;
        hold(open.push(token === "{" ? new Set() : null) <= most.depth, "malformed", "nested too deep");
        naming = token === "{";
        continue;
      case "}": case "]":
        open.pop();
        continue;
      case ",":
        naming = open.at(-1) !== null;
        continue;
      case ":":
        naming = false;
        continue;
      case '"': {
        const s = JSON.parse(token);
        hold(!/\p{Surrogate}/u.test(s), "malformed", "half a character");
        if (!naming) break;
        hold(!open.at(-1).has(s), "malformed", "a name twice");
        open.at(-1).add(s);
        names++;
        continue;
      }
      case "-": case "0": case "1": case "2": case "3": case "4": case "5": case "6": case "7": case "8": case "9":
        hold(token.length <= most.number && Number.isFinite(Number(token)), "malformed", "a number beyond a double");
    }
    values++;
  }
  hold(names <= most.members && values <= most.values, "malformed", "too many members or values");
  return value;
}
