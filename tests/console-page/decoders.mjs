// What the page of consoles reads and sends, held against messages written out by hand from RFC 6143,
// and against what VT100 does. On demand: `tests/console-page/run.sh` says how.

import assert from "node:assert/strict";
import test from "node:test";

const pages = new URL("../../adapters/http/src/console_page/", import.meta.url);
const { Session, Picture } = await import(new URL("rfb.js", pages));
const { Terminal, ofPalette, BOLD, REVERSE } = await import(new URL("terminal.js", pages));
const { keysym, position, bytesOfKey } = await import(new URL("keys.js", pages));

const bytes = (text) => Uint8Array.from(text, (sign) => sign.charCodeAt(0));
const u16 = (value) => [value >> 8, value & 255];
const u32 = (value) => [...u16(value >>> 16), ...u16(value & 0xffff)];
const part = (x, y, w, h, encoding) => [...u16(x), ...u16(y), ...u16(w), ...u16(h), ...u32(encoding >>> 0)];
const update = (...parts) => [0, 0, ...u16(parts.length), ...parts.flat()];

const HELLO = (width, height) => [
  ...bytes("RFB 003.008\n"), 2, 16, 1, ...u32(0),
  ...u16(width), ...u16(height), 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0,
  ...u32(3), ...bytes("lab"),
];

function session(width = 40, height = 20) {
  const sent = [], heard = [];
  const note = (what) => (detail) => heard.push([what, detail]);
  const told = Object.fromEntries(
    ["ready", "resized", "updated", "bell", "clipboard", "cursor"].map((one) => [one, note(one)]),
  );
  const own = new Session((message) => sent.push([...message]), told);
  const give = (message, piece = message.length) => {
    for (let at = 0; at < message.length; at += piece) {
      own.take(Uint8Array.from(message.slice(at, at + piece)));
    }
  };
  return { own, sent, heard, give, hello: (piece) => give(HELLO(width, height), piece) };
}

const point = (picture, x, y) => [...picture.points.subarray((y * picture.width + x) * 4).subarray(0, 4)];

test("a handshake, in one piece or byte by byte", () => {
  for (const piece of [1, 7, 1_000]) {
    const { sent, heard, hello } = session();
    hello(piece);
    assert.deepEqual(sent.slice(0, 3), [[...bytes("RFB 003.008\n")], [1], [1]]);
    assert.deepEqual(sent[3].slice(0, 4), [0, 0, 0, 0], "SetPixelFormat");
    assert.equal(sent[4][0], 2, "SetEncodings");
    assert.deepEqual(sent[5], [3, 0, 0, 0, 0, 0, 0, 40, 0, 20], "FramebufferUpdateRequest");
    assert.deepEqual(heard, [["resized", undefined], ["ready", "lab"]]);
  }
});

test("what is not understood is said", () => {
  const says = (message, pattern) => {
    const { give } = session();
    assert.throws(() => give(message), pattern);
  };
  says([...bytes("HTTP/1.1 200")], /no screen/);
  says([...bytes("RFB 003.003\n")], /3\.8 is needed/);
  says([...bytes("RFB 003.008\n"), 1, 2], /password/);
  says([...bytes("RFB 003.008\n"), 0, ...u32(4), ...bytes("full")], /refuses: full/);
  says([...bytes("RFB 003.008\n"), 1, 1, ...u32(1), ...u32(2), ...bytes("no")], /refuses: no/);
  says([...HELLO(40, 20), 9], /kind 9/);
  says([...HELLO(40, 20), ...update([...part(0, 0, 1, 1, 99)])], /not asked for/);
  says([...HELLO(40, 20), ...update([...part(39, 0, 2, 1, 0), ...Array(8).fill(0)])], /not on the screen/);
  says([...HELLO(40, 20), ...update([...part(0, 0, 1, 1, 1), ...u16(40), ...u16(0)])], /not on the screen/);
  says(HELLO(65_535, 65_535), /too large/);
});

