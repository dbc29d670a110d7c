package androidx.test.runner.intent;

/** Where callbacks for intents are kept. */
public interface IntentMonitor {
    void addIntentCallback(IntentCallback callback);

    void removeIntentCallback(IntentCallback callback);
}
