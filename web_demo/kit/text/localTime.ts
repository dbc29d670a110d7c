// A wall clock's time to the second, without a zone, as a checkpoint keeps it: 2026-02-28T23:05:09.

const FORM = /^([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})$/;

/** A day of the calendar; `month` and `date` from 1. */
export interface Day {
  readonly year: number;
  readonly month: number;
  readonly date: number;
}

/** Now, where the system says that it is. */
export function localTime(now = new Date()): string {
  const local = new Date(now);
  local.setUTCFullYear(now.getFullYear(), now.getMonth(), now.getDate());
  local.setUTCHours(now.getHours(), now.getMinutes(), now.getSeconds());
  return local.toISOString().slice(0, 19);
}

/** The day that a local time names; null where it names none. */
export function dayOf(time: string): Day | null {
  if (!FORM.test(time)) return null;
  const found = new Date(`${time}Z`);
  if (Number.isNaN(found.getTime()) || !found.toISOString().startsWith(time)) return null;
  return { year: found.getUTCFullYear(), month: found.getUTCMonth() + 1, date: found.getUTCDate() };
}
