'use strict';
// A small lockring client for Node.js over gRPC: acquire with waiting, keep alive, watch, release. It talks to one node at a time,
// whichever has the lock, and goes on with the next node when that one fails.
//
//   const client = new Client(['127.0.0.1:9601', '127.0.0.1:9602']);
//   const lock = await client.acquire('nightly', { ttlMs: 10000, waitMs: 60000 });
//   lock.on('lost', (reason) => …);            // stop working: somebody else may get it
//   … lock.generation …                        // the fencing token, for whatever the lock protects
//   await lock.release();
//   client.close();

const { EventEmitter } = require('node:events');
const { randomUUID } = require('node:crypto');
const { existsSync } = require('node:fs');
const { hostname } = require('node:os');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

// Where this file is taken over alone, the folder `proto` of lockring goes beside it.
const PROTO = path.join('lockring', 'v1', 'lockring.proto');
const PROTO_DIRS = [process.env.LOCKRING_PROTO_DIR, path.join(__dirname, 'proto'), path.join(__dirname, '..', '..', 'proto')];
const protoDir = PROTO_DIRS.find((each) => each && existsSync(path.join(each, PROTO)));
if (!protoDir) {
  throw new Error(`no ${PROTO} found: copy lockring's folder proto beside ${__filename}, or name it in LOCKRING_PROTO_DIR`);
}
const definition = protoLoader.loadSync(PROTO, {
  includeDirs: [protoDir],
  keepCase: true,
  longs: Number, // exact below 2^53, which everything is but a state's version
  enums: String,
  defaults: true,
});
const { LockService } = grpc.loadPackageDefinition(definition).lockring.v1;

const PAUSE_MS = 100;
// After which the same call may be made again, at the same node or another.
const AGAIN = new Set([grpc.status.UNAVAILABLE, grpc.status.RESOURCE_EXHAUSTED]);

const now = () => performance.now(); // monotonic, in milliseconds

// A lock that this client holds, until `release` or the event 'lost' (with the reason).
class Lock extends EventEmitter {
  constructor(client, name, key, ttlMs, generation, deadline) {
    super();
    Object.assign(this, { name, key, ttlMs, generation, deadline, held: true });
    this._client = client;
    this._watchDeadline();
  }

  // Milliseconds for which it is surely held, by our own clock.
  remaining() {
    return this.held ? Math.max(0, this.deadline - now()) : 0;
  }

  async release() {
    if (!this.held) return false;
    this.held = false;
    clearTimeout(this._timer);
    this._client._held.delete(this.key);
    const request = { name: this.name, session: this._client.session, idempotency_key: this.key };
    try {
      await this._client._retried('Unlock', () => request, this.deadline);
      return true;
    } catch (error) {
      // Not held any more, or no node could be asked: its lease has ended, or will.
      if (error.code === grpc.status.FAILED_PRECONDITION || AGAIN.has(error.code)) return false;
      throw error;
    }
  }

  _extend(deadline) {
    if (this.held && now() < this.deadline && deadline > this.deadline) this.deadline = deadline;
  }

  _lose(reason) {
    if (!this.held) return;
    this.held = false;
    clearTimeout(this._timer);
    this._client._held.delete(this.key);
    this.emit('lost', reason);
  }

  // No server has to report the loss: if all are silent, our own clock ends the lease.
  _watchDeadline() {
    this._timer = setTimeout(() => {
      if (now() >= this.deadline) this._lose('local-deadline');
      else this._watchDeadline();
    }, Math.max(1, this.deadline - now()));
  }
}

class Client {
  // addresses: HOST:PORT of the gRPC ports of some nodes, better all.
  constructor(addresses, { owner = `${hostname()}/${process.pid}` } = {}) {
    this.session = randomUUID();
    this.owner = owner;
    this._held = new Map(); // by idempotency key
    this._sent = new Map(); // when each open KeepAliveRequest was sent
    this._sequence = 0;
    this._place = 0;
    this._closed = false;
    const options = { 'grpc.keepalive_time_ms': 10000, 'grpc.keepalive_timeout_ms': 3000 };
    this._stubs = addresses.map((each) => new LockService(each, grpc.credentials.createInsecure(), options));
  }