test("raw points, copied parts, tiles, another size, a pointer", () => {
  for (const piece of [1, 3, 10_000]) {
    const { own, sent, heard, give, hello } = session();
    hello(piece);
    give(update([...part(1, 2, 2, 1, 0), 1, 2, 3, 0, 4, 5, 6, 0]), piece);
    assert.deepEqual(point(own.picture, 1, 2), [1, 2, 3, 255]);
    assert.deepEqual(point(own.picture, 2, 2), [4, 5, 6, 255]);
    assert.deepEqual(sent.at(-1).slice(0, 2), [3, 1], "then what is new");
    // Overlapping, to the right and downwards.
    give(update([...part(2, 3, 2, 1, 1), ...u16(1), ...u16(2)]), piece);
    assert.deepEqual(point(own.picture, 3, 3), [4, 5, 6, 255]);
    // Two tiles of 16 and one of 2: a background with a part of the foreground, a background kept with a
    // part of a colour of its own, and one that is raw.
    const tiles = [
      2 | 4 | 8, 10, 20, 30, 0, 40, 50, 60, 0, 1, 0x12, 0x21,
      8 | 16, 1, 70, 80, 90, 0, 0x00, 0x00,
      1, ...Array.from({ length: 2 * 16 }, (_, at) => [at, 0, 0, 0]).flat(),
    ];
    give(update([...part(0, 0, 34, 16, 5), ...tiles]), piece);
    assert.deepEqual(point(own.picture, 0, 0), [10, 20, 30, 255]);
    assert.deepEqual(point(own.picture, 1, 2), [40, 50, 60, 255]);
    assert.deepEqual(point(own.picture, 3, 3), [40, 50, 60, 255]);
    assert.deepEqual(point(own.picture, 4, 3), [10, 20, 30, 255]);
    assert.deepEqual(point(own.picture, 16, 0), [70, 80, 90, 255]);
    assert.deepEqual(point(own.picture, 31, 15), [10, 20, 30, 255]);
    assert.deepEqual(point(own.picture, 33, 1), [3, 0, 0, 255]);
    assert.equal(own.keysByPosition, false);
    give(update([...part(0, 0, 0, 0, -258)]), piece);
    assert.equal(own.keysByPosition, true);
    give(update([...part(0, 0, 64, 32, -223)]), piece);
    assert.deepEqual([own.picture.width, own.picture.height], [64, 32]);
    assert.deepEqual(sent.at(-1), [3, 0, 0, 0, 0, 0, 0, 64, 0, 32], "all of it, at its new size");
    give(update([...part(1, 0, 2, 1, -239), 9, 9, 9, 0, 8, 8, 8, 0, 0b01000000]), piece);
    const shape = heard.findLast(([what]) => what === "cursor")[1];
    assert.deepEqual([shape.x, shape.width, ...shape.points], [1, 2, 9, 9, 9, 0, 8, 8, 8, 255]);
    give([2, 3, 0, 0, 0, ...u32(2), 0x61, 0xe4], piece);
    assert.deepEqual(heard.slice(-2), [["bell", undefined], ["clipboard", "aä"]]);
  }
});

test("a picture knows what of it was changed", () => {
  const picture = new Picture(8, 8);
  assert.deepEqual(picture.take(), { left: 0, top: 0, right: 8, bottom: 8 });
  picture.touch(1, 1, 2, 2);
  picture.touch(5, 4, 1, 1);
  assert.deepEqual(picture.take(), { left: 1, top: 1, right: 6, bottom: 5 });
  assert.equal(picture.take(), null);
});

test("keys, the pointer and text are sent", () => {
  const { own, sent, give, hello } = session();
  own.key(true, 0x61, 0);
  assert.deepEqual(sent.slice(1), [], "nothing before it is ready");
  hello();
  own.key(true, 0x61, 0x1e);
  assert.deepEqual(sent.at(-1), [4, 1, 0, 0, ...u32(0x61)]);
  give(update([...part(0, 0, 0, 0, -258)]));
  own.key(false, 0x61, 0x1e);
  assert.deepEqual(sent.at(-1), [255, 0, 0, 0, ...u32(0x61), ...u32(0x1e)]);
  own.pointer(400.5, -3, 5);
  assert.deepEqual(sent.at(-1), [5, 5, ...u16(39), ...u16(0)]);
  own.clipboard("aä€");
  assert.deepEqual(sent.at(-1), [6, 0, 0, 0, ...u32(3), 0x61, 0xe4, 63]);
});

