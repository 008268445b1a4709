// A WebSocket that reconnects by itself, except after close codes that would only come again.

const FIRST_DELAY = 500; // milliseconds; doubles with each failure
const LONGEST_DELAY = 15_000;
const OPEN_LIMIT = 10_000; // a connection that does not open in this time has failed
const PROBE_LIMIT = 5_000; // a connection without an answer for this long after a probe has failed
const STEADY = 10_000; // a connection that stood this long sets the delay back

// Close codes after which a new connection would end in the same way; after all other codes a new connection is worth a try. Codes from
// 3000 on are the application's own: here, the server closed this client on purpose.
const FINAL = new Set([1000, 1002, 1003, 1007, 1009, 1010]);
const isFinal = code => FINAL.has(code) || code >= 3000;

export class Connection {
  #url;
  #on;
  #socket = null;
  #failures = 0;
  #timer = 0; // runs while a new attempt is due, and not after the connection has ended for good
  #deadline = 0;

  // `on.state(state, detail)` is called with "connecting", "open", "waiting" (detail.until: time of the next attempt) or
  // "closed" (detail.code, detail.reason: for good); `on.message(value)` with each message.
  constructor(url, on) {
    this.#url = url;
    this.#on = on;
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  // Connects now, also if an attempt is due later. Does nothing if a connection stands or is being made.
  open() {
    if (this.#socket) return;
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#on.state("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    let steady = 0;
    this.#expect(OPEN_LIMIT);
    socket.onopen = () => {
      clearTimeout(this.#deadline);
      steady = setTimeout(() => (this.#failures = 0), STEADY);
      this.#on.state("open");
    };
    socket.onmessage = event => {
      clearTimeout(this.#deadline);
      this.#on.message(JSON.parse(event.data));
    };
    socket.onclose = event => {
      clearTimeout(steady);
      this.#ended(event.code, event.reason);
    };
  }

  // Connects now if an attempt is due later. A connection that has ended for good stays ended, until `open` is called.
  hurry() {
    if (this.#timer) this.open();
  }

  // Sends a value as JSON; false if there is no connection.
  send(value) {
    if (!this.isOpen) return false;
    this.#socket.send(JSON.stringify(value));
    return true;
  }

  // Sends a message that has an answer, and takes the connection for dead if no answer comes. A phone that slept, or changed
  // its network, would otherwise learn of the dead connection minutes later.
  probe(question) {
    if (this.send(question)) this.#expect(PROBE_LIMIT);
  }

  #expect(limit) {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => {
      const socket = this.#socket;
      if (!socket) return;
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
      this.#ended(1006, "no answer");
    }, limit);
  }

  #ended(code, reason) {
    this.#socket = null;
    clearTimeout(this.#deadline);
    if (isFinal(code)) return this.#on.state("closed", { code, reason });
    // Half of the delay is random: thousands of pages that lose one gateway do not come back in one wave.
    const most = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#failures);
    const delay = most / 2 + (Math.random() * most) / 2;
    this.#failures += 1;
    this.#timer = setTimeout(() => this.open(), delay);
    this.#on.state("waiting", { until: Date.now() + delay });
  }
}
