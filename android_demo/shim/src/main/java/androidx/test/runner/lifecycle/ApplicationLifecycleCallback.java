package androidx.test.runner.lifecycle;

import android.app.Application;

/** Hears of an application's stages. */
public interface ApplicationLifecycleCallback {
    void onApplicationLifecycleChanged(Application application, ApplicationStage stage);
}