  // Wait for a lock; waitMs: 0 to try once, undefined without end. Rejects with code DEADLINE_EXCEEDED if others hold it for so long.
  async acquire(name, { ttlMs = 10000, waitMs = undefined, mode = 'MODE_EXCLUSIVE', permits = 1 } = {}) {
    const key = randomUUID(); // a repeated call with it never makes a second holder
    const began = now();
    let sent = began;
    for (;;) {
      const response = await this._retried('Lock', () => {
        sent = now();
        const waited = Math.floor(sent - began);
        return {
          name, session: this.session, idempotency_key: key, ttl_ms: ttlMs, owner: this.owner, mode, permits,
          wait_ms: waitMs === undefined ? undefined : Math.max(0, waitMs - waited), waited_ms: waited,
        };
      }, waitMs === undefined ? Infinity : began + Math.max(waitMs, 5000));
      const deadline = sent + response.lease_ms;
      if (deadline > now()) {
        const lock = new Lock(this, name, key, ttlMs, response.generation, deadline);
        this._held.set(key, lock);
        this._beat();
        return lock;
      }
      // After a long wait the lease may be over before the answer is here: ask again, under the same key.
    }
  }

  async findOwner(name) {
    return this._retried('FindLockOwner', () => ({ name }), now() + 10000);
  }

  // Calls onState(lock, gap) now and at each change, until the function that it returns is called.
  watch(name, onState) {
    let stream = null;
    let stopped = false;
    let again = false;
    const open = () => {
      if (stopped || this._closed) return;
      const place = this._place;
      stream = this._stubs[place].Watch({ name });
      stream.on('data', ({ lock, gap }) => {
        onState(lock, gap || again);
        again = false;
      });
      stream.on('error', () => {
        again = true;
        this._next(place);
        setTimeout(open, PAUSE_MS);
      });
    };
    open();
    return () => {
      stopped = true;
      if (stream) stream.cancel();
    };
  }

  // Ends everything; locks that are still held end with their leases.
  close() {
    this._closed = true;
    clearTimeout(this._beatTimer);
    for (const lock of [...this._held.values()]) lock._lose('closed');
    if (this._stream) this._stream.cancel();
    for (const stub of this._stubs) stub.close();
  }

  // ------------------------------------------------------------------ inner

  _next(place) {
    if (this._place === place) this._place = (place + 1) % this._stubs.length;
  }

  // Call a method until it is answered: at the next node where one cannot be reached.
  async _retried(method, request, until) {
    for (;;) {
      const place = this._place;
      try {
        return await new Promise((resolve, reject) => {
          this._stubs[place][method](request(), (error, response) => (error ? reject(error) : resolve(response)));
        });
      } catch (error) {
        if (!AGAIN.has(error.code) || this._closed || now() >= until) throw error;
        this._next(place);
        await sleep(PAUSE_MS);
      }
    }
  }

  // Renew all that is held, and plan the next time: after a third of the shortest TTL, or of what is left where that is
  // less. A node that is nearly out of its own lease answers with a short one, and with a whole one soon after.
  _beat() {
    clearTimeout(this._beatTimer);
    if (this._closed || this._held.size === 0) return;
    const locks = [...this._held.values()];
    const pause = Math.min(...locks.map((lock) => lock.ttlMs)) / 3;
    const next = Math.max(PAUSE_MS, Math.min(pause, ...locks.map((lock) => lock.remaining() / 2)));
    const oldest = Math.min(...this._sent.values());
    if (this._stream && now() - oldest > 2 * pause) this._stream.cancel(); // it has not answered: 'error' follows
    if (!this._stream) this._open();
    const sequence = ++this._sequence;
    this._sent.set(sequence, now());
    this._stream.write({
      sequence,
      locks: locks.map(({ name, key, ttlMs, generation }) => ({
        name, session: this.session, idempotency_key: key, ttl_ms: ttlMs, generation,
      })),
    });
    this._beatTimer = setTimeout(() => this._beat(), next);
  }

  _open() {
    const place = this._place;
    const stream = this._stubs[place].KeepAlive();
    this._stream = stream;
    this._sent.clear();
    stream.on('data', ({ sequence, locks }) => {
      const sent = this._sent.get(sequence);
      for (const each of [...this._sent.keys()]) if (each < sequence) this._sent.delete(each);
      for (const kept of locks) {
        const lock = this._held.get(kept.idempotency_key);
        if (!lock) continue;
        if (kept.verdict === 'VERDICT_LOST') lock._lose(kept.reason);
        else if (kept.verdict === 'VERDICT_HELD' && sent !== undefined) lock._extend(sent + kept.lease_ms);
      }
    });
    const ended = () => {
      if (this._stream !== stream) return;
      this._stream = null;
      this._next(place);
      clearTimeout(this._beatTimer);
      this._beatTimer = setTimeout(() => this._beat(), PAUSE_MS);
    };
    stream.on('error', ended);
    stream.on('end', ended);
  }
}

module.exports = { Client, Lock, grpc };
