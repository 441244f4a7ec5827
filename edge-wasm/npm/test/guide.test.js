//! The guide and the package's README say what is so: every name that their code takes from the package is one that the
//! declarations have, and the starts do what pages do that are built and opened in Chromium.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';

import { callOf, snippetOf } from '../../../web-demo/page/playground-calls.js';
import { Package, calledAs, membersOf } from './declarations.js';
import { Reader } from './snippets.js';

const ROOT = new URL('../../../', import.meta.url);
const LANGUAGES = new Set(['js', 'jsx', 'html', 'vue', 'svelte']);
const pack = new Package();
const text = (path) => readFileSync(new URL(path, ROOT), 'utf8');

/** Blocks of code of a page, each with the file that a comment before it names. */
function blocksOf(page) {
  const blocks = [...text(page).matchAll(/(?:<!-- start: (\S+) -->\n)?^ *```(\w+)\n([^]*?)^ *```$/gm)];
  return blocks
    .filter(([, , language]) => LANGUAGES.has(language))
    .map(([, fixture, language, code], idx) => ({ place: `${page}, block ${idx + 1}`, fixture, language, code }));
}

const guide = readdirSync(new URL('docs/guide', ROOT)).map((name) => `docs/guide/${name}`);
const blocks = [...guide, 'edge-wasm/npm/README.md'].flatMap(blocksOf);

test('the code of the guide takes names from the package that are there', () => {
  assert.ok(blocks.length > 30, `${blocks.length} blocks`);
  const problems = blocks.flatMap(({ place, language, code }) =>
    new Reader(pack, code, language).problems.map((problem) => `${place}: ${problem}`),
  );
  assert.deepEqual(problems, []);
});

test('a name that is not there is found, wherever it stands', () => {
  const start = "import { Freshet } from 'freshet';\nconst freshet = await Freshet.connect({ url: '/' });\n";
  for (const [code, problem] of [
    ["import { Frehset } from 'freshet';", 'freshet has no Frehset'],
    ["import { Freshet } from 'freshet/gpu';", 'there is no freshet/gpu'],
    ["import { Freshet } from 'freshet';\nFreshet.conect({ url: '/' });", 'there is no conect'],
    [`${start}freshet.recomend({ k: 3 });`, 'there is no recomend'],
    [`${start}freshet.recommend({ count: 3 });`, 'recommend takes no count'],
    [`${start}freshet.recommend({ rules: { boost: [{ itemIds: [], factor: 2 }] } });`, 'recommend takes no factor'],
    [`${start}const { itms } = await freshet.recommend({ k: 3 });`, 'there is no itms'],
    [`${start}const { items } = await freshet.recommend();\nitems.map(({ id }) => id);`, 'there is no id'],
    [`${start}freshet.on('updated', () => {});`, 'there is no event updated'],
    [`${start}freshet.on('update', ({ number }) => number);`, 'there is no number'],
    [`${start}freshet.history.load();`, 'there is no load'],
    ["import { useRecommendations } from 'freshet/react';\nuseRecommendations({ signal });", 'useRecommendations takes no signal'],
    ["import { FreshetProvider } from 'freshet/react';\n<FreshetProvider adress=\"/\"><p /></FreshetProvider>", 'FreshetProvider takes no adress'],
  ]) {
    assert.deepEqual(new Reader(pack, code, 'jsx').problems, [problem], code);
  }
  const svelte = "<script>\nimport { recommendations } from 'freshet/svelte';\nconst shelf = recommendations({ k: 3 });\n</script>\n";
  assert.deepEqual(new Reader(pack, `${svelte}{$shelf.itms.length}`, 'svelte').problems, ['there is no itms']);
  assert.deepEqual(new Reader(pack, `${svelte}{#each $shelf.items as { id }}{id}{/each}`, 'svelte').problems, ['there is no id']);
  const vue = "<script setup>\nimport { useFreshet } from 'freshet/vue';\nconst freshet = useFreshet();\n</script>\n";
  const pressed = new Reader(pack, `${vue}<template><b @click="freshet.feedbak('click', 'a')" /></template>`, 'vue');
  assert.deepEqual(pressed.problems, ['there is no feedbak']);
});

test('every start imports and calls what a page does that is opened in Chromium', () => {
  const starts = blocks.filter(({ fixture }) => fixture);
  assert.ok(starts.length >= 14, `${starts.length} starts`);
  const language = (path) => path.slice(path.lastIndexOf('.') + 1);
  for (const { place, fixture, language: written, code } of starts) {
    const opened = new Reader(pack, text(fixture), language(fixture)).used;
    // `Freshet` comes by a script tag there, and connecting and ranking are all that a start needs.
    const used = [...new Reader(pack, code, written).used].filter((name) => !name.endsWith('.feedback'));
    assert.ok(used.length > 0, place);
    for (const name of used) assert.ok(opened.has(name), `${place} uses ${name}, ${fixture} does not`);
  }
});

test('the page on errors has every code, and no other', () => {
  const { types } = pack.entry('freshet');
  const declared = [...types.get('FreshetErrorCode').matchAll(/'(\w+)'/g)].map(([, code]) => code);
  const explained = [...text('docs/guide/errors.md').matchAll(/^\| `(\w+)` \|/gm)].map(([, code]) => code);
  assert.deepEqual(explained.sort(), declared.sort());
});

test('the index of the guide links every page, and every link leads somewhere', () => {
  for (const page of guide) {
    if (!page.endsWith('README.md')) assert.ok(text('docs/guide/README.md').includes(`(${page.split('/').pop()})`), page);
    for (const [, target] of text(page).matchAll(/\]\((?!https?:)([^)#]+)/g)) {
      assert.doesNotThrow(() => readFileSync(new URL(target, new URL(page, ROOT))), `${page} links ${target}`);
    }
  }
});

test('the lines that the playground shows take names that are there', () => {
  const fields = {
    k: '12', excludeSeen: 'on', filter: "mug's", boost: 'a, b', boostPoints: '0.7', bury: 'c', buryPoints: '2', require: 'd e',
    requirePosition: '1', exclude: 'f', isDiverse: 'on', lambda: '0.7', isExploring: 'on', temperature: '0.5', seed: '7',
    text: 'lamp', taste: '0.3', newTexts: 'teapot\nlamp', explained: 'a', similarTo: 'a b',
  };
  for (const call of ['recommend', 'rank', 'similar', 'search', 'rankNew', 'explain']) {
    const code = snippetOf(callOf({ ...fields, call }, (itemId) => itemId), '/');
    const reader = new Reader(pack, code, 'js');
    assert.deepEqual(reader.problems, [], code);
    assert.ok(reader.used.has(`Freshet.${call}`), code);
    assert.equal(code.includes('titles.js'), code.includes('filter: '), code);
  }
  const { args } = callOf({ ...fields, call: 'recommend' }, (itemId) => itemId);
  assert.deepEqual(args[0].rules.require, [{ itemId: 'd', position: 1 }, { itemId: 'e', position: 2 }]);
  assert.equal(args[0].filter("Blue MUG'S friend"), true);
});

test('the declarations are read as they are written', () => {
  const entry = pack.entry('freshet/react-cpu');
  const list = membersOf(entry, calledAs(entry.functions.get('useRecommendations')).parameters[0]);
  assert.ok(list.has('k') && list.has('live') && !list.has('signal'), [...list.keys()].join());
  assert.ok(membersOf(entry, 'Freshet', true).has('connect') && !membersOf(entry, 'Freshet').has('connect'));
});
