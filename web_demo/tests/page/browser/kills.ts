import { KILLED_BUNDLE, KILLED_STEPS, trainedWithKills, type Moment } from "./killing.js";
import { trainedOnNode } from "../tools.js";

// Kills the browser at random moments of runs, one after the other, and compares what each learned with what the kit learns on Node
// (scripts/web/kills).

const kills = Number(process.argv[2]);
const longest = Number(process.argv[3]); // milliseconds from the start, or from going on, to the kill
const { adapter } = await trainedOnNode(KILLED_BUNDLE, KILLED_STEPS);
let [done, runs, others] = [0, 0, 0];
while (done < kills) {
  const moments = Array.from(
    { length: kills - done },
    (): Moment => () => new Promise((settle) => setTimeout(settle, Math.random() * longest)),
  );
  const found = await trainedWithKills(moments, (shown) => console.log(`kill ${++done}: ${shown}`));
  runs++;
  if (!found.equals(adapter)) others++;
}
console.log(`${done} kills of ${runs} runs; ${others} learned something else than an unbroken one`);
process.exitCode = others === 0 ? 0 : 1;
