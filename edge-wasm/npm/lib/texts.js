//! Questions to the engine that begin with a text. What embeds texts is loaded with the first of them (`text.js`).

import { FreshetError } from './errors.js';

export class Texts {
  #options;
  #withEngine;
  /** @type {Promise<import('./text.js').TextHost> | undefined} */
  #host;

  /**
   * @param {import('./text.js').TextOptions} options
   * @param {<T>(body: (engine: any) => T | Promise<T>) => Promise<T>} withEngine
   */
  constructor(options, withEngine) {
    this.#options = options;
    this.#withEngine = withEngine;
  }

  /**
   * Embeds texts as the version does that `body` is then asked of.
   * @param {string[]} texts
   * @param {(engine: any, embedded: Float32Array) => Promise<string>} body answers with JSON
   */
  async ask(texts, body) {
    this.#host ??= this.#open();
    const host = await this.#host;
    const verify = (note) => this.#withEngine((engine) => engine.text_encoder(note));
    for (;;) {
      const generation = await this.#withEngine(generationOf);
      const embedded = await host.embed(texts, generation, verify);
      const answer = await this.#withEngine((engine) => {
        // Another version may have come meanwhile, with texts of another encoder.
        return generationOf(engine) === generation ? body(engine, embedded) : undefined;
      });
      if (answer !== undefined) return JSON.parse(answer);
    }
  }

  async #open() {
    try {
      const { TextHost } = await import('./text.js');
      return new TextHost(this.#options);
    } catch (error) {
      this.#host = undefined; // the next call tries again
      throw new FreshetError('module_load_failed', `What embeds texts could not be loaded: ${error?.message ?? error}`);
    }
  }
}

/** Of the version that ranks. */
function generationOf(engine) {
  const { version, encoder_generation: generation } = JSON.parse(engine.status());
  if (version === null) throw new FreshetError('no_model', 'There is no version yet whose texts could be searched.');
  return generation;
}
