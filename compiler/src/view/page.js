// What is shown: step, selected value, search, and which layer stands for each group of equal blocks.
const view = { step: 0, value: null, search: "", layer: {}, closed: new Set() };

// A state with its values by id, made when it is first looked at.
const decoded = new Map();
function state(step) {
  if (decoded.has(step)) return decoded.get(step);
  const raw = data.states[step];
  const values = new Map();
  raw.order.forEach((version, number) => {
    const [id, op, attributes, type, operands, constant] = data.versions[version];
    const [opText, attributeText, typeText] = [op, attributes, type].map((place) => data.texts[place]);
    values.set(id, {
      id, version, number, operands, op: opText, attributes: attributeText, type: typeText,
      constant: constant === 1, place: raw.places[number], users: [],
    });
  });
  for (const value of values.values()) {
    for (const operand of new Set(value.operands)) values.get(operand).users.push(value.id);
  }
  const result = { ...raw, values };
  decoded.set(step, result);
  return result;
}

// "new" or "changed" against the state before, else nothing.
function change(value) {
  if (view.step === 0) return "";
  const before = state(view.step - 1).values.get(value.id);
  if (!before) return "new";
  return before.version === value.version ? "" : "changed";
}

const FAMILIES = [
  ["fused", /^(norm_quantize|linear_bias|linear_add|linear_swiglu|rope_quantize|rope_append|quantize_append)$/],
  ["linear", /^(linear|bias|concat|slice)$/],
  ["norm", /^(rms_norm|scale|scale_rows)$/],
  ["attention", /^(attention|rope|rope_table)$/],
  ["quantize", /^(quantize|dequantize)$/],
  ["cache", /^(cache|kv_append)$/],
];
function family(op) {
  const found = FAMILIES.find(([, pattern]) => pattern.test(op));
  return found ? "family-" + found[0] : "";
}

