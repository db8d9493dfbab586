// SPDX-License-Identifier: MIT
// As upgrade_crowd.py, which says what is asked and answered, with clients of the npm package ws.
//
//   NODE_PATH=/usr/share/nodejs node upgrade_crowd.js
"use strict";
const fs = require("fs");
const readline = require("readline");
const WebSocket = require("ws");

const SIZES = [40, 300, 70, 5000, 90, 1200, 20];
const FRAGMENT_PAUSE = 50;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function body(number) {
  const text = `c${number} ${`word${number % 7} `.repeat(Math.floor(SIZES[number % SIZES.length] / 6))}`.trimEnd();
  return number % 3 === 2 ? Buffer.concat([Buffer.from([255]), Buffer.from(text)]) : text;
}

class Client {
  constructor() {
    this.sent = this.echoed = this.gap = 0;
    this.expected = [];
    this.last = { a: null, g: null };
    this.heardAt = null;
    this.faults = [];
    this.closed = null;
  }

  connect(url, options) {
    return new Promise((resolve, reject) => {
      this.ws = new WebSocket(url, [], options);
      this.ws.on("open", () => resolve(this.ws._socket.localPort));
      this.ws.on("error", reject);
      this.ws.on("message", (data, isBinary) => this.take(data, isBinary));
      this.ws.on("close", (code) => (this.closed = code));
    });
  }

  take(data, isBinary) {
    const now = performance.now();
    if (this.heardAt !== null) this.gap = Math.max(this.gap, now - this.heardAt);
    this.heardAt = now;
    const kind = isBinary ? "" : String.fromCharCode(data[0]);
    if (kind === "a" || kind === "g") {
      const number = Number(data.toString().slice(1));
      if (this.last[kind] !== null && number !== this.last[kind] + 1) this.fault(`${kind}${number} after ${this.last[kind]}`);
      this.last[kind] = number;
    } else if (this.expected.length === 0) {
      this.fault(`not expected: ${data.toString("latin1").slice(0, 40)}`);
    } else {
      const wanted = body(this.expected.shift());
      this.echoed++;
      if (isBinary === (typeof wanted === "string") || !Buffer.from(wanted).equals(data))
        this.fault(`${data.toString("latin1").slice(0, 40)} instead of ${wanted.toString("latin1").slice(0, 40)}`);
    }
  }

  fault(what) {
    if (this.faults.length < 3) this.faults.push(what);
  }

  async talk(crowd, begin) {
    await sleep(begin);
    while (crowd.pace && this.closed === null) {
      const number = this.sent++;
      const whole = body(number);
      this.expected.push(number);
      if (number % 5 === 4) await this.sendFragments(whole);
      else this.ws.send(whole);
      await sleep(crowd.pace);
    }
  }

  async sendFragments(whole) {
    const third = Math.floor(whole.length / 3);
    const binary = typeof whole !== "string";
    this.ws.send(whole.slice(0, third), { fin: false, binary });
    await sleep(FRAGMENT_PAUSE);
    this.ws.send(whole.slice(third, 2 * third), { fin: false, binary });
    await sleep(FRAGMENT_PAUSE);
    this.ws.send(whole.slice(2 * third), { fin: true, binary });
  }
}

class Crowd {
  constructor() {
    this.clients = [];
    this.pace = 0;
    this.talking = [];
  }

  async connect({ url, count, deflate, ca, tls }) {
    const options = { perMessageDeflate: deflate ? { threshold: 64 } : false, handshakeTimeout: 60000 };
    if (ca) options.ca = fs.readFileSync(ca);
    if (tls) options.minVersion = options.maxVersion = tls.replace("_", ".");
    const ports = [];
    for (let i = 0; i < count; i += 50) {
      const some = Array.from({ length: Math.min(50, count - i) }, () => new Client());
      ports.push(...(await Promise.all(some.map((client) => client.connect(url, options)))));
      this.clients.push(...some);
    }
    return { ports };
  }

  async talk({ pace }) {
    this.pace = pace * 1000;
    this.talking = this.clients.map((client, i) => client.talk(this, (this.pace * i) / this.clients.length));
    return {};
  }

  async hush() {
    this.pace = 0;
    await Promise.all(this.talking);
    const deadline = performance.now() + 30000;
    while (performance.now() < deadline && this.clients.some((c) => c.closed === null && c.expected.length > 0)) await sleep(20);
    return {};
  }

  async report() {
    const sum = (of) => this.clients.reduce((total, client) => total + of(client), 0);
    return {
      sent: sum((c) => c.sent),
      echoed: sum((c) => c.echoed),
      missing: sum((c) => c.expected.length),
      closed: this.clients.filter((c) => c.closed !== null).map((c) => c.closed),
      faults: this.clients.flatMap((c) => c.faults).slice(0, 10),
      gap: this.clients.reduce((most, c) => Math.max(most, c.gap), 0) / 1000,
      fanned: this.clients.map((c) => [c.last.a, c.last.g]),
    };
  }
}

async function main() {
  const crowd = new Crowd();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const how = JSON.parse(line);
    console.log(JSON.stringify(await crowd[how.do](how)));
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
