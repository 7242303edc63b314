// The page works without this script, but for tokens: a form cannot send one.
'use strict';

const TOKEN = 'token';
let again = null; // What a token was missing for.

// Sends a request with the tab's token, and shows the page that it is answered with, or what went wrong.
async function load(url, options = {}) {
  again = () => load(url, options);
  const headers = { accept: 'text/html' };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(url, { ...options, headers });
  } catch {
    return say('The server did not answer. Is it still running?');
  }
  if (response.status === 401) {
    sessionStorage.removeItem(TOKEN);
    say(token ? 'That is not the token.' : '');
    document.getElementById('unlock').hidden = false;
    return document.getElementById('token').focus();
  }
  if (!response.ok) return say((await response.json()).detail);
  const page = new DOMParser().parseFromString(await response.text(), 'text/html');
  document.title = page.title;
  document.body.replaceWith(page.body);
}

function say(problem) {
  document.getElementById('problem').textContent = problem;
}

document.addEventListener('submit', event => {
  event.preventDefault();
  if (event.target.id === 'unlock') {
    sessionStorage.setItem(TOKEN, document.getElementById('token').value);
    return again();
  }
  const body = new URLSearchParams(new FormData(event.target, event.submitter));
  load(event.target.action, { method: 'POST', body });
});

again = () => load(location.href);
if (!document.getElementById('change') && sessionStorage.getItem(TOKEN)) again();
