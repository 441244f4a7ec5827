//! Which faults there are, and by what each ends.

use harness::network::{EVERYTHING, Place, Trouble};
use harness::proxy::Fault;

use super::{Row, What, When};

const RANKING: &str = "ranking";
const CPU_MODULE: Place = "/dist/freshet_cpu_bg.wasm";
const WEBGPU_MODULE: Place = "/dist/freshet_webgpu_bg.wasm";
const WORKER: Place = "/worker.js";
const KEYS: Place = "/keys";
const PLAN: Place = "/plan";
const BLOBS: Place = "/blobs/";
const STREAM: Place = "/watch";
const API: Place = "/v1/";

const NONE: &[(&str, &str)] = &[];
/// A worker that a test reaches into.
const FAULTY: &[(&str, &str)] = &[("worker", "faulty")];
const WEBGPU: &[(&str, &str)] = &[("worker", "faulty"), ("backend", "webgpu")];

/// In page and worker, before a first visit.
const fn browser(name: &'static str) -> Row {
    row(name, When::First, What::Browser).with(FAULTY)
}

/// In the page alone, before a first visit.
const fn in_page(name: &'static str, ends: &'static str) -> Row {
    row(name, When::First, What::InPage).ending(ends)
}

/// In the worker alone, before a first visit, to a page that would rather rank on WebGPU.
const fn graphics(name: &'static str) -> Row {
    row(name, When::First, What::InWorker).with(WEBGPU)
}

const fn files(name: &'static str, place: Place, trouble: Trouble, ends: &'static str) -> Row {
    row(name, When::First, What::Files(place, trouble)).ending(ends)
}

const fn server(name: &'static str, place: Place, trouble: Trouble, ends: &'static str) -> Row {
    row(name, When::First, What::Server(place, trouble)).ending(ends)
}

/// While the page ranks.
const fn later(name: &'static str, what: What) -> Row {
    row(name, When::Later, what).with(FAULTY)
}

const fn again(name: &'static str, what: What) -> Row {
    row(name, When::Again, what).with(FAULTY)
}

const fn page(name: &'static str, when: When, ends: &'static str) -> Row {
    row(name, when, What::Page).with(FAULTY).ending(ends)
}

const fn row(name: &'static str, when: When, what: What) -> Row {
    Row {
        name,
        when,
        what,
        query: NONE,
        ends: RANKING,
        times: 1,
    }
}

