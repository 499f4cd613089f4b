/** Files of the page's own origin, with their size and SHA-256 checked and progress told. */

import { sha256 } from "./sha256.js";

/**
 * The address of a bundle's file. Leads nowhere outside: a manifest may be anybody's.
 *
 * @param {string} path as a manifest writes it
 * @param {URL} base folder, with a slash at its end
 * @throws {Error} for a path that is not plain and relative
 */
export function addressOf(path, base) {
  const plain = typeof path === "string" && /^[\w.-]+(\/[\w.-]+)*$/u.test(path);
  if (!plain || path.split("/").some((part) => part === "." || part === "..")) {
    throw new Error(`${path} is not a plain path inside the bundle: export the bundle again`);
  }
  return new URL(path, base);
}

/**
 * A JSON file.
 *
 * @param {URL} address
 * @throws {Error} saying what to do
 */
export async function fetchJson(address) {
  const response = await get(address);
  try {
    return await response.json();
  } catch {
    throw new Error(`${nameOf(address)} is not JSON: build the page again with make demo-web`);
  }
}

/**
 * A file that must have the size and hash that `entry` says.
 *
 * @param {URL} address
 * @param {{bytes: number, sha256: string}} entry
 * @param {(bytes: number) => void} onBytes told of every stretch that has come
 * @returns {Promise<Uint8Array>}
 * @throws {Error} saying what to do
 */
export async function fetchChecked(address, entry, onBytes) {
  const response = await get(address);
  const bytes = new Uint8Array(entry.bytes);
  let length = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read().catch(() => {
      throw new Error(`${nameOf(address)} came only in part: check the connection and reload`);
    });
    if (done) break;
    if (length + value.length > bytes.length) throw damaged(address);
    bytes.set(value, length);
    length += value.length;
    onBytes(value.length);
  }
  if (length !== bytes.length || (await sha256(bytes)) !== entry.sha256) throw damaged(address);
  return bytes;
}

/**
 * What a file holds that is packed by gzip; any other as it is.
 *
 * @param {Uint8Array} bytes
 * @returns {Promise<Uint8Array>}
 * @throws {Error} for one that is damaged
 */
export async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new Error("the model cannot be unpacked: export the bundle and build the page again");
  }
}

async function get(address) {
  const response = await fetch(address, { redirect: "error" }).catch(() => {
    throw new Error(`${nameOf(address)} cannot be fetched: check the connection and reload`);
  });
  if (response.ok) return response;
  throw new Error(
    `${nameOf(address)} is not there (HTTP ${response.status}): ` +
    "build the page again with make demo-web and copy the whole folder");
}

function damaged(address) {
  return new Error(
    `${nameOf(address)} is not the file that the manifest names: reload without the cache ` +
    "(Ctrl+Shift+R); if that does not help, build the page again with make demo-web");
}

function nameOf(address) {
  return address.pathname.split("/").pop();
}
