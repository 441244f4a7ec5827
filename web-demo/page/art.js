//! Pictures of the goods: a drawing by what the title says, painted in the item's colour, on the pattern of its style.

const WORDS = [
  ['teapot', /\b(?:teapot|jug|kettle|milk|watering)/i],
  ['mug', /\b(?:mug|cup\b|cups\b|tea\b|coffee)/i],
  ['clock', /\b(?:clock)/i],
  ['lamp', /\b(?:lamp|light\b|lights\b|lantern)/i],
  ['frame', /\b(?:print|poster|frame|picture|sign|wall)/i],
  ['candle', /\b(?:candle|tealight|t-light|diffuser|incense|burner|sachet|scent)/i],
  ['plant', /\b(?:planter|pot\b|plant|seed|garden|trowel|herb)/i],
  ['bird', /\b(?:bird|feeder|chime|nest)/i],
  ['cushion', /\b(?:cushion|pillow|heart)/i],
  ['textile', /\b(?:throw|blanket|rug|towel|runner|curtain|bedspread|mat\b|apron|sheet)/i],
  ['book', /\b(?:notebook|planner|calendar|book|diary|chalkboard)/i],
  ['pen', /\b(?:pen\b|pencil|pens|chalk)/i],
  ['envelope', /\b(?:cards?\b|letter|paper|wrap|postcard set|tag|sticker|tape)/i],
  ['soap', /\b(?:soap|toothbrush|shower|bath)/i],
  ['backpack', /\b(?:backpack|rucksack)/i],
  ['bag', /\b(?:bag|tote|purse|basket|shopper|wallet)/i],
  ['ring', /\b(?:ring\b|earring|pendant|bracelet|brooch|clip|necklace|trinket|jewel)/i],
  ['blocks', /\b(?:block|puzzle|toy|game|music|house|doll)/i],
  ['rabbit', /\b(?:rabbit|dog|animal|soft|pull)/i],
  ['kite', /\b(?:kite|spinning|bunting|balloon|party)/i],
  ['board', /\b(?:board|rolling|spoon|teaspoon|cutlery)/i],
  ['jar', /\b(?:jar|caddy|tin\b|tins\b|rack|storage|drawer|box)/i],
  ['bowl', /\b(?:bowl|coaster|dish|plate|bowls|baking|cake|oven)/i],
];

