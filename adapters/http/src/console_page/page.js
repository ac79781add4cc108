// The page of consoles: asks for a ticket, or is given one behind the address's `#`, opens the console
// with it, and says in words how that stands. The token stays in this page's memory and goes nowhere else
// than to the server that the page is from; the ticket is in no address that is sent anywhere.

import { Line } from "./line.js";
import { Fault } from "./rfb.js";
import { Screen } from "./screen.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
// Beside the page, wherever a proxy has put it.
const BASE = new URL(".", location.href);

// Why it was closed, as the server says.
const ENDS = {
  "caller-left": "You have left.",
  "host-closed": "The host has closed it.",
  idle: "Nobody did anything for a quarter of an hour.",
  lost: "The server process that it went through has ended.",
  "no-right": "Your token has lost the right to it.",
  "process-stopped": "The server process that it went through has stopped. Open it again.",
  "server-gone": "The server was deleted.",
  "server-stopped": "The server has stopped.",
  "time-over": "It was open for twelve hours.",
};
const KINDS = { serial: "Serial line", vnc: "Screen" };

const at = (id) => document.getElementById(id);
const form = at("ask"), stage = at("stage"), state = at("state"), sheet = at("sheet");

let token = "", socket = null, shown = null, hasLeft = false, asked = { kind: "vnc", name: "", server: "" };

function say(tone, text) {
  state.dataset.tone = tone;
  state.textContent = text;
}

/** What the page was opened for. A ticket is taken out of the address at once. */
function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const kind = given.get("console") in KINDS ? given.get("console") : "vnc";
  const ticket = given.get("ticket") ?? "";
  asked = { kind, name: given.get("name") ?? "", server: given.get("server") ?? "" };
  if (ticket) {
    given.delete("ticket");
    history.replaceState(null, "", `#${given}`);
  }
  return ticket;
}

function title() {
  const name = asked.name || asked.server;
  at("name").textContent = name || "Console";
  at("kind").textContent = name ? KINDS[asked.kind] : "";
  document.title = name ? `${name} · ${KINDS[asked.kind]}` : "Console";
}

/** Shows the form, or what the console shows. */
function show(isOpen) {
  form.hidden = isOpen;
  for (const one of document.querySelectorAll("[data-for]")) {
    const kinds = one.dataset.for.split(" ");
    one.hidden = !isOpen || !kinds.includes(asked.kind);
  }
  stage.classList.toggle("over", !isOpen && shown !== null);
  if (isOpen) return;
  form.server.value = asked.name || asked.server;
  form.kind.value = asked.kind;
  const needs = token === "";
  at("token-row").hidden = !needs;
  form.token.required = needs;
  (form.server.value === "" ? form.server : needs ? form.token : at("open")).focus();
}

/** Asks the API; a fault has the words of its answer. */
async function api(path, options = {}) {
  let answer;
  try {
    answer = await fetch(new URL(path, BASE), {
      ...options, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer",
      headers: { ...options.headers, authorization: `Bearer ${token}` },
    });
  } catch {
    throw new Fault("The server does not answer.");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const detail = body.detail ?? body.title ?? `the server answered ${answer.status}`;
  const said = `${detail.charAt(0).toUpperCase()}${detail.slice(1)}.`;
  if (answer.status !== 401) throw new Fault(`${said} ${body.advice ?? ""}`);
  token = "";
  throw new Fault(said);
}

async function found(words) {
  if (UUID.test(words)) return { name: "", server: words.toLowerCase() };
  const filter = encodeURIComponent(`name = ${JSON.stringify(words)}`);
  const { items } = await api(`v1/servers?page_size=2&filter=${filter}`);
  if (items.length === 0) throw new Fault(`There is no server ${words} within the token's reach.`);
  if (items.length > 1) throw new Fault(`There are several servers ${words}: name it by its id.`);
  return { name: words, server: items[0].id };
}

async function ticket() {
  const answer = await api(`v1/servers/${asked.server}/open-console`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ console: asked.kind }),
  });
  return answer.secret;
}

