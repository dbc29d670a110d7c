import type { State } from "./state.js";

const INTERVAL = 20_000; // milliseconds between two looks at the memory: each takes the browser some work

/** While a run is under way: the screen stays on, and what the browser says of memory and visibility is told. */
export class Keeper {
  private lock: WakeLockSentinel | null = null;
  private timer = 0;
  private active = false;

  constructor(private readonly change: (change: Partial<State>) => void) {
    document.addEventListener("visibilitychange", () => {
      if (!this.active) return;
      if (document.hidden) this.change({ hidden: true });
      else void this.hold(); // the browser took it when the page was hidden
    });
  }

  running(active: boolean): void {
    this.active = active;
    clearInterval(this.timer);
    if (active) {
      void this.hold();
      void this.look();
      this.timer = window.setInterval(() => void this.look(), INTERVAL);
    } else {
      void this.lock?.release();
      this.lock = null;
    }
  }

  /** A browser may refuse it, as with a low battery. */
  private async hold(): Promise<void> {
    try {
      this.lock = (await navigator.wakeLock?.request("screen")) ?? null;
    } catch {
      this.lock = null;
    }
  }

  /** Chromium counts a page's memory, its workers' too, where it is isolated. */
  private async look(): Promise<void> {
    const measuring = performance as { measureUserAgentSpecificMemory?: () => Promise<{ readonly bytes: number }> };
    if (!crossOriginIsolated || measuring.measureUserAgentSpecificMemory === undefined) return;
    try {
      const { bytes } = await measuring.measureUserAgentSpecificMemory();
      if (this.active) this.change({ memory: bytes });
    } catch {
      // it is not told while the page is hidden
    }
  }
}