/** Each draws in a field of 200 × 150; `c` is the colour, `d` a darker and `l` a lighter one. */
const SHAPES = {
  mug: ({ c, d, l }) => `<path d="M137 62h14c20 0 20 40 0 40h-14v-12h12c7 0 7-16 0-16h-12z" fill="${d}"/><path d="M58 48h82v58c0 14-10 22-22 22H80c-12 0-22-8-22-22z" fill="${c}"/><ellipse cx="99" cy="48" rx="41" ry="9" fill="${d}"/><ellipse cx="99" cy="49" rx="34" ry="6" fill="#5b3d2b"/><path d="M70 66v44" stroke="${l}" stroke-width="7" stroke-linecap="round"/>`,
  teapot: ({ c, d, l }) => `<path d="M140 74c22-8 20-26 38-28l4 8c-14 6-14 36-42 46z" fill="${d}"/><path d="M60 72c-30-14-40 34-4 38l2-11c-20-4-14-24 2-16z" fill="${d}"/><path d="M52 88c0-24 22-38 48-38s48 14 48 38c0 22-18 38-30 40H82c-12-2-30-18-30-40z" fill="${c}"/><path d="M72 52c4-10 16-14 28-14s24 4 28 14z" fill="${d}"/><circle cx="100" cy="34" r="7" fill="${c}"/><path d="M68 84c2-12 10-18 18-21" stroke="${l}" stroke-width="6" stroke-linecap="round" fill="none"/>`,
  bowl: ({ c, d, l }) => `<path d="M36 66h128c0 36-26 58-50 60H86c-24-2-50-24-50-60z" fill="${c}"/><ellipse cx="100" cy="66" rx="64" ry="13" fill="${d}"/><ellipse cx="100" cy="68" rx="54" ry="9" fill="${l}"/><path d="M54 90c6 14 14 20 24 25" stroke="${l}" stroke-width="6" stroke-linecap="round" fill="none"/>`,
  jar: ({ c, d, l }) => `<rect x="64" y="50" width="72" height="80" rx="14" fill="${c}"/><rect x="60" y="32" width="80" height="20" rx="7" fill="${d}"/><rect x="78" y="74" width="44" height="30" rx="4" fill="#fffaf0"/><path d="M86 86h28M86 94h18" stroke="${d}" stroke-width="3" stroke-linecap="round"/><path d="M72 64v50" stroke="${l}" stroke-width="5" stroke-linecap="round"/>`,
  board: ({ c, d, l }) => `<g transform="rotate(-18 100 80)"><rect x="48" y="52" width="92" height="62" rx="16" fill="${c}"/><rect x="132" y="74" width="40" height="18" rx="9" fill="${c}"/><circle cx="160" cy="83" r="4" fill="${d}"/><path d="M60 68h66M60 84h58M60 98h66" stroke="${l}" stroke-width="3" stroke-linecap="round" opacity=".8"/></g>`,
  lamp: ({ c, d, l }) => `<path d="M74 30h52l22 50H52z" fill="${c}"/><path d="M84 38 68 74" stroke="${l}" stroke-width="6" stroke-linecap="round"/><path d="M97 80h6v38h-6z" fill="${d}"/><path d="M72 130c0-9 12-13 28-13s28 4 28 13z" fill="${d}"/><path d="M60 84h80l14 40H46z" fill="#ffe9a8" opacity=".35"/>`,
  cushion: ({ c, d, l }) => `<path d="M48 44c30 8 74 8 104 0 8 24 8 52 0 76-30-8-74-8-104 0-8-24-8-52 0-76z" fill="${c}"/><path d="M62 60c24 5 52 5 76 0M62 104c24-5 52-5 76 0" stroke="${l}" stroke-width="4" fill="none"/><circle cx="100" cy="82" r="6" fill="${d}"/><path d="M48 44l-6-6M152 44l6-6M48 120l-6 6M152 120l6 6" stroke="${d}" stroke-width="5" stroke-linecap="round"/>`,
  textile: ({ c, d, l }) => `<rect x="46" y="96" width="108" height="30" rx="13" fill="${d}"/><rect x="46" y="70" width="108" height="30" rx="13" fill="${c}"/><rect x="46" y="44" width="108" height="30" rx="13" fill="${l}"/><path d="M60 85h80" stroke="${l}" stroke-width="4" stroke-dasharray="8 6"/><path d="M60 111h80M60 59h80" stroke="${c}" stroke-width="4" stroke-dasharray="8 6"/>`,
  book: ({ c, d, l }) => `<rect x="60" y="32" width="84" height="100" rx="6" fill="${d}"/><rect x="56" y="28" width="84" height="100" rx="6" fill="${c}"/><rect x="56" y="28" width="14" height="100" fill="${d}"/><rect x="82" y="50" width="44" height="24" rx="3" fill="#fffaf0"/><path d="M90 60h28M90 66h16" stroke="${d}" stroke-width="2.5"/><path d="M126 28v40l-6-6-6 6V28z" fill="${l}"/>`,
  pen: ({ c, d, l }) => `<g transform="rotate(38 100 80)"><rect x="88" y="18" width="24" height="82" rx="6" fill="${c}"/><path d="M88 100h24l-12 32z" fill="#e8d5b5"/><path d="m96 121 4 11 4-11z" fill="${d}"/><rect x="88" y="88" width="24" height="8" fill="${d}"/><path d="M95 28v54" stroke="${l}" stroke-width="4" stroke-linecap="round"/></g>`,
  envelope: ({ c, d, l }) => `<rect x="44" y="46" width="112" height="76" rx="7" fill="${c}"/><path d="m46 50 54 42 54-42" fill="none" stroke="${d}" stroke-width="5" stroke-linejoin="round"/><path d="m48 118 38-34M152 118l-38-34" stroke="${l}" stroke-width="4"/><circle cx="100" cy="90" r="10" fill="${d}"/>`,
  plant: ({ c, d, l }) => `<path d="M100 84c-4-30-34-34-40-30 2 20 18 32 40 30zM100 84c0-36 14-52 34-54 4 26-10 50-34 54zM100 86c10-20 36-22 44-14-8 16-26 20-44 14z" fill="#5d8f63"/><path d="M64 84h72l-9 42c-1 5-5 8-10 8H83c-5 0-9-3-10-8z" fill="${c}"/><rect x="58" y="78" width="84" height="14" rx="6" fill="${d}"/><path d="m76 100 4 22" stroke="${l}" stroke-width="5" stroke-linecap="round"/>`,
  bird: ({ c, d, l }) => `<path d="M100 26 52 62v8h96v-8z" fill="${d}"/><rect x="62" y="70" width="76" height="58" rx="4" fill="${c}"/><circle cx="100" cy="92" r="13" fill="#43372d"/><rect x="96" y="112" width="8" height="12" rx="3" fill="${d}"/><path d="M74 80v36" stroke="${l}" stroke-width="4" stroke-linecap="round"/><path d="M100 26V14" stroke="${d}" stroke-width="4"/>`,
  candle: ({ c, d, l }) => `<path d="M100 22c10 13 8 26 0 26s-10-13 0-26z" fill="#f4b13e"/><path d="M99 46h3v12h-3z" fill="#43372d"/><rect x="70" y="58" width="60" height="72" rx="10" fill="${c}"/><rect x="70" y="58" width="60" height="14" rx="7" fill="${l}"/><rect x="82" y="86" width="36" height="24" rx="4" fill="#fffaf0"/><path d="M90 98h20" stroke="${d}" stroke-width="3" stroke-linecap="round"/>`,
  soap: ({ c, d, l }) => `<ellipse cx="100" cy="116" rx="62" ry="14" fill="${d}"/><rect x="54" y="68" width="92" height="46" rx="22" fill="${c}"/><path d="M70 82c8-6 20-7 32-7" stroke="${l}" stroke-width="6" stroke-linecap="round" fill="none"/><circle cx="132" cy="52" r="9" fill="${l}"/><circle cx="148" cy="36" r="6" fill="${l}"/><circle cx="116" cy="40" r="5" fill="${l}"/>`,
  bag: ({ c, d, l }) => `<path d="M76 62c0-38 48-38 48 0" fill="none" stroke="${d}" stroke-width="7"/><path d="M56 58h88l8 66c1 5-3 9-8 9H56c-5 0-9-4-8-9z" fill="${c}"/><path d="M60 78h80" stroke="${l}" stroke-width="4" stroke-dasharray="7 6"/><circle cx="76" cy="62" r="4" fill="${d}"/><circle cx="124" cy="62" r="4" fill="${d}"/>`,
  backpack: ({ c, d, l }) => `<path d="M82 34c0-16 36-16 36 0" fill="none" stroke="${d}" stroke-width="6"/><path d="M60 66c0-26 18-36 40-36s40 10 40 36v56c0 6-5 10-10 10H70c-5 0-10-4-10-10z" fill="${c}"/><rect x="72" y="84" width="56" height="36" rx="9" fill="${d}"/><path d="M72 94h56" stroke="${l}" stroke-width="4"/><path d="M78 50h44" stroke="${l}" stroke-width="5" stroke-linecap="round"/>`,
  ring: ({ c, d, l }) => `<circle cx="100" cy="96" r="34" fill="none" stroke="#cfa94f" stroke-width="10"/><path d="M100 22 122 44 100 70 78 44z" fill="${c}"/><path d="M100 22 78 44h44z" fill="${l}"/><path d="M100 70 91 44h18z" fill="${d}"/>`,
  frame: ({ c, d, l }) => `<rect x="52" y="24" width="96" height="112" rx="3" fill="#8a6a4a"/><rect x="60" y="32" width="80" height="96" fill="#fffaf0"/><circle cx="114" cy="62" r="14" fill="${l}"/><path d="M68 120V96c12-14 22-14 32-2s18 8 32-8v34z" fill="${c}"/><path d="M68 120v-8c16-8 26 4 64-6v14z" fill="${d}"/>`,
  clock: ({ c, d, l }) => `<circle cx="100" cy="80" r="52" fill="${c}"/><circle cx="100" cy="80" r="42" fill="#fffaf0"/><path d="M100 54v26l18 12" stroke="${d}" stroke-width="5" fill="none" stroke-linecap="round"/><path d="M100 42v6M100 112v6M62 80h6M132 80h6" stroke="${l}" stroke-width="4"/>`,
  blocks: ({ c, d, l }) => `<rect x="48" y="86" width="46" height="46" rx="5" fill="${c}"/><rect x="104" y="86" width="46" height="46" rx="5" fill="${d}"/><rect x="76" y="36" width="46" height="46" rx="5" fill="${l}"/><circle cx="71" cy="109" r="11" fill="${l}"/><path d="m127 98 12 22h-24z" fill="${c}"/><rect x="90" y="50" width="18" height="18" fill="${d}"/>`,
  rabbit: ({ c, d, l }) => `<ellipse cx="84" cy="42" rx="10" ry="28" fill="${c}"/><ellipse cx="116" cy="42" rx="10" ry="28" fill="${c}"/><ellipse cx="84" cy="44" rx="4" ry="18" fill="${l}"/><ellipse cx="116" cy="44" rx="4" ry="18" fill="${l}"/><ellipse cx="100" cy="94" rx="44" ry="40" fill="${c}"/><circle cx="85" cy="86" r="4.5" fill="#33302c"/><circle cx="115" cy="86" r="4.5" fill="#33302c"/><path d="M95 99h10l-5 6z" fill="${d}"/><ellipse cx="74" cy="100" rx="8" ry="5" fill="${l}"/><ellipse cx="126" cy="100" rx="8" ry="5" fill="${l}"/>`,
  kite: ({ c, d, l }) => `<path d="M100 20 142 66 100 112 58 66z" fill="${c}"/><path d="M100 20v92L58 66z" fill="${d}"/><path d="M58 66h84" stroke="${l}" stroke-width="4"/><path d="M100 112c14 8-6 14 6 22" stroke="${d}" stroke-width="4" fill="none"/><path d="m104 122 10-5v10zM100 131l-10-4v9z" fill="${l}"/>`,
  gift: ({ c, d, l }) => `<rect x="52" y="70" width="96" height="60" rx="5" fill="${c}"/><rect x="46" y="54" width="108" height="22" rx="5" fill="${d}"/><rect x="91" y="54" width="18" height="76" fill="${l}"/><path d="M100 54c-26-2-30-30-12-30 10 0 12 16 12 30zm0 0c26-2 30-30 12-30-10 0-12 16-12 30z" fill="none" stroke="${l}" stroke-width="7"/>`,
};

