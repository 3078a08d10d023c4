const view = { block: 0, sorted: false };
// What stands for the model as a whole has notes, and no errors.
const measured = (block) => [block.error, block.error_rtn, block.stream_error].some((error) => error !== null);
// What is no number is worse than every number.
const size = (block) => (measured(block) ? block.error ?? Infinity : -1);
const worst = data.blocks.reduce((best, block, n) => (size(block) > size(data.blocks[best]) ? n : best), 0);

// A table of rows of cells; those of `texts` columns stand to the left.
function table(head, rows, texts) {
  const place = (n) => (texts.includes(n) ? "text" : "");
  const cell = (content, n) => {
    if (content instanceof Node && content.nodeName === "TD") return content;
    return content instanceof Node ? make("td", place(n), null, [content]) : make("td", place(n), content);
  };
  const titles = make("tr", "", null, head.map((title, n) => make("th", place(n), title)));
  const body = rows.map((cells) => make("tr", "", null, cells.map(cell)));
  return [make("thead", "", null, [titles]), make("tbody", "", null, body)];
}

function tableElement(head, rows, texts) {
  return make("table", "", null, table(head, rows, texts));
}

// A short name; the whole one under the pointer.
function named(one, name = one.name) {
  const cell = make("span", "", one.label);
  cell.title = name;
  return cell;
}

// How `after` compares with `before`, colored by which is better.
function ratio(after, before) {
  if (after === null || before === null || !(before > 0)) return make("td", "soft", "–");
  const times = after / before;
  const mark = times < 0.995 ? "good" : times > 1.005 ? "bad" : "soft";
  return make("td", mark, "× " + times.toPrecision(3));
}

// The geometric mean of how much smaller errors are than those of round to nearest.
function gain() {
  const both = data.blocks.filter((block) => block.error > 0 && block.error_rtn > 0);
  const logs = both.map((block) => Math.log(block.error / block.error_rtn));
  return logs.length ? Math.exp(logs.reduce((sum, x) => sum + x, 0) / logs.length) : null;
}

function summary() {
  const { calibration, blocks } = data;
  const fact = (name, value) => make("span", "", name + " ", [make("b", "", value)]);
  const weights = blocks.flatMap((block) => block.weights);
  const count = (of) => blocks.reduce((sum, block) => sum + of(block), 0);
  const facts = [
    fact("recipe", data.recipe),
    fact("calibration", calibration.sequences
      ? `${calibration.text}, ${calibration.sequences} × ${calibration.tokens_each} tokens` : "none"),
    fact("blocks", blocks.length),
    fact("weights", weights.length),
    fact("underflows", weights.reduce((sum, weight) => sum + weight.underflow, 0)),
    fact("left alone", count((block) => block.refused.length)),
  ];
  if (gain() !== null) facts.push(fact("error against round to nearest, mean", "× " + gain().toPrecision(3)));
  if (blocks.length && measured(blocks[worst])) {
    const link = make("a", "", blocks[worst].label);
    link.addEventListener("click", () => show({ block: worst }));
    link.id = "worst";
    facts.push(make("span", "", "worst block ", [link, " ", make("b", "", number(blocks[worst].error))]));
  }
  byId("summary").replaceChildren(...facts);
}

function errorsByBlock() {
  const { blocks } = data;
  const named = [["error", "error"], ["round to nearest", "error_rtn"], ["residual stream", "stream_error"]];
  byId("errors-by-block").replaceChildren(plot({
    series: named.map(([name, key]) => ({ name, values: blocks.map((block) => block[key]) })),
    caption: "relative L2 error by block",
    label: (share) => blocks[Math.round(share * (blocks.length - 1))].label,
    pick: (block) => show({ block }), on: view.block,
  }));
}

function blockTable() {
  const head = ["#", "block", "error", "round to nearest", "against it", "stream", "left alone"];
  byId("blocks").replaceChildren(...table(head, data.blocks.map((block, index) => [
    index, named(block), number(block.error), number(block.error_rtn), ratio(block.error, block.error_rtn),
    number(block.stream_error),
    block.refused.length ? make("td", "bad", block.refused.length) : "",
  ]), [1]));
  rows().forEach((row, block) => {
    row.tabIndex = 0;
    row.addEventListener("click", () => show({ block }));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") show({ block }); });
  });
}

function rows() {
  return [...byId("blocks").querySelectorAll("tbody tr")];
}

