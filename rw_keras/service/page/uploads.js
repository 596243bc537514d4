/**
 * Photos of this device that were searched with. They are kept in this browser, so that reload and back find them, for a day; no
 * address can hold one.
 */

const KEPT = 12;
const LIFE = 24 * 60 * 60 * 1000;

/** @type {Map<string, File>} */
const held = new Map();
/** @type {Promise<IDBDatabase | null> | null} */
let opening = null;

function database() {
  opening ??= new Promise(resolve => {
    try {
      const request = indexedDB.open("rw-keras", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("photos");
      request.onsuccess = () => resolve(request.result);
      request.onerror = request.onblocked = () => resolve(null);
    } catch {
      resolve(null); // a browser that keeps nothing: the photos last until the page is left
    }
  });
  return opening;
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * Keeps a photo.
 * @param {File} file
 * @returns {Promise<string>} its key, for the address.
 */
export async function keep(file) {
  const key = Array.from(crypto.getRandomValues(new Uint8Array(6)), byte => byte.toString(16).padStart(2, "0")).join("");
  held.set(key, file);
  const opened = await database();
  if (opened === null) return key;
  try {
    const store = opened.transaction("photos", "readwrite").objectStore("photos");
    store.put({ file, name: file.name, time: Date.now() }, key);
    await forgetOld(store);
  } catch {
    // No space, or a browser that keeps no files: the photo lasts until the page is left.
  }
  return key;
}

async function forgetOld(store) {
  const [keys, rows] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
  const newest = keys.map((key, place) => ({ key, time: rows[place].time })).sort((one, other) => other.time - one.time);
  const now = Date.now();
  newest.filter(({ time }, place) => place >= KEPT || now - time > LIFE).forEach(({ key }) => store.delete(key));
}

/**
 * A photo that was kept.
 * @param {string} key
 * @returns {Promise<File | null>} null where this browser does not have it, or no longer.
 */
export async function find(key) {
  if (held.has(key)) return held.get(key);
  const opened = await database();
  if (opened === null) return null;
  try {
    const row = await done(opened.transaction("photos").objectStore("photos").get(key));
    if (!row || Date.now() - row.time > LIFE) return null;
    held.set(key, row.file);
    return row.file;
  } catch {
    return null;
  }
}
