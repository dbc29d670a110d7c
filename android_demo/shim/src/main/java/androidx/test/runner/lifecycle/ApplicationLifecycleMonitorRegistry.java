package androidx.test.runner.lifecycle;

/** Holds the one monitor of the application. */
public final class ApplicationLifecycleMonitorRegistry {
    private static volatile ApplicationLifecycleMonitor instance;

    private ApplicationLifecycleMonitorRegistry() {}

    public static ApplicationLifecycleMonitor getInstance() {
        if (instance == null) {
            throw new IllegalStateException("no application monitor registered");
        }
        return instance;
    }

    public static void registerInstance(ApplicationLifecycleMonitor registered) {
        instance = registered;
    }
}
