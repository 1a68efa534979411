// Sends the lines of its standard input to a store, each exactly once, however often the connection is lost.
// Usage: node producer.mjs SOCKET < events.ndjson
import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

const hello = JSON.stringify({ hello: { producer: randomUUID(), protocol: 1 } });
const unacked = []; // oldest first
let acked = 0; // lines, as the store counts them
let store = ""; // its id
let socket; // to a store that has said welcome
let ended = false; // whether nothing is added to the lines any more

async function* lines(stream) {
  let tail = "";
  for await (const piece of stream.setEncoding("utf8")) {
    const found = (tail + piece).split("\n"); // not readline, which also splits at U+2028
    tail = found.pop();
    yield* found;
  }
}

function letGo(count) {
  if (count > acked) unacked.splice(0, count - acked);
  acked = Math.max(acked, count);
  if (ended && unacked.length === 0) socket?.end('{"bye":{}}\n');
}

function hear({ welcome, ack, reject, error }, connection) {
  if (welcome) {
    if (welcome.store !== store) [store, acked] = [welcome.store, welcome.lines]; // it counts from there
    if (welcome.lines < acked || welcome.lines > acked + unacked.length) {
      throw new Error(`the store counts ${welcome.lines} lines, and has acked ${acked}`);
    }
    socket = connection;
    letGo(welcome.lines);
    for (const line of unacked) socket.write(line + "\n");
  }
  if (reject) console.error(`line ${reject.line}: ${reject.reason}`);
  if (ack) letGo(ack.lines);
  if (error && !["closed", "failed", "internal"].includes(error.code)) throw new Error(error.message);
}

async function stay() {
  while (!ended || unacked.length > 0) {
    const connection = connect(process.argv[2]).on("error", () => {});
    connection.write(hello + "\n");
    const messages = lines(connection);
    for (;;) {
      const next = await messages.next().catch(() => ({ done: true })); // the connection is lost
      if (next.done) break;
      hear(JSON.parse(next.value), connection);
    }
    socket = undefined;
    if (!ended || unacked.length > 0) await pause(100);
  }
}

const staying = stay();
for await (const line of lines(process.stdin)) {
  while (unacked.length >= 10_000) await pause(5); // what is kept is bounded
  unacked.push(line);
  socket?.write(line + "\n");
}
ended = true;
letGo(acked);
await staying;
