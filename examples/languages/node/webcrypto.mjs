// Node 18, which Debian 12 has, keeps Web Crypto in a module; jose looks for it
// among the globals. Newer ones need nothing of this.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;
// The class has no name outside of the globals.
globalThis.CryptoKey ??= (await webcrypto.subtle.importKey("raw", new Uint8Array(16), "AES-CBC", false, ["encrypt"])).constructor;
