// What the scenarios share: clients of the SDK, events to wait for, tokens, and a way to be cut off.
"use strict";

const assert = require("node:assert/strict");
const crypto = require("node:crypto");
const net = require("node:net");
const { Centrifuge } = require("centrifuge");
const WebSocket = require("ws");
const EventSource = require("eventsource");

const PATIENCE = 15_000;

// Waits for a promise, and fails if nothing comes.
function within(promise, what, patience = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came: ${what}`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Waits for one event of a client or a subscription.
function event(source, name) {
  return within(new Promise((resolve) => source.once(name, resolve)), name);
}

// Waits until a condition holds.
async function until(holds, what) {
  const end = Date.now() + PATIENCE;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `never came true: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// Returns the code of the error that a promise fails with.
async function codeOf(promise) {
  try {
    await within(promise, "an error");
  } catch (error) {
    return error.code;
  }
  throw new Error("there was no error");
}

class Harness {
  constructor(transport, urls, secret) {
    this.transport = transport;
    this.urls = urls;
    this.secret = secret;
    this.clients = [];
    this.servers = [];
    this.unique = crypto.randomBytes(4).toString("hex");
  }

  // A name of a channel that no other run uses.
  name(text) {
    return `${text}-${this.unique}`;
  }

  // A client that is not connected yet; `base` is the URL of a server.
  client(options = {}, base = this.urls.open) {
    const common = {
      minReconnectDelay: 50, maxReconnectDelay: 200, timeout: 5000, fetch: globalThis.fetch, ...options,
    };
    let client;
    if (this.transport === "websocket") {
      const endpoint = `${base.replace("http", "ws")}/connection/websocket`;
      client = new Centrifuge(endpoint, { ...common, websocket: WebSocket });
    } else {
      const endpoint = `${base}/connection/${this.transport}`;
      client = new Centrifuge([{ transport: this.transport, endpoint }], {
        ...common,
        eventsource: EventSource,
        readableStream: globalThis.ReadableStream,
        emulationEndpoint: `${base}/emulation`,
      });
    }
    this.clients.push(client);
    return client;
  }

  // A client that is connected.
  async connected(options = {}, base = this.urls.open) {
    const client = this.client(options, base);
    const done = event(client, "connected");
    client.connect();
    await done;
    return client;
  }

  // A subscription that is subscribed, with the publications that it got in `data`.
  async subscribed(client, channel, options = {}) {
    const subscription = collecting(client.newSubscription(channel, options));
    const done = event(subscription, "subscribed");
    subscription.subscribe();
    subscription.first = await done;
    return subscription;
  }

  token(claims) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
    const signature = crypto.createHmac("sha256", this.secret).update(text).digest("base64url");
    return `${text}.${signature}`;
  }

  // A port that passes everything on to a server, until it is cut.
  async cable(base = this.urls.open) {
    const port = Number(new URL(base).port);
    const sockets = new Set();
    let open = true;
    const server = net.createServer((near) => {
      if (!open) {
        near.destroy();
        return;
      }
      const far = net.connect(port, "127.0.0.1");
      for (const [one, other] of [[near, far], [far, near]]) {
        sockets.add(one);
        one.pipe(other);
        one.on("error", () => other.destroy());
        one.on("close", () => { sockets.delete(one); other.destroy(); });
      }
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    this.servers.push(server);
    return {
      url: `http://127.0.0.1:${server.address().port}`,
      cut() {
        open = false;
        for (const socket of sockets) socket.destroy();
      },
      mend() { open = true; },
    };
  }

  close() {
    for (const client of this.clients) client.disconnect();
    for (const server of this.servers) server.close();
  }
}

// Lets a subscription keep the data that it gets.
function collecting(subscription) {
  subscription.data = [];
  subscription.on("publication", (context) => subscription.data.push(context.data));
  return subscription;
}

module.exports = { Harness, assert, codeOf, collecting, event, net, until, within };
