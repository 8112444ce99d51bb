const data = JSON.parse(document.getElementById("tree").textContent);
const byId = (name) => document.getElementById(name);
const list = byId("identities"), slider = byId("cut"), target = byId("target");
const tree = buildTree(data.merges, data.heights, data.paths.length);
const PAGE = 40, FACES = 14, MOST_OPENED = 400, MOST_NUMBERS = 1000;
const found = positionOf(tree, Int32Array.from(data.labels));
const state = new History(data.labels, found.exact ? found.near : null);
const open = new Set(); // "i3" is identity 3, "n12" the branch of node 12
const selected = new Set(); // leaves
let identities = [], shown = PAGE, exported = true;

const counted = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const tracklets = (number) => counted(number, "tracklet", "tracklets");
const titleOf = (label) => (label < 0 ? "left out" : `identity ${label}`);
const told = (height) => (height === Infinity ? "forbidden" : String(+height.toPrecision(4)));

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function camerasOf(leaves) {
  const seen = [...new Set(Array.from(leaves, (leaf) => data.camids[leaf]))].filter((c) => c >= 0);
  if (!seen.length) return "";
  return `camera${seen.length > 1 ? "s" : ""} ${seen.sort((a, b) => a - b).map((c) => c + 1).join(", ")}`;
}

function picture(leaf) {
  const uri = data.pictures[leaf];
  if (!uri) return element("span", { className: "blank", title: data.names[leaf] });
  return element("img", { src: uri, alt: data.names[leaf], title: data.names[leaf] });
}

function faces(leaves) {
  // Those with a picture first, so that a strip is not grey while there is something to see.
  const known = Array.from(leaves).sort((a, b) => !data.pictures[a] - !data.pictures[b]);
  const strip = element("div", { className: "thumbs" }, ...known.slice(0, FACES).map(picture));
  if (known.length > FACES) {
    const rest = `+ ${(known.length - FACES).toLocaleString("en")}`;
    strip.append(element("span", { className: "rest" }, rest));
  }
  return strip;
}

function toggle(key, words, redraw) {
  const flip = (wanted) => {
    if (wanted === open.has(key)) return;
    if (wanted) open.add(key);
    else open.delete(key);
    redraw();
  };
  return element("button", {
    type: "button", className: "toggle", "aria-expanded": String(open.has(key)), "data-key": key,
    click: () => flip(!open.has(key)),
    keydown: (event) => {
      if (event.key === "ArrowRight") flip(true);
      else if (event.key === "ArrowLeft") flip(false);
      else return;
      event.preventDefault();
    },
  }, words);
}

function act(words, key, click, title) {
  return element("button", { type: "button", "data-key": key, title, ariaLabel: title, click }, words);
}

function leafItem(leaf) {
  const box = element("input", {
    type: "checkbox", checked: selected.has(leaf), "data-key": `l${leaf}`,
    change: () => {
      if (box.checked) selected.add(leaf);
      else selected.delete(leaf);
      drawBar();
    },
  });
  const sure = data.confidences === null ? null : data.confidences[leaf];
  const camera = data.camids[leaf] >= 0 ? `camera ${data.camids[leaf] + 1}` : "tracklet";
  const words = sure === null ? camera : `${camera} · ${sure.toFixed(2)}`;
  const frame = element("span", { className: "frame" });
  if (data.pictures[leaf]) frame.append(element("img", { src: data.pictures[leaf], alt: "" }));
  const name = element("span", { className: "name" }, data.names[leaf]);
  return element("li", { className: "leaf", "data-leaf": leaf },
    element("label", { title: data.paths[leaf] }, box, frame, element("b", {}, words), name));
}

function branchItem(node, redraw) {
  if (node < tree.count) return leafItem(node);
  const leaves = leavesOf(tree, node), key = `n${node}`;
  const facts = [`height ${told(tree.height[node])}`, camerasOf(leaves)].filter(Boolean).join(" · ");
  const line = element("div", { className: "line" },
    toggle(key, tracklets(leaves.length), redraw),
    element("span", { className: "facts" }, facts),
    element("span", { className: "acts" },
      act("Select", `s${node}`, () => select(leaves), "Select all tracklets of this branch"),
      act("Split off", `x${node}`, () => splitOff(leaves), "Split off this branch as an identity of its own")));
  const item = element("li", { className: "inner", "data-node": node }, line);
  item.append(open.has(key) ? branchList(childrenOf(tree, node), redraw) : faces(leaves));
  return item;
}

