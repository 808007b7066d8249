// Keeps the page up to date, and looks through the catalog without asking the gateway. Nothing here makes text into markup: what
// comes was made safe where it was made.
"use strict";

const live = document.getElementById("live");
const search = document.querySelector("input[name=q]");

const look = () => {
  const wanted = search.value.trim().toLowerCase();
  for (const row of document.querySelectorAll("#catalog tbody tr")) {
    row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
  }
};

const opened = () => new Set([...document.querySelectorAll("details[open]")].map((one) => one.dataset.name));

const events = new EventSource("/status/events");
events.onopen = () => {
  live.textContent = "live";
  live.className = "good";
};
events.onerror = () => {
  live.textContent = "not live: the gateway is away, and is asked again";
  live.className = "bad";
};
events.addEventListener("part", (event) => {
  const { id, html } = JSON.parse(event.data);
  const part = document.getElementById(id);
  if (!part) return;
  const before = opened();
  part.innerHTML = html;
  for (const one of part.querySelectorAll("details")) {
    one.open = before.has(one.dataset.name);
  }
  look();
});

search.addEventListener("input", look);
search.form.addEventListener("submit", (event) => event.preventDefault());
look();