test("keysyms and places of keys", () => {
  const of = [
    ["a", 0, 0x61], ["A", 0, 0x41], ["ä", 0, 0xe4], ["€", 0, 0x010020ac], ["😀", 0, 0x0101f600],
    ["Enter", 0, 0xff0d], ["Enter", 3, 0xff8d], ["7", 3, 0xffb7], ["Home", 3, 0xff95], ["Shift", 1, 0xffe1],
    ["Shift", 2, 0xffe2], ["Control", 2, 0xffe4], ["AltGraph", 2, 0xfe03], ["F1", 0, 0xffbe],
    ["F12", 0, 0xffc9], ["Dead", 0, 0], ["Unidentified", 0, 0], ["constructor", 0, 0],
  ];
  for (const [key, location, wanted] of of) assert.equal(keysym(key, location), wanted, key);
  const places = {
    Escape: 1, Enter: 0x1c, KeyA: 0x1e, KeyZ: 0x2c, ShiftRight: 0x36, Space: 0x39, F10: 0x44, Numpad7: 0x47,
    NumpadDecimal: 0x53, F12: 0x58, ControlRight: 0x9d, AltRight: 0xb8, ArrowUp: 0xc8, Delete: 0xd3,
    ContextMenu: 0xdd, Nothing: 0,
  };
  for (const [code, wanted] of Object.entries(places)) assert.equal(position(code), wanted, code);
});

test("what a serial terminal sends for keys", () => {
  const sends = (key, more = {}, modes = {}) => bytesOfKey({ key, ...more }, modes);
  assert.equal(sends("a"), "a");
  assert.equal(sends("ä"), "ä");
  assert.equal(sends("Enter"), "\r");
  assert.equal(sends("Backspace"), "\x7f");
  assert.equal(sends("c", { ctrlKey: true }), "\x03");
  assert.equal(sends("]", { ctrlKey: true }), "\x1d");
  assert.equal(sends(" ", { ctrlKey: true }), "\0");
  assert.equal(sends("x", { altKey: true }), "\x1bx");
  assert.equal(sends("ArrowUp"), "\x1b[A");
  assert.equal(sends("ArrowUp", {}, { arrows: true }), "\x1bOA");
  assert.equal(sends("ArrowRight", { ctrlKey: true }), "\x1b[1;5C");
  assert.equal(sends("F1"), "\x1bOP");
  assert.equal(sends("Delete"), "\x1b[3~");
  assert.equal(sends("Tab", { shiftKey: true }), "\x1b[Z");
  assert.equal(sends("Shift"), null);
  // The third shift key is control and alt for some: it writes a sign.
  const third = { ctrlKey: true, altKey: true, getModifierState: () => true };
  assert.equal(sends("@", third), "@");
});

function terminal(columns = 10, rows = 4) {
  const answers = [];
  const own = new Terminal({ columns, rows, answer: (text) => answers.push(text) });
  const gives = (text) => {
    own.take(new TextEncoder().encode(text));
    return own.text();
  };
  return { own, answers, gives };
}

test("text, ends of lines, and what is kept of what leaves", () => {
  const { own, gives } = terminal();
  assert.equal(gives("abc\r\ndef\b\bX\ttab"), "abc\ndXf     ta\nb");
  gives("\r\n1\r\n2\r\n3\r\n4");
  assert.equal(own.text(), "1\n2\n3\n4");
  assert.equal(own.kept.map((line) => line.map((cell) => cell.sign).join("").trimEnd()).join("|"), "abc|dXf     ta|b");
  // The last column is written to without a line's end.
  const { own: other, gives: more } = terminal(3, 2);
  assert.equal(more("abc"), "abc");
  assert.deepEqual([other.row, other.column], [0, 2]);
  assert.equal(more("d"), "abc\nd");
  assert.equal(more("\x1b[?7lefgh"), "abc\ndeh");
});

test("UTF-8 that is cut anywhere", () => {
  const { own } = terminal();
  for (const byte of new TextEncoder().encode("ä€😀")) own.take(Uint8Array.of(byte));
  assert.equal(own.text(), "ä€😀");
});