function branchList(nodes, redraw) {
  return element("ul", { className: "branch" }, ...nodes.map((node) => branchItem(node, redraw)));
}

function card(one) {
  const key = `i${one.label}`, { leaves, branches } = one;
  const redraw = () => {
    const old = list.querySelector(`[data-label="${one.label}"]`);
    keepingFocus(() => old.replaceWith(card(one)));
    drawBar();
  };
  const pieces = branches.length > 1 ? `${branches.length.toLocaleString("en")} branches` : "";
  const height = one.height ? `height ${told(one.height)}` : "";
  const facts = [tracklets(leaves.length), camerasOf(leaves), height, pieces];
  const acts = element("span", { className: "acts" },
    act("Open all", `o${one.label}`, () => { openAll(one); redraw(); }, `Open all branches of ${titleOf(one.label)}`),
    act("Select all", `a${one.label}`, () => select(leaves), `Select all of ${titleOf(one.label)}`));
  const line = element("div", { className: "line" },
    element("h2", {}, toggle(key, titleOf(one.label), redraw)),
    element("span", { className: "facts" }, facts.filter(Boolean).join(" · ")), acts);
  const made = element("article", { className: "row identity", "data-label": one.label }, line);
  // What the line has said of the only branch is not said twice.
  const inside = branches.length === 1 && leaves.length > 1 ? childrenOf(tree, branches[0]) : branches;
  made.append(open.has(key) ? branchList(inside, redraw) : faces(leaves));
  return made;
}

function openAll(one) {
  open.add(`i${one.label}`);
  let room = MOST_OPENED;
  const waiting = [...one.branches];
  while (waiting.length && room > 0) {
    const node = waiting.shift();
    if (node >= tree.count) {
      open.add(`n${node}`);
      room -= 1;
      waiting.push(...childrenOf(tree, node));
    }
  }
}

function select(leaves) {
  const all = Array.from(leaves).every((leaf) => selected.has(leaf));
  for (const leaf of leaves) {
    if (all) selected.delete(leaf);
    else selected.add(leaf);
  }
  for (const box of list.querySelectorAll("input[data-key]")) {
    box.checked = selected.has(+box.dataset.key.slice(1));
  }
  drawBar();
}

function keepingFocus(work) {
  const key = document.activeElement?.dataset?.key;
  work();
  if (key) list.querySelector(`[data-key="${key}"]`)?.focus();
}

function wanted() {
  const text = byId("find").value.trim().toLowerCase();
  if (!text) return identities;
  const named = identities.filter((one) => [String(one.label), titleOf(one.label)].includes(text));
  if (named.length) return named;
  return identities.filter((one) =>
    one.leaves.some((leaf) => data.paths[leaf].toLowerCase().includes(text)));
}

function draw() {
  identities = sortIdentities(tree, identitiesOf(tree, state.labels), byId("sort").value);
  const own = identities.filter((one) => one.label >= 0);
  const left = tree.count - own.reduce((sum, one) => sum + one.leaves.length, 0);
  const parts = [tracklets(tree.count), counted(own.length, "identity", "identities")];
  byId("summary").textContent = [...parts, ...(left ? [`${left.toLocaleString("en")} left out`] : [])].join(", ");
  const numbers = own.slice(0, MOST_NUMBERS).map((one) => element("option", { value: one.label }));
  byId("numbers").replaceChildren(...numbers);
  drawList();
  drawCut();
  drawBar();
}

function drawList() {
  const all = wanted();
  keepingFocus(() => list.replaceChildren(...all.slice(0, shown).map(card)));
  const rest = all.length - shown;
  byId("more").hidden = rest <= 0;
  byId("more").textContent = `Show ${Math.min(PAGE, rest)} more of ${rest.toLocaleString("en")}`;
}

