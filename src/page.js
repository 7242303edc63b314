// The page works without this script. The script updates it live, and sends a token.
'use strict';

const TOKEN = 'token'; // Its key in the session storage.
const SHOWN = 8; // How many changes, and lines of the service, are shown.
const SILENCE = 40_000; // ms without data until a stream counts as broken. It sends something every 15 s.
const RETRY = 1000; // ms before a reconnect.

const $ = id => document.getElementById(id);
const change = (of, event) => new Promise(done => of.addEventListener(event, done, { once: true }));
const pause = ms => new Promise(done => setTimeout(done, ms));

let live; // Aborts all streams of the page.
let retry; // Repeats the request that lacked a token.

const say = problem => { $('problem').textContent = problem; };

// Sends a request with the tab's token. On a 401, the page asks for a token, and then calls `again`.
async function send(url, options, again) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...token && { authorization: `Bearer ${token}` } };
  const response = await fetch(url, { ...options, headers });
  if (response.status === 401) {
    retry = again;
    say(token ? 'That is not the token.' : '');
    $('unlock').hidden = false;
    $('token').focus();
  }
  return response;
}

// The same, for the JSON of the response. If it fails, shows the reason and returns nothing.
async function ask(url, options = {}) {
  try {
    const response = await send(url, options, () => ask(url, options));
    if (response.status === 401) return;
    const answer = await response.json();
    if (response.ok) return answer;
    say(answer.detail);
  } catch {
    say('The server did not answer. Is it still running?');
  }
}

// Follows a stream of server-sent events while the page is visible. A reconnect continues where it was.
// (EventSource cannot send a token.)
async function follow(url, signal, tell, told = () => {}) {
  let last;
  while (!signal.aborted) {
    if (document.hidden) {
      await change(document, 'visibilitychange');
      continue;
    }
    const call = new AbortController();
    const end = () => call.abort();
    const hide = () => document.hidden && end();
    signal.addEventListener('abort', end);
    document.addEventListener('visibilitychange', hide);
    let silence;
    try {
      const headers = last === undefined ? {} : { 'last-event-id': last };
      const response = await send(url, { headers, signal: call.signal }, start);
      if (response.status === 401) return;
      if (!response.ok) throw response;
      told(true);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ''; ;) {
        clearTimeout(silence);
        silence = setTimeout(end, SILENCE);
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (text + value).split('\n\n');
        text = blocks.pop();
        for (const block of blocks) {
          const lines = block.split('\n').map(line => line.split(/: ?(.*)/, 2));
          const { event, id, data } = Object.fromEntries(lines);
          if (id !== undefined) last = id;
          if (data !== undefined) tell(event, data, id);
        }
      }
    } catch {
      if (!document.hidden) told(false);
    } finally {
      clearTimeout(silence);
      signal.removeEventListener('abort', end);
      document.removeEventListener('visibilitychange', hide);
    }
    if (!document.hidden) await pause(RETRY);
  }
}

// Adds a line at the top of a list, and removes the oldest lines.
function push(list, text, detail) {
  const item = document.createElement('li');
  const span = document.createElement('span');
  span.textContent = detail;
  item.append(text, ' ', span);
  list.prepend(item);
  while (list.children.length > SHOWN) list.lastChild.remove();
}

// Shows a state. All states come from the stream, which has them in order.
function show({ set, generation }) {
  const { name } = document.body.dataset;
  const word = set ? 'set' : 'clear';
  $('state').textContent = word;
  $('state').dataset.set = set;
  $('generation').textContent = generation;
  document.title = `${name} is ${word} \u2013 loopless`;
  const button = document.querySelector('#change button');
  button.value = set ? 'False' : 'True';
  button.textContent = set ? 'Clear' : 'Set';
}

