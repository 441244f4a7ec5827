const [input, done] = arguments;

const medianOf = (times) => {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return { min: sorted[0], p50: at(0.5), p95: at(0.95) };
};

const open = async (TextReader, { file, id }) => {
  const bytes = new Uint8Array(await (await fetch(`/${file}`)).arrayBuffer());
  const start = performance.now();
  const reader = new TextReader(id, bytes);
  while (reader.read_next());
  return { file, embedder: reader.finish(), ready_ms: performance.now() - start, times: {} };
};

const run = async () => {
  const { isRelaxedFaster } = await import('/lib/simd.js');
  const name = isRelaxedFaster() ? 'freshet_text_relaxed' : 'freshet_text';
  const { default: createModule } = await import(`/dist/${name}.js`);
  const { init, TextReader } = createModule();
  await init({ module_or_path: fetch(`/dist/${name}_bg.wasm`) });
  const opened = [];
  for (const encoder of input.encoders) opened.push(await open(TextReader, encoder));
  for (let count = -input.num_warm_up_calls; count < input.num_calls; count += 1) {
    for (const { name: kind, text } of input.texts) {
      for (const { embedder, times } of opened) {
        const start = performance.now();
        embedder.embed(text);
        const took = performance.now() - start;
        if (count >= 0) (times[kind] ??= []).push(took);
      }
    }
  }
  const rows = opened.map(({ file, ready_ms, times }) => {
    const spreads = Object.entries(times).map(([kind, all]) => [`${kind}_ms`, medianOf(all)]);
    return { file, ready_ms, ...Object.fromEntries(spreads) };
  });
  return { module: name, encoders: rows };
};
run().then((value) => done({ value }), (error) => done({ error: String(error && error.stack || error) }));