function matches(value, search) {
  if (!search) return false;
  if (/^%\d+$/.test(search)) return value.number === Number(search.slice(1));
  const text = (value.op + " " + value.attributes + " " + value.type).toLowerCase();
  return search.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

// What a block computes, without names and numbers of layers: equal blocks have equal signatures.
function signature(values) {
  const place = new Map(values.map((value, n) => [value.id, n]));
  return values.map((value) => {
    const named = ["const", "cache", "input"].includes(value.op);
    const name = named ? value.attributes.replace(/\d+/g, "#") : value.attributes;
    const operands = value.operands.map((id) => (place.has(id) ? place.get(id) : "·"));
    return [value.op, name, value.type, operands.join(","), change(value)].join("|");
  }).join("\n");
}

// The blocks of a state in order; equal ones that follow each other are one group.
function groups(current) {
  const places = new Map();
  for (const value of current.values.values()) {
    if (!places.has(value.place)) places.set(value.place, []);
    places.get(value.place).push(value);
  }
  const found = [];
  for (const place of [...places.keys()].sort((a, b) => a - b)) {
    const values = places.get(place);
    const inside = place >= 0 && place < current.layers;
    const text = inside ? signature(values) : null;
    const last = found[found.length - 1];
    if (inside && last && last.text === text) last.places.push(place);
    else found.push({ text, inside, places: [place], key: inside ? "layer" + place : "edge" + place });
  }
  for (const group of found) group.values = places;
  return found;
}

const WIDTH = 200, GAP_X = 24, GAP_Y = 34, LINE = 17;

// Nodes of a block, top down: a layer for each longest path, ordered by the middle of what they read.
function layout(values, current) {
  const nodes = new Map();
  for (const value of values) {
    if (value.constant || value.op === "cache") continue;
    nodes.set(value.id, { value, from: [], chips: [], port: false });
  }
  const ports = [];
  for (const node of nodes.values()) {
    for (const operand of node.value.operands) {
      const other = current.values.get(operand);
      // Constants and caches are shown in what reads them: nothing leads to them.
      if (other.constant || other.op === "cache") {
        if (!node.chips.includes(other)) node.chips.push(other);
      } else {
        node.from.push(operand);
        if (!nodes.has(operand) && !ports.some((port) => port.value.id === operand)) {
          ports.push({ value: other, from: [], chips: [], port: true });
        }
      }
    }
  }
  for (const port of ports) nodes.set(port.value.id, port);
  const order = [...nodes.values()].sort((a, b) => a.value.number - b.value.number);
  for (const node of order) {
    node.layer = Math.max(-1, ...node.from.map((id) => nodes.get(id).layer ?? -1)) + 1;
  }
  // What only one node reads stands right above it, not at the top.
  for (const node of [...order].reverse()) {
    const users = order.filter((other) => other.from.includes(node.value.id)).map((other) => other.layer);
    if (users.length && !node.from.length) node.layer = Math.max(0, Math.min(...users) - 1);
  }
  const rows = [];
  for (const node of order) (rows[node.layer] ??= []).push(node);
  // An edge over several rows has a narrow place of its own in each, so that it passes between nodes.
  for (const node of order) {
    node.above = node.from.map((id) => {
      const from = nodes.get(id);
      const places = (from.below ??= []);
      let above = from;
      for (let row = from.layer + 1; row < node.layer; row++) {
        if (!places[row]) rows[row].push(places[row] = { above: [above], number: from.value.number });
        above = places[row];
      }
      return above;
    });
  }
  const widthOf = (item) => (item.value ? WIDTH : 12);
  const total = (row) => row.reduce((sum, item) => sum + widthOf(item) + GAP_X, -GAP_X);
  const width = Math.max(...rows.map(total), WIDTH);
  let y = 0;
  for (const row of rows) {
    const center = (item) => item.left + widthOf(item) / 2;
    for (const item of row) {
      const xs = item.above.filter((other) => other.left !== undefined).map(center);
      item.middle = xs.length ? xs.reduce((sum, x) => sum + x, 0) / xs.length : Infinity;
    }
    const number = (item) => item.number ?? item.value.number;
    row.sort((p, q) => (p.middle === q.middle ? number(p) - number(q) : p.middle - q.middle));
    let left = (width - total(row)) / 2;
    const height = Math.max(...row.map((item) => 2 * LINE + 12 + (item.chips?.length ?? 0) * (LINE + 1)));
    for (const item of row) {
      item.left = left;
      item.top = y;
      item.height = item.value ? 2 * LINE + 12 + item.chips.length * (LINE + 1) : height;
      left += widthOf(item) + GAP_X;
    }
    y += height + GAP_Y;
  }
  return { nodes, width, height: Math.max(y - GAP_Y, 0) };
}

// The way of an edge: from below one item to above the next, straight through the places that it has between.
function way(node, id, nodes) {
  const from = nodes.get(id);
  const stops = [from];
  for (let row = from.layer + 1; row < node.layer; row++) stops.push(from.below[row]);
  stops.push(node);
  const middle = (item) => item.left + (item.value ? WIDTH : 12) / 2;
  let path = `M${middle(from)},${from.top + from.height}`;
  for (let n = 1; n < stops.length; n++) {
    const [x1, y1] = [middle(stops[n - 1]), stops[n - 1].top + stops[n - 1].height];
    const [x2, y2] = [middle(stops[n]), stops[n].top];
    const bend = (y2 - y1) / 2;
    path += ` L${x1},${y1} C${x1},${y1 + bend} ${x2},${y2 - bend} ${x2},${y2}`;
  }
  return path;
}

function nodeElement(node) {
  const { value } = node;
  const classes = ["node", family(value.op), change(value)];
  if (node.port) classes.push("port");
  if (matches(value, view.search)) classes.push("hit");
  if (view.value === value.id) classes.push("on");
  const name = value.op === "input" ? " " + value.attributes : "";
  const element = make("div", classes.filter(Boolean).join(" "), null, [
    make("span", "number", "%" + value.number),
    make("span", "op", value.op + name),
    make("span", "type", value.type),
  ]);
  for (const chip of node.chips) {
    const hit = within(chip, (value) => matches(value, view.search));
    const on = within(chip, (value) => value.id === view.value);
    const marks = ["chip", change(chip) && "new", hit && "hit", on && "on"].filter(Boolean).join(" ");
    const child = make("span", marks, chipText(chip));
    child.title = chipText(chip);
    child.addEventListener("click", (event) => { event.stopPropagation(); show({ value: chip.id }); });
    element.append(child);
  }
  element.dataset.value = value.id;
  element.tabIndex = 0;
  element.style.cssText = `left:${node.left}px;top:${node.top}px;height:${node.height}px`;
  element.addEventListener("click", () => show({ value: value.id }));
  element.addEventListener("keydown", (event) => { if (event.key === "Enter") show({ value: value.id }); });
  return element;
}

// True when `test` holds for a value, or for one that it is made of.
function within(value, test) {
  return test(value) || value.operands.some((id) => within(state(view.step).values.get(id), test));
}

// A constant, or an expression over constants, in one line.
function chipText(value) {
  if (value.op === "cache") return "cache " + value.attributes;
  if (value.op === "const") return value.attributes.replace(/^model\.layers\.\d+\./, "");
  const operands = value.operands.map((id) => chipText(state(view.step).values.get(id)));
  return `${value.op}(${operands.join(", ")})`;
}

function graphElement(values, current) {
  const { nodes, width, height } = layout(values, current);
  const box = make("div", "graph");
  box.style.cssText = `width:${width}px;height:${height}px`;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const node of nodes.values()) {
    node.from.forEach((id) => {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", way(node, id, nodes));
      if (view.value === id || view.value === node.value.id) path.setAttribute("class", "on");
      svg.append(path);
    });
  }
  box.append(svg, ...[...nodes.values()].map(nodeElement));
  return box;
}

