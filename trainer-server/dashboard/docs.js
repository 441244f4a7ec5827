// The reference of the API, made from openapi.json.

import { card, make, table } from './elements.js';

const page = document.getElementById('page');

/** @param {any} document @param {any} value What `$ref` leads to, where it is one. */
const resolved = (document, value) => (value?.$ref ? value.$ref.slice(2).split('/').reduce((place, key) => place[key], document) : value);

/** The last part of a reference. */
const nameOf = (value) => value?.$ref?.split('/').at(-1);

/** A schema in a few words. */
function words(schema) {
  if (!schema) return '';
  const name = nameOf(schema);
  if (name) return make('a', { href: `#${name}` }, name);
  const type = [schema.type ?? 'any'].flat().join(' or ');
  const limits = [];
  if (schema.enum) limits.push(schema.enum.join(', '));
  if (schema.minimum !== undefined) limits.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) limits.push(`to ${schema.maximum}`);
  if (schema.maxLength !== undefined) limits.push(`at most ${schema.maxLength} characters`);
  if (schema.maxItems !== undefined) limits.push(`at most ${schema.maxItems}`);
  if (schema.default !== undefined) limits.push(`default ${schema.default}`);
  const text = `${type}${limits.length ? `: ${limits.join(', ')}` : ''}`;
  return schema.items ? make('span', {}, `${text} of `, words(schema.items)) : text;
}

/** Fields of an object. */
function fields(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => [make('code', {}, name), words(field), schema.required?.includes(name) ? 'required' : '', field.description ?? '']);
  return rows.length ? table([['Field'], ['Type'], [''], ['Meaning']], rows) : null;
}

function content(value) {
  return Object.entries(value?.content ?? {}).map(([type, { schema }]) => make('div', {}, make('p', {}, make('code', {}, type), ' ', nameOf(schema) ? words(schema) : ''), nameOf(schema) ? null : fields(schema ?? {})));
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
