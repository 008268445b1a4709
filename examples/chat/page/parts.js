// Small parts of the page that do not depend on the chat.

export const $ = id => document.getElementById(id);

export function el(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text; // text from afar is never HTML
  return element;
}

export const onSubmit = (id, act) => $(id).addEventListener("submit", event => {
  event.preventDefault();
  act();
});

// Names that differ in case only are the same.
export const fold = name => name.toLowerCase();
export const byName = new Intl.Collator(undefined, { numeric: true }).compare;
export const plural = (number, one, many) => `${number} ${number === 1 ? one : many}`;
export const clock = (date, timeStyle) => date.toLocaleTimeString([], { timeStyle });

// Values that the browser keeps, for this tab or for all tabs. They are only a convenience, so storing them may fail.
const storage = area => ({
  get: key => { try { return area().getItem(key); } catch { return null; } },
  set: (key, value) => { try { area().setItem(key, value); } catch { /* private mode */ } },
});
export const tab = storage(() => sessionStorage);
export const browser = storage(() => localStorage);

export function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), byte => byte.toString(16).padStart(2, "0")).join("");
}

// A round picture of a name: its first letter in a colour of its own.
export function avatar(element, name) {
  element.className = "avatar";
  element.textContent = [...name][0]?.toUpperCase() ?? "";
  element.setAttribute("aria-hidden", "true");
  const hue = [...fold(name)].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  element.style.setProperty("--hue", hue);
  return element;
}

// A number at the end of an entry, with a word for people who have the page read to them.
export function count(className, number, what) {
  const element = el("span", className, number || "");
  if (number) element.append(el("span", "hidden", ` ${what}`));
  return element;
}

// Draws a list anew, and leaves the keyboard where it was.
export function fill(list, values, make) {
  const focused = [...list.children].findIndex(item => item.contains(document.activeElement));
  list.replaceChildren(...values.map(value => {
    const item = el("li");
    item.append(make(value));
    return item;
  }));
  if (focused >= 0) list.children[Math.min(focused, values.length - 1)]?.firstElementChild.focus();
}

let toastTimer = 0;
export function toast(text) {
  $("toast").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").textContent = ""), 6000);
}
