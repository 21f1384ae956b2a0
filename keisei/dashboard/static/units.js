// Numbers with the unit that a metric's name says; the same rules as keisei show has.

import { number } from "./dom.js";

const SIZES = [[2 ** 50, "PiB"], [2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];
const SHARES = new Set(["cpu", "cpu_cgroup", "cpu_host", "cpu_throttled", "memory", "load", "used", "memory_cgroup", "memory_host"]);

// How a metric is shown: by how much its values are divided, and what stands behind them.
export function unitOf(metric, most = 0) {
  if (!metric.startsWith("system/")) return { divide: 1, unit: "" };
  const last = metric.slice(Math.max(metric.lastIndexOf("."), metric.lastIndexOf("/")) + 1);
  if (SHARES.has(last)) return { divide: 1, unit: "%" };
  if (last.endsWith("_watts")) return { divide: 1, unit: "W" };
  if (last.endsWith("_celsius")) return { divide: 1, unit: "°C" };
  if (!last.includes("bytes")) return { divide: 1, unit: "" };
  const [divide, name] = SIZES.find(([size]) => Math.abs(most) >= size) || [1, "B"];
  return { divide, unit: name + (last.endsWith("_per_s") ? "/s" : "") };
}

export function inUnit(metric, value) {
  if (typeof value !== "number") return number(value);
  const { divide, unit } = unitOf(metric, value);
  return unit ? `${number(value / divide, 4)} ${unit}` : number(value);
}

export const seconds = (s) => s < 10 ? `${Number(s.toFixed(3))} s` : `${number(s, 4)} s`;
export const percent = (share) => `${(100 * share).toFixed(1)} %`;
export const counted = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
