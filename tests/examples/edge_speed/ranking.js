const [input, done] = arguments;

const bytesOf = async (text) =>
  new Uint8Array(await (await fetch('data:application/octet-stream;base64,' + text)).arrayBuffer());

/** The smallest step that the clock shows. */
const clockStep = () => {
  let step = Infinity;
  for (let count = 0; count < 200; count += 1) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    step = Math.min(step, now - start);
  }
  return step;
};

const openEngine = async (Engine, snapshot) => {
  const engine = await Engine.open('main', input.trust, 'cpu');
  engine.restore(new TextEncoder().encode(input.manifest), snapshot);
  const start = performance.now();
  await engine.settle();
  await engine.rank(input.calls[0].ours);
  return { engine, settled: performance.now() - start };
};

/** Time from a verified version to its being live, self-test included. */
const rebuild = async (engine, { plan, delta }) => {
  const asked = JSON.parse(engine.next_request());
  if (asked.kind !== 'plan') throw new Error('asked for ' + JSON.stringify(asked));
  engine.on_plan(new TextEncoder().encode(plan));
  engine.on_blob(JSON.parse(engine.next_request()).id, await bytesOf(delta));
  const start = performance.now();
  if (!(await engine.settle())) throw new Error('nothing to settle');
  return performance.now() - start;
};

const openOrt = async () => {
  const ort = await import('/ort/ort.wasm.min.mjs');
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = new URL('/ort/', location.href).href;
  const session = await ort.InferenceSession.create('/rank.onnx', { executionProviders: ['wasm'] });
  return async ({ rows, kinds, gaps, recent, ages }) => {
    const feeds = {
      rows: new ort.Tensor('int64', rows, [rows.length]),
      kinds: new ort.Tensor('int64', kinds, [kinds.length]),
      gaps: new ort.Tensor('int64', gaps, [gaps.length]),
      recent: new ort.Tensor('int64', recent, [recent.length]),
      ages: new ort.Tensor('float32', ages, [ages.length]),
    };
    const { scores, items } = await session.run(feeds);
    return Array.from(items.data, (item, place) => ({ item_id: 'item-' + item, score: scores.data[place] }));
  };
};

const run = async () => {
  const { default: createModule } = await import('/dist/freshet_cpu.js');
  const { init, Engine } = createModule();
  await init({ module_or_path: fetch('/dist/freshet_cpu_bg.wasm') });
  const snapshot = await bytesOf(input.snapshot);
  const measured = { ours: [], scored: [], theirs: [], answers: [], rebuilds: [[], []], first_settles: [], clock_step: clockStep() };
  for (let count = 0; count < input.num_rebuilds; count += 1) {
    for (const [kind, update] of input.updates.entries()) {
      const { engine, settled } = await openEngine(Engine, snapshot);
      measured.first_settles.push(settled);
      measured.rebuilds[kind].push(await rebuild(engine, update));
      engine.free();
    }
  }
  const { engine } = await openEngine(Engine, snapshot);
  const rankOrt = await openOrt();
  const big = (numbers) => BigInt64Array.from(numbers, BigInt);
  const calls = input.calls.map(({ ours, scored, theirs }) => ({
    ours,
    scored,
    theirs: {
      rows: big(theirs.rows),
      kinds: big(theirs.kinds),
      gaps: big(theirs.gaps),
      recent: big(theirs.recent),
      ages: Float32Array.from(theirs.ages),
    },
  }));
  for (let count = -input.num_warm_up_calls; count < input.num_calls; count += 1) {
    const call = calls[(count + input.num_warm_up_calls) % calls.length];
    const start = performance.now();
    const ours = JSON.parse(await engine.rank(call.ours)).items;
    const between = performance.now();
    const theirs = await rankOrt(call.theirs);
    const end = performance.now();
    await engine.rank(call.scored);
    const scored = performance.now() - end;
    if (count + input.num_warm_up_calls < calls.length) measured.answers.push({ ours, theirs });
    if (count < 0) continue;
    measured.ours.push(between - start);
    measured.theirs.push(end - between);
    measured.scored.push(scored);
  }
  return measured;
};
run().then((value) => done({ value }), (error) => done({ error: String(error && error.stack || error) }));
