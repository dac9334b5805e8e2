// @ts-check
/**
 * Live channels: one stream of `/events`, which goes on by itself after a failure.
 *
 * It is read with `fetch`: an `EventSource` can neither send a token nor tell why it was refused,
 * and gives up for good on an answer such as 503, which a daemon gives while it starts.
 */

import { address, credentials } from "./api.js";

/** Seconds without a byte, not even a comment, after which a stream is dead. */
const SILENCE = 75;
/** Seconds until the first attempt after a failure, and the most. */
const [FIRST, MOST] = [0.5, 8];

/** @typedef {"connecting" | "live" | "offline" | "refused"} LiveState */

/**
 * Tells of each publication by an event that is named as its channel, whose `detail` is its data;
 * of the state by `state`, and by `resumed` that there was an interruption which is over.
 */
export class LiveStream extends EventTarget {
  /** @type {LiveState} */
  state = "connecting";
  #stopped = false;
  #delay = FIRST;
  #lastId = "";
  #wasLive = false;
  /** @type {AbortController} */
  #attempt = new AbortController();
  /** @type {() => void} */
  #wake = () => {};
  #heard = 0;

  /**
   * @param {string[]} channels
   * @param {Record<string, any>} [wishes] further params of the stream
   * @param {string[]} [fallback] the channels to show if those are refused
   */
  constructor(channels, wishes = {}, fallback = []) {
    super();
    this.channels = channels;
    this.wishes = wishes;
    this.fallback = fallback;
  }

  start() {
    window.addEventListener("online", this.retry);
    document.addEventListener("visibilitychange", this.retry);
    this.#run();
    return this;
  }

  stop() {
    this.#stopped = true;
    window.removeEventListener("online", this.retry);
    document.removeEventListener("visibilitychange", this.retry);
    this.#attempt.abort();
    this.#wake();
  }

  /** Tries now, if it waits. */
  retry = () => {
    if (!document.hidden) this.#wake();
  };

  async #run() {
    while (!this.#stopped) {
      const again = await this.#once();
      if (this.#stopped) return;
      this.#set(again ? "offline" : "refused");
      const wait = again ? this.#delay * (0.8 + Math.random() * 0.4) : MOST;
      this.#delay = Math.min(MOST, this.#delay * 2);
      await new Promise((done) => {
        this.#wake = () => done(undefined);
        setTimeout(done, wait * 1000);
      });
    }
  }

  /** Reads one connection to its end; returns whether it is worth another try soon. */
  async #once() {
    this.#attempt = new AbortController();
    this.#heard = performance.now();
    const watch = setInterval(() => {
      if (performance.now() - this.#heard > SILENCE * 1000) this.#attempt.abort();
    }, 5000);
    try {
      const query = new URLSearchParams(this.channels.map((name) => ["channel", name]));
      for (const [name, value] of Object.entries(this.wishes)) query.append(name, String(value));
      const response = await fetch(`${address("/events")}?${query}`, {
        headers: { ...credentials(), Accept: "text/event-stream",
          ...(this.#lastId ? { "Last-Event-ID": this.#lastId } : {}) },
        signal: this.#attempt.signal,
        cache: "no-store",
      });
      if (!response.ok || response.body === null) {
        if (response.status >= 400 && response.status < 500 && this.fallback.length
            && this.channels !== this.fallback) {
          this.channels = this.fallback;
          this.#delay = 0.05;
          return true;
        }
        this.#lastId = ""; // perhaps that is what was wrong
        return response.status >= 500 || response.status === 429;
      }
      this.#delay = FIRST;
      const resumed = this.#wasLive;
      this.#wasLive = true;
      this.#set("live");
      if (resumed) this.dispatchEvent(new Event("resumed"));
      await this.#read(response.body);
    } catch {
      // The connection has failed: try again.
    } finally {
      clearInterval(watch);
    }
    return true;
  }

  /** @param {ReadableStream<Uint8Array>} body */
  async #read(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      this.#heard = performance.now();
      const parts = (rest + value).split("\n\n");
      rest = parts.pop() ?? "";
      for (const part of parts) this.#event(part);
    }
  }

  /** @param {string} text one event of the stream */
  #event(text) {
    let [kind, data] = ["message", ""];
    for (const line of text.split("\n")) {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon);
      const value = line.slice(colon + 1).replace(/^ /, "");
      if (name === "id") this.#lastId = value;
      else if (name === "event") kind = value;
      else if (name === "data") data += value;
    }
    if (!data) return;
    try {
      const told = JSON.parse(data);
      if (kind === "message") {
        this.dispatchEvent(new CustomEvent(told.channel, { detail: told.data }));
      } else {
        this.dispatchEvent(new CustomEvent(`stream.${kind}`, { detail: told }));
      }
    } catch (error) {
      console.warn("An event could not be read", error);
    }
  }

  /** @param {LiveState} state */
  #set(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }
}
