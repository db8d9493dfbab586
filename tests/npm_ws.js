// SPDX-License-Identifier: MIT
// A client of the npm package ws, as a test wants it: echoes each message of the list and says what it saw, as JSON.
//
//   NODE_PATH=/usr/share/nodejs node npm_ws.js '{"url": "wss://...", "ca": "ca.pem", "deflate": {...}, "messages": ["a", {"hex": "00ff"}],
//                                               "sizes": [0, 1, 65536], "clients": 3, "protocols": ["chat"], "origin": "..."}'
"use strict";
const fs = require("fs");
const WebSocket = require("ws");

const wish = JSON.parse(process.argv[2]);
const options = { perMessageDeflate: wish.deflate === undefined ? false : wish.deflate, handshakeTimeout: 20000 };
if (wish.ca) options.ca = fs.readFileSync(wish.ca);
if (wish.origin) options.origin = wish.origin;

const messages = (wish.messages || []).map((m) => (typeof m === "string" ? m : Buffer.from(m.hex, "hex")));
for (const size of wish.sizes || []) {
  // What compresses well, but is no bomb.
  const text = Array.from({ length: size / 4 + 1 }, (_, i) => "word" + ((i * 7919) % 10007)).join(" ");
  messages.push(text.slice(0, size));
  messages.push(Buffer.from(Array.from({ length: size }, (_, i) => (i === 0 ? 255 : (i * i) >> 3))));
}

function same(sent, data, isBinary) {
  const bytes = Buffer.from(sent);
  if (!bytes.equals(data)) return false;
  return isBinary === (typeof sent !== "string") || bytes.length === 0; // an empty message comes back as text
}

function one() {
  return new Promise((resolve, reject) => {
    const ws = new WebSocket(wish.url, wish.protocols || [], options);
    const seen = { echoed: 0, pongs: 0 };
    const next = () => {
      if (seen.echoed < messages.length) ws.send(messages[seen.echoed], { compress: true, fin: true });
      else ws.ping("are you there");
    };
    ws.on("upgrade", (response) => (seen.headers = response.headers));
    ws.on("open", () => {
      seen.protocol = ws.protocol;
      seen.extensions = ws.extensions;
      next();
    });
    ws.on("message", (data, isBinary) => {
      if (!same(messages[seen.echoed], data, isBinary)) reject(new Error(`message ${seen.echoed} came back wrong: ${data.length} bytes`));
      seen.echoed++;
      next();
    });
    ws.on("pong", () => {
      seen.pongs++;
      ws.close(4000, "done");
    });
    ws.on("unexpected-response", (request, response) => {
      resolve({ status: response.statusCode });
      request.destroy();
    });
    ws.on("error", reject);
    ws.on("close", (code) => resolve({ ...seen, code }));
  });
}

Promise.all(Array.from({ length: wish.clients || 1 }, one)).then(
  (all) => console.log(JSON.stringify(all)),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
