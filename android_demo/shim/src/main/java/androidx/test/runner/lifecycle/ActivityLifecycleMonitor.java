package androidx.test.runner.lifecycle;

import android.app.Activity;
import java.util.Collection;

/** Where callbacks for activities' stages are kept, and which activity is in which. */
public interface ActivityLifecycleMonitor {
    void addLifecycleCallback(ActivityLifecycleCallback callback);

    void removeLifecycleCallback(ActivityLifecycleCallback callback);

    Stage getLifecycleStageOf(Activity activity);

    Collection<Activity> getActivitiesInStage(Stage stage);
}
