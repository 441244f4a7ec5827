const [input, done] = arguments;

/** The least difference of two times that the clock shows is 5 µs in this page. */
const now = () => performance.now();

const run = async () => {
  const [{ loadModule }, { CPU }, { WEBGPU }, { findAdapter, nameOf, GpuDevice }, { Upgrade }] = await Promise.all(
    ['backend', 'runtime-cpu', 'runtime-webgpu', 'device', 'upgrade'].map((name) => import(`/lib/${name}.js`)),
  );
  const manifest = new TextEncoder().encode(input.manifest);
  const snapshot = new Uint8Array(await (await fetch('/snapshot.bin')).arrayBuffer());
  const panics = [];
  const onPanic = (message) => panics.push(message);
  const measured = { cpu: [], webgpu: [], max_difference: 0 };
  const rank = async (engine, text) => JSON.parse(await engine.rank(text)).items;

  let start = now();
  const cpu = await (await loadModule(CPU, undefined, onPanic)).Engine.open('main', input.trust, 'cpu');
  cpu.restore(manifest, snapshot);
  await cpu.settle();
  await cpu.rank(input.calls[0]);
  measured.cpu_first_ms = now() - start;

  // What a page that may choose would do, by the package's own words.
  const upgrade = new Upgrade({
    config: { backend: 'auto' },
    runtime: WEBGPU,
    signal: new AbortController().signal,
    withCpu: async (body) => body(cpu),
    open: (module) => module.Engine.open('main', input.trust, 'webgpu'),
    catchUp: async () => {},
    swap: async (opened) => (opened.take(), 'taken'),
    whenFree: async () => {},
    explain: (reason) => (measured.auto_reason = reason),
    emit: (name, detail) => ((measured.auto_events ??= []).push({ name, detail })),
    onLateFailure: (error) => panics.push(String(error)),
  });
  start = now();
  await upgrade.consider();
  measured.auto_ms = now() - start;
  upgrade.end();

  const { adapter, reason } = await findAdapter(true);
  if (!adapter) return { ...measured, panics, adapter: reason };
  measured.adapter = nameOf(adapter);
  measured.is_fallback = Boolean(adapter.info?.isFallbackAdapter);
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  measured.limits = { maxBufferSize, maxStorageBufferBindingSize };
  try {
    start = now();
    const module = await loadModule(WEBGPU, undefined, onPanic);
    measured.webgpu_module_ms = now() - start;
    const device = new GpuDevice(adapter);
    const webgpu = await device.openWith(() => module.Engine.open('main', input.trust, 'webgpu'));
    webgpu.restore(manifest, snapshot);
    await webgpu.settle();
    await webgpu.rank(input.calls[0]);
    measured.webgpu_first_ms = now() - start;
    for (const text of input.calls) {
      const [expected, actual] = [await rank(cpu, text), await rank(webgpu, text)];
      const scores = new Map(actual.map(({ item_id, score }) => [item_id, score]));
      const common = expected.filter(({ item_id }) => scores.has(item_id));
      measured.top_10_alike = (measured.top_10_alike ?? 0) + common.length / expected.length / input.calls.length;
      for (const { item_id, score } of common) {
        measured.max_difference = Math.max(measured.max_difference, Math.abs(scores.get(item_id) - score));
      }
    }
    for (let count = -input.num_warm_up_calls; count < input.num_calls; count += 1) {
      const text = input.calls[(count + input.num_warm_up_calls) % input.calls.length];
      for (const [side, engine] of [['cpu', cpu], ['webgpu', webgpu]]) {
        start = now();
        await engine.rank(text);
        const millis = now() - start;
        if (count >= 0) measured[side].push(millis);
      }
    }
  } catch (error) {
    measured.webgpu_error = String((error && error.stack) || error);
  }
  return { ...measured, panics };
};
// A module that panics never answers.
const late = new Promise((resolve) => setTimeout(resolve, 110_000, { cpu: [], webgpu: [], late: true }));
Promise.race([run(), late]).then((value) => done({ value }), (error) => done({ error: String((error && error.stack) || error) }));
