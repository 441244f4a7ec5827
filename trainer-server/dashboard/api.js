// Requests to the admin address, with the token where the server asks for one.

const TOKEN_KEY = 'freshet-admin-token';

/** What the server said instead of an answer: a problem document, or that it was not reached. */
export class ApiError extends Error {
  /** @param {string} message @param {number} status 0 where the server was not reached. */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** @type {Promise<void> | undefined} */
let asking;

/**
 * Asks for the token in a dialog, once for all requests that want it.
 * @param {string} [refusal] What the server said of the token that was given before.
 */
function askForToken(refusal) {
  asking ??= new Promise((resolve) => {
    const dialog = document.createElement('dialog');
    dialog.innerHTML = `<form method="dialog"><h2>Admin token</h2>
      <p class="note">The server asks for a key: <code>access.admin_token</code> of its settings. It is kept until this tab is closed.</p>
      <p class="bad" role="alert" hidden></p>
      <div class="row"><input type="password" autocomplete="off" required aria-label="Admin token"><button class="main">Go on</button></div></form>`;
    dialog.addEventListener('close', () => {
      sessionStorage.setItem(TOKEN_KEY, dialog.querySelector('input').value);
      dialog.remove();
      asking = undefined;
      resolve();
    });
    if (refusal) Object.assign(dialog.querySelector('.bad'), { textContent: refusal, hidden: false });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

/**
 * @param {string} path
 * @param {RequestInit & { json?: unknown }} [options]
 * @returns {Promise<any>} The parsed answer.
 */
export async function request(path, options = {}) {
  const headers = {};
  const token = sessionStorage.getItem(TOKEN_KEY);
  if (token) headers.authorization = `Bearer ${token}`;
  if (options.json !== undefined) headers['content-type'] = 'application/json';
  const body = options.json === undefined ? options.body : JSON.stringify(options.json);
  const answer = await fetch(path, { ...options, headers, body }).catch((error) => {
    throw new ApiError(`the server was not reached: ${error.message}`, 0);
  });
  const value = await answer.json().catch(() => null);
  if (answer.status === 401 || (answer.status === 403 && token)) {
    // Another request may have asked meanwhile.
    if (sessionStorage.getItem(TOKEN_KEY) === token) await askForToken(token ? value?.detail : undefined);
    return request(path, options);
  }
  if (!answer.ok) {
    const places = (value?.errors ?? []).map((place) => `${place.pointer}: ${place.detail}`);
    throw new ApiError([value?.detail ?? answer.statusText, ...places].join('; '), answer.status);
  }
  return value;
}

/** @param {string} path @param {unknown} json */
export const post = (path, json) => request(path, { method: 'POST', json });

/**
 * @param {string[]} ids Of items.
 * @returns {Promise<Map<string, string>>} The titles of those in the catalogue.
 */
export async function titlesOf(ids) {
  if (ids.length === 0) return new Map();
  const { items } = await request(`/v1/catalogue?limit=1000&${ids.map((id) => `id=${encodeURIComponent(id)}`).join('&')}`);
  return new Map(items.map((item) => [item.item_id, item.title]));
}
