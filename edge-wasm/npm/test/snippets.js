//! What a piece of code takes from the package: names it imports, calls it makes, options it passes, answers it takes
//! apart; and which of these the declarations do not have. A reader of tokens, enough for the code of a guide.

import { calledAs, membersOf } from './declarations.js';

/** Names that stand for these things where a snippet does not say what they are. */
const CUSTOMARY = { Freshet: { type: 'Freshet', isStatic: true }, freshet: { type: 'Freshet' }, shop: { type: 'Freshet' } };
const TOKEN = /\/\*[^]*?\*\/|\/\/.*|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`(?:\\.|[^`\\])*`|=>|\?\.|\.\.\.|[\w$]+|\S/g;
const OF_PROMISES = new Set(['then', 'catch', 'finally']);
const isName = (token) => /^[A-Za-z_$]/.test(token ?? '');

/** @typedef {{type?: string, signature?: string, isStatic?: boolean}} Thing something whose declaration is known */

export class Reader {
  /** @type {string[]} */
  problems = [];
  /** `freshet/react:useFeedback` for an import, `Freshet.rank` for a call. @type {Set<string>} */
  used = new Set();
  #pack;
  #entry;
  #tokens;
  /** @type {Map<string, Thing>} */
  #things = new Map(Object.entries(CUSTOMARY));
  #isRead = new Set();

  /** @param {import('./declarations.js').Package} pack @param {string} code @param {string} language its ending */
  constructor(pack, code, language) {
    this.#pack = pack;
    this.#entry = pack.entry('freshet');
    const script = scriptOf(code, language);
    this.#imports(script);
    this.#tokens = (script.match(TOKEN) ?? []).filter((token) => !/^\/[/*]/.test(token));
    this.#tokens.forEach((token, at) => this.#visit(token, at));
    this.#elements(script);
  }

  #imports(script) {
    for (const [, names, from] of script.matchAll(/import\s*\{([^}]*)\}\s*from\s*'([^']+)'/g)) {
      const specifier = /(?:^|\/)freshet\/index\.js$/.test(from) ? 'freshet' : from;
      if (!/^freshet(?:\/|$)/.test(specifier)) continue;
      const entry = this.#pack.entry(specifier);
      if (!entry) {
        this.problems.push(`there is no ${specifier}`);
        continue;
      }
      this.#entry = entry;
      for (const part of names.split(',').map((name) => name.trim()).filter(Boolean)) {
        const [name, local = name] = part.split(/\s+as\s+/);
        this.used.add(`${specifier}:${name}`);
        if (!entry.exports.has(name) && !entry.types.has(name)) this.problems.push(`${specifier} has no ${name}`);
        const signature = entry.functions.get(name);
        this.#things.set(local, signature ? { signature } : { type: name, isStatic: true });
      }
    }
    for (const [, worker] of script.matchAll(/new URL\('(freshet[^']*)'/g)) {
      if (!this.#pack.entry(worker)) this.problems.push(`there is no ${worker}`);
    }
  }

  #visit(token, at) {
    const before = this.#tokens[at - 1];
    if (token === 'const' || token === 'let') this.#declare(at);
    else if (isName(token) && before !== '.' && before !== '?.' && !this.#isKey(at)) this.#chain(at);
  }

  #isKey(at) {
    return this.#tokens[at + 1] === ':' && ['{', ','].includes(this.#tokens[at - 1]);
  }

  /** `const x = await …`, `const { a, b: c } = …`, `for (const { a } of …)`. */
  #declare(at) {
    const tokens = this.#tokens;
    const isPattern = tokens[at + 1] === '{';
    const end = isPattern ? this.#closing(at + 1) : at + 1;
    if (!['=', 'of'].includes(tokens[end + 1])) return;
    const first = tokens[end + 2] === 'await' ? end + 3 : end + 2;
    const thing = isName(tokens[first]) ? this.#chain(first) : undefined;
    if (!isPattern) {
      if (thing) this.#things.set(tokens[at + 1], thing);
      return;
    }
    for (const { name, local, type } of this.#pattern(at + 1, thing?.type)) this.#things.set(local, type ? { type, name } : {});
  }

  /** Takes a pattern in braces apart, and says what of it the type does not have. */
  #pattern(open, type) {
    if (type === undefined) return [];
    const members = membersOf(this.#entry, type);
    if (members.size === 0) return [];
    return this.#keys(open).map(({ name, at }) => {
      if (!members.has(name)) this.problems.push(`there is no ${name}`);
      const local = this.#tokens[at + 1] === ':' ? this.#tokens[at + 2] : name;
      return { name, local, type: members.get(name) };
    });
  }

  /** Follows `a.b(…).c` from a name that is known; answers what it comes to, where that is known. @returns {Thing | undefined} */
  #chain(at) {
    const tokens = this.#tokens;
    const start = tokens[at];
    let thing = this.#things.get(start) ?? this.#things.get(start.replace(/^\$/, ''));
    if (!thing || (thing.type === undefined && thing.signature === undefined)) return undefined;
    const isFirst = !this.#isRead.has(at);
    this.#isRead.add(at);
    const report = (problem) => isFirst && this.problems.push(problem);
    let name = start;
    for (let next = at + 1; ; ) {
      if (tokens[next] === '.' || tokens[next] === '?.') {
        name = tokens[next + 1];
        next += 2;
        const { type = '', isStatic } = thing;
        if (name === 'value' && /Ref</.test(type)) continue;
        const members = membersOf(this.#entry, type, isStatic);
        if (!members.has(name)) {
          const isList = type.replace(/\{[^]*\}/, '').includes('[]');
          if (isList && isFirst) this.#callback(next, type);
          if (members.size > 0 && !isList && !OF_PROMISES.has(name)) report(`there is no ${name}`);
          return thing;
        }
        if (/^\s*(?:Promise<)?Freshet\b/.test(type)) this.used.add(`Freshet.${name}`);
        thing = { type: members.get(name).replace(/^\s*:/, '') };
        if (name === 'on' && isFirst) this.#listener(next);
      } else if (tokens[next] === '(') {
        const signature = thing.signature ?? thing.type;
        const called = calledAs(signature);
        if (!called) return undefined;
        if (isFirst && name !== 'on') this.#args(next, name, called.parameters, signature);
        next = this.#closing(next) + 1;
        thing = { type: called.answer };
      } else {
        return thing;
      }
    }
  }

  /** The arguments of a call against the types of its parameters. */
  #args(open, name, parameters, signature) {
    const end = this.#closing(open);
    let idx = 0;
    for (let at = open + 1; at < end; idx += 1) {
      const type = parameters[idx] ?? '';
      // An overload that takes an object in the place of something else is in the signature too.
      this.#value(at, membersOf(this.#entry, type).size > 0 ? type : signature, name);
      at = this.#after(at, end) + 1;
    }
  }

  /** A value that is written out: objects, lists of them, functions that answer with one or take one apart. */
  #value(at, type, name) {
    const tokens = this.#tokens;
    if (tokens[at] === '{') this.#object(at, type, name);
    if (tokens[at] === '[') {
      const end = this.#closing(at);
      for (let entry = at + 1; entry < end; entry = this.#after(entry, end) + 1) this.#value(entry, type, name);
    }
    if (tokens[at] !== '(') return;
    if (tokens.slice(at, at + 5).join(' ') === '( ) => ( {') this.#value(at + 4, type, name);
    if (tokens[at + 1] === '{' && tokens[this.#closing(at) + 1] === '=>') this.#pattern(at + 1, calledAs(type)?.parameters[0]);
  }

  #object(open, type, name) {
    const members = membersOf(this.#entry, type);
    if (members.size === 0) return;
    for (const { name: key, at } of this.#keys(open)) {
      if (!members.has(key)) this.problems.push(`${name} takes no ${key}`);
      else if (this.#tokens[at + 1] === ':') this.#value(at + 2, members.get(key), name);
    }
  }

  /** Keys of an object or of a pattern. */
  #keys(open) {
    const end = this.#closing(open);
    const keys = [];
    for (let at = open + 1; at < end; at = this.#after(at, end) + 1) {
      if (isName(this.#tokens[at])) keys.push({ name: this.#tokens[at], at });
    }
    return keys;
  }

  /** `on('update', ({ version }) => …)`, the name of `on` being behind. */
  #listener(open) {
    const event = this.#tokens[open + 1]?.slice(1, -1);
    const events = membersOf(this.#entry, 'FreshetEvents');
    if (!events.has(event)) this.problems.push(`there is no event ${event}`);
    else this.#value(open + 3, `(detail${events.get(event)}) => void`, 'on');
  }

  /** `.map(({ itemId }) => …)` on a list. */
  #callback(open, type) {
    if (this.#tokens[open + 1] === '(' && this.#tokens[open + 2] === '{') this.#pattern(open + 2, type);
  }

  /** Attributes of components that are functions of the package. */
  #elements(script) {
    for (const [, name, attributes] of script.matchAll(/<([A-Z]\w+)((?:\s+[\w-]+=(?:"[^"]*"|\{[^}]*\}))*)\s*\/?>/g)) {
      const { signature } = this.#things.get(name) ?? {};
      if (!signature) continue;
      const members = membersOf(this.#entry, calledAs(signature).parameters[0]);
      for (const [, attribute] of attributes.matchAll(/([\w-]+)=/g)) {
        if (!members.has(attribute)) this.problems.push(`${name} takes no ${attribute}`);
      }
    }
  }

  /** Where the bracket at `open` is closed. */
  #closing(open) {
    let depth = 0;
    for (let at = open; at < this.#tokens.length; at += 1) {
      if ('([{'.includes(this.#tokens[at])) depth += 1;
      else if (')]}'.includes(this.#tokens[at]) && (depth -= 1) === 0) return at;
    }
    return this.#tokens.length;
  }

  /** The comma behind what begins at `at`, or `end`. */
  #after(at, end) {
    for (let here = at; here < end; here += 1) {
      if (this.#tokens[here] === ',') return here;
      if ('([{'.includes(this.#tokens[here])) here = this.#closing(here);
    }
    return end;
  }
}

/** The code of a file, what its markup computes included. */
function scriptOf(code, language) {
  if (language === 'js' || language === 'jsx') return code;
  const isCode = (attributes) => !attributes.includes('importmap');
  const scripts = [...code.matchAll(/<script([^>]*)>([^]*?)<\/script>/g)].filter(([, attributes]) => isCode(attributes));
  const markup = code.replaceAll(/<script[^]*?<\/script>/g, '');
  const lines = scripts.map(([, , script]) => script);
  const loops = [/v-for="(\{[^}]*\}) in ([^"]+)"/g, /\{#each ([\w.$]+) as (\{[^}]*\})/g];
  if (language === 'vue') {
    for (const [, pattern, list] of markup.matchAll(loops[0])) lines.push(`for (const ${pattern} of ${list});`);
    for (const [, attribute, shown] of markup.matchAll(/\s[@:][\w-]+="([^"]*)"|\{\{(.*?)\}\}/g)) lines.push(`;(${attribute ?? shown});`);
  }
  if (language === 'svelte') {
    for (const [, list, pattern] of markup.matchAll(loops[1])) lines.push(`for (const ${pattern} of ${list});`);
    for (const [, shown] of markup.matchAll(/\{(?:#if )?([^{}#/:@][^{}]*)\}/g)) lines.push(`;(${shown});`);
  }
  return lines.join('\n');
}