function followEvent(url, signal) {
  let known; // The id of the last change that was listed.
  follow(`${url}/stream`, signal, (event, data, id) => {
    const state = JSON.parse(data);
    if (event === 'problem') return say(state.detail);
    show(state);
    if (event === 'reset') $('changes').textContent = '';
    if (id === known && !event) return;
    const what = event === 'forgotten' ? 'forgotten' : state.set ? 'set' : 'clear';
    const when = known === undefined ? 'when this page was opened' : new Date().toLocaleTimeString();
    push($('changes'), `${state.generation} ${what}`, when);
    known = id;
    list();
  }, isLive => {
    if (isLive && $('link').dataset.live === 'false') say('');
    $('link').dataset.live = isLive;
    $('link').textContent = isLive ? 'live' : 'connection lost, reconnecting';
  });
}

async function list() {
  const answer = await ask('/events?limit=50');
  if (!answer) return;
  $('list').replaceChildren(...answer.events.map(({ name, set }) => {
    const item = document.createElement('li');
    const link = document.createElement('a');
    link.href = `/events/${name}`;
    link.textContent = name;
    item.append(link, set ? ' set' : ' clear');
    return item;
  }));
}

// Makes one wait, like any client.
async function wait(url) {
  const began = performance.now();
  const tick = () => { $('age').textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`; };
  const clock = setInterval(tick, 100);
  const tell = how => { $('waited').textContent = how; };
  $('wait').disabled = true;
  tell('waiting for');
  try {
    const { status } = await send(`${url}/wait`, {}, () => wait(url));
    const ends = { 200: 'it was set', 408: 'it was not set', 410: 'it was forgotten' };
    tell(`${ends[status] ?? `the response was ${status}`}, after`);
  } catch {
    tell('the server did not answer, after');
  }
  clearInterval(clock);
  tick();
  $('wait').disabled = false;
}

// Follows the service while its panel is open.
function followService(signal) {
  const look = async () => {
    const status = await ask('/service');
    if (status) $('doing').textContent = `${status.state}, ${status.ticks} tick${status.ticks === 1 ? '' : 's'}`;
  };
  const order = (path) => async () => {
    say('');
    await ask(path, { method: 'POST' });
    look();
  };
  $('start').onclick = order('/service/start');
  $('stop').onclick = order('/service/stop');
  let open;
  $('panel').ontoggle = () => {
    open?.abort();
    if (!$('panel').open) return;
    open = new AbortController();
    look();
    follow('/service/stream', AbortSignal.any([signal, open.signal]), (_, line, id) => {
      push($('lines'), line, id);
      look();
    });
  };
}

// Starts the live updates.
function start() {
  live?.abort();
  live = new AbortController();
  const { name } = document.body.dataset;
  $('unlock').onsubmit = event => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, $('token').value);
    if (name) $('unlock').hidden = true;
    say('');
    retry();
  };
  if (!name) {
    // The browser's navigation cannot send a token, but a request can.
    retry = unlock;
    if (sessionStorage.getItem(TOKEN)) unlock();
    return;
  }
  const url = `/events/${name}`;
  for (const section of document.querySelectorAll('section')) section.hidden = false;
  $('change').onsubmit = event => {
    event.preventDefault();
    say('');
    ask(url, { method: 'PUT', body: JSON.stringify({ set: event.submitter.value === 'True' }) });
  };
  $('open').onsubmit = event => {
    event.preventDefault();
    location.href = `/events/${$('name').value}`;
  };
  $('wait').onclick = () => wait(url);
  followEvent(url, live.signal);
  if ($('panel')) followService(live.signal);
}

// Loads the page with a token, and replaces this locked one.
async function unlock() {
  try {
    const response = await send(location.href, { headers: { accept: 'text/html' } }, unlock);
    if (response.status === 401) return;
    const page = new DOMParser().parseFromString(await response.text(), 'text/html');
    document.title = page.title;
    document.body.replaceWith(page.body);
    start();
  } catch {
    say('The server did not answer. Is it still running?');
  }
}

start();