const PATTERNS = {
  Nordic: '<path d="m0 14 10-14 10 14" fill="none" stroke="#2b2620" stroke-width="2"/>',
  Boho: '<path d="M0 20a10 10 0 0 1 20 0M5 20a5 5 0 0 1 10 0" fill="none" stroke="#2b2620" stroke-width="2"/>',
  Vintage: '<circle cx="5" cy="5" r="2" fill="#2b2620"/><circle cx="15" cy="15" r="2" fill="#2b2620"/>',
  Botanical: '<path d="M10 2c6 5 6 11 0 16-6-5-6-11 0-16z" fill="#2b2620"/>',
  Nautical: '<path d="M0 5h20" stroke="#2b2620" stroke-width="4"/>',
  Industrial: '<path d="M0 0h20v20" fill="none" stroke="#2b2620" stroke-width="1.5"/>',
  'Art Deco': '<path d="M0 20 10 0l10 20M10 0v20" fill="none" stroke="#2b2620" stroke-width="1.5"/>',
  Folk: '<path d="m10 3 7 7-7 7-7-7z" fill="#2b2620"/>',
};

const PALETTE = ['#4f9d8f', '#c8694a', '#d9a441', '#d59a9a', '#6c86b0', '#9aac88', '#b3a1cf', '#ec8265'];

