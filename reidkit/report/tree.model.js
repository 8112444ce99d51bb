"use strict";
// The tree and its labels, without a page. Nodes are SciPy's: leaves 0 to N - 1, merge m is N + m.

function buildTree(merges, heights, count) {
  const nodes = 2 * count - 1;
  const size = new Int32Array(nodes).fill(1), start = new Int32Array(nodes);
  const parent = new Int32Array(nodes).fill(-1), height = new Float64Array(nodes);
  merges.forEach(([a, b], m) => {
    size[count + m] = size[a] + size[b];
    parent[a] = parent[b] = count + m;
    height[count + m] = heights[m] === null ? Infinity : heights[m];
  });
  // From the root down: the leaves below a node are `size` of the order, from `start` on.
  for (let node = nodes - 1; node >= count; node -= 1) {
    const [a, b] = merges[node - count];
    start[a] = start[node];
    start[b] = start[node] + size[a];
  }
  const order = new Int32Array(count);
  for (let leaf = 0; leaf < count; leaf += 1) order[start[leaf]] = leaf;
  const steps = [...new Set(heights.filter((one) => one !== null))];
  return { count, nodes, merges, size, start, parent, height, order, steps };
}

const leavesOf = (tree, node) =>
  tree.order.subarray(tree.start[node], tree.start[node] + tree.size[node]);
const childrenOf = (tree, node) => (node < tree.count ? [] : tree.merges[node - tree.count]);

/** Labels (N) after all merges up to a height, numbered by first appearance. */
function cutAt(tree, height) {
  const top = new Int32Array(tree.nodes);
  for (let node = tree.nodes - 1; node >= 0; node -= 1) {
    const above = tree.parent[node];
    top[node] = above >= 0 && tree.height[above] <= height ? top[above] : node;
  }
  return renumbered(top.subarray(0, tree.count));
}

/** Position 0 is before all merges, position p after those up to the p-th height. */
const heightAt = (tree, position) => (position > 0 ? tree.steps[position - 1] : -Infinity);

function renumbered(labels) {
  const number = new Map();
  return Int32Array.from(labels, (label) => {
    if (!number.has(label)) number.set(label, number.size);
    return number.get(label);
  });
}

/** The position whose cut is these labels (null where none is), and the one with as many. */
function positionOf(tree, labels) {
  const known = new Set(labels);
  const left = labels.filter((label) => label < 0).length;
  const wanted = known.size - (left ? 1 : 0) + left;
  let near = 0;
  tree.steps.forEach((height, place) => {
    // Heights never fall, so as many merges are done as stand up to the last of this height.
    if (tree.count - mergesUpTo(tree, height) >= wanted) near = place + 1;
  });
  // Those left out are singles as far as a cut goes.
  const apart = Array.from(labels, (label, leaf) => (label < 0 ? -1 - leaf : label));
  const own = renumbered(apart), cut = cutAt(tree, heightAt(tree, near));
  return { near, exact: own.every((label, leaf) => label === cut[leaf]) };
}

function mergesUpTo(tree, height) {
  let low = 0, high = tree.count - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tree.height[tree.count + middle] <= height) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Identities with their leaves, in the tree's order, and the highest branches that are theirs. */
function identitiesOf(tree, labels) {
  const MIXED = -2, own = new Int32Array(tree.nodes);
  own.set(labels);
  tree.merges.forEach(([a, b], m) => { own[tree.count + m] = own[a] === own[b] ? own[a] : MIXED; });
  const found = new Map();
  for (const leaf of tree.order) {
    const label = labels[leaf];
    if (!found.has(label)) found.set(label, { label, leaves: [], branches: [] });
    found.get(label).leaves.push(leaf);
  }
  for (let node = tree.nodes - 1; node >= 0; node -= 1) {
    const above = tree.parent[node];
    if (own[node] !== MIXED && (above < 0 || own[above] === MIXED)) {
      found.get(own[node]).branches.push(node);
    }
  }
  for (const one of found.values()) {
    one.branches.sort((a, b) => tree.start[a] - tree.start[b]);
    one.height = one.branches.length === 1 ? tree.height[one.branches[0]] : null;
  }
  return [...found.values()];
}

const ORDERS = {
  size: (tree, a, b) => b.leaves.length - a.leaves.length || a.label - b.label,
  tree: (tree, a, b) => tree.start[a.leaves[0]] - tree.start[b.leaves[0]],
  // An identity in several pieces is held together by nothing.
  height: (tree, a, b) => loose(b) - loose(a) || a.label - b.label,
  number: (tree, a, b) => a.label - b.label,
};
const loose = (one) => Math.min(one.height ?? Number.MAX_VALUE, Number.MAX_VALUE);

/** By the order's name; those left out (-1) come last. */
function sortIdentities(tree, identities, order) {
  return identities.sort((a, b) => (a.label < 0) - (b.label < 0) || ORDERS[order](tree, a, b));
}

/** Labels with their past: `change` and `undo` replace `labels`; `corrections` counts by hand. */
class History {
  constructor(labels, cut) {
    this.labels = Int32Array.from(labels);
    this.cut = cut; // the slider's position, null for labels as given
    this.past = [];
  }

  get corrections() { return this.past.filter((one) => !one.isCut).length; }

  correct(leaves, label) {
    const next = this.labels.slice();
    for (const leaf of leaves) next[leaf] = label;
    return this.change(next, this.cut, false);
  }

  recut(labels, cut) {
    // One way of the slider is one step back, however far it went.
    if (this.past.length && this.past[this.past.length - 1].isCut) this.undo();
    return this.change(labels, cut, true);
  }

  change(next, cut, isCut) {
    const leaves = [...next.keys()].filter((leaf) => next[leaf] !== this.labels[leaf]);
    if (!leaves.length && cut === this.cut) return 0;
    this.past.push({ leaves, before: leaves.map((leaf) => this.labels[leaf]), cut: this.cut, isCut });
    this.labels = Int32Array.from(next);
    this.cut = cut;
    return leaves.length;
  }

  undo() {
    const last = this.past.pop();
    if (!last) return null;
    last.leaves.forEach((leaf, place) => { this.labels[leaf] = last.before[place]; });
    this.cut = last.cut;
    return last;
  }

  discard() { while (this.corrections) this.undo(); }

  unused() { return this.labels.reduce((most, label) => Math.max(most, label), -1) + 1; }
}

/** What is exported: a row a sample, in the order in which they came. */
function toCsv(paths, labels, camids) {
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = paths.map((path, i) => `${quoted(path)},${labels[i]},${camids[i]}`);
  return `${["path,label,camid", ...rows].join("\n")}\n`;
}