function drawCut() {
  const { cut, corrections } = state;
  const height = cut ? `height ${told(heightAt(tree, cut))}` : "before all merges";
  byId("height").textContent = cut === null ? "labels as given" : height;
  slider.value = cut ?? found.near;
  slider.disabled = corrections > 0 || !tree.steps.length;
  slider.setAttribute("aria-valuetext", byId("height").textContent);
  byId("given").disabled = corrections > 0;
  byId("cut-note").textContent = corrections
    ? "The cut is held while corrections stand on it: undo or discard them to move it."
    : "";
}

function drawBar() {
  const numbers = new Set([...selected].map((leaf) => state.labels[leaf]));
  byId("chosen").textContent = `${selected.size.toLocaleString("en")} selected`;
  for (const name of ["make", "drop", "clear"]) byId(name).disabled = !selected.size;
  byId("move").disabled = !selected.size || target.value === "";
  byId("merge").disabled = numbers.size < 2 || numbers.has(-1);
  byId("merge").title = "All tracklets of the identities in which something is selected become one";
  byId("undo").disabled = !state.past.length;
  byId("discard").disabled = !state.corrections;
  for (const one of list.children) {
    one.classList.toggle("held", numbers.has(+one.dataset.label));
  }
}

function say(words) { byId("said").textContent = words; }

function correct(leaves, label, words) {
  const changed = state.correct(leaves, label);
  if (changed) exported = false;
  selected.clear();
  say(changed ? `${words(tracklets(changed))}.` : "Nothing changed.");
  draw();
}

function splitOff(leaves) {
  const label = state.unused();
  correct(leaves, label, (what) => `Split ${what} off as identity ${label}`);
}

function move() {
  const label = Number(target.value);
  if (!Number.isInteger(label) || label < 0 || label >= 2 ** 31) {
    say("An identity is a number from 0 to 2147483647.");
    return;
  }
  correct(selected, label, (what) => `Moved ${what} to identity ${label}`);
}

function merge() {
  const numbers = new Set([...selected].map((leaf) => state.labels[leaf]));
  const parts = identities.filter((one) => numbers.has(one.label));
  parts.sort((a, b) => b.leaves.length - a.leaves.length || a.label - b.label);
  const names = parts.map((one) => one.label).join(", ");
  correct(parts.flatMap((one) => one.leaves), parts[0].label,
    () => `Merged identities ${names} into ${parts[0].label}`);
}

function undo() {
  const last = state.undo();
  if (!last) return;
  exported = false;
  say(last.isCut ? "Took the cut back." : "Took the last correction back.");
  draw();
}

function recut(labels, cut) {
  state.recut(labels, cut);
  selected.clear();
  draw();
}

function download() {
  const text = toCsv(data.paths, state.labels, data.camids);
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const link = element("a", { href: url, download: "labels.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
  exported = true;
  say(`Exported ${tracklets(tree.count)} to labels.csv.`);
}

const clicks = {
  move, merge, undo, export: download,
  make: () => {
    const label = state.unused();
    correct(selected, label, (what) => `Made identity ${label} of ${what}`);
  },
  drop: () => correct(selected, -1, (what) => `Left ${what} out`),
  clear: () => select([...selected]),
  discard: () => { state.discard(); selected.clear(); say("Discarded all corrections."); draw(); },
  given: () => recut(data.labels, found.exact ? found.near : null),
  more: () => { shown += PAGE; drawList(); drawBar(); },
};
for (const [name, work] of Object.entries(clicks)) byId(name).addEventListener("click", work);
slider.max = tree.steps.length;
slider.addEventListener("input", () => {
  const position = Number(slider.value);
  recut(cutAt(tree, heightAt(tree, position)), position);
});
target.addEventListener("input", drawBar);
target.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !byId("move").disabled) move();
});
byId("sort").addEventListener("change", draw);
byId("find").addEventListener("input", () => { shown = PAGE; drawList(); drawBar(); });
document.addEventListener("keydown", (event) => {
  if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
  if (/^(number|search)$/.test(event.target.type)) return; // a field has an undo of its own
  event.preventDefault();
  undo();
});
addEventListener("beforeunload", (event) => {
  if (state.corrections && !exported) event.preventDefault();
});
byId("controls").hidden = byId("corrections").hidden = false;
draw();
