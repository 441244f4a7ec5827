// Line and bar charts as SVG.

const NAMESPACE = 'http://www.w3.org/2000/svg';
const [WIDTH, HEIGHT] = [460, 170];
const [LEFT, RIGHT, TOP, BOTTOM] = [60, 8, 10, 22];
const CLASSES = ['first', 'second', 'third'];

function shape(name, attributes, text) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The least of 1, 2 and 5 times a power of ten that is not below `value`. */
function rounded(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= value * 0.999) ?? value;
}

function frame(label, max, format) {
  const svg = shape('svg', { class: 'chart', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': label });
  for (const share of [0, 0.5, 1]) {
    const y = HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
    svg.append(shape('line', { class: 'grid', x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }));
    svg.append(shape('text', { x: LEFT - 6, y: y + 4, 'text-anchor': 'end' }, format(share * max)));
  }
  return svg;
}

function legend(names) {
  const element = document.createElement('div');
  element.className = 'legend';
  names.forEach((name, series) => {
    const entry = document.createElement('span');
    entry.className = CLASSES[series];
    entry.textContent = name;
    element.append(entry);
  });
  return element;
}

/**
 * Lines over time; gaps where a value is missing.
 * @param {{ label: string, at: number[], series: { name: string, values: (number | null)[] }[], format: (value: number) => string }} chart
 */
export function lines({ label, at, series, format }) {
  const figure = document.createElement('figure');
  const known = series.flatMap(({ values }) => values).filter((value) => value !== null && value !== undefined);
  const max = rounded(Math.max(0, ...known));
  const svg = frame(label, max, format);
  const [first, last] = [at[0] ?? 0, at.at(-1) ?? 1];
  const x = (moment) => LEFT + ((moment - first) / Math.max(1, last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / max) * (HEIGHT - TOP - BOTTOM);
  series.forEach(({ values }, index) => {
    let path = '';
    let isOpen = false;
    values.forEach((value, place) => {
      const isKnown = value !== null && value !== undefined;
      if (isKnown) path += `${isOpen ? 'L' : 'M'}${x(at[place]).toFixed(1)} ${y(value).toFixed(1)}`;
      if (isKnown && !isOpen && (values[place + 1] ?? null) === null) path += 'h1.5'; // a lone point
      isOpen = isKnown;
    });
    svg.append(shape('path', { class: CLASSES[index], d: path }));
  });
  const time = (millis) => new Date(millis).toLocaleTimeString('sv');
  if (at.length > 0) {
    svg.append(shape('text', { x: LEFT, y: HEIGHT - 6 }, time(first)));
    svg.append(shape('text', { x: WIDTH - RIGHT, y: HEIGHT - 6, 'text-anchor': 'end' }, time(last)));
  }
  figure.append(svg, legend(series.map(({ name }) => name)));
  return figure;
}

/**
 * Groups of bars side by side.
 * @param {{ label: string, names: string[], series: { name: string, values: number[] }[], format: (value: number) => string }} chart
 */
export function bars({ label, names, series, format }) {
  const figure = document.createElement('figure');
  const max = rounded(Math.max(0, ...series.flatMap(({ values }) => values)));
  const svg = frame(label, max, format);
  const step = (WIDTH - LEFT - RIGHT) / names.length;
  const width = (step * 0.8) / series.length;
  names.forEach((name, group) => {
    series.forEach(({ values }, index) => {
      const height = (values[group] / max) * (HEIGHT - TOP - BOTTOM);
      const x = LEFT + group * step + step * 0.1 + index * width;
      svg.append(shape('rect', { class: CLASSES[index], x, y: HEIGHT - BOTTOM - height, width: width * 0.92, height }));
    });
    svg.append(shape('text', { x: LEFT + (group + 0.5) * step, y: HEIGHT - 6, 'text-anchor': 'middle' }, name));
  });
  figure.append(svg, legend(series.map(({ name }) => name)));
  return figure;
}

/**
 * Values with intervals, a row each, on one axis with a line at 0.
 * @param {{ label: string, rows: { name: string, value: number | null, lower: number, upper: number }[], format: (value: number) => string }} chart
 */
export function intervals({ label, rows, format }) {
  const [step, left] = [34, 110];
  const height = rows.length * step + BOTTOM;
  const svg = shape('svg', { class: 'chart', viewBox: `0 0 ${WIDTH} ${height}`, role: 'img', 'aria-label': label });
  const max = rounded(Math.max(...rows.flatMap(({ lower, upper }) => [-lower, upper])));
  const x = (value) => left + ((value + max) / (2 * max)) * (WIDTH - left - 40);
  for (const value of [-max, 0, max]) {
    svg.append(shape('line', { class: 'grid', x1: x(value), x2: x(value), y1: 0, y2: height - BOTTOM }));
    svg.append(shape('text', { x: x(value), y: height - 6, 'text-anchor': 'middle' }, format(value)));
  }
  rows.forEach(({ name, value, lower, upper }, row) => {
    const y = (row + 0.5) * step;
    svg.append(shape('text', { x: left - 10, y: y + 4, 'text-anchor': 'end' }, name));
    svg.append(shape('path', { class: 'first', d: `M${x(lower)} ${y}H${x(upper)}` }));
    if (value !== null) svg.append(shape('circle', { class: 'first', cx: x(value), cy: y, r: 4 }));
  });
  const figure = document.createElement('figure');
  figure.append(svg);
  return figure;
}
