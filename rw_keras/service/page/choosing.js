/**
 * Ways to give the page a photo: dropped, pasted, chosen, or taken with the camera.
 */

import { byId, note } from "./ui.js";

/**
 * Connects all of them.
 * @param {(file: File) => void} take
 */
export function connectChoosing(take) {
  for (const [attribute, id] of [["data-choose", "choose"], ["data-photograph", "photograph"]]) {
    const input = byId(id);
    input.addEventListener("change", () => {
      if (input.files.length) take(input.files[0]);
      input.value = ""; // the same file can be chosen again
    });
    for (const button of document.querySelectorAll(`[${attribute}]`)) button.addEventListener("click", () => input.click());
  }
  document.addEventListener("paste", event => {
    const file = photoOf(event.clipboardData);
    if (file === null) return;
    event.preventDefault();
    take(file);
  });
  connectDropping(take);
}

function connectDropping(take) {
  const sign = byId("dropping");
  const brings = event => event.dataTransfer?.types.includes("Files");
  let depth = 0; // of the elements that are entered and left on the way
  const end = () => {
    depth = 0;
    sign.hidden = true;
  };
  addEventListener("dragenter", event => {
    if (!brings(event)) return;
    event.preventDefault();
    depth += 1;
    sign.hidden = false;
  });
  addEventListener("dragleave", event => {
    if (brings(event) && (depth -= 1) <= 0) end();
  });
  addEventListener("dragover", event => {
    if (!brings(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("drop", event => {
    if (!brings(event)) return;
    event.preventDefault();
    end();
    const file = photoOf(event.dataTransfer);
    if (file === null) note("That was not a photo. Drop a file such as a JPEG or a PNG.");
    else take(file);
  });
}

/** The first photo that is brought. A raw file has no type that a browser knows: the service says whether it reads it. */
function photoOf(data) {
  const files = [...(data?.files ?? [])];
  return files.find(file => file.type.startsWith("image/")) ?? files.find(file => file.type === "") ?? null;
}
