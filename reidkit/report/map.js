"use strict";
const data = JSON.parse(document.getElementById("points").textContent);
const byId = (name) => document.getElementById(name);
const canvas = byId("canvas"), tip = byId("tip"), said = byId("said"), legend = byId("legend");
const members = byId("members"), find = byId("find"), colourBy = byId("colour");
const pen = canvas.getContext("2d");
const dark = matchMedia("(prefers-color-scheme: dark)");
const count = data.x.length;
const farthest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const spanX = 2 * farthest(data.x), spanY = 2 * farthest(data.y);
const MARGIN = 28, REACH = 14, MOST_NAMED = 60, MOST_SHOWN = 60, MOST_SUGGESTED = 1000;
const sizes = data.groupings.map((grouping) => {
  const found = new Array(grouping.labels.length).fill(0);
  for (const group of grouping.of) if (group >= 0) found[group] += 1;
  return found;
});

// What is looked at: pixels per unit, and what of the map lies in the middle.
let width = 1, height = 1, scale = 1, middleX = 0, middleY = 0;
let coloured = 0; // the grouping that gives the colours
let picked = null; // {grouping, group} whose points stand out, or null
let looked = -1; // the point whose picture is shown
let waiting = false;

const screenX = (i) => width / 2 + (data.x[i] - middleX) * scale;
const screenY = (i) => height / 2 - (data.y[i] - middleY) * scale;
const fitting = () => Math.min((width - 2 * MARGIN) / Math.max(spanX, 1e-3),
  (height - 2 * MARGIN) / Math.max(spanY, 1e-3));
const radius = () => Math.min(7, (count > 1500 ? 2.6 : count > 400 ? 3.4 : 4.6) *
  Math.min(1, Math.sqrt(width / 700)) * Math.pow(scale / fitting(), 0.35));
const standsOut = (i) => picked === null || data.groupings[picked.grouping].of[i] === picked.group;
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function colour(group) {
  if (group < 0) return dark.matches ? "hsl(0 0% 50%)" : "hsl(0 0% 62%)";
  // Steps of the golden angle: the first few hues lie far apart, whatever their number.
  const lightness = (dark.matches ? [62, 74, 52] : [42, 56, 34])[group % 3];
  return `hsl(${((215 + 137.508 * group) % 360).toFixed(1)} 68% ${lightness}%)`;
}

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function draw() {
  const ratio = devicePixelRatio || 1, size = radius(), of = data.groupings[coloured].of;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  // One path a colour, so that thousands of points cost few fills; those that stand out are last.
  const faint = [], strong = new Map();
  for (let i = 0; i < count; i += 1) {
    const x = screenX(i), y = screenY(i);
    if (x < -size || y < -size || x > width + size || y > height + size) continue;
    if (!standsOut(i)) faint.push(i);
    else if (strong.has(of[i])) strong.get(of[i]).push(i);
    else strong.set(of[i], [i]);
  }
  pen.globalAlpha = 0.16;
  dots(faint, size, ink("--soft"));
  pen.globalAlpha = picked === null ? 0.82 : 1;
  for (const [group, points] of strong) {
    dots(points, picked === null ? size : size + 1.5, colour(group));
  }
  pen.globalAlpha = 1;
  if (looked >= 0) {
    pen.beginPath();
    pen.arc(screenX(looked), screenY(looked), size + 4, 0, 2 * Math.PI);
    pen.strokeStyle = ink("--ink");
    pen.lineWidth = 2;
    pen.stroke();
  }
}

function dots(points, size, fill) {
  pen.beginPath();
  for (const i of points) {
    const x = screenX(i), y = screenY(i);
    pen.moveTo(x + size, y);
    pen.arc(x, y, size, 0, 2 * Math.PI);
  }
  pen.fillStyle = fill;
  pen.fill();
}

function label(grouping, group) {
  const { name, labels } = data.groupings[grouping];
  return group < 0 ? `${name} unknown` : `${name} ${labels[group]}`;
}

function look(i) {
  if (looked === i) return;
  looked = i;
  tip.hidden = i < 0;
  if (i >= 0) {
    const image = tip.querySelector("img");
    image.hidden = !data.pictures[i];
    if (data.pictures[i]) image.setAttribute("src", data.pictures[i]);
    const facts = data.groupings.map((grouping, place) => label(place, grouping.of[i]));
    tip.querySelector("p").textContent = `${facts.join(" · ")}\n${data.names[i]}`;
    place();
    if (image.decode && !image.hidden) image.decode().then(place, () => {});
  }
  redraw();
}

