package androidx.test.runner.lifecycle;

import android.app.Activity;

/** Hears of an activity's stages. */
public interface ActivityLifecycleCallback {
    void onActivityLifecycleChanged(Activity activity, Stage stage);
}