test("the cursor goes where it is told", () => {
  const { own, answers, gives } = terminal();
  gives("\x1b[2;3Hx\x1b[A\x1b[Dy\x1b[10;99Hz\x1b[6n\x1b[c");
  assert.equal(own.text(), "  y\n  x\n\n         z");
  assert.deepEqual(answers, ["\x1b[4;10R", "\x1b[?6c"]);
  gives("\x1b7\x1b[H\x1b8");
  assert.deepEqual([own.row, own.column, own.isPastEnd], [3, 9, true]);
  gives("\x1b[2dq");
  assert.equal(own.lines[1][9].sign, "q");
});

test("lines and signs are erased, opened and closed", () => {
  const fresh = () => {
    const one = terminal(5, 3);
    one.gives("abcde\r\nfghij\r\nklmno\x1b[2;3H");
    return one;
  };
  const after = (order) => fresh().gives(order);
  assert.equal(after("\x1b[K"), "abcde\nfg\nklmno");
  assert.equal(after("\x1b[1K"), "abcde\n   ij\nklmno");
  assert.equal(after("\x1b[2K"), "abcde\n\nklmno");
  assert.equal(after("\x1b[J"), "abcde\nfg");
  assert.equal(after("\x1b[1J"), "\n   ij\nklmno");
  assert.equal(after("\x1b[2J"), "");
  assert.equal(after("\x1b[L"), "abcde\n\nfghij");
  assert.equal(after("\x1b[M"), "abcde\nklmno");
  assert.equal(after("\x1b[2P"), "abcde\nfgj\nklmno");
  assert.equal(after("\x1b[2@"), "abcde\nfg  h\nklmno");
  assert.equal(after("\x1b[2X"), "abcde\nfg  j\nklmno");
  assert.equal(after("\x1b[4hX"), "abcde\nfgXhi\nklmno");
});

test("a region scrolls alone", () => {
  const { own, gives } = terminal(5, 4);
  gives("1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\n");
  assert.equal(own.text(), "1\n3\n\n4");
  assert.equal(own.kept.length, 0);
  gives("\x1b[2;1H\x1bM");
  assert.equal(own.text(), "1\n\n3\n4");
  gives("\x1b[?6h\x1b[1;1Hx\x1b[?6l\x1b[1;1Hy");
  assert.equal(own.text(), "y\nx\n3\n4");
});

test("colours and the like", () => {
  const { own, gives } = terminal(20, 2);
  gives("\x1b[1;31;47ma\x1b[7mb\x1b[22;27;39mc\x1b[94md\x1b[38;5;196me\x1b[48;2;1;2;255mf\x1b[38:2::4:5:6mg\x1b[mh");
  const look = own.lines[0].slice(0, 8).map(({ fore, back, attributes }) => [fore, back, attributes]);
  assert.deepEqual(look, [
    [1, 7, BOLD], [1, 7, BOLD | REVERSE], [null, 7, 0], [12, 7, 0], [196, 7, 0], [196, "#0102ff", 0],
    ["#040506", "#0102ff", 0], [null, null, 0],
  ]);
  assert.deepEqual([ofPalette(16), ofPalette(196), ofPalette(255)], ["#000000", "#ff0000", "#eeeeee"]);
});

test("the other screen, sets of signs, titles, and orders that are not known", () => {
  const { own, gives } = terminal();
  gives("before\x1b[?1049h\x1b[Hinside");
  assert.equal(own.text(), "inside");
  gives("\x1b[?1049l");
  assert.equal(own.text(), "before");
  assert.equal(own.column, 6);
  gives("\r\x1b(0lqk\x1b(B x");
  assert.equal(own.text(), "┌─┐ xe");
  gives("\r\x1b[2K\x1b]0;a title\x07\x1b]2;another\x1b\\\x1bP1$x\x1b\\\x1b[>4;1m\x1b[5 q\x1b[?9999hok");
  assert.equal(own.text(), "ok");
  gives(`\x1b[${"1;".repeat(4_000)}mx`);
  gives("\x1bc");
  assert.equal(own.text(), "");
});
