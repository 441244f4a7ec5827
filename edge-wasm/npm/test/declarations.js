//! The names that the package's declarations give: a reader of its own `.d.ts` files, as far as they go, for tests.
//!
//! Types stay texts. `membersOf` answers which names a type has, and the texts of their types; an unknown type has none.

import { readFileSync } from 'node:fs';

const PACKAGE = new URL('../', import.meta.url);
const FILES = ['types', 'index', 'binding', 'react', 'vue', 'svelte'];
/** What is not declared there: the parameter of list types as the bindings fill it in, and what the language has. */
const ALIASES = { Item: 'RankedItem | SimilarItem', Error: '{ message: string; cause: unknown; stack: string }' };

const read = (name) => readFileSync(new URL(name, PACKAGE), 'utf8').replaceAll(/\/\*[^]*?\*\/|\/\/.*$/gm, '');

/** @typedef {{types: Map<string, string>, functions: Map<string, string>}} Declarations texts by name */

/** What a file and the files that all share declare. @param {string} file without its ending @returns {Declarations} */
function declarationsOf(file) {
  const types = new Map(Object.entries(ALIASES));
  const functions = new Map();
  for (const name of FILES.slice(0, 3).concat(file)) {
    const text = read(`${name}.d.ts`);
    for (const { 1: kind, 2: declared, index, 0: start } of text.matchAll(/export (?:declare )?(interface|class|type|function) (\w+)/g)) {
      const rest = text.slice(index + start.length);
      if (kind === 'function') functions.set(declared, rest.slice(0, endOf(rest, ';')));
      else if (kind === 'type') types.set(declared, rest.slice(rest.indexOf(' = ') + 3, endOf(rest, ';')));
      else types.set(declared, rest.slice(0, rest.indexOf('{')).replace(/^<[^>]*>/, '') + bodyOf(rest));
    }
  }
  return { types, functions };
}

/** The part in braces that begins a text. */
function bodyOf(text) {
  const open = text.indexOf('{');
  return text.slice(open, open + 1 + endOf(text.slice(open + 1), '}') + 1);
}

/** Where `closing` stands outside of all brackets. */
export function endOf(text, closing) {
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    if (depth === 0 && text[at] === closing) return at;
    if ('([{'.includes(text[at]) || (text[at] === '<' && text[at + 1] !== '=')) depth += 1;
    else if (')]}'.includes(text[at]) || (text[at] === '>' && text[at - 1] !== '=')) depth -= 1;
  }
  return text.length;
}

/** Parts of a text between `separator` outside of brackets. */
export function split(text, separator) {
  const parts = [];
  for (let rest = text; rest !== ''; ) {
    const end = endOf(rest, separator);
    parts.push(rest.slice(0, end).trim());
    rest = rest.slice(end + 1);
  }
  return parts.filter(Boolean);
}

/** Entries of the package, each with the names that may be imported from it. */
export class Package {
  /** @type {Map<string, Declarations & {exports: Set<string>}>} */
  #entries = new Map();

  constructor() {
    const { exports } = JSON.parse(readFileSync(new URL('package.json', PACKAGE), 'utf8'));
    for (const [subpath, { types }] of Object.entries(exports)) {
      if (!types) continue;
      const file = this.#followed(types);
      const names = new Set([...read(`${file}.d.ts`).matchAll(/export declare \w+ (\w+)/g)].map(([, name]) => name));
      this.#entries.set(subpath.replace(/^\./, 'freshet'), { ...declarationsOf(file), exports: names });
    }
  }

  /** Entries that only hand on another are that one. */
  #followed(types) {
    const [, file] = types.match(/\.\/([\w-]+)\.d\.ts/);
    const [, next] = read(`${file}.d.ts`).match(/^\s*export \* from '(\.\/[\w-]+)\.js'/m) ?? [];
    return next ? this.#followed(`${next}.d.ts`) : file;
  }

  /** @param {string} specifier as it is imported */
  entry(specifier) {
    return this.#entries.get(specifier);
  }
}

/**
 * Members of a type by name, with the texts of their types.
 * @param {Declarations} declarations
 * @param {string} type
 * @param {boolean} isStatic of a class: those of the class itself
 * @returns {Map<string, string>}
 */
export function membersOf({ types, functions }, type, isStatic = false) {
  const members = new Map();
  const omitted = new Set([...type.matchAll(/'(\w+)'/g)].map(([, name]) => name));
  const addBody = (body) => {
    for (const part of split(body.slice(1, -1), ';')) {
      const [, mapped] = part.match(/^(?:readonly )?\[\w+ in keyof (\w+)/) ?? [];
      if (mapped) for (const [member, text] of membersOf({ types, functions }, mapped)) members.set(member, text);
      const [, before, name, rest] = part.match(/^((?:readonly |static |private )*)(\w+)\??\s*([^]*)$/) ?? [];
      if (!name || before.includes('private') || before.includes('static') !== isStatic) continue;
      const other = members.get(name);
      members.set(name, other ? `${other} | ${rest}` : rest);
    }
  };
  let outside = type;
  for (let open = outside.indexOf('{'); open >= 0; open = outside.indexOf('{')) {
    const body = bodyOf(outside);
    addBody(body);
    outside = outside.replace(body, '');
  }
  for (const [name] of outside.replaceAll(/'[^']*'/g, '').matchAll(/\b[A-Z]\w*/g)) {
    if (!types.has(name)) continue;
    for (const [member, text] of membersOf({ types, functions }, types.get(name), isStatic)) members.set(member, text);
  }
  if (/\b(?:Omit|Exclude)</.test(type)) for (const name of omitted) members.delete(name);
  return members;
}

/** Parameters and answer of what is called. @param {string} signature `(a: A, b?: B): C` or `: (a: A) => C` */
export function calledAs(signature) {
  const open = signature.indexOf('(');
  if (open < 0) return undefined;
  const rest = signature.slice(open + 1);
  const end = endOf(rest, ')');
  const parameters = split(rest.slice(0, end), ',').map((parameter) => parameter.slice(parameter.indexOf(':') + 1));
  return { parameters, answer: rest.slice(end + 1).replace(/^\s*(?::|=>)/, '') };
}
