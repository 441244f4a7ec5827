//! Texts to embeddings, as the server embeds those of the live version: loaded when the first text comes.
//!
//! Not here: what embeddings are compared with (the engine), and who may ask (the page).

import { loadModule } from './backend.js';
import { Backoff } from './backoff.js';
import { FreshetError, toFreshetError } from './errors.js';

/** A server packs the encoder in the background after the first version of a generation, some ten seconds long. */
const WAIT_MILLIS_MAX = 60_000;
/** The file is read in pieces, and others have their turn after so long. */
const SLICE_MILLIS = 12;

/**
 * @typedef {object} TextOptions
 * @property {import('./downloads.js').Downloads} downloads
 * @property {string} [assets] address of a copy of the package, where the bundler makes none
 * @property {AbortSignal} signal of the host's end
 * @property {() => import('./backend.js').Runtime} runtime the module to load
 */

export class TextHost {
  #options;
  /** What embeds, by its generation; the one before goes with the instance it lives in. @type {{generation: number, embedder: Promise<any>} | undefined} */
  #live;

  /** @param {TextOptions} options */
  constructor(options) {
    this.#options = options;
  }

  /**
   * Embeds texts one after another.
   * @param {string[]} texts
   * @param {number} generation of the version they are compared with
   * @param {(note: Uint8Array) => Promise<string>} verify asks the engine whether the server's note is to be believed
   * @returns {Promise<Float32Array>} row by row
   */
  async embed(texts, generation, verify) {
    const embedder = await this.load(generation, verify);
    const rows = [];
    for (const text of texts) {
      rows.push(this.#guarded(() => embedder.embed(text)));
      if (rows.length < texts.length) await othersTurn();
    }
    const dim = rows[0]?.length ?? 0;
    const all = new Float32Array(rows.length * dim);
    rows.forEach((row, idx) => all.set(row, idx * dim));
    return all;
  }

  /**
   * Loads what embeds texts of a generation.
   * @param {number} generation
   * @param {(note: Uint8Array) => Promise<string>} verify
   */
  load(generation, verify) {
    if (this.#live?.generation !== generation) {
      const embedder = this.#open(generation, verify);
      const live = { generation, embedder };
      this.#live = live;
      embedder.catch(() => {
        if (this.#live === live) this.#live = undefined; // the next call tries again
      });
    }
    return this.#live.embedder;
  }

  async #open(generation, verify) {
    const { downloads, assets, signal, runtime } = this.#options;
    const note = await this.#note(generation);
    const encoder = JSON.parse(await verify(note));
    // What an encoder has learned comes beside a file that the browser mostly has.
    const { base: blob = encoder.packed, change } = encoder.changed ?? {};
    const [module, bytes, changeBytes] = await Promise.all([
      loadModule(runtime(), assets, () => (this.#live = undefined)),
      blob && downloads.textFile(blob),
      change && downloads.textFile(change),
    ]);
    if (!blob) return module.TextEmbedder.small();
    const reader = await downloads.checked(blob.id, () => new module.TextReader(blob.id, bytes));
    let sliceEnd = performance.now() + SLICE_MILLIS;
    while (reader.read_next()) {
      if (performance.now() < sliceEnd) continue;
      await othersTurn();
      if (signal.aborted) throw ended();
      sliceEnd = performance.now() + SLICE_MILLIS;
    }
    if (!change) return reader.finish();
    return downloads.checked(change.id, () => reader.finish_changed(change.id, changeBytes));
  }

  /** What the server says of the encoder. It is waited for where the server says when to ask again: then it is being packed. */
  async #note(generation) {
    const { downloads, signal } = this.#options;
    const end = performance.now() + WAIT_MILLIS_MAX;
    for (;;) {
      try {
        return await downloads.textNote(generation);
      } catch (error) {
        const isComing = error.code !== 'no_model'; // as every 404
        if (!isComing) throw new FreshetError('no_text_encoder', 'The server gives pages no text encoder for what ranks here.');
        const isAwaited = error.retryAfterMillis > 0 && performance.now() + error.retryAfterMillis <= end;
        if (!isAwaited) throw error;
        await new Backoff().wait(signal, error.retryAfterMillis);
        if (signal.aborted) throw ended();
      }
    }
  }

  /** A panic poisons the instance, so another is loaded for the next text. */
  #guarded(call) {
    try {
      return call();
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) this.#live = undefined;
      throw toFreshetError(error, 'text_failed');
    }
  }
}

function ended() {
  return new FreshetError('disposed', 'This Freshet was disposed.');
}

function othersTurn() {
  return new Promise((resolve) => setTimeout(resolve));
}
