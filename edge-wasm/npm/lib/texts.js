//! Questions to the engine that begin with a text. What embeds texts is loaded with the first of them (`text.js`).

import { FreshetError } from './errors.js';

/**
 * Loads what embeds texts.
 * @param {Omit<import('./text.js').TextOptions, 'runtime'>} options
 */
export async function loadTextHost(options) {
  try {
    const [{ TextHost }, { textRuntime }] = await Promise.all([import('./text.js'), import('./runtime-text.js')]);
    return new TextHost({ ...options, runtime: textRuntime });
  } catch (error) {
    throw new FreshetError('module_load_failed', `What embeds texts could not be loaded: ${error?.message ?? error}`);
  }
}

/** The note is signed by a key that the engine has not met yet; having said so, it asks for the keys. */
const KEYS_ARE_OLD = new Set(['unknown_key', 'stale_key_set']);

export class Texts {
  #load;
  #withEngine;
  #pump;
  /** @type {Promise<import('./text.js').TextHost> | undefined} */
  #host;

  /**
   * @param {() => Promise<import('./text.js').TextHost>} load
   * @param {<T>(body: (engine: any) => T | Promise<T>) => Promise<T>} withEngine
   * @param {() => Promise<void>} pump fetches what the engine asks for
   */
  constructor(load, withEngine, pump) {
    this.#load = load;
    this.#withEngine = withEngine;
    this.#pump = pump;
  }

  /**
   * Embeds texts as the version does that `body` is then asked of.
   * @param {string[]} texts
   * @param {(engine: any, embedded: Float32Array) => Promise<string>} body answers with JSON
   */
  async ask(texts, body) {
    const host = await this.#loaded();
    const verify = (note) => this.#withEngine((engine) => engine.text_encoder(note));
    for (let hasPumped = false; ; ) {
      const generation = await this.#withEngine(generationOf);
      const embedded = await host.embed(texts, generation, verify).catch(async (error) => {
        if (KEYS_ARE_OLD.has(error.code) && !hasPumped) {
          hasPumped = true;
          await this.#pump();
        } else if ((await this.#withEngine(generationOf)) === generation) throw error;
      });
      const answer = await this.#withEngine((engine) => {
        // Another version may have come meanwhile, with texts of another encoder.
        return embedded && generationOf(engine) === generation ? body(engine, embedded) : undefined;
      });
      if (answer !== undefined) return JSON.parse(answer);
    }
  }

  #loaded() {
    this.#host ??= this.#load().catch((error) => {
      this.#host = undefined; // the next call tries again
      throw error;
    });
    return this.#host;
  }
}

/** Of the version that ranks. */
function generationOf(engine) {
  const { version, encoder_generation: generation } = JSON.parse(engine.status());
  if (version === null) throw new FreshetError('no_model', 'There is no version yet whose texts could be searched.');
  return generation;
}