function begin(secret) {
  title();
  say("working", "Connecting…");
  const address = new URL(`v1/servers/${encodeURIComponent(asked.server)}/console`, BASE);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const own = new WebSocket(address, ["skyledger.console", `skyledger.ticket.${secret}`]);
  own.binaryType = "arraybuffer";
  socket = own;
  let wasOpen = false, fault = "";
  hasLeft = false;
  const send = (bytes) => own.readyState === WebSocket.OPEN && own.send(bytes);
  const end = (why) => {
    if (fault === "") fault = why;
    own.close();
  };
  own.addEventListener("open", () => {
    wasOpen = true;
    show(true);
    stage.dataset.kind = asked.kind;
    if (asked.kind === "serial") {
      shown = new Line(stage, send);
      say("open", "Connected. A line that is silent may want a press of Enter.");
    } else {
      shown = new Screen(stage, send, heard);
      say("working", "Connected; waiting for the screen…");
    }
    shown.focus();
  });
  own.addEventListener("message", ({ data }) => {
    if (!(data instanceof ArrayBuffer) || fault !== "") return;
    try {
      shown.take(new Uint8Array(data));
    } catch (error) {
      end(error instanceof Fault ? `The screen cannot be shown: ${error.message}.` : `This page failed: ${error}`);
    }
  });
  own.addEventListener("close", ({ reason }) => {
    if (socket !== own) return;
    socket = null;
    shown?.close();
    if (fault) say("fault", fault);
    else if (!wasOpen) {
      say("fault", "It was not opened: the ticket was used or its minute is over, the server has stopped, "
        + "somebody else has its serial line, or its host's agent is away.");
    } else say("closed", `Closed. ${ENDS[hasLeft ? "caller-left" : reason] ?? "The connection was lost."}`);
    show(false);
  });
}

/** What a screen tells. */
function heard(what, detail) {
  if (what === "clipboard") {
    at("text").value = detail;
    say("open", "The guest has copied text: it is under “Text…”.");
    return;
  }
  if (what === "resized") at("size").textContent = detail;
  say("open", "Connected.");
}

async function open() {
  try {
    say("working", "Asking for a ticket…");
    const words = form.server.value.trim();
    if (words !== asked.name && words !== asked.server) asked = { ...asked, ...await found(words) };
    else if (!UUID.test(asked.server)) asked = { ...asked, ...await found(words) };
    asked.kind = form.kind.value;
    history.replaceState(null, "", `#${new URLSearchParams({
      server: asked.server, console: asked.kind, ...(asked.name && { name: asked.name }),
    })}`);
    begin(await ticket());
  } catch (error) {
    say("fault", error instanceof Fault ? error.message : `This page failed: ${error}`);
    show(false);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (form.token.value) token = form.token.value.trim();
  form.token.value = "";
  open();
});
at("leave").addEventListener("click", () => {
  hasLeft = true;
  socket?.close();
});
at("ctrl-alt-del").addEventListener("click", () => {
  shown.press(["Control", "ControlLeft"], ["Alt", "AltLeft"], ["Delete", "Delete"]);
  shown.focus();
});
at("fit").addEventListener("change", ({ target }) => stage.classList.toggle("actual", !target.checked));
at("full").addEventListener("click", async () => {
  await stage.requestFullscreen().catch(() => say("open", "The browser does not show it on the whole screen."));
  shown.focus();
});
at("texts").addEventListener("click", () => sheet.showModal());
at("type").addEventListener("click", () => {
  sheet.close();
  if (asked.kind === "serial") shown.paste(at("text").value);
  else shown.type(at("text").value);
  shown.focus();
});
at("give").addEventListener("click", () => {
  sheet.close();
  shown.session.clipboard(at("text").value);
  shown.focus();
});
at("back").addEventListener("click", () => sheet.close());
// The way out of a console, which takes every other key.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.altKey && event.key === "Home") {
    event.preventDefault();
    at("leave").focus();
  }
});
window.addEventListener("hashchange", () => location.reload());

const given = read();
title();
if (given && asked.server) begin(given);
else {
  say("closed", "Not connected.");
  show(false);
}
