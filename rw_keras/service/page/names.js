/**
 * Names of photos. A name may hold any character, and bytes that are not UTF-8, which travel as lone surrogates (U+DC80 to
 * U+DCFF, as Python's surrogateescape has them) and stand in addresses as the bytes themselves, percent-encoded.
 */

const PLAIN = /^[A-Za-z0-9._~/-]$/;
const UTF8 = new TextEncoder();
const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * A name as part of an address: every byte but plain letters, digits and `._~/-` percent-encoded.
 * @param {string} name
 * @returns {string}
 */
export function encodeName(name) {
  let encoded = "";
  for (const character of name) {
    const code = character.codePointAt(0);
    const bytes = code >= 0xdc80 && code <= 0xdcff ? [code - 0xdc00] : UTF8.encode(character);
    encoded += PLAIN.test(character)
      ? character
      : Array.from(bytes, byte => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
  }
  return encoded;
}

/**
 * What `encodeName` encoded.
 * @param {string} text
 * @returns {string}
 */
export function decodeName(text) {
  const bytes = [];
  for (let place = 0; place < text.length; ) {
    const digits = text[place] === "%" && /^[0-9a-f]{2}$/i.test(text.slice(place + 1, place + 3));
    if (digits) {
      bytes.push(parseInt(text.slice(place + 1, place + 3), 16));
      place += 3;
    } else {
      const character = String.fromCodePoint(text.codePointAt(place));
      bytes.push(...UTF8.encode(character));
      place += character.length;
    }
  }
  return decodeBytes(Uint8Array.from(bytes));
}

function decodeBytes(bytes) {
  let text = "";
  for (let place = 0; place < bytes.length; ) {
    const first = bytes[place];
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    try {
      text += STRICT.decode(bytes.subarray(place, place + length));
      place += length;
    } catch {
      text += String.fromCharCode(0xdc00 + first);
      place += 1;
    }
  }
  return text;
}

/**
 * A name on one line, as `rw_keras.files.printable` writes it: what cannot be seen stands as an escape.
 * @param {string} name
 * @returns {string}
 */
export function printable(name) {
  return name.replace(/[\p{C}\p{Z}]/gu, character => {
    const code = character.codePointAt(0);
    if (character === " ") return character;
    if (code >= 0xdc80 && code <= 0xdcff) return `\\x${(code - 0xdc00).toString(16)}`;
    const known = { "\t": "\\t", "\n": "\\n", "\r": "\\r" }[character];
    if (known) return known;
    const [letter, width] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
    return `\\${letter}${code.toString(16).padStart(width, "0")}`;
  });
}

/**
 * Writes a name into an element: it may break after its separators, and one in Hebrew or Arabic does not turn its neighbours
 * around.
 * @param {Element} element
 * @param {string} name
 */
export function writeName(element, name) {
  const isolated = document.createElement("bdi");
  for (const part of printable(name).split(/(?<=[/_])/)) {
    if (isolated.firstChild) isolated.append(document.createElement("wbr"));
    isolated.append(part);
  }
  element.replaceChildren(isolated);
}

/**
 * The folder that a name lies in, with its last "/"; empty where there is none.
 * @param {string} name
 * @returns {string}
 */
export function folderOf(name) {
  return name.slice(0, name.lastIndexOf("/") + 1);
}