function place() {
  if (looked < 0) return;
  const x = screenX(looked), y = screenY(looked), gap = 14;
  const right = x + gap + tip.offsetWidth <= width;
  const left = right ? x + gap : Math.max(4, x - gap - tip.offsetWidth);
  const top = Math.min(Math.max(4, y - tip.offsetHeight / 2), height - tip.offsetHeight - 4);
  tip.style.transform = `translate(${left}px, ${Math.max(4, top)}px)`;
}

function nearest(x, y) {
  let best = -1, least = REACH * REACH;
  for (let i = 0; i < count; i += 1) {
    // Of points on top of each other the one that stands out is meant.
    const far = (screenX(i) - x) ** 2 + (screenY(i) - y) ** 2 + (standsOut(i) ? 0 : 40);
    if (far < least) [best, least] = [i, far];
  }
  return best;
}

function pick(choice) {
  picked = choice;
  members.replaceChildren();
  members.hidden = true;
  said.textContent = "";
  if (picked !== null) {
    const of = data.groupings[picked.grouping].of;
    const mine = [...of.keys()].filter((i) => of[i] === picked.group);
    const others = data.groupings.map((grouping, at) => ({ grouping, at }))
      .filter(({ at, grouping }) => at !== picked.grouping && grouping.labels.length)
      .map(({ grouping }) => {
        const different = new Set(mine.map((i) => grouping.of[i]).filter((group) => group >= 0));
        return counted(different.size, grouping.name);
      });
    const what = label(picked.grouping, picked.group);
    said.textContent = `${what}: ${[counted(mine.length, "sample"), ...others].join(", ")}`;
    if (data.pictures.length) showMembers(mine);
  }
  markLegend();
  redraw();
}

function counted(number, name) {
  const many = name.endsWith("y") ? `${name.slice(0, -1)}ies` : `${name}s`;
  return `${number.toLocaleString("en")} ${number === 1 ? name : many}`;
}

function showMembers(mine) {
  const told = picked.grouping === 0 ? 1 : 0; // under an identity its cameras, else identities
  members.hidden = false;
  for (const i of mine.filter((one) => data.pictures[one]).slice(0, MOST_SHOWN)) {
    const cell = document.createElement("figure"), frame = document.createElement("span");
    const image = document.createElement("img"), words = document.createElement("figcaption");
    cell.className = "cell";
    frame.className = "frame";
    image.alt = image.title = data.names[i];
    image.setAttribute("src", data.pictures[i]);
    words.textContent = label(told, data.groupings[told].of[i]);
    frame.append(image);
    cell.append(frame, words);
    cell.addEventListener("pointerenter", () => look(i));
    cell.addEventListener("pointerleave", () => look(-1));
    members.append(cell);
  }
}

function drawLegend() {
  const { labels, of, name } = data.groupings[coloured];
  legend.replaceChildren();
  legend.hidden = false;
  if (labels.length > MOST_NAMED) {
    legend.textContent = `${counted(labels.length, name)}: click a point, or search for one.`;
    return;
  }
  const groups = [...labels.keys()];
  if (of.includes(-1)) groups.push(-1);
  for (const group of groups) {
    const button = document.createElement("button");
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.style.background = colour(group);
    button.type = "button";
    button.dataset.group = group;
    const number = group < 0 ? of.filter((one) => one < 0).length : sizes[coloured][group];
    button.append(mark, `${label(coloured, group)} (${number.toLocaleString("en")})`);
    button.addEventListener("click", () => {
      const again = picked && picked.grouping === coloured && picked.group === group;
      pick(again ? null : { grouping: coloured, group });
    });
    legend.append(button);
  }
  markLegend();
}

function markLegend() {
  for (const button of legend.querySelectorAll("button")) {
    const mine = picked && picked.grouping === coloured && picked.group === +button.dataset.group;
    button.setAttribute("aria-pressed", String(Boolean(mine)));
  }
}

function zoom(factor, x = width / 2, y = height / 2) {
  const fit = fitting(), next = Math.min(Math.max(scale * factor, fit / 2), fit * 400);
  // What lies under (x, y) stays there.
  middleX += (x - width / 2) * (1 / scale - 1 / next);
  middleY -= (y - height / 2) * (1 / scale - 1 / next);
  scale = next;
  place();
  redraw();
}

function move(dx, dy) {
  middleX = Math.min(Math.max(middleX - dx / scale, -0.6), 0.6);
  middleY = Math.min(Math.max(middleY + dy / scale, -0.6), 0.6);
  place();
  redraw();
}

