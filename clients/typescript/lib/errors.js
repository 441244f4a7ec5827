//! What calls throw.

/** Anything that this package throws. */
export class FreshetError extends Error {
  name = 'FreshetError';
}

/** The server could not be reached, or its answer could not be read. */
export class TransportError extends FreshetError {
  name = 'TransportError';
}

/** The server refused the whole request (RFC 9457). */
export class ProblemError extends FreshetError {
  name = 'ProblemError';

  /**
   * @param {number} status
   * @param {any} document the problem document, or anything else
   */
  constructor(status, document) {
    const { type = 'about:blank', title = '', detail = '', errors = [] } = document ?? {};
    // The detail names the field itself where there is one alone.
    const others = errors.filter((error) => !detail.includes(error.pointer));
    const fields = others.map((error) => `${error.pointer}: ${error.detail}`);
    super([`${status} ${title}: ${detail}`, ...fields].join('; '));
    this.status = status;
    this.type = type;
    this.title = title;
    this.detail = detail;
    this.errors = errors;
  }
}
