//! The live strip: what ranks this page, how old it is, and how long a click takes to be learned.

const SPARK_LENGTH = 40;
const LATENCIES_KEPT = 15;

const text = (id, value) => {
  const element = document.getElementById(id);
  if (element.textContent !== value) element.textContent = value;
};

export class LiveStrip {
  #strip = document.getElementById('live');
  #status;
  #lastBytes = 0;
  #deltas = [];
  /** Events that no version has learned yet. */
  #waiting = [];
  #latencies = [];

  constructor() {
    setInterval(() => this.#tick(), 250);
  }

  /** @param {import('../../edge-wasm/npm/index.d.ts').FreshetStatus} status */
  updated(status) {
    const isNewVersion = status.version !== null && status.version !== this.#status?.version;
    this.#status = status;
    if (isNewVersion) {
      this.#deltas.push(Math.max(0, status.bytesReceived - this.#lastBytes));
      // The first entry is the whole model; it would flatten all others.
      this.#deltas = this.#deltas.slice(-SPARK_LENGTH);
      this.#lastBytes = status.bytesReceived;
      this.#learned(status.learnedThrough);
      this.#draw();
    }
    this.#show();
  }

  /** @param {string} message */
  failed(message) {
    this.#strip.dataset.state = 'failed';
    text('live-state', message);
  }

  rankedIn(millis) {
    text('live-rank', millis < 10 ? `${millis.toFixed(1)} ms` : `${Math.round(millis)} ms`);
  }

  /** A click at `clickedAt` lies before `offset` in the server's log. */
  delivered(offset, clickedAt) {
    if (this.#status && this.#status.learnedThrough >= offset) {
      this.#addLatency(performance.now() - clickedAt);
      return;
    }
    this.#waiting.push({ offset, clickedAt });
    this.#waiting = this.#waiting.slice(-100);
  }

  #learned(learnedThrough) {
    const now = performance.now();
    const done = this.#waiting.filter(({ offset }) => offset <= learnedThrough);
    this.#waiting = this.#waiting.filter(({ offset }) => offset > learnedThrough);
    for (const { clickedAt } of done) this.#addLatency(now - clickedAt);
  }

  #addLatency(millis) {
    this.#latencies = [...this.#latencies, millis].slice(-LATENCIES_KEPT);
    const sorted = [...this.#latencies].sort((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    text('live-learned', `${secs(millis)} (median ${secs(median)})`);
    this.#strip.classList.remove('pulse');
    void this.#strip.offsetWidth; // restarts the animation
    this.#strip.classList.add('pulse');
  }

  #show() {
    const status = this.#status;
    if (!status) return;
    const hasVersion = status.version !== null;
    let state = 'connecting';
    let sentence = 'waiting for the first version …';
    if (hasVersion && status.isOnline) [state, sentence] = ['live', 'live'];
    if (hasVersion && !status.isOnline) [state, sentence] = ['offline', `offline, ranking on version ${status.version}`];
    this.#strip.dataset.state = state;
    text('live-state', sentence);
    text('live-version', hasVersion ? String(status.version) : '–');
    text('live-backend', status.backend === 'webgpu' ? 'WebGPU' : status.backend === 'cpu' ? 'CPU' : '–');
    document.getElementById('live-backend').title = status.backendReason;
    text('live-bytes', bytes(status.bytesReceived));
  }

  #tick() {
    if (this.#status?.createdAt == null) return;
    text('live-age', age(Math.max(0, Date.now() - this.#status.createdAt)));
  }

  #draw() {
    const deltas = this.#deltas.slice(this.#deltas.length < SPARK_LENGTH ? 1 : 0);
    const max = Math.max(1, ...deltas);
    const width = 120 / SPARK_LENGTH;
    const bars = deltas.map((value, idx) => {
      const height = Math.max(1, Math.sqrt(value / max) * 26); // a release is large, and is not to hide the others
      return `<rect x="${(idx * width).toFixed(1)}" y="${(28 - height).toFixed(1)}" width="${(width - 1).toFixed(1)}" height="${height.toFixed(1)}" rx=".8"><title>${bytes(value)}</title></rect>`;
    });
    const spark = document.getElementById('live-spark');
    spark.innerHTML = bars.join('');
    const last = deltas.at(-1);
    if (last !== undefined) spark.setAttribute('aria-label', `The last version took ${bytes(last)}`);
  }
}

function secs(millis) {
  return `${(millis / 1000).toFixed(2)} s`;
}

function age(millis) {
  if (millis < 60_000) return `${(millis / 1000).toFixed(1)} s`;
  if (millis < 3_600_000) return `${Math.round(millis / 60_000)} min`;
  return `${Math.round(millis / 3_600_000)} h`;
}

function bytes(count) {
  if (count < 1000) return `${count} B`;
  if (count < 1_000_000) return `${(count / 1000).toFixed(1)} KB`;
  return `${(count / 1_000_000).toFixed(2)} MB`;
}
