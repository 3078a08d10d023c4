"use strict";
// Whatever goes wrong is shown: a page that fails in silence would show what is not so.
window.addEventListener("error", (event) => {
  const box = document.getElementById("errors");
  box.hidden = false;
  box.textContent += event.message + "\n";
});

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

// An element with classes, text and children. Names come from files: text is never markup.
function make(tag, classes, text, children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== undefined && text !== null) element.textContent = text;
  if (children) element.append(...children);
  return element;
}

function section(panel, title, children) {
  if (children.length) panel.append(make("h3", "", title), ...children);
}