/** The definitions that all pictures refer to; put into the page once. */
export function patternDefinitions() {
  const patterns = Object.entries(PATTERNS).map(
    ([style, body]) => `<pattern id="${patternId(style)}" width="20" height="20" patternUnits="userSpaceOnUse">${body}</pattern>`,
  );
  return `<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>${patterns.join('')}</defs></svg>`;
}

/** @param {{item_id: string, title: string, hex?: string, style?: string}} item */
export function pictureOf(item) {
  const colour = item.hex ?? PALETTE[hashOf(item.item_id) % PALETTE.length];
  const shape = WORDS.find(([, words]) => words.test(item.title))?.[0] ?? 'gift';
  const paint = { c: colour, d: mixed(colour, '#1d2423', 0.32), l: mixed(colour, '#ffffff', 0.48) };
  const ground = mixed(colour, '#fffdf8', 0.82);
  const pattern = PATTERNS[item.style]
    ? `<rect width="200" height="160" fill="url(#${patternId(item.style)})" opacity=".1"/>`
    : '';
  return `<svg viewBox="0 0 200 160" preserveAspectRatio="xMidYMid slice" aria-hidden="true" focusable="false"><rect width="200" height="160" fill="${ground}"/>${pattern}<ellipse cx="100" cy="137" rx="60" ry="7" fill="#000" opacity=".07"/>${SHAPES[shape](paint)}</svg>`;
}

function patternId(style) {
  return `pattern-${style.toLowerCase().replace(/\W/g, '-')}`;
}

function hashOf(text) {
  let hash = 0;
  for (const letter of text) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return hash;
}

function mixed(from, to, share) {
  const channel = (hex, start) => Number.parseInt(hex.slice(start, start + 2), 16);
  const mix = (start) => Math.round(channel(from, start) * (1 - share) + channel(to, start) * share);
  return `#${[1, 3, 5].map((start) => mix(start).toString(16).padStart(2, '0')).join('')}`;
}