// The layer that stands for a group: that of the selected value, the one that was chosen, or the first.
function chosen(group, current) {
  const selected = current.values.get(view.value);
  if (selected && group.places.includes(selected.place)) return selected.place;
  const wanted = view.layer[group.key];
  return group.places.includes(wanted) ? wanted : group.places[0];
}

function blockElement(group, current) {
  const place = chosen(group, current);
  const values = group.values.get(place);
  const count = group.places.length;
  const last = group.places[count - 1];
  const title = !group.inside ? (place < 0 ? (current.layers ? "before the layers" : "graph") : "after the layers")
    : count > 1 ? `layers ${group.places[0]}–${last}` : `layer ${place}`;
  const end = make("span", "end");
  if (count > 1) {
    const select = make("select");
    select.ariaLabel = "layer shown";
    for (const other of group.places) {
      const option = make("option", "", "layer " + other);
      option.value = other;
      option.selected = other === place;
      select.append(option);
    }
    select.addEventListener("change", () => {
      view.layer[group.key] = Number(select.value);
      show({ value: null });
    });
    end.append(select);
  }
  const closed = view.closed.has(group.key);
  const toggle = make("button", "", closed ? "show" : "hide");
  toggle.addEventListener("click", () => {
    if (closed) view.closed.delete(group.key); else view.closed.add(group.key);
    render();
  });
  end.append(toggle);
  const constants = values.filter((value) => value.constant).length;
  const heading = make("h2", "", title, [
    make("span", "soft", `${count > 1 ? "×" + count + " · " : ""}${values.length - constants} values, ${constants} constants`),
    end,
  ]);
  const block = make("div", closed ? "block closed" : "block", null, [heading]);
  if (!closed) block.append(graphElement(values, current));
  return block;
}

function link(value) {
  const element = make("a", "", `%${value.number} ${value.op} ${value.attributes}`.trim());
  element.title = value.type;
  element.addEventListener("click", () => show({ value: value.id }));
  return element;
}

// `i4<g128:e4m3,row:f32>` in words.
function scheme(type) {
  const [, dtype, levels] = /^([a-z0-9]+)(?:<([^>]*)>)?/.exec(type) ?? [];
  if (!levels) return `${dtype}, not quantized`;
  const words = levels.split(",").map((level) => {
    const [per, scale] = level.split(":");
    const one = `${scale === "bf16" ? "a" : "an"} ${scale} scale`;
    return per === "row" ? `${one} per row` : `${one} per ${per.slice(1)} neighbours`;
  });
  return `${dtype} codes, ${words.join(", under ")}`;
}

function statistics(value, current) {
  const found = value.op === "const" ? data.constants[value.attributes] : current.stats[value.id];
  if (!found) return [make("p", "", value.op === "const" ? "its data is not there" : "not computed")];
  const names = ["least", "largest", "mean", "standard deviation", "largest magnitude", "share of zeros"];
  const rows = names.map((name, n) => make("tr", "", null, [make("td", "", name), make("td", "", String(found[n]))]));
  const source = value.op === "const" ? "of the data" : "of a run on random inputs";
  return [make("table", "", null, rows), make("p", "soft", source)];
}

function valuePanel(panel, value, current) {
  const doc = data.ops[value.op];
  panel.append(make("h2", "", `%${value.number} ${value.op}`));
  if (value.attributes) panel.append(make("code", "", value.attributes));
  const mark = change(value);
  if (mark) panel.append(make("p", "", mark === "new" ? `made by ${current.title}` : `changed by ${current.title}`));
  section(panel, "type", [make("code", "", value.type), make("p", "", scheme(value.type))]);
  section(panel, "statistics", statistics(value, current));
  section(panel, "reads", value.operands.map((id) => link(current.values.get(id))));
  const users = value.users.map((id) => link(current.values.get(id)));
  if (current.outputs.includes(value.id)) users.push(make("p", "", "it is an output"));
  section(panel, "read by", users);
  if (doc) section(panel, "operation", [make("p", "", doc.doc)]);
}

