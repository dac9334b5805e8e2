// Runs one scenario of the SDK for JavaScript: node scenarios.cjs TRANSPORT SCENARIO SETTINGS
//
// SETTINGS is JSON: the URLs of the servers, and the secret of their tokens. Where a scenario needs
// something done to the server, it prints a line, and goes on when a line comes back.
"use strict";

const readline = require("node:readline");
const { Harness, assert, codeOf, collecting, event, net, until, within } = require("./harness.cjs");

const input = readline.createInterface({ input: process.stdin });

async function askFor(what) {
  const done = within(new Promise((resolve) => input.once("line", resolve)), what, 60_000);
  console.log(what);
  await done;
}

const seconds = () => Math.floor(Date.now() / 1000);

const scenarios = {
  async one_breath(h) {
    const channel = h.name("breath");
    const client = h.client();
    const subscription = client.newSubscription(channel);
    client.connect();
    subscription.subscribe();
    subscription.unsubscribe();
    client.disconnect();
    const other = await h.connected();
    const second = await h.subscribed(other, channel);
    const got = event(second, "publication");
    await second.publish({ n: 1 });
    const publication = await got;
    assert.deepEqual(publication.data, { n: 1 });
    assert.equal(publication.offset, 1);
    assert.ok(publication.info.client);
    const { clients } = await second.presence();
    assert.deepEqual(Object.keys(clients), [publication.info.client]);
  },

  async history(h) {
    const client = await h.connected();
    const subscription = await h.subscribed(client, h.name("history"));
    for (const n of [1, 2, 3]) await subscription.publish(n);
    const data = (found) => found.publications.map((each) => each.data);
    const all = await subscription.history({ limit: -1 });
    assert.deepEqual(data(all), [1, 2, 3]);
    assert.equal(all.offset, 3);
    const position = await subscription.history({ limit: 0 });
    assert.deepEqual([data(position), position.offset, position.epoch], [[], 3, all.epoch]);
    const newest = await subscription.history({ limit: 2, reverse: true });
    assert.deepEqual(data(newest), [3, 2]);
    const since = await subscription.history({ limit: 5, since: { offset: 2, epoch: all.epoch } });
    assert.deepEqual(data(since), [3]);
    const wrong = { limit: 5, since: { offset: 2, epoch: "wrong" } };
    assert.equal(await codeOf(subscription.history(wrong)), 112);
  },

  async rpc_that_nobody_handles(h) {
    const early = h.client();
    const queued = codeOf(early.rpc("nobody", {}));
    early.connect();
    assert.equal(await queued, 108);
    assert.equal(await codeOf(early.rpc("nobody", {})), 108);
  },

  async unsubscribe_in_every_order(h) {
    const channel = h.name("quick");
    const client = await h.connected();
    const watcher = await h.connected();
    const count = async () => {
      const found = await watcher.presenceStats(channel);
      return [found.numClients, found.numUsers];
    };
    const subscription = client.newSubscription(channel);
    for (let turn = 0; turn < 10; turn += 1) {
      subscription.subscribe();
      subscription.unsubscribe();
    }
    const done = event(subscription, "subscribed");
    subscription.subscribe();
    await done;
    assert.deepEqual(await count(), [1, 1]);
    assert.equal(Object.keys((await watcher.presence(channel)).clients).length, 1);
    subscription.unsubscribe();
    await until(async () => (await count())[0] === 0, "nobody is there");
    assert.deepEqual(await count(), [0, 0]);
  },

  async presence_after_others_were_cut(h) {
    const channel = h.name("cut");
    const cable = await h.cable();
    const cut = await h.connected({ minReconnectDelay: 60_000, maxReconnectDelay: 60_000 }, cable.url);
    await h.subscribed(cut, channel);
    const watcher = await h.connected();
    assert.equal((await watcher.presenceStats(channel)).numClients, 1);
    cable.cut();
    await until(async () => !(await watcher.presenceStats(channel)).numClients, "nobody is there");
  },

  async connect_and_disconnect_in_a_row(h) {
    const port = Number(new URL(h.urls.open).port);
    for (const text of ["", "GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\n"]) {
      const socket = net.connect(port, "127.0.0.1");
      await event(socket, "connect");
      socket.write(text);
      socket.destroy();
    }
    const client = h.client();
    for (let turn = 0; turn < 10; turn += 1) {
      client.connect();
      client.disconnect();
    }
    for (let turn = 0; turn < 10; turn += 1) {
      const done = event(client, "connected");
      client.connect();
      await done;
      client.disconnect();
    }
    const done = event(client, "connected");
    client.connect();
    await done;
  },

  async unsubscribe_before_the_reply(h) {
    const client = h.client();
    const subscription = collecting(client.newSubscription(h.name("between")));
    client.connect();
    subscription.subscribe();
    await new Promise((resolve) => setImmediate(resolve));
    subscription.unsubscribe();
    await client.ready(5000);
    const done = event(subscription, "subscribed");
    subscription.subscribe();
    await done;
    await subscription.publish("after");
    await until(() => subscription.data.length, "a publication");
    assert.deepEqual(subscription.data, ["after"]);
  },

  async tokens_without_a_user(h) {
    const client = await h.connected({ token: h.token({ iat: seconds() }), data: {} });
    const names = [1, 2, 3, 4, 5].map((n) => h.name(`$token${n}`));
    const subscriptions = await Promise.all(names.map((channel) => h.subscribed(client, channel, {
      token: h.token({ iat: seconds(), channel }),
    })));
    for (const subscription of subscriptions) {
      await subscription.publish(subscription.channel);
      await until(() => subscription.data.length, "a publication");
    }
    const { clients } = await subscriptions[0].presence();
    assert.deepEqual(Object.values(clients).map((each) => each.user), [""]);
  },

  async token_with_a_user(h) {
    const claims = { sub: "alice", info: { name: "Alice" } };
    const client = await h.connected({ token: h.token(claims) });
    const subscription = await h.subscribed(client, h.name("user"));
    const [found] = Object.values((await subscription.presence()).clients);
    assert.deepEqual([found.user, found.connInfo], ["alice", { name: "Alice" }]);
  },

  async channels_of_a_token(h) {
    const channel = h.name("server-side");
    const client = h.client({ token: h.token({ sub: "bob", channels: [channel] }) });
    const subscribed = event(client, "subscribed");
    client.connect();
    assert.equal((await subscribed).channel, channel);
    const other = await h.connected();
    const got = event(client, "publication");
    await other.publish(channel, "hello");
    const publication = await got;
    assert.deepEqual([publication.channel, publication.data], [channel, "hello"]);
  },

  async joins_and_leaves(h) {
    const channel = `joins:${h.name("x")}`;
    const watcher = await h.connected();
    const subscription = await h.subscribed(watcher, channel, { joinLeave: true });
    const joins = [], leaves = [];
    subscription.on("join", (context) => joins.push(context.info.client));
    subscription.on("leave", (context) => leaves.push(context.info.client));
    const other = await h.connected();
    const second = await h.subscribed(other, channel);
    const [id] = Object.keys((await second.presence()).clients).filter((each) => each !== joins[0]);
    await until(() => joins.length >= 1, "a join");
    second.unsubscribe();
    await until(() => leaves.length === 1, "a leave");
    assert.ok(joins.includes(leaves[0]), `${joins} ${leaves} ${id}`);
  },

  async recovery_after_a_cut(h) {
    const channel = `recovery:${h.name("x")}`;
    const cable = await h.cable();
    const client = await h.connected({}, cable.url);
    const other = await h.connected();
    const subscription = await h.subscribed(client, channel);
    await other.publish(channel, 0);
    await until(() => subscription.data.length === 1, "the first publication");
    cable.cut();
    await until(() => client.state === "connecting", "the cut is noticed");
    for (const n of [1, 2, 3]) await other.publish(channel, n);
    const again = event(subscription, "subscribed");
    cable.mend();
    const context = await again;
    assert.deepEqual([context.wasRecovering, context.recovered], [true, true]);
    await other.publish(channel, 4);
    await until(() => subscription.data.length >= 5, "all publications");
    assert.deepEqual(subscription.data, [0, 1, 2, 3, 4]);
  },

  async recovery_after_an_unsubscribe(h) {
    const channel = `recovery:${h.name("x")}`;
    const client = await h.connected();
    const other = await h.connected();
    const subscription = await h.subscribed(client, channel);
    subscription.unsubscribe();
    for (const n of [1, 2]) await other.publish(channel, n);
    const again = event(subscription, "subscribed");
    subscription.subscribe();
    assert.equal((await again).recovered, true);
    await other.publish(channel, 3);
    await until(() => subscription.data.length >= 3, "all publications");
    assert.deepEqual(subscription.data, [1, 2, 3]);
  },

  async unrecoverable_position(h) {
    const channel = `smallhistory:${h.name("x")}`;
    const cable = await h.cable();
    const client = await h.connected({}, cable.url);
    const other = await h.connected();
    const subscription = await h.subscribed(client, channel);
    cable.cut();
    await until(() => client.state === "connecting", "the cut is noticed");
    for (const n of [1, 2, 3, 4]) await other.publish(channel, n);
    const again = event(subscription, "subscribed");
    cable.mend();
    const context = await again;
    assert.deepEqual([context.wasRecovering, context.recovered], [true, false]);
    await other.publish(channel, 5);
    await until(() => subscription.data.length, "the next publication");
    assert.deepEqual(subscription.data, [5]);
  },

  async restart_of_the_daemon(h) {
    const [memory, kept] = [`recovery:${h.name("x")}`, `kept-${h.transport}`];
    const cable = await h.cable();
    const client = await h.connected({}, cable.url);
    let other = await h.connected();
    const [lost, held] = [await h.subscribed(client, memory), await h.subscribed(client, kept)];
    await other.publish(memory, 1);
    await other.publish(kept, 1);
    await until(() => lost.data.length === 1 && held.data.length === 1, "the first publications");
    cable.cut();
    await other.publish(kept, 2);
    other.disconnect();
    await askFor("restart");
    other = await h.connected();
    await other.publish(kept, 3);
    const again = [event(lost, "subscribed"), event(held, "subscribed")];
    cable.mend();
    const [one, two] = await Promise.all(again);
    assert.deepEqual([one.wasRecovering, one.recovered], [true, false]);
    assert.deepEqual([two.wasRecovering, two.recovered], [true, true]);
    await other.publish(kept, 4);
    await until(() => held.data.length >= 4, "all publications");
    assert.deepEqual(held.data, [1, 2, 3, 4]);
  },

  async stop_of_the_daemon(h) {
    const client = await h.connected();
    const connecting = event(client, "connecting");
    const done = askFor("stop");
    const context = await connecting;
    assert.deepEqual([context.code, context.reason], [3001, "shutdown"]);
    await done;
  },

  async hundred_subscriptions(h) {
    const client = await h.connected();
    const names = Array.from({ length: 100 }, (_, n) => h.name(`hundred${n}`));
    const subscriptions = await Promise.all(names.map((name) => h.subscribed(client, name)));
    await Promise.all(subscriptions.map((each) => each.publish(each.channel)));
    await until(() => subscriptions.every((each) => each.data.length === 1), "100 publications");
    for (const each of subscriptions) assert.deepEqual(each.data, [each.channel]);
  },

  async a_token_that_expires(h) {
    let asked = 0;
    const claims = () => ({ sub: "alice", exp: seconds() + 2 });
    const getToken = async () => { asked += 1; return h.token(claims()); };
    const client = await h.connected({ getToken, token: h.token(claims()) }, h.urls.strict);
    const ends = [];
    client.on("connecting", (context) => ends.push(context));
    client.on("disconnected", (context) => ends.push(context));
    await until(() => asked >= 2, "new tokens");
    assert.deepEqual(ends, []);
    assert.equal(client.state, "connected");
  },

  async an_expired_token(h) {
    const old = h.token({ sub: "alice", exp: seconds() - 10 });
    const fresh = h.token({ sub: "alice" });
    const client = await h.connected({ token: old, getToken: async () => fresh }, h.urls.strict);
    assert.equal(client.state, "connected");
    const stuck = h.client({ token: old }, h.urls.strict);
    const ended = event(stuck, "disconnected");
    stuck.connect();
    assert.equal((await ended).code, 1);  // the SDK's own: it has no way to get a token
  },

  async a_channel_token_that_expires(h) {
    let asked = 0;
    const channel = h.name("$expires");
    const make = () => h.token({ sub: "alice", channel, exp: seconds() + 2 });
    const client = await h.connected({ token: h.token({ sub: "alice" }) }, h.urls.strict);
    const subscription = await h.subscribed(client, channel, {
      token: make(), getToken: async () => { asked += 1; return make(); },
    });
    const ends = [];
    subscription.on("subscribing", (context) => ends.push(context));
    subscription.on("unsubscribed", (context) => ends.push(context));
    await until(() => asked >= 2, "new tokens");
    assert.deepEqual(ends, []);
  },

  async unauthorized_in_each_place(h) {
    const refused = async (options, code) => {
      const client = h.client(options, h.urls.strict);
      const ended = event(client, "disconnected");
      client.connect();
      assert.equal((await ended).code, code);
    };
    await refused({ token: "no.token.here" }, 3500);
    await refused({ token: `${h.token({ sub: "alice" })}x` }, 3500);
    await refused({}, 3501);
    const client = await h.connected({ token: h.token({ sub: "alice" }) }, h.urls.strict);
    const denied = async (channel, code, options = {}) => {
      const subscription = client.newSubscription(channel, options);
      const ended = event(subscription, "unsubscribed");
      subscription.subscribe();
      assert.equal((await ended).code, code, channel);
    };
    const secret = h.name("$secret");
    await denied("users.bob", 103);
    await denied(secret, 103);
    await denied(h.name("nowhere:x"), 102);
    await denied(h.name("$other"), 103, { token: "no.token.here" });
    for (const action of ["publish", "presence", "presenceStats", "history"]) {
      const [last] = [{ publish: 1, history: { limit: 1 } }[action]];
      assert.equal(await codeOf(client[action]("users.bob", last)), 103, action);
    }
    const own = await h.subscribed(client, "users.alice");
    assert.equal(own.state, "subscribed");
    assert.equal(client.state, "connected");
    const foreign = client.newSubscription(h.name("$foreign"), {
      token: h.token({ sub: "bob", channel: h.name("$foreign") }),
    });
    const ended = event(client, "disconnected");
    foreign.subscribe();
    assert.equal((await ended).code, 3500);
  },
};

async function main() {
  const [transport, name, settings] = process.argv.slice(2);
  const { urls, secret } = JSON.parse(settings);
  const harness = new Harness(transport, urls, secret);
  await scenarios[name](harness);
  harness.close();
}

if (process.argv[2] === "--list") {
  console.log(JSON.stringify(Object.keys(scenarios)));
  process.exit(0);
}
main().then(
  () => process.exit(0),
  (error) => { console.error(error); process.exit(1); },
);