function sites(block) {
  const head = ["site", "form", "α", "β", "k", "tried", "error before", "after", "change"];
  return tableElement(head, block.smoothing.map((site) => [
    named(site, site.site), site.form, number(site.alpha), number(site.beta), number(site.k), site.tried,
    number(site.error_before), number(site.error_after), ratio(site.error_after, site.error_before),
  ]), [0, 1]);
}

function channels(site) {
  const curve = view.sorted ? "sorted" : "channels";
  const smoothed = [["before", site.before], ["after", site.after]];
  const series = site.form === "off" ? [["not smoothed", site.before]] : smoothed;
  return plot({
    series: series.map(([name, curves]) => ({ name, values: curves[curve] })),
    caption: `${site.label}, ${site.channels} channels${view.sorted ? ", largest first" : ""}`,
    label: (share) => `${view.sorted ? "rank" : "channel"} ${Math.round(share * (site.channels - 1))}`,
  });
}

// Bars as high as the share of groups that chose each ratio; those that none chose are left out.
function clips(weight) {
  const chosen = weight.clip.filter(([, groups]) => groups > 0);
  const most = Math.max(1, ...chosen.map(([, groups]) => groups));
  return make("div", "clips", null, chosen.map(([ratio, groups]) => {
    const bar = make("i");
    bar.style.height = `${30 * groups / most}px`;
    const column = make("span", "", null, [bar, number(ratio === null ? null : Number(ratio.toPrecision(3)))]);
    column.title = `clip ratio ${number(ratio)}: ${groups} groups`;
    return column;
  }));
}

function weights(block) {
  const head = ["weight", "method", "shape", "error", "groups by clip ratio", "outer scales", "underflows"];
  return tableElement(head, block.weights.map((weight) => [
    named(weight), `${weight.method}, g${weight.group}`, `${weight.rows} × ${weight.cols}`, number(weight.error), clips(weight),
    `${number(weight.outer_min)} – ${number(weight.outer_max)}`,
    weight.underflow ? make("td", "bad", weight.underflow) : "0",
  ]), [0, 1]);
}

function panel() {
  const panel = byId("panel");
  panel.replaceChildren();
  const block = data.blocks[view.block];
  if (!block) return panel.append(make("p", "soft", "no block was quantized"));
  panel.append(make("h2", "", block.label));
  const errors = [`error ${number(block.error)}`, `round to nearest ${number(block.error_rtn)}`,
    `residual stream ${number(block.stream_error)}`];
  panel.append(make("p", "soft", errors.join(" · ")));
  section(panel, "left alone", block.refused.map(({ label, reason }) =>
    make("p", "", null, [make("code", "bad", label), " " + reason])));
  if (block.smoothing.length) {
    section(panel, "smoothing", [sites(block)]);
    const toggle = make("button", "", view.sorted ? "by channel" : "sorted");
    toggle.id = "sorted";
    toggle.addEventListener("click", () => show({ sorted: !view.sorted }));
    panel.append(make("h3", "", "largest magnitude of each channel", [toggle]), ...block.smoothing.map(channels));
  }
  if (block.weights.length) section(panel, "weights", [weights(block)]);
  if (block.kv) {
    const { fit, key_error, value_error } = block.kv;
    section(panel, "cache", [make("p", "", `${fit}: error of keys ${number(key_error)}, of values ${number(value_error)}`)]);
  }
}

// Changes the view, writes it to the address, and brings the block into sight.
function show(change) {
  const other = change.block !== undefined && change.block !== view.block;
  Object.assign(view, change);
  const scroll = other ? 0 : byId("panel").scrollTop;
  history.replaceState(null, "", `#block=${view.block}${view.sorted ? "&sorted" : ""}`);
  errorsByBlock();
  panel();
  byId("panel").scrollTop = scroll;
  rows().forEach((row, n) => row.classList.toggle("on", n === view.block));
  rows()[view.block]?.scrollIntoView({ block: "nearest" });
}

function fromAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const block = parts.has("block") ? Number(parts.get("block")) : worst;
  show({ block: data.blocks[block] ? block : worst, sorted: parts.has("sorted") });
}

document.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !data.blocks[view.block + step]) return;
  event.preventDefault();
  show({ block: view.block + step });
});
window.addEventListener("hashchange", fromAddress);
summary();
blockTable();
fromAddress();
