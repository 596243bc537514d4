/**
 * Asks for the token of a service that wants one.
 */

import { useToken } from "./api.js";
import { byId } from "./ui.js";

const dialog = byId("token");
const field = byId("token-value");
let wasGiven = false;
let again = () => {};

byId("token-form").addEventListener("submit", event => {
  event.preventDefault();
  if (field.value.trim() === "") return;
  wasGiven = true;
  useToken(field.value.trim());
  field.value = "";
  dialog.close();
  again();
});
byId("token-later").addEventListener("click", () => dialog.close());

/**
 * Opens the dialog.
 * @param {() => void} then is called when a token was given.
 */
export function askForToken(then) {
  again = then;
  byId("token-wrong").textContent = wasGiven ? "The service does not know this token. Look for a character too few or too many." : "";
  wasGiven = false;
  if (!dialog.open) dialog.showModal();
  field.focus();
}
