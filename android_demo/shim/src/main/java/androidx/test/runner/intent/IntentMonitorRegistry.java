package androidx.test.runner.intent;

/** Holds the one monitor of intents. */
public final class IntentMonitorRegistry {
    private static volatile IntentMonitor instance;

    private IntentMonitorRegistry() {}

    public static IntentMonitor getInstance() {
        return instance;
    }

    public static void registerInstance(IntentMonitor registered) {
        instance = registered;
    }
}
