'use strict';
// node example.js NODE,NODE,… LOCK: hold a lock, tell on standard output what happens, and let go of it on a line of standard input.
const readline = require('node:readline');
const { Client } = require('./lockring.js');

const tell = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));

async function main([nodes, name]) {
  const client = new Client(nodes.split(','), { owner: 'example.js' });
  const stopWatching = client.watch(name, (lock, gap) => {
    tell('state', { holders: lock.holders.map((each) => each.owner), waiters: lock.waiter_count, gap });
  });
  const lock = await client.acquire(name, { ttlMs: 10000, waitMs: 60000 });
  tell('acquired', { generation: lock.generation });
  lock.on('lost', (reason) => {
    tell('lost', { reason });
    process.exitCode = 1;
  });
  const input = readline.createInterface({ input: process.stdin });
  for await (const line of input) {
    if (line === 'release') break;
    tell('held', { held: lock.held, remaining: Math.round(lock.remaining()), generation: lock.generation });
  }
  tell('released', { released: await lock.release() });
  stopWatching();
  client.close();
  input.close();
}

main(process.argv.slice(2)).catch((error) => {
  tell('failed', { code: error.code, text: error.details || error.message });
  process.exitCode = 1;
});
