// The page of consoles in a real browser, before a server with two guests on a real QEMU: `keys`, which
// shows on its screen what is typed, and `line`, which has a shell on its serial line.
//
//   node browser.mjs CHROMIUM SKYLEDGER FOLDER
//
// SKYLEDGER_SERVER and SKYLEDGER_TOKEN say where the server is and who asks. Pictures of the page come
// into FOLDER. `tests/console-page/run.sh` starts all that it needs.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [chromium, skyledger, folder] = process.argv.slice(2);
const server = process.env.SKYLEDGER_SERVER, token = process.env.SKYLEDGER_TOKEN;
const PATIENCE_MS = 60_000;

const cli = (...words) => {
  // No browser of this machine is to be opened.
  const env = { ...process.env, PATH: "/nonexistent" };
  return execFileSync(skyledger, words, { env, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
};

/** A browser, spoken to over a pipe. */
class Browser {
  constructor() {
    this.profile = mkdtempSync(join(tmpdir(), "console-page-"));
    const flags = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
      "--hide-scrollbars", "--window-size=1180,820", `--user-data-dir=${this.profile}`];
    this.child = spawn(chromium, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    this.waiting = new Map();
    this.next = 1;
    this.wrong = [];
    let rest = "";
    this.child.stdio[4].on("data", (piece) => {
      const parts = (rest + piece).split("\0");
      rest = parts.pop();
      for (const part of parts) this.heard(JSON.parse(part));
    });
  }

  heard({ id, result, error, method, params }) {
    if (method === "Runtime.exceptionThrown") this.wrong.push(params.exceptionDetails.text);
    if (method === "Log.entryAdded" && params.entry.level === "error") this.wrong.push(params.entry.text);
    const waits = this.waiting.get(id);
    if (!waits) return;
    this.waiting.delete(id);
    if (error) waits.reject(new Error(error.message));
    else waits.resolve(result);
  }

  ask(method, params = {}) {
    const id = this.next++;
    const isOfPage = this.session && !method.startsWith("Browser.");
    const message = { id, method, params, ...(isOfPage && { sessionId: this.session }) };
    this.child.stdio[3].write(`${JSON.stringify(message)}\0`);
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  async begin() {
    const { targetId } = await this.ask("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.ask("Target.attachToTarget", { targetId, flatten: true });
    this.session = sessionId;
    for (const domain of ["Page", "Runtime", "Log"]) await this.ask(`${domain}.enable`);
  }

  async goTo(url) {
    await this.ask("Page.navigate", { url: "about:blank" });
    await this.ask("Page.navigate", { url });
  }

  async value(expression) {
    const asked = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await this.ask("Runtime.evaluate", asked);
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  async until(expression, what = expression) {
    const over = Date.now() + PATIENCE_MS;
    let last = "";
    while (Date.now() < over) {
      last = await this.value(expression).catch((error) => String(error));
      if (last === true) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await this.picture("failed");
    throw new Error(`${what} does not come: ${last}; ${await this.state()}`);
  }

  state() {
    return this.value("document.getElementById('state')?.textContent");
  }

  says(words) {
    return this.until(`document.getElementById("state")?.textContent.includes(${JSON.stringify(words)})`);
  }

  async key(key, code, modifiers = 0) {
    const virtual = key.length === 1 ? key.toUpperCase().charCodeAt(0) : { Enter: 13, Home: 36 }[key] ?? 0;
    const common = { key, code, modifiers, windowsVirtualKeyCode: virtual };
    await this.ask("Input.dispatchKeyEvent", { type: "rawKeyDown", ...common });
    await this.ask("Input.dispatchKeyEvent", { type: "keyUp", ...common });
  }

  async picture(name) {
    const { data } = await this.ask("Page.captureScreenshot");
    writeFileSync(join(folder, `${name}.png`), Buffer.from(data, "base64"));
  }

  look(scheme) {
    return this.ask("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
  }

  async end() {
    const ended = new Promise((resolve) => this.child.on("exit", resolve));
    this.ask("Browser.close").catch(() => {});
    await ended;
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 20 });
  }
}

const click = (id) => `document.getElementById(${JSON.stringify(id)}).click()`;
// How many points of the canvas are lit.
const LIT = `(() => {
  const canvas = document.querySelector("#stage canvas");
  const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let lit = 0;
  for (let at = 0; at < all.length; at += 4) if (all[at] + all[at + 1] + all[at + 2] > 120) lit += 1;
  return lit;
})()`;

const browser = new Browser();
try {
  await browser.begin();

  // The screen, by a ticket behind the address's `#`, good once.
  const address = cli("console", "keys", "--vnc", "--open");
  assert.match(address, /\/console#.*&ticket=skyledger_|\/console#.*ticket=/);
  await browser.goTo(address);
  await browser.says("Connected.");
  assert.equal(await browser.value("location.hash.includes('ticket')"), false, "the ticket is not kept");
  await browser.until(`${LIT} > 200`, "a picture");
  const size = await browser.value("document.getElementById('size').textContent");
  await browser.picture("screen-1");
  let lit = await browser.value(LIT);
  for (const [key, code, modifiers] of [["S", "KeyS", 8], ["k", "KeyK"], ["y", "KeyY"], ["!", "Digit1", 8]]) {
    if (modifiers) await browser.ask("Input.dispatchKeyEvent", { type: "rawKeyDown", key: "Shift", code: "ShiftLeft", location: 1, modifiers });
    await browser.key(key, code, modifiers);
    if (modifiers) await browser.ask("Input.dispatchKeyEvent", { type: "keyUp", key: "Shift", code: "ShiftLeft", location: 1 });
  }
  await browser.until(`${LIT} > ${lit + 40}`, "what is typed");
  lit = await browser.value(LIT);
  await browser.value(`${click("texts")}; document.getElementById("text").value = "Typed: {a|B}"; ${click("type")}`);
  await browser.until(`${LIT} > ${lit + 100}`, "what is typed for somebody");
  await browser.ask("Input.dispatchMouseEvent", { type: "mousePressed", x: 500, y: 400, button: "left", clickCount: 1 });
  await browser.ask("Input.dispatchMouseEvent", { type: "mouseReleased", x: 500, y: 400, button: "left", clickCount: 1 });
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  await browser.picture("screen-2");
  // Control, Alt and Delete start it again, with an empty screen at the end.
  lit = await browser.value(LIT);
  await browser.value(click("ctrl-alt-del"));
  await browser.until(`${LIT} < ${lit} - 100`, "another start");
  await browser.key("Home", "Home", 3);
  assert.equal(await browser.value("document.activeElement.id"), "leave", "the way out of the screen");
  await browser.value(click("leave"));
  await browser.says("You have left");
  await browser.picture("left");
  // The same address once more: its ticket was used.
  await browser.goTo(address);
  await browser.says("It was not opened");

  // The serial line, by a token that is typed.
  browser.wrong.length = 0;
  await browser.look("dark");
  await browser.goTo(`${server}/console`);
  await browser.until("document.getElementById('ask')?.hidden === false");
  await browser.picture("form-dark");
  await browser.value(`(() => {
    const form = document.getElementById("ask");
    form.server.value = "line";
    form.kind.value = "serial";
    form.token.value = ${JSON.stringify(token)};
    form.requestSubmit();
  })()`);
  await browser.says("Connected.");
  const shows = (text) => browser.until(
    `document.querySelector(".lines")?.textContent.includes(${JSON.stringify(text)})`, text,
  );
  const types = (text) => browser.ask("Input.insertText", { text });
  await browser.key("Enter", "Enter");
  await shows("#");
  await types("echo $((6 * 7))-by-hand");
  await browser.key("Enter", "Enter");
  await shows("42-by-hand");
  await types("for c in 1 2 3 4 5 6; do printf '\\033[3%sm colour %s \\033[7m reverse \\033[m\\n' $c $c; done; ls /");
  await browser.key("Enter", "Enter");
  await shows("colour 6");
  // An editor: the whole screen, moved about in and left.
  await types("printf 'one\\ntwo\\nthree\\n' >/tmp/text; vi /tmp/text");
  await browser.key("Enter", "Enter");
  await shows("/tmp/text");
  await types("dd");
  await types(":x");
  await browser.key("Enter", "Enter");
  await types("echo $(cat /tmp/text)-left");
  await browser.key("Enter", "Enter");
  await shows("two three-left");
  await browser.picture("line-dark");
  await browser.look("light");
  await browser.picture("line-light");
  assert.deepEqual(browser.wrong, [], "the browser's own complaints");
  assert.equal(await browser.value("localStorage.length + sessionStorage.length"), 0);

  // What is refused is said in the API's words.
  await browser.goTo(`${server}/console#server=line`);
  await browser.until("document.getElementById('ask')?.hidden === false");
  await browser.value(`(() => {
    const form = document.getElementById("ask");
    form.token.value = "nothing";
    form.requestSubmit();
  })()`);
  await browser.says("token");
  await browser.picture("refused");
  console.log(`the page shows a screen of ${size} and a serial line; what was typed came there`);
} finally {
  await browser.end();
}