impl Row {
    const fn with(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    const fn ending(mut self, ends: &'static str) -> Self {
        self.ends = ends;
        self
    }

    const fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

/// Overwrites what is in the cache with bytes of no version.
const GARBLED_CACHE: &str = r"
const [done] = arguments;
const opened = indexedDB.open('freshet');
opened.onsuccess = () => {
  const store = opened.result.transaction('versions', 'readwrite').objectStore('versions');
  store.openCursor().onsuccess = ({ target: { result: cursor } }) => {
    if (!cursor) return;
    const field = 'snapshot' in cursor.value ? 'snapshot' : 'note'; // a version, or the rules of operators
    const garbled = cursor.value[field].map((byte, idx) => (idx % 100 === 99 ? byte ^ 16 : byte));
    cursor.update({ ...cursor.value, [field]: garbled });
    cursor.continue();
  };
  store.transaction.oncomplete = () => { opened.result.close(); done({ value: null }); };
};
";
/// Puts something else into the cache, as another release of the package might have.
const OTHER_CACHE: &str = r"
const [done] = arguments;
const opened = indexedDB.open('freshet');
opened.onsuccess = () => {
  const store = opened.result.transaction('versions', 'readwrite').objectStore('versions');
  store.getAllKeys().onsuccess = ({ target: { result: keys } }) => keys.forEach((key) => store.put({ format: 9 }, key));
  store.transaction.oncomplete = () => { opened.result.close(); done({ value: null }); };
};
";
/// Makes the database one of a later release.
const LATER_CACHE: &str = r"
const [done] = arguments;
const removed = indexedDB.deleteDatabase('freshet');
removed.onsuccess = () => {
  const opened = indexedDB.open('freshet', 99);
  opened.onsuccess = () => { opened.result.close(); done({ value: null }); };
};
";

pub(crate) const ROWS: &[Row] = &[
    // ---- storage
    browser("IndexedDB is missing"),
    browser("IndexedDB may not be looked at"),
    browser("opening IndexedDB throws"),
    browser("opening IndexedDB fails"),
    browser("opening IndexedDB is blocked"),
    browser("opening IndexedDB is never answered"),
    browser("IndexedDB never ends a transaction"),
    browser("IndexedDB closes by itself"),
    browser("the quota of IndexedDB is exceeded"),
    again("the cached model is garbled", What::Cache(GARBLED_CACHE)),
    again("the cache holds something else", What::Cache(OTHER_CACHE)),
    again(
        "the database is of a later release",
        What::Cache(LATER_CACHE),
    ),
    in_page("local storage may not be looked at", RANKING),
    in_page("local storage is full", RANKING),
    in_page("the history in storage is garbled", RANKING),
    in_page("the history in storage is of something else", RANKING),
    // ---- tabs
    browser("BroadcastChannel is missing"),
    browser("BroadcastChannel is refused"),
    browser("Web Locks are missing"),
    browser("Web Locks are refused"),
    browser("Web Locks throw"),
    browser("Web Locks are never granted"),
    // ---- workers
    in_page("workers are missing", RANKING),
    in_page("workers are refused", RANKING),
    files(
        "the worker's script is missing",
        WORKER,
        Trouble::Status(404),
        RANKING,
    ),
    files(
        "the worker's script is a page of somebody else",
        WORKER,
        Trouble::OtherPage,
        RANKING,
    ),
    files(
        "the worker's script ends in the middle",
        WORKER,
        Trouble::Half,
        RANKING,
    ),
    files(
        "the worker's script is no script",
        WORKER,
        Trouble::ContentType("image/png"),
        RANKING,
    ),
    page(
        "its worker is ended while it loads",
        When::First,
        "module_load_failed",
    ),
    page("its worker is ended while it ranks", When::Later, RANKING),
    later("the worker was ended", What::Call("killWorker")),
    later("a worker throws", What::InWorker),
    // ---- wasm
    in_page("WebAssembly is missing", "unsupported"),
    row("WebAssembly is missing", When::First, What::InWorker)
        .with(FAULTY)
        .ending("module_load_failed"),
    browser("WebAssembly has no SIMD").ending("module_load_failed"),
    browser("WebAssembly cannot compile while it is loaded"),
    files(
        "the policy of the page refuses wasm",
        EVERYTHING,
        Trouble::Policy("script-src 'self'; worker-src 'self'"),
        "module_load_failed",
    ),
    files(
        "the policy of the page refuses workers",
        EVERYTHING,
        Trouble::Policy("script-src 'self' 'wasm-unsafe-eval'; worker-src 'none'"),
        RANKING,
    ),
    files(
        "the policy of the page refuses the server",
        EVERYTHING,
        Trouble::Policy("script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'"),
        "unreachable",
    ),
    files(
        "the module is missing",
        CPU_MODULE,
        Trouble::Status(404),
        "module_load_failed",
    ),
    files(
        "the module is a page of somebody else",
        CPU_MODULE,
        Trouble::OtherPage,
        "module_load_failed",
    ),
    files(
        "the module has another bit",
        CPU_MODULE,
        Trouble::Flipped,
        "module_load_failed",
    ),
    files(
        "the module ends in the middle",
        CPU_MODULE,
        Trouble::Half,
        "module_load_failed",
    ),
    files(
        "the connection breaks within the module",
        CPU_MODULE,
        Trouble::Cut,
        "module_load_failed",
    ),
    files(
        "the module does not come",
        CPU_MODULE,
        Trouble::Stalled,
        "module_load_failed",
    ),
    files(
        "the module stalls within",
        CPU_MODULE,
        Trouble::StalledInside,
        "module_load_failed",
    ),
    files(
        "the module is said to be text",
        CPU_MODULE,
        Trouble::ContentType("text/plain"),
        RANKING,
    ),
    row("the module traps once", When::First, What::Query).with(&[
        ("worker", "faulty"),
        ("firstWorkerFault", "the module traps once"),
    ]),
    row("the module traps always", When::First, What::InWorker)
        .with(FAULTY)
        .ending("engine_stopped"),
    row("the module traps once", When::Later, What::InWorker).with(&[
        ("worker", "faulty"),
        ("firstWorkerFault", "the module can trap"),
    ]),
    // ---- WebGPU
    graphics("WebGPU is missing"),
    graphics("WebGPU has no adapter"),
    graphics("WebGPU refuses an adapter"),
    graphics("WebGPU never answers"),
    graphics("the adapter has no timestamp queries"),
    graphics("the adapter refuses a device"),
    graphics("the device is lost before it is used"),
    graphics("the device is lost while it is set up"),
    row(
        "the WebGPU module is missing",
        When::First,
        What::Files(WEBGPU_MODULE, Trouble::Status(404)),
    )
    .with(WEBGPU),
    row("the device is lost", When::Later, What::InWorker).with(&[
        ("worker", "faulty"),
        ("backend", "webgpu"),
        ("workerFault", "devices are remembered"),
    ]),
    // ---- server and network, at a first visit
    server(
        "the server answers 500",
        API,
        Trouble::Status(500),
        "server_error",
    ),
    server(
        "the server answers 404",
        API,
        Trouble::Status(404),
        "no_model",
    ),
    server(
        "the server answers 429",
        API,
        Trouble::Status(429),
        "server_error",
    ),
    server(
        "the server is to be asked again in two minutes",
        API,
        Trouble::RetryAfter(120),
        "server_error",
    ),
    server(
        "a page of somebody else is in the place of the server",
        API,
        Trouble::OtherPage,
        "unreachable",
    ),
    server("answers are empty", API, Trouble::Empty, "unreachable"),
    server(
        "answers end in the middle",
        API,
        Trouble::Half,
        "unreachable",
    ),
    server(
        "connections break within answers",
        API,
        Trouble::Cut,
        "unreachable",
    ),
    server("no answer comes", API, Trouble::Stalled, "unreachable"),
    server(
        "other origins may not read the answers",
        API,
        Trouble::NoCors,
        "unreachable",
    ),
    server(
        "the server is said to be elsewhere",
        API,
        Trouble::RedirectedAway,
        "unreachable",
    ),
    server(
        "the server is said to be where it is",
        API,
        Trouble::RedirectedToItself,
        "unreachable",
    ),
    server(
        "answers are said to be images",
        API,
        Trouble::ContentType("image/png"),
        RANKING,
    ),
    server("answers come 100 ms late", API, Trouble::Late(100), RANKING),
    server(
        "the keys are missing",
        KEYS,
        Trouble::Status(404),
        "no_model",
    ),
    server(
        "the plan has another bit",
        PLAN,
        Trouble::Flipped,
        "bad_signature",
    ),
    server(
        "the plan ends in the middle",
        PLAN,
        Trouble::Half,
        "malformed",
    ),
    server(
        "the model has another bit",
        BLOBS,
        Trouble::Flipped,
        "corrupt_blob",
    ),
    server(
        "the model ends in the middle",
        BLOBS,
        Trouble::Half,
        "corrupt_blob",
    ),
    server(
        "the connection breaks within the model",
        BLOBS,
        Trouble::Cut,
        "unreachable",
    ),
    server(
        "the model stalls within",
        BLOBS,
        Trouble::StalledInside,
        "unreachable",
    ),
    server("the model drips", BLOBS, Trouble::Dripping, "unreachable"),
    server(
        "the model does not end",
        BLOBS,
        Trouble::Endless,
        "too_long",
    ),
    server(
        "the model is missing",
        BLOBS,
        Trouble::Status(404),
        "no_model",
    ),
    server(
        "the stream is refused",
        STREAM,
        Trouble::Status(500),
        RANKING,
    ),
    server("the stream is silent", STREAM, Trouble::Stalled, RANKING),
    server(
        "the stream is a page of somebody else",
        STREAM,
        Trouble::OtherPage,
        RANKING,
    ),
    // ---- at a second visit, and later
    again(
        "the server does not answer",
        What::Server(EVERYTHING, Trouble::Stalled),
    ),
    again(
        "the server answers 503",
        What::Server(EVERYTHING, Trouble::Status(503)),
    ),
    again(
        "connections to the server break",
        What::Server(EVERYTHING, Trouble::Cut),
    ),
    again(
        "a page of somebody else in the place of the server, again",
        What::Server(EVERYTHING, Trouble::OtherPage),
    ),
    again("another server with other keys", What::OtherServer),
    again("the browser says that it is offline", What::Browser),
    again("fetch is refused", What::Browser).ending("module_load_failed"),
    later("the server goes", What::ServerGone),
    later("another server comes", What::OtherServer),
    later(
        "the next version has another bit",
        What::NextVersion(Fault::FlippedBlobs),
    ),
    later(
        "the next version is cut",
        What::NextVersion(Fault::TruncatedBlobs),
    ),
    later(
        "the next version is for another base",
        What::NextVersion(Fault::PlansOfAnotherBase),
    ),
    later(
        "the next version is forged",
        What::NextVersion(Fault::ForgedManifests),
    ),
    // ---- time and visibility
    browser("the clock is a day ahead"),
    browser("the clock is a day behind"),
    browser("the clock is ten years ahead"),
    browser("the clock is ten years behind"),
    again("the clock is ten years ahead", What::Browser),
    again("the clock is a day ahead", What::Browser),
    later("the clock is ten years behind", What::Browser),
    later("timers are throttled", What::Browser),
    later("the tab is hidden", What::InPage),
    later("the page is left and comes back", What::InPage),
    later("the page was frozen", What::Frozen),
    // ---- what older browsers lack
    browser("fetch throws").ending("module_load_failed"),
    browser("answers have no streams").ending("unreachable"),
    browser("randomUUID is missing"),
    browser("structuredClone is missing"),
    browser("AbortSignal has neither any nor timeout"),
    browser("URL.canParse is missing"),
    browser("beacons are refused"),
    // ---- pages that do not as they should
    page("two are opened", When::First, RANKING),
    page("fifty are opened at once", When::First, RANKING).times(50),
    page("it is disposed while it loads", When::First, "disposed"),
    page("it is disposed while it ranks", When::Later, "disposed"),
    page("it is asked after it was disposed", When::Later, "disposed"),
    page("loading is aborted", When::First, "aborted"),
    page("its listeners throw", When::First, RANKING),
];