function stepPanel(panel, current) {
  panel.append(make("h2", "", current.title));
  const values = [...current.values.values()];
  panel.append(make("p", "", `${values.length} values, ${values.filter((v) => v.constant).length} of them constant`));
  if (view.step > 0) {
    const before = state(view.step - 1);
    const removed = [...before.values.keys()].filter((id) => !current.values.has(id)).length;
    const made = values.filter((v) => change(v) === "new").length;
    const changed = values.filter((v) => change(v) === "changed").length;
    const swatch = (color, text) => {
      const mark = make("i");
      mark.style.background = `var(--${color})`;
      return make("span", "", null, [mark, text]);
    };
    const legend = make("p", "legend", null, [swatch("new", `${made} new`), swatch("changed", `${changed} changed`),
      make("span", "", `${removed} removed`)]);
    legend.id = "counts";
    panel.append(legend);
  }
  const patches = current.patches.slice(0, 200).map((patch) =>
    make("p", "", null, [make("code", "", patch.site), ...patch.notes.map((note) => make("p", "soft", note))]));
  section(panel, `${current.patches.length} patches`, patches);
}

let hits = [];
function render() {
  const current = state(view.step);
  const found = groups(current);
  hits = view.search ? [...current.values.values()].filter((value) => matches(value, view.search)) : [];
  const blocks = byId("blocks");
  const scroll = [blocks.scrollLeft, blocks.scrollTop];
  blocks.replaceChildren(...found.map((group) => blockElement(group, current)));
  [blocks.scrollLeft, blocks.scrollTop] = scroll;
  byId("slider").value = view.step;
  byId("step").replaceChildren(make("b", "", current.title), ` ${view.step} of ${data.states.length - 1}`);
  byId("hits").textContent = view.search ? `${hits.length} found` : "";
  if (byId("search").value !== view.search) byId("search").value = view.search;
  const panel = byId("panel");
  panel.replaceChildren();
  const value = current.values.get(view.value);
  if (value) return valuePanel(panel, value, current);
  if (hits.length) section(panel, `${hits.length} found`, hits.slice(0, 200).map(link));
  stepPanel(panel, current);
}

// Changes the view, writes it to the address, and brings a selected value into sight.
function show(change_) {
  Object.assign(view, change_);
  const parts = new URLSearchParams();
  if (view.step) parts.set("step", view.step);
  if (view.search) parts.set("search", view.search);
  const value = state(view.step).values.get(view.value);
  if (value) parts.set("value", "%" + value.number);
  history.replaceState(null, "", "#" + parts);
  if (value) {
    for (const group of groups(state(view.step))) if (group.places.includes(value.place)) view.closed.delete(group.key);
  }
  render();
  if (value) document.querySelector(".node.on, .chip.on")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function go(step) {
  show({ step: Math.max(0, Math.min(data.states.length - 1, step)) });
}

function fromAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  view.step = Math.max(0, Math.min(data.states.length - 1, Number(parts.get("step")) || 0));
  view.search = parts.get("search") ?? "";
  const number = Number((parts.get("value") ?? "").replace("%", "") || NaN);
  const value = [...state(view.step).values.values()].find((other) => other.number === number);
  show({ value: value ? value.id : null });
}

byId("slider").max = data.states.length - 1;
byId("slider").addEventListener("input", (event) => go(Number(event.target.value)));
byId("previous").addEventListener("click", () => go(view.step - 1));
byId("next").addEventListener("click", () => go(view.step + 1));
let hit = -1;
byId("search").addEventListener("input", (event) => { hit = -1; show({ search: event.target.value.trim(), value: null }); });
document.addEventListener("keydown", (event) => {
  const typing = event.target === byId("search");
  if (typing && event.key === "Enter" && hits.length) {
    hit = (hit + (event.shiftKey ? hits.length - 1 : 1)) % hits.length;
    show({ value: hits[hit].id });
  } else if (event.key === "Escape") {
    show(view.value === null ? { search: "" } : { value: null });
  } else if (!typing && event.key === "/") {
    event.preventDefault();
    byId("search").focus();
  } else if (!typing && event.target.tagName !== "SELECT" && event.target !== byId("slider")) {
    if (event.key === "ArrowLeft") go(view.step - 1);
    if (event.key === "ArrowRight") go(view.step + 1);
  }
});
window.addEventListener("hashchange", fromAddress);
fromAddress();
