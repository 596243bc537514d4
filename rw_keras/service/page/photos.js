/**
 * Pictures of photos. Where the service asks for a token, an image cannot bring it, so its bytes are asked for by script.
 */

import { ask, hasToken } from "./api.js";

/** What an image shows by script: its address, what stops the asking, and the address that stands for its bytes. */
const asked = new WeakMap();
const near = new IntersectionObserver(
  entries => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) load(target);
      else forget(target);
    }
  },
  { rootMargin: "600px" },
);

/**
 * Shows a photo in an image.
 * @param {HTMLImageElement} image
 * @param {string} url
 * @param {{lazy?: boolean}} [options] `lazy`: only once the image comes near to what can be seen.
 */
export function show(image, url, { lazy = false } = {}) {
  release(image);
  image.loading = lazy ? "lazy" : "eager";
  image.decoding = "async";
  if (!hasToken() || url.startsWith("blob:")) {
    image.src = url;
    return;
  }
  image.removeAttribute("src");
  asked.set(image, { url, control: null, blob: null });
  if (lazy) near.observe(image);
  else load(image);
}

/**
 * Lets go of what an image shows.
 * @param {HTMLImageElement} image
 */
export function release(image) {
  near.unobserve(image);
  forget(image);
  asked.delete(image);
}

async function load(image) {
  const own = asked.get(image);
  if (!own || own.control) return;
  own.control = new AbortController();
  try {
    const response = await ask(own.url, { signal: own.control.signal });
    own.blob = URL.createObjectURL(await response.blob());
    image.src = own.blob;
  } catch (error) {
    own.control = null;
    if (error.name !== "AbortError") image.dispatchEvent(new Event("error"));
  }
}

function forget(image) {
  const own = asked.get(image);
  if (!own) return;
  own.control?.abort();
  own.control = null;
  if (own.blob) {
    URL.revokeObjectURL(own.blob);
    own.blob = null;
    image.removeAttribute("src");
  }
}
