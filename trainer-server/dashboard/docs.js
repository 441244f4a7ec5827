// The reference of the API, made from openapi.json.

import { card, make, table } from './elements.js';

const page = document.getElementById('page');

/** @param {any} document @param {any} value What `$ref` leads to, where it is one. */
const resolved = (document, value) => (value?.$ref ? value.$ref.slice(2).split('/').reduce((place, key) => place[key], document) : value);

/** The last part of a reference. */
const nameOf = (value) => value?.$ref?.split('/').at(-1);

/** Bounds that say more than the type. */
const isBound = (value) => value !== undefined && Math.abs(value) <= Number.MAX_SAFE_INTEGER;

/** A schema in a few words. */
function words(schema) {
  if (!schema) return '';
  const name = nameOf(schema);
  if (name) return make('a', { href: `#${name}` }, name);
  const choices = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (choices && !schema.properties) return make('span', {}, ...choices.flatMap((choice, index) => [index ? ' or ' : '', words(choice)]));
  if (schema.const !== undefined) return `“${schema.const}”`;
  const type = [schema.type ?? 'any'].flat().join(' or ');
  const limits = [];
  if (schema.enum) limits.push(schema.enum.join(', '));
  if (isBound(schema.minimum)) limits.push(`from ${schema.minimum}`);
  if (isBound(schema.exclusiveMinimum)) limits.push(`above ${schema.exclusiveMinimum}`);
  if (isBound(schema.maximum)) limits.push(`to ${schema.maximum}`);
  if (schema.maxLength !== undefined) limits.push(`at most ${schema.maxLength} characters`);
  if (schema.maxItems !== undefined) limits.push(`at most ${schema.maxItems}`);
  if (schema.default !== undefined) limits.push(`default ${schema.default}`);
  const text = `${type}${limits.length ? `: ${limits.join(', ')}` : ''}`;
  const element = schema.items ?? (typeof schema.additionalProperties === 'object' ? schema.additionalProperties : null);
  return element ? make('span', {}, `${text} of `, words(element)) : text;
}

/** Fields of an object, and of each of several that it may be. */
function fields(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => [make('code', {}, name), words(field), schema.required?.includes(name) ? 'required' : '', field.description ?? '']);
  const own = rows.length ? table([['Field'], ['Type'], [''], ['Meaning']], rows) : null;
  const choices = [schema.oneOf, schema.anyOf, schema.allOf].flatMap((list) => list ?? []);
  const others = choices.map((choice) => make('div', {}, make('p', {}, choice.properties ? null : words(choice), ' ', choice.description ?? ''), fields(choice)));
  return own || others.length ? make('div', {}, ...others, own) : make('p', {}, words(schema));
}

function content(value) {
  return Object.entries(value?.content ?? {}).map(([type, { schema, example }]) =>
    make('div', {}, make('p', {}, make('code', {}, type), ' ', words(schema), ' ', schema.description ?? ''), example ? make('pre', {}, JSON.stringify(example, null, 2)) : null),
  );
}

function operation(document, path, method, about) {
  const parameters = (about.parameters ?? []).map((parameter) => resolved(document, parameter)).map((parameter) => [make('code', {}, parameter.name), parameter.in, words(parameter.schema), parameter.required ? 'required' : '', parameter.description ?? '']);
  const answers = Object.entries(about.responses).map(([status, answer]) => [status, make('div', {}, resolved(document, answer).description, ...content(resolved(document, answer)))]);
  return card(
    `${method.toUpperCase()} ${path}`,
    make('p', {}, about.summary),
    about.description ? make('p.note', {}, about.description) : null,
    parameters.length ? make('h3', {}, 'Parameters') : null,
    parameters.length ? table([['Name'], ['In'], ['Type'], [''], ['Meaning']], parameters) : null,
    about.requestBody ? make('h3', {}, 'Body') : null,
    about.requestBody?.description ? make('p.note', {}, about.requestBody.description) : null,
    ...content(resolved(document, about.requestBody)),
    make('h3', {}, 'Answers'),
    table([['Status'], ['Body']], answers),
  );
}

const answer = await fetch('/openapi.json').catch(() => null);
if (answer?.ok) {
  const document = await answer.json();
  const METHODS = ['get', 'put', 'post', 'delete', 'patch'];
  const operations = Object.entries(document.paths).flatMap(([path, item]) => METHODS.filter((method) => method in item).map((method) => operation(document, path, method, item[method])));
  const schemas = Object.entries(document.components.schemas).map(([name, schema]) => {
    const section = card(name, schema.description ? make('p.note', {}, schema.description) : null, fields(schema));
    section.id = name;
    return section;
  });
  page.append(make('p.intro', {}, document.info.description), make('div.stack', {}, ...operations), make('h2', {}, 'Objects'), make('div.stack', {}, ...schemas));
} else {
  page.append(make('p.bad', { role: 'alert' }, 'openapi.json was not answered.'));
}
