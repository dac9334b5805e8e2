// Reads a channel until its standard input ends, and prints what it gets as lines of JSON:
// node live_kills_reader.cjs TRANSPORT URL CHANNEL
"use strict";

const { Harness } = require("../tests/sdk/harness.cjs");

const [transport, url, channel] = process.argv.slice(2);
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const harness = new Harness(transport, { open: url }, "");
const client = harness.client();
client.on("disconnected", ({ code, reason }) => code && say({ disconnected: code, reason }));

const subscription = client.newSubscription(channel, {
  recoverable: true, minResubscribeDelay: 50, maxResubscribeDelay: 200,
});
subscription.on("publication", ({ offset, data }) => say({ offset, data }));
subscription.on("subscribed", ({ wasRecovering, recovered }) => say({ wasRecovering, recovered }));
subscription.on("unsubscribed", ({ code, reason }) => code && say({ unsubscribed: code, reason }));
subscription.subscribe();
client.connect();

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
