const [input, done] = arguments;

const PLAIN = 'freshet_text';
const RELAXED = 'freshet_text_relaxed';

/** The tensors of a safetensors file, one by one. */
function* tensorsOf(bytes) {
  const headerLen = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerLen)));
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    if (name === '__metadata__' || dtype !== 'F32') continue;
    const [start, end] = offsets.map((offset) => 8 + headerLen + offset);
    yield { name, shape: Uint32Array.from(shape), values: new Float32Array(bytes.slice(start, end).buffer) };
  }
}

const openOurs = async (name, config, weights) => {
  const { default: createModule } = await import(`/dist/${name}.js`);
  const { init, EncoderBuilder } = createModule();
  await init({ module_or_path: fetch(`/dist/${name}_bg.wasm`) });
  const builder = new EncoderBuilder(config);
  for (const tensor of tensorsOf(weights)) builder.add(tensor.name, tensor.shape, tensor.values);
  const start = performance.now();
  const encoder = builder.build();
  return { encode: ({ ids }) => encoder.encode(ids), built: performance.now() - start };
};

/** What a page downloads: milliseconds from its bytes until it embeds, and of some queries. */
const timePacked = async (name, { id, queries }) => {
  const { default: createModule } = await import(`/dist/${name}.js`);
  const { init, TextReader } = createModule();
  await init({ module_or_path: fetch(`/dist/${name}_bg.wasm`) });
  const bytes = new Uint8Array(await (await fetch('/encoder.ftxt')).arrayBuffer());
  const start = performance.now();
  const reader = new TextReader(id, bytes);
  let longest_piece = 0;
  for (let isMore = true; isMore; ) {
    const pieceStart = performance.now();
    isMore = reader.read_next();
    longest_piece = Math.max(longest_piece, performance.now() - pieceStart);
  }
  const embedder = reader.finish();
  const ready = performance.now() - start;
  const embed = [];
  for (let count = 0; count < 20; count += 1) {
    for (const query of queries) {
      const queryStart = performance.now();
      embedder.embed(query);
      if (count >= 5) embed.push(performance.now() - queryStart);
    }
  }
  return { ready, longest_piece, embed };
};

const openOrt = async (ort, file) => {
  const session = await ort.InferenceSession.create(file, { executionProviders: ['wasm'] });
  return async ({ big }) => {
    const feeds = { token_ids: new ort.Tensor('int64', big, [1, big.length]) };
    return (await session.run(feeds)).embedding.data;
  };
};

const run = async () => {
  const { hasRelaxedSimd } = await import('/lib/simd.js');
  const ort = await import('/ort/ort.wasm.min.mjs');
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL('/ort/', location.href).href;
  const bytesOf = async (file) => new Uint8Array(await (await fetch(file)).arrayBuffer());
  const [config, weights] = [await bytesOf('/config.json'), await bytesOf('/model.safetensors')];
  const sides = {};
  const builds = {};
  for (const name of hasRelaxedSimd() ? [PLAIN, RELAXED] : [PLAIN]) {
    const { encode, built } = await openOurs(name, config, weights);
    sides[name] = encode;
    builds[name] = built;
  }
  sides.ort_q8 = await openOrt(ort, '/encoder-q8.onnx');
  sides.ort_f32 = await openOrt(ort, '/encoder.onnx');
  const calls = input.calls.map((ids) => ({ ids: Uint32Array.from(ids), big: BigInt64Array.from(ids, BigInt) }));
  const times = Object.fromEntries(Object.keys(sides).map((name) => [name, []]));
  for (let count = -input.num_warm_up_calls; count < input.num_calls; count += 1) {
    const call = calls[(count + input.num_warm_up_calls) % calls.length];
    for (const [name, encode] of Object.entries(sides)) {
      const start = performance.now();
      await encode(call);
      if (count >= 0) times[name].push(performance.now() - start);
    }
  }
  const embeddings = {};
  for (const [name, encode] of Object.entries(sides)) {
    embeddings[name] = [];
    for (const call of calls) embeddings[name].push(Array.from(await encode(call)));
  }
  const packed = {};
  for (const name of Object.keys(builds)) packed[name] = await timePacked(name, input.packed);
  return { times, embeddings, builds, packed };
};
run().then((value) => done({ value }), (error) => done({ error: String(error && error.stack || error) }));
