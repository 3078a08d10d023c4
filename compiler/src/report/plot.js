// A number as a person reads it; what was no number is null in JSON.
function number(x) {
  if (x === null || x === undefined) return "–";
  if (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5)) return x.toExponential(2);
  return String(Number(x.toPrecision(4)));
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

const PLOT = { width: 640, height: 200, left: 54, right: 10, top: 10, bottom: 22 };

// What values become heights: logarithmic where they span more than a factor of twenty and none is negative.
function scale(values) {
  const positive = values.filter((x) => x > 0);
  const [least, most] = [Math.min(...positive), Math.max(...positive)];
  const log = most / least > 20 && values.every((x) => x >= 0);
  const bounds = log ? [Math.log10(least), Math.log10(most)] : [Math.min(0, ...values), Math.max(...values)];
  const space = (bounds[1] - bounds[0]) * 0.05 || 1;
  const [low, high] = [bounds[0] - (log || bounds[0] < 0 ? space : 0), bounds[1] + space];
  const inside = PLOT.height - PLOT.top - PLOT.bottom;
  // Zero has no logarithm; it stands on the floor.
  const place = (x) => (log ? (x > 0 ? Math.log10(x) : low) : x);
  const y = (x) => PLOT.top + inside * (1 - (place(x) - low) / (high - low));
  return { y, ticks: log ? decades(low, high) : steps(low, high) };
}

function decades(low, high) {
  const every = Math.max(1, Math.ceil((high - low) / 6));
  const within = high - low < 2.5 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let n = Math.floor(low); n <= high; n += every) ticks.push(...within.map((k) => k * 10 ** n));
  return ticks.filter((x) => Math.log10(x) >= low && Math.log10(x) <= high);
}

function steps(low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 4));
  const step = [1, 2, 5, 10].map((k) => k * power).find((step) => (high - low) / step <= 5);
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) ticks.push(n * step);
  return ticks;
}

// Lines from left to right, a gap where there is no number.
function line(points) {
  let path = "";
  points.forEach((point, n) => {
    if (point) path += `${points[n - 1] ? "L" : "M"}${point[0].toFixed(1)},${point[1].toFixed(1)}`;
  });
  return path;
}

// A plot of `series` ({ name, values }) over the same range, with a legend that reads off values under the pointer.
// `label(share)` names a place on the x axis; `pick(n)`, if given, hears of clicks; `on` is the value picked before.
function plot({ series, caption, label, pick, on }) {
  const shown = series.map((one, n) => ({ ...one, n })).filter((one) => one.values.some((x) => x !== null));
  const box = make("div", "plot");
  if (!shown.length) {
    box.append(make("p", "soft", `${caption}: nothing was recorded`));
    return box;
  }
  const { y, ticks } = scale(shown.flatMap((one) => one.values).filter((x) => x !== null));
  const [left, right] = [PLOT.left, PLOT.width - PLOT.right];
  const floor = PLOT.height - PLOT.bottom;
  const x = (n, count) => (count === 1 ? (left + right) / 2 : left + (right - left) * n / (count - 1));
  const picture = svg("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: "img", "aria-label": caption });
  for (const tick of ticks) {
    picture.append(svg("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }));
    picture.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, number(tick)));
  }
  picture.append(svg("text", { x: left, y: floor + 16 }, label(0)));
  picture.append(svg("text", { x: right, y: floor + 16, "text-anchor": "end" }, label(1)));
  const most = Math.max(...shown.map((one) => one.values.length));
  if (on !== undefined) {
    picture.append(svg("line", { class: "on", x1: x(on, most), x2: x(on, most), y1: PLOT.top, y2: floor }));
  }
  for (const { values, n } of shown) {
    const points = values.map((value, at) => (value === null ? null : [x(at, values.length), y(value)]));
    picture.append(svg("path", { class: `series-${n}`, d: line(points) }));
    const alone = (at) => points[at] && !points[at - 1] && !points[at + 1];
    points.forEach((point, at) => {
      if (point && (points.length <= 64 || alone(at))) {
        picture.append(svg("circle", { class: `series-${n}`, cx: point[0], cy: point[1], r: 2.2 }));
      }
    });
  }
  const here = svg("line", { class: "here", y1: PLOT.top, y2: floor, visibility: "hidden" });
  picture.append(here);
  const legend = make("div", "legend");
  const read = (share) => {
    const value = (one) => (share === null ? "" : " " + number(one.values[Math.round(share * (one.values.length - 1))]));
    const place = share === null ? caption : label(share);
    legend.replaceChildren(make("span", "caption", place), ...shown.map((one) =>
      make("span", `series-${one.n}`, null, [make("i"), one.name + value(one)])));
    here.setAttribute("visibility", share === null ? "hidden" : "visible");
    if (share !== null) for (const end of ["x1", "x2"]) here.setAttribute(end, left + (right - left) * share);
  };
  const share = (event) => {
    const { left: from, width } = picture.getBoundingClientRect();
    const inside = (event.clientX - from) / width * PLOT.width;
    const exact = Math.max(0, Math.min(1, (inside - left) / (right - left)));
    return most === 1 ? 0.5 : Math.round(exact * (most - 1)) / (most - 1);
  };
  picture.addEventListener("pointermove", (event) => read(share(event)));
  picture.addEventListener("pointerleave", () => read(null));
  if (pick) {
    picture.style.cursor = "pointer";
    picture.addEventListener("click", (event) => pick(Math.round(share(event) * (most - 1))));
  }
  read(null);
  box.append(legend, picture);
  return box;
}