function whole() {
  [middleX, middleY, scale] = [0, 0, fitting()];
  place();
  redraw();
}

function resize() {
  const before = scale / fitting();
  width = canvas.clientWidth || 1;
  height = canvas.clientHeight || 1;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  scale = before * fitting();
  place();
  draw();
}

function pickAt(i) {
  const group = i < 0 ? -1 : data.groupings[0].of[i];
  find.value = group < 0 ? "" : data.groupings[0].labels[group];
  pick(group < 0 ? null : { grouping: 0, group });
}

function search() {
  const wanted = find.value.trim(), labels = data.groupings[0].labels;
  if (!wanted) return pick(null);
  const group = labels.indexOf(wanted);
  if (group >= 0) return pick({ grouping: 0, group });
  const near = labels.filter((name) => name.startsWith(wanted));
  pick(null);
  said.textContent = near.length
    ? `${near.length.toLocaleString("en")} begin with ${wanted}: ${near.slice(0, 12).join(", ")}`
    : `no identity ${wanted} in this map`;
}

const held = new Map(); // pointers that are down, with where they are
let dragged = false;

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  if (!held.size) dragged = false;
  const { offsetX: x, offsetY: y } = event;
  held.set(event.pointerId, { x, y, from: [x, y] });
});
canvas.addEventListener("pointermove", (event) => {
  const { offsetX: x, offsetY: y } = event, mine = held.get(event.pointerId);
  if (!mine) return look(nearest(x, y));
  if (Math.hypot(x - mine.from[0], y - mine.from[1]) > 5 || held.size > 1) dragged = true;
  if (!dragged) return undefined;
  canvas.classList.add("held");
  const other = [...held.entries()].find(([id]) => id !== event.pointerId);
  if (other) {
    const { x: ox, y: oy } = other[1];
    const before = Math.hypot(mine.x - ox, mine.y - oy), after = Math.hypot(x - ox, y - oy);
    zoom(after / Math.max(before, 1), (x + ox) / 2, (y + oy) / 2);
    move((x - mine.x) / 2, (y - mine.y) / 2);
  } else move(x - mine.x, y - mine.y);
  [mine.x, mine.y] = [x, y];
  return undefined;
});
canvas.addEventListener("pointerup", (event) => {
  held.delete(event.pointerId);
  canvas.classList.remove("held");
  if (dragged) return;
  const i = nearest(event.offsetX, event.offsetY);
  look(i);
  pickAt(i);
});
canvas.addEventListener("pointercancel", (event) => {
  held.delete(event.pointerId);
  canvas.classList.remove("held");
});
canvas.addEventListener("pointerleave", (event) => {
  if (event.pointerType === "mouse" && !held.size) look(-1);
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const turned = event.deltaY * (event.deltaMode === 1 ? 30 : 1); // lines or pixels
  const factor = Math.exp(-0.0022 * Math.max(-120, Math.min(120, turned)));
  zoom(factor, event.offsetX, event.offsetY);
}, { passive: false });

function step(by) {
  let i = looked;
  for (let tries = 0; tries < count; tries += 1) {
    i = i < 0 ? (by > 0 ? 0 : count - 1) : (i + by + count) % count;
    if (standsOut(i)) break;
  }
  look(i);
  said.textContent = tip.querySelector("p").textContent.replace("\n", " · ");
}

const keys = {
  ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0),
  ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
  "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3), 0: whole,
  n: () => step(1), p: () => step(-1), Enter: () => looked >= 0 && pickAt(looked),
  Escape: () => { look(-1); pickAt(-1); },
};
canvas.addEventListener("keydown", (event) => {
  const act = keys[event.key];
  if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act();
});
byId("closer").addEventListener("click", () => zoom(1.5));
byId("farther").addEventListener("click", () => zoom(1 / 1.5));
byId("whole").addEventListener("click", whole);
find.addEventListener("input", search);
colourBy.addEventListener("change", () => { coloured = +colourBy.value; drawLegend(); redraw(); });
dark.addEventListener("change", () => { drawLegend(); redraw(); });

data.groupings.forEach((grouping, number) => {
  if (number && new Set(grouping.of).size < 2) return;
  colourBy.append(new Option(grouping.name, number));
});
const suggested = data.groupings[0].labels.slice(0, MOST_SUGGESTED);
byId("identities").append(...suggested.map((name) => new Option(name)));
for (const part of document.querySelectorAll(".tools, .stage")) part.hidden = false;
new ResizeObserver(resize).observe(canvas);
resize();
whole();
drawLegend();
