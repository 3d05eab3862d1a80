// Verify the `v1a` signatures of a request, read as JSON from stdin, with Node's own crypto; print "true" or "false".
import { createPublicKey, verify } from "node:crypto";
import { text } from "node:stream/consumers";

const { publicKey, id, timestamp, signatures, body } = JSON.parse(await text(process.stdin));
const raw = Buffer.from(publicKey.slice("whpk_".length), "base64");
const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") }, format: "jwk" });
const signed = Buffer.from(`${id}.${timestamp}.${body}`);
const verified = signatures
  .split(" ")
  .filter((one) => one.startsWith("v1a,"))
  .some((one) => verify(null, signed, key, Buffer.from(one.slice("v1a,".length), "base64")));
console.log(verified);
