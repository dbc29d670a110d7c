package androidx.test.runner.lifecycle;

/** Holds the one monitor of activities. */
public final class ActivityLifecycleMonitorRegistry {
    private static volatile ActivityLifecycleMonitor instance;

    private ActivityLifecycleMonitorRegistry() {}

    public static ActivityLifecycleMonitor getInstance() {
        if (instance == null) {
            throw new IllegalStateException("no activity monitor registered");
        }
        return instance;
    }

    public static void registerInstance(ActivityLifecycleMonitor registered) {
        instance = registered;
    }
}
