//! Texts to embeddings, as the server embeds those of the live version: loaded when the first text comes.
//!
//! Not here: what embeddings are compared with (the engine), and who may ask (the page).

import { loadModule } from './backend.js';
import { FreshetError, toFreshetError } from './errors.js';
import { textRuntime } from './runtime-text.js';

/** A server makes the encoder in the background after its first version. */
const WAIT_MILLIS_MAX = 60_000;
const RETRY_MILLIS = 2_000;
/** The file is read in pieces, and others have their turn after so long. */
const SLICE_MILLIS = 12;

/**
 * @typedef {object} TextOptions
 * @property {import('./downloads.js').Downloads} downloads
 * @property {string} [assets] address of a copy of the package, where the bundler makes none
 * @property {AbortSignal} signal ends the waiting
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
    const { downloads, assets, signal } = this.#options;
    const note = await this.#note(generation);
    const encoder = JSON.parse(await verify(note));
    const runtime = textRuntime();
    const blob = encoder.packed;
    const [module, bytes] = await Promise.all([
      loadModule(runtime, assets, () => (this.#live = undefined)),
      blob && downloads.textFile(blob),
    ]);
    if (!blob) return module.TextEmbedder.small();
    const reader = new module.TextReader(blob.id, bytes);
    let sliceEnd = performance.now() + SLICE_MILLIS;
    while (reader.read_next()) {
      if (performance.now() < sliceEnd) continue;
      await othersTurn();
      if (signal.aborted) throw new FreshetError('disposed', 'This Freshet was disposed.');
      sliceEnd = performance.now() + SLICE_MILLIS;
    }
    return reader.finish();
  }

  /** What the server says of the encoder, once it has one. */
  async #note(generation) {
    const { downloads, signal } = this.#options;
    const end = performance.now() + WAIT_MILLIS_MAX;
    for (;;) {
      try {
        return await downloads.textNote(generation);
      } catch (error) {
        const isMissing = error.code === 'no_model'; // as every 404
        if (isMissing) throw new FreshetError('no_text_encoder', 'The server gives pages no text encoder for this model.');
        const wait = error.retryAfterMillis || RETRY_MILLIS;
        if (signal.aborted || performance.now() + wait > end) throw error;
        await new Promise((resolve) => setTimeout(resolve, wait));
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

function othersTurn() {
  return new Promise((resolve) => setTimeout(resolve));
}
